// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::base::exit::stage;

const GOOD: &str = "# SPDX\n#: about = \"x\"\n#: arch = \"x86_64\"\n#: cpus = 4\n#: memory = \"1G\"\n\
    #: limits = { boot = 1, run = 2, shutdown = 3 }\n#: [stress]\n#: obtained = 1\n#: obtained_each = 1\n\
    #: contexts = [\"task\"]\nCONFIG_A=y\n";

fn error(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("l.config"), text).unwrap();
    let e = Lane::read(&dir.path().join("l.config"), "l", &Cases::builtin()).unwrap_err();
    assert_eq!(stage(&e), Some(Exit::Config));
    e.to_string()
}

#[test]
fn kunit_runs_in_later_boots_that_are_judged_by_it() {
    let text = GOOD.replace(
        "CONFIG_A=y",
        "#: [[boot]]\n#: name = \"numa\"\n#: cmdline = [\"numa=fake=2\"]\n#: kunit = {}\nCONFIG_A=y",
    );
    let lane = parse(&text, &Cases::builtin()).unwrap();
    assert_eq!(lane.later_cmdline("numa"), ["numa=fake=2"]);
    assert_eq!(lane.later_cmdline("control-x"), [NO_KUNIT]);
}

#[test]
fn a_good_lane_parses() {
    let lane = parse(GOOD, &Cases::builtin()).unwrap();
    assert_eq!(lane.arch, Arch::X86);
    assert_eq!(lane.test_load().obtained, lane.stress.obtained);
    assert!(lane.skips.is_empty());
    let test = GOOD
        .replace("[stress]", "[test]")
        .replace("obtained = 1", "obtained = 7");
    let table = test.lines().skip_while(|l| !l.contains("[test]"));
    let both = GOOD.to_owned() + &table.collect::<Vec<_>>().join("\n");
    assert_eq!(
        parse(&both, &Cases::builtin())
            .unwrap()
            .test_load()
            .obtained,
        7
    );
    assert_eq!(lane.limits.run(Duration::from_secs(10)).as_secs(), 12);
}

#[test]
fn a_run_may_have_options_and_boot_arguments_on_top() {
    let lane = || Lane {
        name: "l".into(),
        config: GOOD.into(),
        ..parse(GOOD, &Cases::builtin()).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my options.config");
    fs::write(&file, "#: about = \"y\"\nCONFIG_A=n\nCONFIG_B=y\n").unwrap();
    let with = lane().with(Some(&file), Some(" a=1  b ")).unwrap();
    assert_eq!(
        (with.name.as_str(), with.cmdline.len()),
        ("l+my-options", 2)
    );
    // make repro reads it again.
    assert_eq!(parse(&with.config, &Cases::builtin()).unwrap().about, "x");
    let options = Options::parse(&[("l", &with.config)]).unwrap().render();
    assert_eq!(options, "CONFIG_A=n\nCONFIG_B=y\n");
    fs::write(&file, "KASAN\n").unwrap();
    let e = lane().with(Some(&file), None).unwrap_err();
    assert_eq!(stage(&e), Some(Exit::Config));
    let e = lane().with(Some(Path::new("/no/such")), None).unwrap_err();
    assert_eq!(stage(&e), Some(Exit::Usage));
    assert_eq!(lane().with(None, None).unwrap().name, "l");
}

#[test]
fn errors_name_file_and_line() {
    let text = error(&GOOD.replace("#: cpus = 4", "#: cpus = \"many\""));
    assert!(text.contains("l.config:4:"), "{text}");
    let text = error(&GOOD.replace("#: memory", "#: memmory"));
    assert!(
        text.contains("l.config:5:") && text.contains("memmory"),
        "{text}"
    );
}

#[test]
fn a_control_that_expects_nothing_is_refused() {
    let control =
        "#: [[control]]\n#: name = \"c\"\n#: module = \"m\"\n#: params = \"\"\n#: expect = {}\n";
    assert!(error(&(GOOD.to_owned() + control)).contains("expect"));
    let wild = control.replace("{}", "{ r = \"(\" }");
    assert!(error(&(GOOD.to_owned() + &wild)).contains("unclosed"));
}

#[test]
fn controls_that_cause_no_report_share_a_boot() {
    let control = |name: &str, turns_red: &str| {
        format!(
            "#: [[control]]\n#: name = \"{name}\"\n#: module = \"m\"\n#: params = \"\"\n#: {turns_red}\n"
        )
    };
    let (leak, splat) = ("fails = { ledger = \"why\" }", "expect = { r = \"x\" }");
    let warm = "boot = \"warm\"\n#: expect = { r = \"x\" }";
    let numa = "boot = \"numa\"\n#: fails = { ledger = \"why\" }";
    let green = "#: [[boot]]\n#: name = \"numa\"\n#: cmdline = []\n#: kunit = {}\n";
    let text = [
        ("a", leak),
        ("b", splat),
        ("c", leak),
        ("d", warm),
        ("e", warm),
        ("f", numa),
    ]
    .map(|(n, r)| control(n, r));
    let lane = parse(
        &(GOOD.to_owned() + green + &text.concat()),
        &Cases::builtin(),
    )
    .unwrap();
    let boots: Vec<(String, Vec<&str>)> = lane
        .later_boots()
        .into_iter()
        .map(|(name, cs)| (name, cs.iter().map(|c| c.name.as_str()).collect()))
        .collect();
    let want = |name: &str, controls| (name.to_owned(), controls);
    assert_eq!(
        boots,
        [
            want("numa", vec!["f"]),
            want("controls-ktap", vec!["a", "c"]),
            want("control-b", vec!["b"]),
            want("controls-warm", vec!["d", "e"]),
        ]
    );
    let twice = GOOD.to_owned() + &text[0] + &text[0];
    assert!(error(&twice).contains("same name"));
}

#[test]
fn behind_a_control_that_silences_lockdep_come_those_that_are_seen_without() {
    let control = |name: &str, rule: &str| {
        format!(
            "#: [[control]]\n#: name = \"{name}\"\n#: module = \"m\"\n#: params = \"\"\n#: boot = \"b\"\n\
             #: expect = {{ {rule} = \"x\" }}\n"
        )
    };
    let silent = control("silent", "invalid-wait-context");
    let other = control("other", "warning");
    let page = control("page", "bad-page");
    let parsed = parse(&format!("{GOOD}{other}{silent}{page}"), &Cases::builtin());
    assert!(parsed.is_ok(), "{parsed:?}");
    let e = error(&format!("{GOOD}{silent}{other}"));
    assert!(
        e.contains("other must come before silent in boot controls-b"),
        "{e}"
    );
}

#[test]
fn an_unknown_lane_lists_the_known() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.config"), GOOD).unwrap();
    let e = Lane::load(dir.path(), "b").unwrap_err();
    assert_eq!(stage(&e), Some(Exit::Usage));
    assert!(e.to_string().ends_with("there are: a"), "{e}");
}

#[test]
fn a_skip_that_no_suite_knows_is_refused() {
    for (line, names) in [
        ("skips = [\"nni\"]", "has no case nni"),
        (
            "kunit = { page_alloc_no_locks = [\"nmi\"] }",
            "has no case nmi",
        ),
        ("kunit = { other = [] }", "knows no other"),
    ] {
        let text = GOOD.replace("#: [stress]", &format!("#: {line}\n#: [stress]"));
        assert!(error(&text).contains(names), "{line}");
    }
    let queue = "#: [queue]\n#: objects = 1\n#: freed = 1\n#: skips = [\"ladger\"]\n";
    assert!(error(&(GOOD.to_owned() + queue)).contains("has no case ladger"));
    let boot = "#: [[boot]]\n#: name = \"b\"\n#: cmdline = []\n#: kunit = { page_alloc_no_locks = [\"x\"] }\n";
    assert!(error(&(GOOD.to_owned() + boot)).contains("has no case x"));
    let boot = boot.replace("\"x\"", "");
    assert!(error(&(GOOD.to_owned() + &boot + &boot)).contains("same name"));
}

#[test]
fn words_that_no_guest_gets_or_that_silence_it_are_refused_before_a_boot() {
    let with = |words| {
        let lane = parse(GOOD, &Cases::builtin()).unwrap();
        lane.with(None, Some(words))
    };
    for (words, part) in [
        ("a=1 quiet", "BOOTARGS=quiet: the console"),
        ("loglevel=6", "BOOTARGS=loglevel=6: the console"),
        ("dyndbg='file x +p'", "a quote"),
        ("a=\"b c\"", "a quote"),
    ] {
        let e = with(words).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Usage), "{words}");
        assert!(e.to_string().contains(part), "{words}: {e}");
    }
    with("loglevel=8 loglevel=7 quietly a.quiet=1").unwrap();
}
