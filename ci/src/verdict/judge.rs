// SPDX-License-Identifier: GPL-2.0
//! What a boot showed, held against what its lane demands: functions of the two, and of nothing else.

use crate::base::exit::Exit;
use crate::facts::boot::{BootFacts, CaseFacts};
use crate::facts::ending::Ending;
use crate::facts::scan::Finding;
use crate::facts::suite::{Status, Suite};
use crate::lane::cases::{Cases, EXAMPLE_SUITE, QUEUE, STRESS, Selection};
use crate::lane::plan::{EXAMPLE, FAILING, MAIN, Plan, STRESS_CASE};
use crate::lane::spec::{Boot, Control, Lane, Load, Queue, Skips};
use crate::verdict::check::{Check, Found};
use anyhow::{Context, Result, anyhow, bail, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct BootReport {
    pub name: String,
    pub kunit: Vec<Suite>,
    pub findings: Vec<Finding>,
    /// None where a control has silenced it.
    pub debug_locks: Option<bool>,
}

/// What the boot with the modules showed.
#[derive(Default)]
pub struct MainReport {
    pub boot: BootReport,
    pub suite: Option<Suite>,
    pub queue: Option<Suite>,
    pub failing: Option<Suite>,
}

fn check_ending(name: &str, facts: &BootFacts) -> Option<Check> {
    match facts.ending {
        Ending::Done => None,
        Ending::Hung(phase, limit) => Some(Check::failed(
            name,
            Exit::Hang,
            format!("{phase} hung (limit {} s)", limit.as_secs()),
        )),
        Ending::Died(phase) => Some(Check::failed(
            name,
            Exit::Boot,
            format!("the guest ended during {phase}"),
        )),
    }
}

/// What every green boot shows: the guest finished, and without a report.
pub fn judge_boot(name: &str, facts: &BootFacts) -> Vec<Check> {
    check_finished(name, facts, &facts.findings)
}

fn check_finished(name: &str, facts: &BootFacts, findings: &[Finding]) -> Vec<Check> {
    let mut checks = Vec::from_iter(check_ending(name, facts));
    checks.extend(findings.iter().map(|f| {
        let name = format!("{name}: {} (console line {})", f.rule, f.line_no);
        Check::failed(name, Exit::Splat, f.line.trim())
    }));
    if checks.is_empty() {
        checks.push(Check::new(format!("{name}: boots without a splat"), Ok(())));
    }
    checks
}

/// A green boot with one case.
pub fn judge_boot_with_case(name: &str, facts: &BootFacts, case: &str) -> Vec<Check> {
    let mut checks = judge_boot(name, facts);
    checks.push(check_loaded(name, facts, case));
    checks
}

fn check_loaded(name: &str, facts: &BootFacts, case: &str) -> Check {
    let rc = facts.case(case).and_then(|c| c.rc.as_deref());
    let done = match rc {
        Some("0") => Ok(()),
        _ => Err(anyhow!("failed: see console.txt")),
    };
    Check::new(
        format!("{name}: case {case} loads, passes and unloads"),
        done,
    )
}

/// The boot that must be green, with the modules.
pub fn judge_main_boot(
    lane: &Lane,
    plan: &Plan,
    known: &Cases,
    facts: &BootFacts,
) -> (MainReport, Vec<Check>) {
    let name = &lane.name;
    let expected = Expected {
        known,
        selection: plan.selection.as_ref(),
        asks_lockdep: true,
    };
    let mut kunit = lane.kunit.clone();
    kunit.retain(|suite, _| expected.has(suite));
    // Where the example is loaded its suite runs, but for runs of a time when it had none.
    if plan.has(EXAMPLE) && !known.of(EXAMPLE_SUITE).is_empty() {
        kunit.insert(EXAMPLE_SUITE.to_owned(), BTreeSet::new());
    }
    let kunit = (&kunit, &Skips::new());
    let findings = facts.findings.clone();
    let (boot, mut checks) = judge_shared_demands(name, lane, &expected, kunit, facts, findings);
    let mut report = MainReport {
        boot,
        ..MainReport::default()
    };
    if let Some(load) = &plan.load {
        checks.push(check_loaded(name, facts, STRESS_CASE));
        let module = (STRESS_CASE, STRESS);
        report.suite = judge_module(name, module, &expected, &lane.skips, facts, &mut checks);
        if let (Some(suite), true) = (&report.suite, plan.floor) {
            let result = check_pages(load, suite);
            checks.push(Check::new(format!("{name}: pages obtained"), result));
        }
    }
    for case in [QUEUE, EXAMPLE].into_iter().filter(|c| plan.has(c)) {
        checks.push(check_loaded(name, facts, case));
    }
    if let Some(wanted) = &plan.queue {
        let skips = &wanted.skips;
        let module = (QUEUE, QUEUE);
        report.queue = judge_module(name, module, &expected, skips, facts, &mut checks);
        if let (Some(suite), true) = (&report.queue, plan.floor) {
            let result = check_objects(wanted, suite);
            checks.push(Check::new(format!("{name}: objects freed"), result));
        }
        if plan.has(FAILING) {
            checks.push(check_loaded(name, facts, FAILING));
            let module = (FAILING, QUEUE);
            report.failing = judge_module(name, module, &expected, skips, facts, &mut checks);
        }
    }
    (report, checks)
}

/// A boot that must be green but for the controls that share it.
pub fn judge_later_boot(
    lane: &Lane,
    boot: &Boot,
    controls: &[&Control],
    known: &Cases,
    facts: &BootFacts,
) -> (BootReport, Vec<Check>) {
    let name = format!("{}: boot {}", lane.name, boot.name);
    let kunit = (&boot.kunit, &boot.either);
    let names: Vec<&str> = controls.iter().map(|c| c.name.as_str()).collect();
    let findings = facts.findings_without(&names);
    let expected = Expected {
        known,
        selection: None,
        // A control that silences lockdep shows by its report that it had not been silent before.
        asks_lockdep: !controls.iter().any(|c| c.silences_lockdep()),
    };
    let (report, checks) = judge_shared_demands(&name, lane, &expected, kunit, facts, findings);
    let name = boot.name.clone();
    (BootReport { name, ..report }, checks)
}

/// What a boot must have beside its suites.
struct Expected<'a> {
    known: &'a Cases,
    selection: Option<&'a Selection>,
    /// Whether lockdep must still be there at the end.
    asks_lockdep: bool,
}

impl Expected<'_> {
    fn has(&self, suite: &str) -> bool {
        self.selection.is_none_or(|s| s.has(suite))
    }

    fn chosen_cases(&self, suite: &str) -> Vec<&String> {
        let is_chosen = |case: &&String| self.selection.is_none_or(|s| s.contains(suite, case));
        self.known.of(suite).iter().filter(is_chosen).collect()
    }
}

/// What a green boot shows whatever it loads.
fn judge_shared_demands(
    name: &str,
    lane: &Lane,
    expected: &Expected,
    (wanted, either): (&Skips, &Skips),
    facts: &BootFacts,
    findings: Vec<Finding>,
) -> (BootReport, Vec<Check>) {
    let mut checks = check_finished(name, facts, &findings);
    if expected.asks_lockdep && lane.config.contains("CONFIG_PROVE_LOCKING=y") {
        let result = match facts.debug_locks {
            Some(true) => Ok(()),
            Some(false) => Err(anyhow!(
                "0: lockdep went silent, and the run proves nothing"
            )),
            None => Err(anyhow!("not seen in /proc/lockdep_stats")),
        };
        checks.push(Check::new(format!("{name}: debug_locks"), result));
    }
    let kunit = match &facts.kunit {
        Ok(suites) => suites.clone(),
        Err(why) => {
            checks.push(Check::failed(
                format!("{name}: KUnit results"),
                Exit::Test,
                why,
            ));
            Vec::new()
        }
    };
    for (suite, skips) in wanted {
        let result = match kunit.iter().find(|s| s.name == *suite) {
            Some(suite) => {
                checks.extend(checks_of_cases(name, suite));
                let all = expected.chosen_cases(&suite.name);
                let free = either.get(&suite.name).into_iter().flatten();
                let free = suite.cases.iter().filter(|c| {
                    c.status == Status::Skip && free.clone().any(|name| *name == c.name)
                });
                let skips = skips.iter().chain(free.map(|c| &c.name));
                check_cases_ran(&all, &skips.cloned().collect(), suite)
            }
            None => {
                let names: Vec<&str> = kunit.iter().map(|s| s.name.as_str()).collect();
                Err(anyhow!("it did not run (those that did: {names:?})"))
            }
        };
        checks.push(Check::new(
            format!("{name}: KUnit suite {suite}: its cases"),
            result,
        ));
    }
    if lane.config.contains("CONFIG_DEBUG_KMEMLEAK=y") {
        checks.push(Check::new(
            format!("{name}: kmemleak reports nothing"),
            check_no_leak(facts.kmemleak.as_deref()),
        ));
    }
    let report = BootReport {
        name: MAIN.to_owned(),
        kunit,
        findings,
        debug_locks: facts.debug_locks.filter(|_| expected.asks_lockdep),
    };
    (report, checks)
}

/// What the guest copied is there only if kmemleak was asked, and was on.
fn check_no_leak(leaks: Option<&str>) -> Result<()> {
    let leaks = leaks.context("no scan was made")?;
    let first = leaks.trim().lines().next();
    ensure!(first.is_none(), "{}", first.unwrap_or_default());
    Ok(())
}

fn check_objects(wanted: &Queue, suite: &Suite) -> Result<()> {
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
fn judge_module(
    name: &str,
    (case, module): (&str, &str),
    expected: &Expected,
    skips: &BTreeSet<String>,
    facts: &BootFacts,
    checks: &mut Vec<Check>,
) -> Option<Suite> {
    let printed = match facts.case(case).map(|c| &c.suite) {
        Some(Ok(suite)) => Ok(suite),
        Some(Err(why)) => Err(why.clone()),
        None => Err(format!("case {case} did not begin")),
    };
    match printed {
        Ok(suite) => {
            let mut suite = suite.clone();
            if case == FAILING {
                FAILING.clone_into(&mut suite.name);
            }
            checks.extend(checks_of_cases(name, &suite));
            let all = expected.chosen_cases(module);
            checks.push(Check::new(
                format!("{name}: {}: cases that ran", suite.name),
                check_cases_ran(&all, skips, &suite),
            ));
            Some(suite)
        }
        Err(why) => {
            checks.push(Check::failed(
                format!("{name}: {case}: KTAP"),
                Exit::Test,
                why,
            ));
            None
        }
    }
}

fn checks_of_cases(boot: &str, suite: &Suite) -> impl Iterator<Item = Check> {
    suite.cases.iter().map(move |case| {
        let why = |or: &str| case.reason.clone().unwrap_or(or.to_owned());
        let found = match case.status {
            Status::Pass => Found::Passed,
            Status::Skip => Found::Skipped {
                why: why("no reason given"),
            },
            Status::Fail => Found::Failed {
                exit: Exit::Test,
                why: why("see console.txt"),
            },
        };
        Check::case(format!("{boot}: {}: {}", suite.name, case.name), found)
    })
}

/// A suite that silently lost a case is a failure, and so is a case that could not run where it must; one that
/// is new, or ran after all, shows that the list or the lane is stale.
fn check_cases_ran(wanted: &[&String], skips: &BTreeSet<String>, suite: &Suite) -> Result<()> {
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

fn check_pages(load: &Load, suite: &Suite) -> Result<()> {
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
pub fn judge_control(
    lane: &Lane,
    control: &Control,
    sharing: &[&Control],
    facts: &BootFacts,
) -> Result<(ControlResult, Vec<Check>)> {
    let failed = |(case, why): (&String, &String)| format!("{case} failed: {why}");
    let mut expected: BTreeSet<String> = control.fails.iter().map(failed).collect();
    let mut seen = BTreeSet::new();
    let with = |rule: &str, pattern: &str| format!("{rule} with {pattern:?}");
    expected.extend(control.expect.iter().map(|(r, p)| with(r, p)));
    let others = sharing.iter().map(|other| other.name.as_str());
    let others: Vec<&str> = others.filter(|name| *name != control.name).collect();
    for found in facts.findings_without(&others) {
        seen.insert(match control.expect.get(&found.rule) {
            Some(pattern) if found.says(&Regex::new(pattern)?) => with(&found.rule, pattern),
            _ => format!("{} ({})", found.rule, found.line.trim()),
        });
    }
    if !control.fails.is_empty() {
        match find_failed_cases(control, facts.case(&control.name)) {
            Ok(failures) => seen.extend(failures.iter().map(failed)),
            Err(e) => drop(seen.insert(format!("{e:#}"))),
        }
    }
    let join = |set: &BTreeSet<String>| Vec::from_iter(set.iter().cloned()).join(", ");
    let result = ControlResult {
        name: control.name.clone(),
        expected: join(&expected),
        seen: join(&seen),
        ok: seen == expected && facts.ending == Ending::Done,
    };
    let name = format!("{}: control {}", lane.name, control.name);
    let mut checks = Vec::from_iter(check_ending(&name, facts));
    let verdict = if seen == expected {
        Ok(())
    } else if seen.is_empty() {
        Err(anyhow!(
            "stayed green, and must be caught as {}",
            result.expected
        ))
    } else {
        Err(anyhow!(
            "caught as {}, and must be caught as {}",
            result.seen,
            result.expected
        ))
    };
    checks.push(Check::new(name, verdict));
    Ok((result, checks))
}

/// The cases that failed in a control's own part of the console, which others may share.
fn find_failed_cases(
    control: &Control,
    case: Option<&CaseFacts>,
) -> Result<BTreeMap<String, String>> {
    let ended = case.and_then(|c| Some((c, c.rc.as_deref()?)));
    let (case, rc) =
        ended.with_context(|| format!("case {} did not run to its end", control.name))?;
    let suite = case.suite.clone().map_err(|why| anyhow!(why))?;
    let failed: BTreeMap<_, _> = suite
        .cases
        .into_iter()
        .filter(|c| c.status == Status::Fail)
        .map(|c| (c.name, c.reason.unwrap_or_default()))
        .collect();
    ensure!(
        (rc == "0") == failed.is_empty(),
        "the load must fail when a case does, and only then"
    );
    Ok(failed)
}

#[cfg(test)]
mod tests;
