// SPDX-License-Identifier: GPL-2.0
//! What a boot showed, held against what its lane demands.

use crate::boot::{Ending, Outcome};
use crate::exit::Exit;
use crate::ktap::{self, Status, Suite};
use crate::lane::{Control, Lane, Load};
use crate::report::ControlResult;
use crate::scan::{self, Finding, Rules};
use crate::tally::Tally;
use anyhow::{Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

pub const STRESS: &str = "nolocks_stress";
const API: &str = "no_locks";

pub struct Seen {
    pub suite: Option<Suite>,
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
    let rc = format!("NOLOCKS: case {case} rc=0");
    let done = if outcome.console.contains(&rc) {
        Ok(())
    } else {
        Err(anyhow::anyhow!("failed: see console.txt"))
    };
    tally.check(
        &format!("{name}: case {case} loads, passes and unloads"),
        done,
    )?;
    Ok(findings)
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
    let suite = match ktap::parse_console(&outcome.console, STRESS) {
        Ok(suite) => {
            cases(name, &suite, tally);
            if floor {
                tally.check(&format!("{name}: pages obtained"), pages(load, &suite))?;
            }
            Some(suite)
        }
        Err(e) => {
            tally.failed(Exit::Test, format!("{name}: {STRESS}'s KTAP: {e:#}"));
            None
        }
    };
    Ok(Seen {
        suite,
        kunit,
        findings,
        debug_locks,
    })
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

/// A boot with a deliberate bug: exactly the reports that it must cause, and no other.
pub fn red(
    lane: &Lane,
    control: &Control,
    outcome: &Outcome,
    tally: &mut Tally,
) -> Result<ControlResult> {
    let findings = Rules::builtin()?.scan(&outcome.console);
    let seen: BTreeSet<&str> = findings.iter().map(|f| f.rule.as_str()).collect();
    let expected: BTreeSet<&str> = control.expect.iter().map(String::as_str).collect();
    let join = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(", ");
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
        }
    }

    fn judged(console: String, ending: Ending, locks: &str, kunit: &str) -> Tally {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("out/lockdep_stats"), locks).unwrap();
        fs::write(dir.path().join("out/kunit.txt"), kunit).unwrap();
        let (lane, mut tally) = (lane(), Tally::default());
        green(
            &lane,
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
        assert_eq!(tally.closing(), "8 passed, 0 failed");
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
            expect: vec!["invalid-wait-context".into()],
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
}
