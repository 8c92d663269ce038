// SPDX-License-Identifier: GPL-2.0

use super::*;

/// The facts of a boot for controls.
fn control_facts(controls: &[&Control], console: &str, ending: Ending) -> BootFacts {
    let steps = controls
        .iter()
        .map(|c| format!("module {} {}.ko\n", c.name, c.module));
    facts(console, ending, &steps.collect::<String>(), "", "")
}

/// Whether a control is red for its own reason, by its result and by its checks.
fn caught(of: &Control, sharing: &[&Control], facts: &BootFacts) -> bool {
    let (result, checks) = judge_control(&lane(), of, sharing, facts).unwrap();
    let mut tally = Tally::default();
    tally.take(&checks);
    assert_eq!(result.ok, tally.result().is_ok());
    result.ok
}

#[test]
fn a_control_answers_for_its_own_part_and_for_what_is_nobodys() {
    let control = |name: &str, expect: &[&str]| Control {
        name: name.into(),
        module: "m".into(),
        params: String::new(),
        boot: Some("b".into()),
        expect: expect
            .iter()
            .map(|rule| ((*rule).into(), "BUG".into()))
            .collect(),
        fails: BTreeMap::new(),
    };
    let wait = "invalid-wait-context";
    let controls = [control("one", &[wait]), control("two", &[])];
    let boot: Vec<&Control> = controls.iter().collect();
    let part = |name: &str, text: &str| {
        format!("[ 1.0] NOLOCKS: case {name} begin\n{text}[ 1.1] NOLOCKS: case {name} rc=0\n")
    };
    let oks = |between: &str| {
        let (one, two) = (part("one", SPLAT), part("two", ""));
        let console = format!("{BOOTED}{one}{between}{two}{DONE}");
        let facts = control_facts(&boot, &console, Ending::Done);
        let caught = boot.iter().map(|control| caught(control, &boot, &facts));
        caught.collect::<Vec<_>>()
    };
    assert_eq!(oks(""), [true, true]);
    let nobodys = "[    1.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2\n";
    assert_eq!(oks(nobodys), [false, false]);
}

#[test]
fn a_control_must_be_red_for_its_own_reason() {
    let control = Control {
        name: "c".into(),
        module: "m".into(),
        params: String::new(),
        boot: None,
        expect: BTreeMap::from([("invalid-wait-context".into(), "&zone->lock".into())]),
        fails: BTreeMap::new(),
    };
    let warn = "[    1.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2\n";
    let zone = format!("{SPLAT}[    1.0] ffff (&zone->lock){{....}}-{{3:3}}, at: f+0x1/0x2\n");
    let other = zone.replace("zone", "pool");
    let frame = format!("[    1.0] {}\n", "=".repeat(29));
    for (console, good) in [
        (format!("{BOOTED}{zone}{DONE}"), true),
        (format!("{BOOTED}{DONE}"), false),
        (format!("{BOOTED}{warn}{DONE}"), false),
        (format!("{BOOTED}{warn}{zone}{DONE}"), false),
        // The same rule, for another reason, alone or beside the right one.
        (format!("{BOOTED}{other}{DONE}"), false),
        (format!("{BOOTED}{zone}{other}{DONE}"), false),
        (format!("{BOOTED}{SPLAT}{frame}{DONE}&zone->lock\n"), false),
    ] {
        let facts = control_facts(&[&control], &console, Ending::Done);
        assert_eq!(caught(&control, &[&control], &facts), good, "{console}");
    }
}

/// Of two controls that share a boot, which are red for their own reason.
fn ktap_controls(console: &str, ending: Ending) -> [bool; 2] {
    let control = |name: &str, why: &str| Control {
        name: name.into(),
        module: "nolocks_control".into(),
        params: String::new(),
        boot: None,
        expect: BTreeMap::new(),
        fails: BTreeMap::from([("ledger".into(), why.into())]),
    };
    let controls = [
        control("leaked-page", "the ledger does not balance"),
        control("page-handed-out-twice", "1 pages lost their owner's mark"),
    ];
    let boot: Vec<&Control> = controls.iter().collect();
    let facts = control_facts(&boot, console, ending);
    [0, 1].map(|i| caught(boot[i], &boot, &facts))
}

#[test]
fn a_case_must_fail_for_its_own_reason_and_alone() {
    const REAL: &str = include_str!("../../../../fixtures/console-controls-ktap.log");
    const FAILED: &str = "# failed: the ledger does not balance\n";
    const TAG: &str = "[ 4.7] nolocks_control: ";
    assert_eq!(ktap_controls(REAL, Ending::Done), [true, true]);
    // Each edit is of the first control's part, and the second must not notice.
    let one_more = format!("ok 1 ledger\n{TAG}# failed: x\n{TAG}not ok 2 zero\n");
    for edits in [
        // It stays green, by its own account or by the loader's.
        vec![
            (FAILED, "\n"),
            ("not ok 1", "ok 1"),
            ("page rc=1", "page rc=0"),
        ],
        vec![("page rc=1", "page rc=0")],
        // It says another reason, one more, or none.
        vec![("does not balance", "is gone")],
        vec![(FAILED, &format!("{FAILED}{TAG}# failed: x\n"))],
        vec![(FAILED, "\n")],
        // Another case fails, or one more.
        vec![("ok 1 ledger", "ok 1 zero")],
        vec![("1..1", "1..2"), ("ok 1 ledger\n", &one_more)],
        // It does not run, or not to its end.
        vec![("case leaked-page begin", "case other begin")],
        vec![("case leaked-page rc=1", "")],
        vec![("KTAP version 1", "")],
    ] {
        let edit = |text: String, (from, to): &(&str, &str)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        };
        let console = edits.iter().fold(REAL.to_owned(), edit);
        assert_eq!(
            ktap_controls(&console, Ending::Done),
            [false, true],
            "{console}"
        );
    }
    // A report belongs to the control in whose part it is.
    let warn = "[ 4.7] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2\n";
    let splat = REAL.replacen(FAILED, &format!("{FAILED}{warn}"), 1);
    assert_eq!(ktap_controls(&splat, Ending::Done), [false, true]);
    let died = Ending::Died(crate::facts::ending::Phase::Run);
    assert_eq!(ktap_controls(REAL, died), [false, false]);
}
