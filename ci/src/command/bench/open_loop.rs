// SPDX-License-Identifier: GPL-2.0
//! The share of the pages that hard interrupts get who ask in an open loop, beside loads of others', and how
//! long pages are away beside a CPU that takes no part, in the guest's own time: where each instruction is a
//! nanosecond, no CPU of the guest stands still because the host has none for it.

use super::counts::{Absence, Share, Shares};
use super::tables::{Table, table};
use crate::base::cache::Cache;
use crate::facts::boot::{BootFacts, CaseFacts};
use crate::facts::suite::Stat;
use crate::host::qemu;
use crate::lane::cases::STRESS;
use crate::run::ready::Ready;
use anyhow::{Context, Result, anyhow, ensure};
use regex::Regex;
use std::time::Duration;

/// Four CPUs with 1 GB, each of which takes 16 pages each 4 ms, with room for four times as many in its slots.
const CPUS: u32 = 4;
const BOOT: &str = "open";
const CASES: &str = "tick,tick_beside_forks,tick_beside_readers,nolock_beside_forks";
const AWAY: &str = "deferred_irqs_off,deferred_dying";
/// Of guest's time, each. The module's own demand is of machines whose CPUs do stand still.
const PARAMS: &str = "tick_seconds=5 tick_permille=1";
/// Four CPUs are emulated by one thread.
const LONGEST: Duration = Duration::from_secs(900);
/// Of what is asked for, in percent.
const GOAL: f64 = 99.9;
/// What mainline has to do without.
const NOT_ASKED: &str = "nolock_without_slots";
/// In which all pages have to be back. The module adds what a slow machine takes with nobody in the way.
const BOUND_MS: u64 = 200;
/// How late a tick may be: five of them. What keeps a CPU from its interrupts for longer is no tick's wait.
const LATEST_US: u64 = 20_000;

/// Boots `ready`'s kernel for it.
pub fn boot(cache: &Cache, ready: &Ready) -> Result<BootFacts> {
    let mut even = ready.clone();
    even.guest.emulator = qemu::find_even(cache, ready.lane.arch)?;
    even.guest.cpus = CPUS;
    let steps = format!("module {STRESS} {STRESS}.ko case={CASES},{AWAY} {PARAMS}\n");
    even.boot(BOOT, &steps, LONGEST)?;
    even.read_facts(BOOT)
}

fn module(facts: &BootFacts) -> Result<&CaseFacts> {
    facts.case(STRESS).context("its module was not loaded")
}

pub fn read(facts: &BootFacts) -> Result<Shares> {
    let suite = &module(facts)?.suite;
    let suite = suite.as_ref().map_err(|e| anyhow!("{STRESS}: {e}"))?;
    let share = |stat: &Stat| {
        let share = Share {
            api: stat.api.clone(),
            asked: stat.attempts,
            obtained: stat.obtained,
        };
        (stat.context.clone(), share)
    };
    let shares: Shares = suite.stats.iter().map(share).collect();
    ensure!(
        shares.len() > CASES.matches(',').count(),
        "a case said nothing: see console.txt"
    );
    Ok(shares)
}

/// All that were measured, those that the module measured again included.
pub fn read_absences(facts: &BootFacts) -> Result<Vec<Absence>> {
    let line = Regex::new(r"# deferred: beside=(\w+) ms=(\w+)").expect("a constant pattern");
    let lines = line.captures_iter(&module(facts)?.printed);
    let all: Vec<Absence> = lines
        .map(|c| Absence {
            beside: c[1].to_owned(),
            ms: c[2].parse().ok(),
        })
        .collect();
    for case in AWAY.split(',') {
        let is_its = |a: &Absence| case.strip_prefix("deferred_") == Some(&*a.beside);
        ensure!(
            all.iter().any(is_its),
            "{case} said nothing: see console.txt"
        );
    }
    Ok(all)
}

fn percent(share: &Share) -> f64 {
    100.0 * share.obtained as f64 / share.asked as f64
}

/// That each case got what it asked for.
pub fn check(shares: &Shares) -> Result<()> {
    let asked = shares.iter().filter(|(case, _)| *case != NOT_ASKED);
    let few: Vec<String> = asked
        .filter(|(_, share)| percent(share) < GOAL)
        .map(|(case, share)| format!("{case} {:.3} % of {GOAL}", percent(share)))
        .collect();
    ensure!(few.is_empty(), "{}", few.join("; "));
    Ok(())
}

/// That all pages were back in time.
pub fn check_absences(absences: &[Absence]) -> Result<()> {
    for Absence { beside, ms } in absences {
        let is_short = ms.is_some_and(|ms| ms <= BOUND_MS);
        ensure!(is_short, "{beside}: back in {} ms", say(*ms));
    }
    Ok(())
}

/// That no tick of any CPU was too late.
pub fn check_lateness(facts: &BootFacts) -> Result<()> {
    find_late(&module(facts)?.printed)
}

fn find_late(printed: &str) -> Result<()> {
    let line = Regex::new(r"# tick: beside=(\w+) cpu=(\d+) .*latest_us=(\d+)")
        .expect("a constant pattern");
    let mut told = false;
    for c in line.captures_iter(printed) {
        told = true;
        let latest: u64 = c[3].parse()?;
        ensure!(
            latest <= LATEST_US,
            "beside {}: a tick of CPU {} was {latest} us late",
            &c[1],
            &c[2]
        );
    }
    ensure!(told, "no tick said how late it was: see console.txt");
    Ok(())
}

fn say(ms: Option<u64>) -> String {
    ms.map_or("never".to_owned(), |ms| ms.to_string())
}

pub fn absences(absences: &[Absence]) -> Table {
    let row = |a: &Absence| vec![a.beside.clone(), say(a.ms), BOUND_MS.to_string()];
    let header = ["pages freed beside a CPU that is", "back in ms", "at most"];
    table(&header, 1, absences.iter().map(row).collect())
}

pub fn rows(shares: &Shares) -> Table {
    let row = |(case, share): (&String, &Share)| {
        let percent = percent(share);
        let (goal, is_met) = match (case != NOT_ASKED, percent >= GOAL) {
            (false, _) => ("–".to_owned(), "–"),
            (_, true) => (GOAL.to_string(), "met"),
            (_, false) => (GOAL.to_string(), "missed"),
        };
        vec![
            case.clone(),
            share.api.clone(),
            share.obtained.to_string(),
            share.asked.to_string(),
            format!("{percent:.3}"),
            goal,
            is_met.to_owned(),
        ]
    };
    let header = [
        "an open loop in hard interrupts",
        "by",
        "obtained",
        "of",
        "%",
        "goal",
        "goal is",
    ];
    table(&header, 2, shares.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::scan::Rules;

    fn facts(stats: &[(&str, u32)], away: &[(&str, &str)]) -> BootFacts {
        let mut said = format!("KTAP version 1\n1..{}\n# seed: 1\n", stats.len());
        for (nth, (case, obtained)) in (1..).zip(stats) {
            said +=
                &format!("# stat: context={case} api=no_locks attempts=2000 obtained={obtained}\n");
            said += &format!("ok {nth} {case}\n");
        }
        for (beside, ms) in away {
            said += &format!("# deferred: beside={beside} ms={ms} reference_ms=3\n");
        }
        let lines = said
            .lines()
            .map(|line| format!("[ 1.0] {STRESS}: {line}\n"));
        let said: String = lines.collect();
        let dir = tempfile::tempdir().unwrap();
        let console = format!(
            "[ 1.0] NOLOCKS: case {STRESS} begin\n{said}[ 1.1] NOLOCKS: case {STRESS} rc=0\n"
        );
        std::fs::write(dir.path().join("console.txt"), console).unwrap();
        let plan = format!("module {STRESS} {STRESS}.ko\n");
        std::fs::write(dir.path().join("plan"), plan).unwrap();
        BootFacts::read(dir.path(), &Rules::builtin().unwrap()).unwrap()
    }

    #[test]
    fn each_case_has_a_share_beside_its_goal() {
        let all = [
            ("tick", 2000),
            ("tick_beside_forks", 1998),
            ("tick_beside_readers", 1997),
            ("nolock_without_slots", 0),
        ];
        let shares = read(&facts(&all, &[])).unwrap();
        let rows = rows(&shares).rows;
        let last = |n: usize| [&*rows[n][4], &rows[n][6]];
        assert_eq!(last(0), ["0.000", "–"]);
        assert_eq!(last(1), ["100.000", "met"]);
        assert_eq!(last(2), ["99.900", "met"]);
        assert_eq!(last(3), ["99.850", "missed"]);
        assert!(read(&facts(&all[..1], &[])).is_err());
    }
    #[test]
    fn an_asked_share_below_its_goal_is_a_failure() {
        let share = |case: &str, obtained| {
            let share = Share {
                api: "no_locks".to_owned(),
                asked: 2000,
                obtained,
            };
            (case.to_owned(), share)
        };
        let mut shares = Shares::from([share("tick", 1998), share(NOT_ASKED, 0)]);
        check(&shares).unwrap();
        shares.extend([share("tick_beside_forks", 1997)]);
        let why = check(&shares).unwrap_err().to_string();
        assert_eq!(why, "tick_beside_forks 99.850 % of 99.9");
    }

    #[test]
    fn pages_that_come_back_late_or_never_are_a_failure() {
        let away = |ms: &[(&str, &str)]| read_absences(&facts(&[("tick", 1)], ms));
        let check = |first: &str| {
            check_absences(&away(&[("irqs_off", first), ("dying", "9"), ("dying", "200")]).unwrap())
        };
        check("200").unwrap();
        for late in ["201", "never"] {
            let why = check(late).unwrap_err().to_string();
            assert_eq!(why, format!("irqs_off: back in {late} ms"));
        }
        assert!(away(&[("irqs_off", "1")]).is_err());
    }

    #[test]
    fn a_late_tick_fails() {
        let tick = |us| {
            format!("# tick: beside=forks cpu=1 period_ms=4 ticks=9 latest_us={us} attempts=9\n")
        };
        find_late(&tick(6_444)).unwrap();
        let why = find_late(&(tick(6_444) + &tick(20_001))).unwrap_err();
        let want = "beside forks: a tick of CPU 1 was 20001 us late";
        assert_eq!(why.to_string(), want);
        assert!(find_late("").is_err());
    }
}
