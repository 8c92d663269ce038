// SPDX-License-Identifier: GPL-2.0
//! The share of the pages that hard interrupts get who ask in an open loop, beside loads of others', in the
//! guest's own time: where each instruction is a nanosecond, no CPU of the guest stands still because the
//! host has none for it.

use super::counts::{Share, Shares};
use super::tables::{Table, table};
use crate::base::cache::Cache;
use crate::facts::boot::BootFacts;
use crate::facts::suite::Stat;
use crate::host::qemu;
use crate::lane::cases::STRESS;
use crate::run::ready::Ready;
use anyhow::{Context, Result, anyhow, ensure};
use std::time::Duration;

/// Four CPUs with 1 GB, each of which takes 16 pages each 4 ms, with room for four times as many in its slots.
const CPUS: u32 = 4;
const BOOT: &str = "open";
const CASES: &str = "tick,tick_beside_forks,tick_beside_readers,nolock_beside_forks";
/// Of guest's time, each. The module's own demand is of machines whose CPUs do stand still.
const PARAMS: &str = "tick_seconds=5 tick_permille=1";
/// Four CPUs are emulated by one thread.
const LONGEST: Duration = Duration::from_secs(900);
/// Of what is asked for, in percent.
const GOAL: f64 = 99.9;

/// Boots `ready`'s kernel for it.
pub fn boot(cache: &Cache, ready: &Ready) -> Result<BootFacts> {
    let mut even = ready.clone();
    even.guest.emulator = qemu::find_even(cache, ready.lane.arch)?;
    even.guest.cpus = CPUS;
    let steps = format!("module {STRESS} {STRESS}.ko case={CASES} {PARAMS}\n");
    even.boot(BOOT, &steps, LONGEST)?;
    even.read_facts(BOOT)
}

pub fn read(facts: &BootFacts) -> Result<Shares> {
    let case = facts.case(STRESS).context("its module was not loaded")?;
    let suite = case.suite.as_ref().map_err(|e| anyhow!("{STRESS}: {e}"))?;
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

pub fn rows(shares: &Shares) -> Table {
    let row = |(case, share): (&String, &Share)| {
        let percent = 100.0 * share.obtained as f64 / share.asked as f64;
        // What mainline has to do without.
        let is_asked = case != "nolock_without_slots";
        let (goal, is_met) = match (is_asked, percent >= GOAL) {
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

    fn facts(stats: &[(&str, u32)]) -> BootFacts {
        let mut said = format!("KTAP version 1\n1..{}\n# seed: 1\n", stats.len());
        for (nth, (case, obtained)) in (1..).zip(stats) {
            said +=
                &format!("# stat: context={case} api=no_locks attempts=2000 obtained={obtained}\n");
            said += &format!("ok {nth} {case}\n");
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
        let shares = read(&facts(&all)).unwrap();
        let rows = rows(&shares).rows;
        let last = |n: usize| [&*rows[n][4], &rows[n][6]];
        assert_eq!(last(0), ["0.000", "–"]);
        assert_eq!(last(1), ["100.000", "met"]);
        assert_eq!(last(2), ["99.900", "met"]);
        assert_eq!(last(3), ["99.850", "missed"]);
        assert!(read(&facts(&all[..1])).is_err());
    }
}
