// SPDX-License-Identifier: GPL-2.0
//! What a boot showed, held against what its lane demands.

use crate::boot::{Ending, Outcome};
use crate::exit::Exit;
use crate::ktap::{self, Status, Suite};
use crate::lane::{Control, Lane, Load, Queue};
use crate::report::ControlResult;
use crate::scan::{self, Finding, Rules};
use crate::tally::Tally;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub const STRESS: &str = "nolocks_stress";
pub const QUEUE: &str = "nolocks_queue_stress";
pub const EXAMPLE: &str = "nolocks_example";
const API: &str = "no_locks";

pub struct Seen {
    pub suite: Option<Suite>,
    pub queue: Option<Suite>,
    pub kunit: Vec<Suite>,
    pub findings: Vec<Finding>,
    pub debug_locks: Option<bool>,
}

fn ending(tally: &mut Tally, name: &str, outcome: &Outcome) {
    match outcome.ending {
        Ending::Done => {}
        Ending::Hung(phase, limit) => {
            tally.failed(
                Exit::Hang,
                format!("{name}: {phase} hung (limit {} s)", limit.as_secs()),
            );
        }
        Ending::Died(phase) => tally.failed(
            Exit::Boot,
            format!("{name}: the guest ended during {phase}"),
        ),
    }
}

/// What every green boot shows: the guest finished, and without a report.
pub fn booted(name: &str, outcome: &Outcome, tally: &mut Tally) -> Result<Vec<Finding>> {
    ending(tally, name, outcome);
    let findings = Rules::builtin()?.scan(&outcome.console);
    for f in &findings {
        tally.failed(
            Exit::Splat,
            format!(
                "{name}: {} (console line {}): {}",
                f.rule,
                f.line_no,
                f.line.trim()
            ),
        );
    }
    if findings.is_empty() && outcome.ending == Ending::Done {
        tally.check(&format!("{name}: boots without a splat"), Ok(()))?;
    }
    Ok(findings)
}

/// A green boot with one case.
pub fn plain(name: &str, outcome: &Outcome, case: &str, tally: &mut Tally) -> Result<Vec<Finding>> {
    let findings = booted(name, outcome, tally)?;
    loaded(name, outcome, case, tally)?;
    Ok(findings)
}

pub fn loaded(name: &str, outcome: &Outcome, case: &str, tally: &mut Tally) -> Result<()> {
    let rc = format!("NOLOCKS: case {case} rc=0");
    let done = if outcome.console.contains(&rc) {
        Ok(())
    } else {
        Err(anyhow::anyhow!("failed: see console.txt"))
    };
    tally.check(
        &format!("{name}: case {case} loads, passes and unloads"),
        done,
    )
}

/// The boot that must be green. `floor` says whether the load's least numbers of pages apply.
pub fn green(
    lane: &Lane,
    load: &Load,
    floor: bool,
    folder: &Path,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<Seen> {
    let name = &lane.name;
    let findings = plain(name, outcome, "stress", tally)?;
    let debug_locks = fs::read_to_string(folder.join("out/lockdep_stats"))
        .ok()
        .and_then(|t| scan::debug_locks(&t));
    if lane.config.contains("CONFIG_PROVE_LOCKING=y") {
        let result = match debug_locks {
            Some(true) => Ok(()),
            Some(false) => Err(anyhow::anyhow!(
                "0: lockdep went silent, and the run proves nothing"
            )),
            None => Err(anyhow::anyhow!("not seen in /proc/lockdep_stats")),
        };
        tally.check(&format!("{name}: debug_locks"), result)?;
    }
    let kunit = fs::read_to_string(folder.join("out/kunit.txt")).unwrap_or_default();
    let kunit = match ktap::parse_kunit_results(&kunit) {
        Ok(suites) => suites,
        Err(e) => {
            tally.failed(Exit::Test, format!("{name}: KUnit results: {e:#}"));
            Vec::new()
        }
    };
    tally.check(
        &format!("{name}: KUnit suites"),
        suites_ran(&lane.kunit, &kunit),
    )?;
    for suite in kunit.iter().filter(|s| lane.kunit.contains_key(&s.name)) {
        cases(name, suite, tally);
    }
    if lane.config.contains("CONFIG_DEBUG_KMEMLEAK=y") {
        let leaks = fs::read_to_string(folder.join("out/kmemleak"));
        tally.check(
            &format!("{name}: kmemleak reports nothing"),
            leakless(leaks),
        )?;
    }
    let suite = suite(name, STRESS, &lane.skips, outcome, tally)?;
    if let (Some(suite), true) = (&suite, floor) {
        tally.check(&format!("{name}: pages obtained"), pages(load, suite))?;
    }
    let queue = match &lane.queue {
        Some(wanted) => queue(name, wanted, floor, outcome, tally)?,
        None => None,
    };
    Ok(Seen {
        suite,
        queue,
        kunit,
        findings,
        debug_locks,
    })
}

/// What the guest copied is there only if kmemleak was asked, and was on.
fn leakless(leaks: std::io::Result<String>) -> Result<()> {
    let leaks = leaks.context("no scan was made")?;
    let first = leaks.trim().lines().next();
    ensure!(first.is_none(), "{}", first.unwrap_or_default());
    Ok(())
}

/// The queue's stress module and the example.
pub fn queue(
    name: &str,
    wanted: &Queue,
    floor: bool,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<Option<Suite>> {
    for module in [QUEUE, EXAMPLE] {
        loaded(name, outcome, module, tally)?;
    }
    let suite = suite(name, QUEUE, &wanted.skips, outcome, tally)?;
    if let (Some(suite), true) = (&suite, floor) {
        tally.check(&format!("{name}: objects freed"), objects(wanted, suite))?;
    }
    Ok(suite)
}

fn objects(wanted: &Queue, suite: &Suite) -> Result<()> {
    let freed = suite.objects.as_ref().map_or(0, |o| o.freed);
    ensure!(
        freed >= wanted.freed,
        "{freed}, at least {} wanted",
        wanted.freed
    );
    ensure!(suite.peak.is_some(), "no peak rate was printed");
    Ok(())
}

/// A module's KTAP, every case of which must have passed, or been skipped where it cannot run.
fn suite(
    name: &str,
    module: &str,
    skips: &BTreeSet<String>,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<Option<Suite>> {
    match ktap::parse_console(&outcome.console, module) {
        Ok(suite) => {
            cases(name, &suite, tally);
            tally.check(
                &format!("{name}: {module}: cases that ran"),
                ran(skips, &suite),
            )?;
            Ok(Some(suite))
        }
        Err(e) => {
            tally.failed(Exit::Test, format!("{name}: {module}'s KTAP: {e:#}"));
            Ok(None)
        }
    }
}

fn cases(lane: &str, suite: &Suite, tally: &mut Tally) {
    tally.passed(suite.count(Status::Pass));
    tally.skipped(suite.count(Status::Skip));
    for case in suite.cases.iter().filter(|c| c.status == Status::Fail) {
        let why = case.reason.as_deref().unwrap_or("see console.txt");
        tally.failed(
            Exit::Test,
            format!("{lane}: {}: {}: {why}", suite.name, case.name),
        );
    }
}

/// A case that could not run, where it must, is a failure; one that ran after all is a stale lane.
fn ran(skips: &BTreeSet<String>, suite: &Suite) -> Result<()> {
    for case in &suite.cases {
        let why = case.reason.as_deref().unwrap_or("no reason given");
        match (case.status == Status::Skip, skips.contains(&case.name)) {
            (true, false) => bail!("{} was skipped, and must run here: {why}", case.name),
            (false, true) => bail!("{} ran, and the lane says that it cannot", case.name),
            _ => {}
        }
    }
    Ok(())
}

/// A suite that silently did not run, or lost a case, is a failure.
fn suites_ran(wanted: &BTreeMap<String, usize>, have: &[Suite]) -> Result<()> {
    for (name, count) in wanted {
        let Some(suite) = have.iter().find(|s| s.name == *name) else {
            let names: Vec<&str> = have.iter().map(|s| s.name.as_str()).collect();
            bail!("suite {name} did not run (those that did: {names:?})");
        };
        let ran = suite
            .cases
            .iter()
            .filter(|c| c.status != Status::Skip)
            .count();
        ensure!(
            ran == *count,
            "suite {name} ran {ran} cases, the lane says {count}"
        );
    }
    Ok(())
}

fn pages(load: &Load, suite: &Suite) -> Result<()> {
    let stats: Vec<_> = suite.stats.iter().filter(|s| s.api == API).collect();
    for context in &load.contexts {
        let got: u64 = stats
            .iter()
            .filter(|s| s.context == *context)
            .map(|s| s.obtained)
            .sum();
        ensure!(
            got >= load.obtained_each,
            "context {context}: {got} pages obtained, at least {} wanted",
            load.obtained_each
        );
    }
    let all: u64 = stats.iter().map(|s| s.obtained).sum();
    ensure!(
        all >= load.obtained,
        "{all} pages obtained, at least {} wanted",
        load.obtained
    );
    Ok(())
}

/// A deliberate bug: exactly the reports and the failed cases that it must cause, and no other.
/// Other controls of the same boot have parts of the console of their own.
pub fn red(
    lane: &Lane,
    control: &Control,
    boot: &[&Control],
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<ControlResult> {
    let failed = |(case, why): (&String, &String)| format!("{case} failed: {why}");
    let mut expected: BTreeSet<String> = control.fails.iter().map(failed).collect();
    expected.extend(control.expect.iter().cloned());
    let findings = Rules::builtin()?.scan(&without_others(control, boot, &outcome.console));
    let mut seen: BTreeSet<String> = findings.into_iter().map(|f| f.rule).collect();
    if !control.fails.is_empty() {
        match failures(control, &outcome.console) {
            Ok(failures) => seen.extend(failures.iter().map(failed)),
            Err(e) => drop(seen.insert(format!("{e:#}"))),
        }
    }
    let join = |set: &BTreeSet<String>| Vec::from_iter(set.iter().cloned()).join(", ");
    let result = ControlResult {
        name: control.name.clone(),
        expected: join(&expected),
        seen: join(&seen),
        ok: seen == expected && outcome.ending == Ending::Done,
    };
    let name = format!("{}: control {}", lane.name, control.name);
    ending(tally, &name, outcome);
    let verdict = if seen == expected {
        Ok(())
    } else if seen.is_empty() {
        Err(anyhow::anyhow!(
            "stayed green, and must be caught as {}",
            result.expected
        ))
    } else {
        Err(anyhow::anyhow!(
            "caught as {}, and must be caught as {}",
            result.seen,
            result.expected
        ))
    };
    tally.check(&name, verdict)?;
    Ok(result)
}

/// What a control's part of the console has before it, in it and behind it.
fn parts<'a>(control: &Control, console: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let mark = |what: &str| format!("NOLOCKS: case {} {what}", control.name);
    let (before, rest) = console.split_once(&mark("begin"))?;
    let (part, behind) = rest.split_once(&mark("rc="))?;
    Some((before, part, behind))
}

/// A report outside all parts is nobody's, and counts against every control of the boot.
fn without_others(control: &Control, boot: &[&Control], console: &str) -> String {
    let others = boot.iter().filter(|other| other.name != control.name);
    others.fold(console.to_owned(), |console, other| {
        match parts(other, &console) {
            Some((before, _, behind)) => format!("{before}{behind}"),
            None => console,
        }
    })
}

/// The cases that failed in a control's own part of the console, which others may share.
fn failures(control: &Control, console: &str) -> Result<BTreeMap<String, String>> {
    let (_, part, rc) = parts(control, console)
        .with_context(|| format!("case {} did not run to its end", control.name))?;
    let suite = ktap::parse_console(part, &control.module)?;
    let failed: BTreeMap<_, _> = suite
        .cases
        .into_iter()
        .filter(|c| c.status == Status::Fail)
        .map(|c| (c.name, c.reason.unwrap_or_default()))
        .collect();
    let loaded = rc.lines().next().is_some_and(|rc| rc.trim() == "0");
    ensure!(
        loaded == failed.is_empty(),
        "the load must fail when a case does, and only then"
    );
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::stage;
    use std::time::Duration;

    const SPLAT: &str =
        "[    1.0] =============================\n[    1.0] [ BUG: Invalid wait context ]\n";
    const BOOTED: &str = "[    0.0] Linux version 7.3.4\n[    0.9] NOLOCKS: guest up\n";
    const KTAP: &str = "[ 1.1] nolocks_stress: KTAP version 1\n[ 1.1] nolocks_stress: 1..1\n\
        [ 1.2] nolocks_stress: # stat: context=task api=no_locks attempts=9 obtained=9\n\
        [ 1.3] nolocks_stress: ok 1 task\n[ 1.3] NOLOCKS: case stress rc=0\n";
    const DONE: &str = "[    2.0] NOLOCKS: guest done\n";

    fn lane() -> Lane {
        let text = "#: about = \"x\"\n#: arch = \"x86_64\"\n#: cpus = 1\n#: memory = \"1G\"\n\
            #: limits = { boot = 1, run = 2, shutdown = 3 }\n#: kunit = { s = 2 }\n#: [stress]\n#: obtained = 9\n\
            #: obtained_each = 9\n#: contexts = [\"task\"]\nCONFIG_PROVE_LOCKING=y\n";
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("t.config"), text).unwrap();
        Lane::load(dir.path(), "t").unwrap()
    }

    fn outcome(console: String, ending: Ending) -> Outcome {
        Outcome {
            console,
            ending,
            took: Duration::ZERO,
            hung_before: None,
        }
    }

    fn judged(console: String, ending: Ending, locks: &str, kunit: &str) -> Tally {
        judged_in(&lane(), console, ending, locks, kunit)
    }

    fn judged_in(lane: &Lane, console: String, ending: Ending, locks: &str, kunit: &str) -> Tally {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("out/lockdep_stats"), locks).unwrap();
        fs::write(dir.path().join("out/kunit.txt"), kunit).unwrap();
        let mut tally = Tally::default();
        green(
            lane,
            &lane.stress,
            true,
            dir.path(),
            &outcome(console, ending),
            &mut tally,
        )
        .unwrap();
        tally
    }

    const LOCKS: &str = " debug_locks:                             1\n";
    const KUNIT: &str = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n    ok 1 a\n    ok 2 b\n# s: pass:2 fail:0 skip:0 total:2\nok 1 s\n";

    fn good() -> String {
        format!("{BOOTED}{KTAP}{DONE}")
    }

    #[test]
    fn a_good_boot_is_green() {
        let tally = judged(good(), Ending::Done, LOCKS, KUNIT);
        tally.result().unwrap();
        assert_eq!(tally.closing(), "9 passed, 0 failed");
    }

    #[test]
    fn each_defect_alone_is_red_and_has_its_code() {
        let splat = format!("{BOOTED}{SPLAT}{KTAP}{DONE}");
        let less = good().replace("obtained=9", "obtained=8");
        let rc = good().replace("rc=0", "rc=1");
        let failed = good().replace("ok 1 task", "not ok 1 task");
        let silent = LOCKS.replace('1', "0");
        let hung = Ending::Hung(crate::boot::Phase::Run, Duration::from_secs(9));
        for (console, ending, locks, kunit, exit) in [
            (splat, Ending::Done, LOCKS, KUNIT, Exit::Splat),
            (good(), hung, LOCKS, KUNIT, Exit::Hang),
            (
                good(),
                Ending::Died(crate::boot::Phase::Run),
                LOCKS,
                KUNIT,
                Exit::Boot,
            ),
            (less, Ending::Done, LOCKS, KUNIT, Exit::Test),
            (rc, Ending::Done, LOCKS, KUNIT, Exit::Test),
            (failed, Ending::Done, LOCKS, KUNIT, Exit::Test),
            (good(), Ending::Done, silent.as_str(), KUNIT, Exit::Test),
            (good(), Ending::Done, "", KUNIT, Exit::Test),
            (good(), Ending::Done, LOCKS, "", Exit::Test),
            (
                format!("{BOOTED}{DONE}"),
                Ending::Done,
                LOCKS,
                KUNIT,
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
        let queue = "[ 1.4] nolocks_queue_stress: KTAP version 1\n[ 1.4] nolocks_queue_stress: 1..1\n\
            [ 1.5] nolocks_queue_stress: # peak: cpus=4 pushed=9 listed=0 ms=1\n\
            [ 1.5] nolocks_queue_stress: # objects: freed=9 corrupt=0\n\
            [ 1.5] nolocks_queue_stress: ok 1 peak\n[ 1.6] NOLOCKS: case nolocks_queue_stress rc=0\n\
            [ 1.7] NOLOCKS: case nolocks_example rc=0\n";
        let console = format!("{BOOTED}{KTAP}{queue}{DONE}");
        let judged = |from: &str, to: &str| {
            assert!(console.contains(from), "{from}");
            let console = console.replace(from, to);
            judged_in(&lane, console, Ending::Done, LOCKS, KUNIT).result()
        };
        judged("ok 1 peak", "ok 1 peak").unwrap();
        for (from, to) in [
            ("freed=9", "freed=8"),
            ("ok 1 peak", "not ok 1 peak"),
            ("ok 1 peak", "ok 1 peak # SKIP why"),
            ("# peak:", "# poke:"),
            ("nolocks_queue_stress rc=0", "nolocks_queue_stress rc=1"),
            ("nolocks_example rc=0", "nolocks_example rc=1"),
            (queue, ""),
        ] {
            assert!(judged(from, to).is_err(), "{from} -> {to}");
        }
    }

    #[test]
    fn a_control_answers_for_its_own_part_and_for_what_is_nobodys() {
        let control = |name: &str, expect: &[&str]| Control {
            name: name.into(),
            module: "m".into(),
            params: String::new(),
            boot: Some("b".into()),
            expect: expect.iter().map(|rule| (*rule).into()).collect(),
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
            boot.iter()
                .map(|control| {
                    let outcome = outcome(console.clone(), Ending::Done);
                    let mut tally = Tally::default();
                    red(&lane(), control, &boot, &outcome, &mut tally)
                        .unwrap()
                        .ok
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(oks(""), [true, true]);
        let nobodys = "[    1.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2\n";
        assert_eq!(oks(nobodys), [false, false]);
    }

    #[test]
    fn a_leak_and_a_scan_that_was_not_made_are_red() {
        assert!(leakless(Ok("\n".into())).is_ok());
        assert!(leakless(Ok("unreferenced object 0xffff (size 64):\n".into())).is_err());
        assert!(leakless(fs::read_to_string("/nonexistent")).is_err());
        let mut lane = lane();
        lane.config += "CONFIG_DEBUG_KMEMLEAK=y\n";
        let tally = judged_in(&lane, good(), Ending::Done, LOCKS, KUNIT);
        assert!(tally.result().is_err());
    }

    #[test]
    fn lockdep_has_its_say_only_where_it_is() {
        let mut lane = lane();
        lane.config = lane.config.replace("CONFIG_PROVE_LOCKING=y", "");
        let tally = judged_in(&lane, good(), Ending::Done, "", KUNIT);
        tally.result().unwrap();
    }

    #[test]
    fn a_case_may_be_skipped_only_where_the_lane_says_so_and_then_must() {
        let skipped = good().replace("1..1", "1..2").replace(
            "ok 1 task\n",
            "ok 1 task\n[ 1.3] nolocks_stress: ok 2 nmi # SKIP why\n",
        );
        let ran = skipped.replace(" # SKIP why", "");
        for (skips, console, green) in [
            ("", &ran, true),
            ("nmi", &skipped, true),
            ("", &skipped, false),
            ("task", &skipped, false),
            ("nmi", &ran, false),
        ] {
            let mut lane = lane();
            lane.skips = skips.split_terminator(',').map(str::to_owned).collect();
            let tally = judged_in(&lane, console.clone(), Ending::Done, LOCKS, KUNIT);
            assert_eq!(tally.result().is_ok(), green, "{skips}: {console}");
        }
    }

    #[test]
    fn a_suite_with_a_case_too_few_is_red() {
        let short = KUNIT.replace("1..2", "1..1").replace("    ok 2 b\n", "");
        let tally = judged(good(), Ending::Done, LOCKS, &short);
        assert_eq!(stage(&tally.result().unwrap_err()), Some(Exit::Test));
    }

    #[test]
    fn a_control_must_be_red_for_its_own_reason() {
        let control = Control {
            name: "c".into(),
            module: "m".into(),
            params: String::new(),
            boot: None,
            expect: vec!["invalid-wait-context".into()],
            fails: BTreeMap::new(),
        };
        let warn = "[    1.0] WARNING: CPU: 0 PID: 1 at mm/page_alloc.c:1 f+0x1/0x2\n";
        for (console, good) in [
            (format!("{BOOTED}{SPLAT}{DONE}"), true),
            (format!("{BOOTED}{DONE}"), false),
            (format!("{BOOTED}{warn}{DONE}"), false),
            (format!("{BOOTED}{warn}{SPLAT}{DONE}"), false),
        ] {
            let mut tally = Tally::default();
            let result = red(
                &lane(),
                &control,
                &[&control],
                &outcome(console.clone(), Ending::Done),
                &mut tally,
            )
            .unwrap();
            assert_eq!(
                (result.ok, tally.result().is_ok()),
                (good, good),
                "{console}"
            );
        }
    }

    /// Of two controls that share a boot, which are red for their own reason.
    fn ktap_controls(console: &str, ending: Ending) -> [bool; 2] {
        let control = |name: &str, why: &str| Control {
            name: name.into(),
            module: "nolocks_control".into(),
            params: String::new(),
            boot: None,
            expect: Vec::new(),
            fails: BTreeMap::from([("ledger".into(), why.into())]),
        };
        let controls = [
            control("leaked-page", "the ledger does not balance"),
            control("page-handed-out-twice", "1 pages lost their owner's mark"),
        ];
        let boot: Vec<&Control> = controls.iter().collect();
        [0, 1].map(|i| {
            let mut tally = Tally::default();
            let outcome = outcome(console.to_owned(), ending);
            let result = red(&lane(), boot[i], &boot, &outcome, &mut tally).unwrap();
            assert_eq!(result.ok, tally.result().is_ok(), "{console}");
            result.ok
        })
    }

    #[test]
    fn a_case_must_fail_for_its_own_reason_and_alone() {
        const REAL: &str = include_str!("../fixtures/console-controls-ktap.log");
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
        let died = Ending::Died(crate::boot::Phase::Run);
        assert_eq!(ktap_controls(REAL, died), [false, false]);
    }
}
