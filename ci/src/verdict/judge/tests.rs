// SPDX-License-Identifier: GPL-2.0

mod controls;

use super::*;
use crate::base::exit::stage;
use crate::facts::boot::{ENDING, Ended};
use crate::facts::scan::Rules;
use crate::lane::cases::{EXAMPLE_SUITE, cases};
use crate::verdict::tally::Tally;
use std::fs;
use std::time::Duration;

const SPLAT: &str =
    "[    1.0] =============================\n[    1.0] [ BUG: Invalid wait context ]\n";
const BOOTED: &str = "[    0.0] Linux version 7.3.4\n[    0.9] NOLOCKS: guest up\n";
const DONE: &str = "[    2.0] NOLOCKS: guest done\n";

const SUITE: &str = "page_alloc_no_locks";

/// What a module prints in a case of the plan, every one of its cases ok.
fn ktap(case: &str, module: &str, said: &str) -> String {
    let names = cases(module);
    let mut lines = vec!["KTAP version 1".to_owned(), format!("1..{}", names.len())];
    lines.extend(said.lines().map(str::to_owned));
    let oks = names.iter().enumerate();
    lines.extend(oks.map(|(i, name)| format!("ok {} {name}", i + 1)));
    let lines = lines.iter().map(|l| format!("[ 1.1] {module}: {l}\n"));
    let lines: String = lines.collect();
    format!("[ 1.0] NOLOCKS: case {case} begin\n{lines}[ 1.9] NOLOCKS: case {case} rc=0\n")
}

fn stress() -> String {
    let stat = "# stat: context=task api=no_locks attempts=9 obtained=9";
    ktap(STRESS_CASE, STRESS, stat)
}

fn lane() -> Lane {
    let text = "#: about = \"x\"\n#: arch = \"x86_64\"\n#: cpus = 1\n#: memory = \"1G\"\n\
        #: limits = { boot = 1, run = 2, shutdown = 3 }\n#: kunit = { page_alloc_no_locks = [] }\n#: [stress]\n\
        #: obtained = 9\n#: obtained_each = 9\n#: contexts = [\"task\"]\nCONFIG_PROVE_LOCKING=y\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.config");
    fs::write(&path, text).unwrap();
    Lane::read(&path, "t", &Cases::builtin()).unwrap()
}

fn plan(lane: &Lane, given: &[(&str, u64)]) -> Plan {
    let given = given
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    let plan = Plan::new(&lane.stress, lane.queue.as_ref(), &given.collect());
    Plan {
        floor: true,
        ..plan
    }
}

/// The facts of a boot that left all this, with the guest's `steps`.
fn facts(console: &str, ending: Ending, steps: &str, locks: &str, kunit: &str) -> BootFacts {
    let dir = left(locks, kunit);
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("console.txt", console);
    write("plan", steps);
    let ended = Ended {
        ending,
        took_s: 1.0,
    };
    write(ENDING, &serde_json::to_string(&ended).unwrap());
    BootFacts::read(dir.path(), &Rules::builtin().unwrap()).unwrap()
}

fn judged(console: String, ending: Ending, locks: &str, kunit: &str) -> Tally {
    judged_in(&lane(), console, ending, locks, kunit)
}

/// What the guest left beside its console.
fn left(locks: &str, kunit: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/lockdep_stats"), locks).unwrap();
    fs::write(dir.path().join("out/kunit.txt"), kunit).unwrap();
    dir
}

fn judged_in(lane: &Lane, console: String, ending: Ending, locks: &str, kunit: &str) -> Tally {
    judged_as(lane, &plan(lane, &[]), console, ending, locks, kunit)
}

fn judged_as(
    lane: &Lane,
    plan: &Plan,
    console: String,
    ending: Ending,
    locks: &str,
    kunit: &str,
) -> Tally {
    let mut tally = Tally::default();
    let facts = facts(&console, ending, &plan.lines, locks, kunit);
    let (_, checks) = judge_main_boot(lane, plan, &Cases::builtin(), &facts);
    tally.take(&checks);
    tally
}

const LOCKS: &str = " debug_locks:                             1\n";

fn kunit() -> String {
    kunit_of(SUITE)
}

/// What KUnit leaves of a suite, every one of its cases ok.
fn kunit_of(suite: &str) -> String {
    let names = cases(suite).iter().enumerate();
    let oks: String = names
        .map(|(i, n)| format!("    ok {} {n}\n", i + 1))
        .collect();
    let count = cases(suite).len();
    format!(
        "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: {suite}\n    1..{count}\n{oks}ok 1 {suite}\n"
    )
}

fn good() -> String {
    format!("{BOOTED}{}{DONE}", stress())
}

#[test]
fn a_good_boot_is_green() {
    let tally = judged(good(), Ending::Done, LOCKS, &kunit());
    tally.result().unwrap();
    let all = cases(SUITE).len() + cases(STRESS).len() + 6;
    assert_eq!(tally.closing(), format!("{all} passed, 0 failed"));
}

#[test]
fn each_defect_alone_is_red_and_has_its_code() {
    let kunit = kunit();
    let kunit = kunit.as_str();
    let splat = format!("{BOOTED}{SPLAT}{}{DONE}", stress());
    let less = good().replace("obtained=9", "obtained=8");
    let rc = good().replace("rc=0", "rc=1");
    let failed = good().replace("ok 2 task", "not ok 2 task");
    let silent = LOCKS.replace('1', "0");
    let hung = Ending::Hung(crate::facts::ending::Phase::Run, Duration::from_secs(9));
    for (console, ending, locks, kunit, exit) in [
        (splat, Ending::Done, LOCKS, kunit, Exit::Splat),
        (good(), hung, LOCKS, kunit, Exit::Hang),
        (
            good(),
            Ending::Died(crate::facts::ending::Phase::Run),
            LOCKS,
            kunit,
            Exit::Boot,
        ),
        (less, Ending::Done, LOCKS, kunit, Exit::Test),
        (rc, Ending::Done, LOCKS, kunit, Exit::Test),
        (failed, Ending::Done, LOCKS, kunit, Exit::Test),
        (good(), Ending::Done, silent.as_str(), kunit, Exit::Test),
        (good(), Ending::Done, "", kunit, Exit::Test),
        (good(), Ending::Done, LOCKS, "", Exit::Test),
        (
            format!("{BOOTED}{DONE}"),
            Ending::Done,
            LOCKS,
            kunit,
            Exit::Test,
        ),
    ] {
        let tally = judged(console.clone(), ending, locks, kunit);
        assert_eq!(stage(&tally.result().unwrap_err()), Some(exit), "{console}");
    }
}

#[test]
fn the_queue_must_pass_and_free_its_objects() {
    let mut lane = lane();
    lane.queue = Some(Queue {
        objects: 1,
        freed: 9,
        skips: BTreeSet::new(),
    });
    let said = "# peak: cpus=4 pushed=9 listed=0 ms=1\n# objects: freed=9 corrupt=0";
    let queue = ktap(QUEUE, QUEUE, said);
    let example =
        "[ 1.8] NOLOCKS: case nolocks_example begin\n[ 1.9] NOLOCKS: case nolocks_example rc=0\n";
    let failing = ktap(FAILING, QUEUE, "# objects: freed=1 corrupt=0");
    let console = format!("{BOOTED}{}{queue}{example}{failing}{DONE}", stress());
    let judged = |from: &str, to: &str| {
        assert!(console.contains(from), "{from}");
        let console = console.replacen(from, to, 1);
        let kunit = kunit() + &kunit_of(EXAMPLE_SUITE);
        judged_in(&lane, console, Ending::Done, LOCKS, &kunit).result()
    };
    judged("freed=9", "freed=9").unwrap();
    let failed = failing.replace("ok 9 peak", "not ok 9 peak");
    for (from, to) in [
        ("freed=9", "freed=8"),
        ("ok 9 peak", "not ok 9 peak"),
        ("ok 9 peak", "ok 9 peak # SKIP why"),
        ("ok 9 peak", "ok 9 peek"),
        ("# peak:", "# poke:"),
        ("nolocks_queue_stress rc=0", "nolocks_queue_stress rc=1"),
        ("nolocks_example rc=0", "nolocks_example rc=1"),
        ("queue_fail rc=0", "queue_fail rc=1"),
        ("case queue_fail begin", "case other begin"),
        (&queue, ""),
        (&failing, ""),
        (&failing, &failed),
    ] {
        assert!(judged(from, to).is_err(), "{from} -> {to}");
    }
}

#[test]
fn a_leak_and_a_scan_that_was_not_made_are_red() {
    assert!(check_no_leak(Some("\n")).is_ok());
    assert!(check_no_leak(Some("unreferenced object 0xffff (size 64):\n")).is_err());
    assert!(check_no_leak(None).is_err());
    let mut lane = lane();
    lane.config += "CONFIG_DEBUG_KMEMLEAK=y\n";
    let tally = judged_in(&lane, good(), Ending::Done, LOCKS, &kunit());
    assert!(tally.result().is_err());
}

#[test]
fn lockdep_has_its_say_only_where_it_is() {
    let mut lane = lane();
    lane.config = lane.config.replace("CONFIG_PROVE_LOCKING=y", "");
    let tally = judged_in(&lane, good(), Ending::Done, "", &kunit());
    tally.result().unwrap();
}

#[test]
fn a_case_may_be_skipped_only_where_the_lane_says_so_and_then_must() {
    let skipped = good().replace("ok 8 nmi\n", "ok 8 nmi # SKIP why\n");
    for (skips, console, green) in [
        ("", good(), true),
        ("nmi", skipped.clone(), true),
        ("", skipped.clone(), false),
        ("task", skipped, false),
        ("nmi", good(), false),
    ] {
        let mut lane = lane();
        lane.skips = skips.split_terminator(',').map(str::to_owned).collect();
        let tally = judged_in(&lane, console.clone(), Ending::Done, LOCKS, &kunit());
        assert_eq!(tally.result().is_ok(), green, "{skips}: {console}");
    }
}

#[test]
fn cases_are_held_against_their_names() {
    let (all, good) = (kunit(), good());
    let last = cases(SUITE).len();
    let cut = |text: &str, line: &str| {
        assert!(text.contains(line), "{line}");
        text.replacen(line, "", 1)
    };
    let name = cases(SUITE).last().unwrap();
    let short = cut(&all, &format!("    ok {last} {name}\n"))
        .replace(&format!("1..{last}"), &format!("1..{}", last - 1));
    let more = all
        .replace(&format!("1..{last}"), &format!("1..{}", last + 1))
        .replace(
            &format!(" {name}\n"),
            &format!(" {name}\n    ok {} new\n", last + 1),
        );
    let renamed = all.replace("no_locks_zero", "no_locks_zeroed");
    let (modules, count) = (cases(STRESS), cases(STRESS).len());
    let ledger = format!("[ 1.1] {STRESS}: ok {count} {}\n", modules[count - 1]);
    let less = cut(&good, &ledger).replace(&format!("1..{count}"), &format!("1..{}", count - 1));
    for (console, kunit) in [
        (good.clone(), short),
        (good.clone(), more),
        (good.clone(), renamed),
        (good.clone(), all.replace(SUITE, "other")),
        (good.replace("ok 2 task", "ok 2 tusk"), all.clone()),
        (less, all.clone()),
    ] {
        let tally = judged(console, Ending::Done, LOCKS, &kunit);
        let result = tally.result().unwrap_err();
        assert_eq!(stage(&result), Some(Exit::Test), "{result}");
    }
    // CASE= says which of them there are.
    let lane = lane();
    let one = format!(
        "{BOOTED}[ 1.0] NOLOCKS: case stress begin\n[ 1.1] {STRESS}: KTAP version 1\n[ 1.1] {STRESS}: 1..1\n\
         [ 1.1] {STRESS}: ok 1 task\n[ 1.1] NOLOCKS: case stress rc=0\n{DONE}"
    );
    for (list, green) in [
        ("pages/task", true),
        ("pages/task,pages/nmi", false),
        ("pages/nmi", false),
        ("pages/*", false),
        ("pages/task,kunit/no_locks_*,kunit/slots_*", true),
        // The example's suite did not run.
        ("pages/task,kunit/*", false),
    ] {
        let selection = Selection::parse(list).unwrap();
        let plan = Plan::stress(&lane, &BTreeMap::new(), Some(&selection)).unwrap();
        let tally = judged_as(&lane, &plan, one.clone(), Ending::Done, LOCKS, &all);
        assert_eq!(tally.result().is_ok(), green, "{list}");
    }
}

#[test]
fn a_lane_without_a_suite_needs_no_results() {
    let mut lane = lane();
    lane.kunit.clear();
    judged_in(&lane, good(), Ending::Done, LOCKS, "")
        .result()
        .unwrap();
    let tally = judged_in(&lane, good(), Ending::Done, LOCKS, "KTAP version 1\n");
    assert!(tally.result().is_err());
    let tally = judged(good(), Ending::Done, LOCKS, "");
    assert!(tally.result().is_err());
}

#[test]
fn a_later_boot_is_judged_by_its_own_skips_and_without_its_controls() {
    let (lane, name) = (lane(), "no_locks_no_zero");
    let boot = Boot {
        name: "kunit-numa".into(),
        cmdline: Vec::new(),
        kunit: Skips::from([(SUITE.into(), BTreeSet::from([name.into()]))]),
        either: Skips::from([(SUITE.into(), BTreeSet::from(["slots_zone_modifier".into()]))]),
    };
    let skipped = kunit().replace(&format!("{name}\n"), &format!("{name} # SKIP why\n"));
    let skip = |name: &str| skipped.replace(&format!("{name}\n"), &format!("{name} # SKIP why\n"));
    let silent = LOCKS.replace('1', "0");
    let control = Control {
        name: "c".into(),
        module: "m".into(),
        params: String::new(),
        boot: Some(boot.name.clone()),
        expect: BTreeMap::new(),
        fails: BTreeMap::new(),
    };
    let part = format!("NOLOCKS: case c begin\n{SPLAT}NOLOCKS: case c rc=0\n");
    let behind = format!("{part}{SPLAT}");
    let silencing = Control {
        expect: BTreeMap::from([("invalid-wait-context".into(), String::new())]),
        ..control.clone()
    };
    for (control, locks, green, told) in [
        (&control, LOCKS, true, Some(true)),
        (&control, silent.as_str(), false, Some(false)),
        // What it has silenced is not told of the lane.
        (&silencing, silent.as_str(), true, None),
    ] {
        let console = format!("{BOOTED}{part}{DONE}");
        let facts = facts(&console, Ending::Done, "module c m.ko", locks, &skipped);
        let (report, checks) =
            judge_later_boot(&lane, &boot, &[control], &Cases::builtin(), &facts);
        let mut tally = Tally::default();
        tally.take(&checks);
        assert_eq!(tally.result().is_ok(), green, "{locks}");
        assert_eq!(report.debug_locks, told);
    }
    for (said, locks, kunit, green) in [
        ("", LOCKS, &skipped, true),
        (part.as_str(), LOCKS, &skipped, true),
        (behind.as_str(), LOCKS, &skipped, false),
        ("", LOCKS, &skip("slots_zone_modifier"), true),
        ("", LOCKS, &skip("no_locks_zone_modifier"), false),
        ("", LOCKS, &kunit(), false),
        ("", silent.as_str(), &skipped, false),
        (SPLAT, LOCKS, &skipped, false),
    ] {
        let console = format!("{BOOTED}{said}{DONE}");
        let facts = facts(&console, Ending::Done, "module c m.ko", locks, kunit);
        let (report, checks) =
            judge_later_boot(&lane, &boot, &[&control], &Cases::builtin(), &facts);
        let mut tally = Tally::default();
        tally.take(&checks);
        assert_eq!(tally.result().is_ok(), green, "{said}{locks}{kunit}");
        assert_eq!(
            (report.name.as_str(), report.kunit.len()),
            ("kunit-numa", 1)
        );
    }
}

/// Only the queue is loaded, and lockdep must still be there.
#[test]
fn a_soak_needs_lockdep_its_objects_and_the_suite_of_the_example() {
    let lane = lane();
    let soak = Plan::soak(&lane, 9);
    let said = "# peak: cpus=4 pushed=9 listed=0 ms=1\n# objects: freed=9 corrupt=0";
    let queue = ktap(QUEUE, QUEUE, said);
    let example =
        "[ 1.8] NOLOCKS: case nolocks_example begin\n[ 1.9] NOLOCKS: case nolocks_example rc=0\n";
    let console = format!("{BOOTED}{queue}{example}{DONE}");
    let silent = LOCKS.replace('1', "0");
    let both = kunit() + &kunit_of(EXAMPLE_SUITE);
    let failed = both.replace("    ok 2 box", "    not ok 2 box");
    let failed = failed.replace(
        &format!("\nok 1 {EXAMPLE_SUITE}"),
        &format!("\nnot ok 1 {EXAMPLE_SUITE}"),
    );
    for (console, locks, kunit, green) in [
        (console.clone(), LOCKS, &both, true),
        (console.clone(), silent.as_str(), &both, false),
        (console.replace("freed=9", "freed=8"), LOCKS, &both, false),
        (console.clone(), LOCKS, &kunit(), false),
        (console.clone(), LOCKS, &failed, false),
    ] {
        let tally = judged_as(&lane, &soak, console, Ending::Done, locks, kunit);
        assert_eq!(tally.result().is_ok(), green, "{locks}{kunit}");
    }
}
