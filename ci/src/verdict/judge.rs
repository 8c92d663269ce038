// SPDX-License-Identifier: GPL-2.0
//! What a boot showed, held against what its lane demands.

use crate::base::exit::Exit;
use crate::facts::ktap::{self, Status, Suite};
use crate::facts::scan::{self, Finding, Rules};
use crate::guest::boot::{Ending, Outcome};
use crate::lane::cases::{QUEUE, STRESS, Selection, cases, suites};
use crate::lane::plan::{EXAMPLE, FAILING, MAIN, Plan, STRESS_CASE};
use crate::lane::spec::{Boot, Control, Lane, Load, Queue, Skips};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const API: &str = "no_locks";

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ControlResult {
    pub name: String,
    /// The rules that must name what the control does; several are joined by ", ".
    pub expected: String,
    pub seen: String,
    pub ok: bool,
}

/// What a green boot shows beside its modules.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BootReport {
    pub name: String,
    pub kunit: Vec<Suite>,
    pub findings: Vec<Finding>,
    pub debug_locks: Option<bool>,
}

pub struct Seen {
    pub main: BootReport,
    pub suite: Option<Suite>,
    pub queue: Option<Suite>,
    pub failing: Option<Suite>,
}

/// What the kernel says of a hang.
const STALLS: [&str; 8] = [
    "rcu-stall",
    "rcu-starved",
    "soft-lockup",
    "hard-lockup",
    "workqueue-lockup",
    "hung-task",
    "hung-task-owner",
    "unexplained-trace",
];

/// Whether a boot that hung showed more than that: another report of the kernel's, a case that failed, or
/// our KUnit suite in the middle. Such a hang is no accident of the emulator's. Where that `storms`, it may
/// last for so long that the kernel reports it.
pub fn blamed(console: &str, storms: bool) -> Result<bool> {
    let rules = Rules::builtin()?;
    let failed = Regex::new(r"nolocks\w*: not ok ")?;
    let begun = |suite: &&str| console.contains(&format!("# Subtest: {suite}"));
    let over = |suite: &str| {
        scan::messages(console).iter().any(|(_, text)| {
            let result = text.trim().trim_start_matches("not ").strip_prefix("ok ");
            result.is_some_and(|r| r.split(' ').nth(1) == Some(suite))
        })
    };
    let ended = suites().filter(begun).all(over);
    let findings = rules.scan(console);
    let mut reports = findings.iter().filter(|f| rules.is_report(f));
    let other = reports.any(|f| !(storms && STALLS.contains(&f.rule.as_str())));
    Ok(!ended || other || failed.is_match(console))
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

/// The boot that must be green, with the modules.
pub fn green(
    lane: &Lane,
    plan: &Plan,
    folder: &Path,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<Seen> {
    let name = &lane.name;
    let selection = plan.selection.as_ref();
    let is_chosen = |suite: &str| selection.is_none_or(|s| s.has(suite));
    let mut kunit = lane.kunit.clone();
    kunit.retain(|suite, _| is_chosen(suite));
    let kunit = (&kunit, &Skips::new(), selection);
    let main = machine(name, lane, kunit, true, folder, outcome, tally)?;
    let mut seen = Seen {
        main,
        suite: None,
        queue: None,
        failing: None,
    };
    if let Some(load) = &plan.load {
        loaded(name, outcome, STRESS_CASE, tally)?;
        seen.suite = suite(
            name,
            (STRESS_CASE, STRESS),
            selection,
            &lane.skips,
            outcome,
            tally,
        )?;
        if let (Some(suite), true) = (&seen.suite, plan.floor) {
            tally.check(&format!("{name}: pages obtained"), pages(load, suite))?;
        }
    }
    if let Some(wanted) = &plan.queue {
        for case in [QUEUE, EXAMPLE].into_iter().filter(|c| plan.has(c)) {
            loaded(name, outcome, case, tally)?;
        }
        let case = (QUEUE, QUEUE);
        seen.queue = suite(name, case, selection, &wanted.skips, outcome, tally)?;
        if let (Some(suite), true) = (&seen.queue, plan.floor) {
            tally.check(&format!("{name}: objects freed"), objects(wanted, suite))?;
        }
        if plan.has(FAILING) {
            loaded(name, outcome, FAILING, tally)?;
            let case = (FAILING, QUEUE);
            seen.failing = suite(name, case, selection, &wanted.skips, outcome, tally)?;
        }
    }
    Ok(seen)
}

/// A boot that must be green but for the controls that share it.
pub fn quiet(
    lane: &Lane,
    boot: &Boot,
    controls: &[&Control],
    folder: &Path,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<BootReport> {
    let name = format!("{}: boot {}", lane.name, boot.name);
    let kunit = (&boot.kunit, &boot.either, None);
    let outcome = Outcome {
        console: without(controls.iter().copied(), &outcome.console),
        ..outcome.clone()
    };
    // The last control may silence lockdep, and shows by its report that it had not been silent before.
    let silenced = controls.iter().any(|control| control.silences_lockdep());
    let seen = machine(&name, lane, kunit, !silenced, folder, &outcome, tally)?;
    Ok(BootReport {
        name: boot.name.clone(),
        ..seen
    })
}

/// What a green boot shows whatever it loads.
fn machine(
    name: &str,
    lane: &Lane,
    (wanted, either, selection): (&Skips, &Skips, Option<&Selection>),
    asks_lockdep: bool,
    folder: &Path,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<BootReport> {
    let findings = booted(name, outcome, tally)?;
    let debug_locks = fs::read_to_string(folder.join("out/lockdep_stats"))
        .ok()
        .and_then(|t| scan::debug_locks(&t));
    if asks_lockdep && lane.config.contains("CONFIG_PROVE_LOCKING=y") {
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
        Err(_) if kunit.trim().is_empty() => Vec::new(),
        Err(e) => {
            tally.failed(Exit::Test, format!("{name}: KUnit results: {e:#}"));
            Vec::new()
        }
    };
    for (suite, skips) in wanted {
        let result = match kunit.iter().find(|s| s.name == *suite) {
            Some(suite) => {
                count_cases(name, suite, tally);
                let all = expected(&suite.name, selection);
                let free = either.get(&suite.name).into_iter().flatten();
                let free = suite.cases.iter().filter(|c| {
                    c.status == Status::Skip && free.clone().any(|name| *name == c.name)
                });
                let skips = skips.iter().chain(free.map(|c| &c.name));
                ran(&all, &skips.cloned().collect(), suite)
            }
            None => {
                let names: Vec<&str> = kunit.iter().map(|s| s.name.as_str()).collect();
                Err(anyhow::anyhow!(
                    "it did not run (those that did: {names:?})"
                ))
            }
        };
        tally.check(&format!("{name}: KUnit suite {suite}: its cases"), result)?;
    }
    if lane.config.contains("CONFIG_DEBUG_KMEMLEAK=y") {
        let leaks = fs::read_to_string(folder.join("out/kmemleak"));
        tally.check(
            &format!("{name}: kmemleak reports nothing"),
            leakless(leaks),
        )?;
    }
    Ok(BootReport {
        name: MAIN.to_owned(),
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

/// The cases that a suite must have had.
fn expected(suite: &str, selection: Option<&Selection>) -> Vec<&'static String> {
    let is_chosen = |case: &&String| selection.is_none_or(|s| s.contains(suite, case));
    cases(suite).iter().filter(is_chosen).collect()
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

/// What a module printed in a case of the plan. Each of its cases must have passed, or been skipped where it
/// cannot run; those that the user did not select must not be there.
fn suite(
    name: &str,
    (case, module): (&str, &str),
    selection: Option<&Selection>,
    skips: &BTreeSet<String>,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<Option<Suite>> {
    let parsed = part(case, &outcome.console)
        .with_context(|| format!("case {case} did not begin"))
        .and_then(|part| ktap::parse_console(part, module));
    match parsed {
        Ok(mut suite) => {
            if case == FAILING {
                FAILING.clone_into(&mut suite.name);
            }
            count_cases(name, &suite, tally);
            let all = expected(module, selection);
            tally.check(
                &format!("{name}: {}: cases that ran", suite.name),
                ran(&all, skips, &suite),
            )?;
            Ok(Some(suite))
        }
        Err(e) => {
            tally.failed(Exit::Test, format!("{name}: {case}: KTAP: {e:#}"));
            Ok(None)
        }
    }
}

fn count_cases(lane: &str, suite: &Suite, tally: &mut Tally) {
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

/// A suite that silently lost a case is a failure, and so is a case that could not run where it must; one that
/// is new, or ran after all, shows that the list or the lane is stale.
fn ran(wanted: &[&String], skips: &BTreeSet<String>, suite: &Suite) -> Result<()> {
    if let Some(lost) = wanted
        .iter()
        .find(|name| !suite.cases.iter().any(|c| c.name == ***name))
    {
        bail!("{lost} is not there");
    }
    for case in &suite.cases {
        let why = case.reason.as_deref().unwrap_or("no reason given");
        ensure!(
            wanted.contains(&&case.name),
            "{} was not to be expected: ci/cases.toml names all",
            case.name
        );
        match (case.status == Status::Skip, skips.contains(&case.name)) {
            (true, false) => bail!("{} was skipped, and must run here: {why}", case.name),
            (false, true) => bail!("{} ran, and the lane says that it cannot", case.name),
            _ => {}
        }
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
    let mut seen = BTreeSet::new();
    let with = |rule: &str, pattern: &str| format!("{rule} with {pattern:?}");
    expected.extend(control.expect.iter().map(|(r, p)| with(r, p)));
    for found in Rules::builtin()?.scan(&without_others(control, boot, &outcome.console)) {
        seen.insert(match control.expect.get(&found.rule) {
            Some(pattern) if found.says(&Regex::new(pattern)?) => with(&found.rule, pattern),
            _ => format!("{} ({})", found.rule, found.line.trim()),
        });
    }
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

/// What a case of the plan has before it on the console, in it and behind it.
fn parts<'a>(case: &str, console: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = console.split_once(&format!("NOLOCKS: case {case} begin"))?;
    let (part, behind) = rest.split_once(&format!("NOLOCKS: case {case} rc="))?;
    Some((before, part, behind))
}

/// Two cases may load the same module. One that did not end has all that follows.
pub fn part<'a>(case: &str, console: &'a str) -> Option<&'a str> {
    let (_, rest) = console.split_once(&format!("NOLOCKS: case {case} begin"))?;
    Some(parts(case, console).map_or(rest, |(_, part, _)| part))
}

/// A report outside all parts is nobody's, and counts against every control of the boot.
fn without_others(control: &Control, boot: &[&Control], console: &str) -> String {
    let others = boot.iter().filter(|other| other.name != control.name);
    without(others.copied(), console)
}

/// As many lines as before, so that a line's number is that of the console.
fn without<'a>(controls: impl Iterator<Item = &'a Control>, console: &str) -> String {
    controls.fold(console.to_owned(), |console, control| {
        match parts(&control.name, &console) {
            Some((before, part, behind)) => {
                let blank = "\n".repeat(part.matches('\n').count());
                format!("{before}{blank}{behind}")
            }
            None => console,
        }
    })
}

/// The cases that failed in a control's own part of the console, which others may share.
fn failures(control: &Control, console: &str) -> Result<BTreeMap<String, String>> {
    let (_, part, rc) = parts(&control.name, console)
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
    use crate::base::exit::stage;
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
        fs::write(dir.path().join("t.config"), text).unwrap();
        Lane::load(dir.path(), "t").unwrap()
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
        let (dir, outcome) = (left(locks, kunit), outcome(console, ending));
        green(lane, plan, dir.path(), &outcome, &mut tally).unwrap();
        tally
    }

    const LOCKS: &str = " debug_locks:                             1\n";

    fn kunit() -> String {
        let names = cases(SUITE).iter().enumerate();
        let oks: String = names
            .map(|(i, n)| format!("    ok {} {n}\n", i + 1))
            .collect();
        let count = cases(SUITE).len();
        format!(
            "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: {SUITE}\n    1..{count}\n{oks}ok 1 {SUITE}\n"
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
        let hung = Ending::Hung(crate::guest::boot::Phase::Run, Duration::from_secs(9));
        for (console, ending, locks, kunit, exit) in [
            (splat, Ending::Done, LOCKS, kunit, Exit::Splat),
            (good(), hung, LOCKS, kunit, Exit::Hang),
            (
                good(),
                Ending::Died(crate::guest::boot::Phase::Run),
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
        let example = "[ 1.9] NOLOCKS: case nolocks_example rc=0\n";
        let failing = ktap(FAILING, QUEUE, "# objects: freed=1 corrupt=0");
        let console = format!("{BOOTED}{}{queue}{example}{failing}{DONE}", stress());
        let judged = |from: &str, to: &str| {
            assert!(console.contains(from), "{from}");
            let console = console.replacen(from, to, 1);
            judged_in(&lane, console, Ending::Done, LOCKS, &kunit()).result()
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
        let less =
            cut(&good, &ledger).replace(&format!("1..{count}"), &format!("1..{}", count - 1));
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
            ("pages/task,kunit/*", true),
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
        let skip =
            |name: &str| skipped.replace(&format!("{name}\n"), &format!("{name} # SKIP why\n"));
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
        for (control, locks, green) in [
            (&control, LOCKS, true),
            (&control, silent.as_str(), false),
            (&silencing, silent.as_str(), true),
        ] {
            let outcome = outcome(format!("{BOOTED}{part}{DONE}"), Ending::Done);
            let (mut tally, dir) = (Tally::default(), left(locks, &skipped));
            quiet(&lane, &boot, &[control], dir.path(), &outcome, &mut tally).unwrap();
            assert_eq!(tally.result().is_ok(), green, "{locks}");
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
            let outcome = outcome(format!("{BOOTED}{said}{DONE}"), Ending::Done);
            let (mut tally, dir) = (Tally::default(), left(locks, kunit));
            let report =
                quiet(&lane, &boot, &[&control], dir.path(), &outcome, &mut tally).unwrap();
            assert_eq!(tally.result().is_ok(), green, "{said}{locks}{kunit}");
            assert_eq!(
                (report.name.as_str(), report.kunit.len()),
                ("kunit-numa", 1)
            );
        }
    }

    /// Only the queue is loaded, and lockdep must still be there.
    #[test]
    fn a_soak_needs_lockdep_and_its_objects() {
        let lane = lane();
        let soak = Plan::soak(&lane, 9);
        let said = "# peak: cpus=4 pushed=9 listed=0 ms=1\n# objects: freed=9 corrupt=0";
        let queue = ktap(QUEUE, QUEUE, said);
        let example = "[ 1.9] NOLOCKS: case nolocks_example rc=0\n";
        let console = format!("{BOOTED}{queue}{example}{DONE}");
        let silent = LOCKS.replace('1', "0");
        for (console, locks, green) in [
            (console.clone(), LOCKS, true),
            (console.clone(), silent.as_str(), false),
            (console.replace("freed=9", "freed=8"), LOCKS, false),
        ] {
            let tally = judged_as(&lane, &soak, console, Ending::Done, locks, &kunit());
            assert_eq!(tally.result().is_ok(), green, "{locks}");
        }
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
            expect: BTreeMap::new(),
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
        const REAL: &str = include_str!("../../fixtures/console-controls-ktap.log");
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
        let died = Ending::Died(crate::guest::boot::Phase::Run);
        assert_eq!(ktap_controls(REAL, died), [false, false]);
    }
}
