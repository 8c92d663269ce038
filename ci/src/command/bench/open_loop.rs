// SPDX-License-Identifier: GPL-2.0
//! The share of the pages that hard interrupts get who ask in an open loop, beside loads of others', in the
//! guest's own time: where each instruction is a nanosecond, no CPU of the guest stands still because the
//! host has none for it.

use super::counts::{Share, Shares};
use super::tables::{Table, table};
use crate::base::cache::Cache;
use crate::host::qemu;
use crate::lane::cases::STRESS;
use crate::run::ready::Ready;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::time::Duration;

/// Four CPUs with 1 GB, each of which takes 16 pages each 4 ms, with room for four times as many in its slots.
const CPUS: u32 = 4;
const CASES: &str = "tick,tick_beside_forks,tick_beside_readers,nolock_beside_forks";
/// Of guest's time, each. The module's own demand is of machines whose CPUs do stand still.
const PARAMS: &str = "tick_seconds=5 tick_permille=1";
/// Four CPUs are emulated by one thread.
const LONGEST: Duration = Duration::from_secs(900);
/// Of what is asked for, in percent.
const GOAL: f64 = 99.9;

/// Boots `ready`'s kernel for it.
pub fn boot(cache: &Cache, ready: &Ready) -> Result<String> {
    let mut even = ready.clone();
    even.guest.emulator = qemu::find_even(cache, ready.lane.arch)?;
    even.guest.cpus = CPUS;
    let steps = format!("module {STRESS} {STRESS}.ko case={CASES} {PARAMS}\n");
    Ok(even.boot("open", &steps, LONGEST)?.console)
}

pub fn read(console: &str) -> Result<Shares> {
    let line = Regex::new(r"# stat: context=(\w+) api=(\w+) attempts=(\d+) obtained=(\d+)")
        .expect("a constant pattern");
    let number = |digits: &str| digits.parse::<u64>().context("digits are a number");
    let shares: Shares = line
        .captures_iter(console)
        .map(|c| {
            let share = Share {
                api: c[2].to_owned(),
                asked: number(&c[3])?,
                obtained: number(&c[4])?,
            };
            Ok((c[1].to_owned(), share))
        })
        .collect::<Result<_>>()?;
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

    fn line(case: &str, obtained: u32) -> String {
        format!(
            "[ 1.0] nolocks_stress: # stat: context={case} api=no_locks attempts=2000 obtained={obtained}\n"
        )
    }

    #[test]
    fn each_case_has_a_share_beside_its_goal() {
        let console = line("tick", 2000)
            + &line("tick_beside_forks", 1998)
            + &line("tick_beside_readers", 1997)
            + &line("nolock_without_slots", 0);
        let shares = read(&console).unwrap();
        let rows = rows(&shares).rows;
        let last = |n: usize| [&*rows[n][4], &rows[n][6]];
        assert_eq!(last(0), ["0.000", "–"]);
        assert_eq!(last(1), ["100.000", "met"]);
        assert_eq!(last(2), ["99.900", "met"]);
        assert_eq!(last(3), ["99.850", "missed"]);
        assert!(read(&line("tick", 2000)).is_err());
    }
}
