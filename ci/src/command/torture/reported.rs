// SPDX-License-Identifier: GPL-2.0
//! What was reported of mainline: alloc_pages_nolock() fails with memory free, because forks and reclaim hold
//! zone->lock. On two of `make bench`'s kernels, where nothing that debugs holds it longer, with a clock that runs.

use crate::build::modules::{What, build_modules};
use crate::command::bench;
use crate::command::job::Job;
use crate::facts::boot::BootFacts;
use crate::host::qemu;
use crate::lane::cases::QUEUE;
use crate::lane::spec::Lane;
use crate::run::ready::Ready;
use crate::source::series::Series;
use crate::verdict::judge::{judge_boot, judge_boot_with_case};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const MACHINES: [&str; 2] = ["x86_64", "x86_64-rt"];
const CPUS: u32 = 4;
/// Full the sooner.
const MEMORY: &str = "512M";
const MODULE: &str = "nolocks_share";
/// Min and low lie 8 MB apart then, so that memory is between them for long.
const SETUP: &str = "echo 32768 >/proc/sys/vm/min_free_kbytes";
/// Beside other work of the host the readers need minutes until memory is full.
const LONGEST: Duration = Duration::from_secs(900);

const BOTH: &str = "beside_forks_and_readers";
/// What each is called, and its steps: what was started runs on.
const LOADS: [(&str, &str); 3] = [
    ("alone", "module alone nolocks_share.ko bursts=250\n"),
    (
        "beside_forks",
        "load forks\nmodule beside_forks nolocks_share.ko bursts=250\n",
    ),
    (
        BOTH,
        "load readers\nmodule beside_forks_and_readers nolocks_share.ko\n",
    ),
];
/// Of a thousand pages that there is memory for, what the series has to give beside each. On PREEMPT_RT all come
/// from the slots, and an emulated machine that reclaims has little time to fill them.
const LEAST: [u64; 3] = [999; 3];
const LEAST_ON_RT: [u64; 3] = [990, 950, 800];
/// Elsewhere mainline, too, gives most of them: for so many that it fails for, the series may for one.
const FEWER: u64 = 10;

/// What became of the pages that all CPUs asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct LoadShare {
    obtained: u64,
    /// Failed with memory free.
    refused: u64,
    /// Failed below the min watermark, where nobody without a reserve has any.
    below_min: u64,
    /// Bursts, and those of them with free memory between the min and the low watermark.
    bursts: u64,
    below_low: u64,
}

impl LoadShare {
    fn read(said: &str) -> Result<LoadShare> {
        let line = Regex::new(
            r"# share: bursts=(\d+) below_low=(\d+) obtained=(\d+) refused=(\d+) below_min=(\d+)",
        )?;
        let found = line.captures(said).context("nothing was counted")?;
        let number = |at: usize| found[at].parse();
        Ok(LoadShare {
            bursts: number(1)?,
            below_low: number(2)?,
            obtained: number(3)?,
            refused: number(4)?,
            below_min: number(5)?,
        })
    }

    fn of(&self) -> u64 {
        self.obtained + self.refused
    }

    fn permille(&self) -> u64 {
        (1000 * self.obtained).checked_div(self.of()).unwrap_or(0)
    }

    fn cell(&self) -> String {
        format!("{} of {}", self.obtained, self.of())
    }
}

/// By what ran beside.
type LoadShares = BTreeMap<&'static str, LoadShare>;

/// One machine's, without the series and with it.
#[derive(Serialize)]
pub struct ReportedMachine {
    pub about: String,
    without: LoadShares,
    with: LoadShares,
}

pub fn measure(
    job: &Job,
    run: &Path,
    series: &Series,
    tally: &mut Tally,
) -> Result<Vec<ReportedMachine>> {
    let mut measured = Vec::new();
    for name in MACHINES {
        let lane = Lane::load(&job.checkout.join("ci/bench"), name)?;
        let machine = ReportedMachine {
            about: format!("{name}: alloc_pages_nolock() in hard interrupts, under a raw lock"),
            without: measure_shares(job, run, &lane, &series.prefix(0), tally)?,
            with: measure_shares(job, run, &lane, series, tally)?,
        };
        for (what, result) in machine.judge_claims(bench::is_rt(&lane)) {
            tally.check(&format!("{name}: alloc_pages_nolock() {what}"), result)?;
        }
        measured.push(machine);
    }
    Ok(measured)
}

fn measure_shares(
    job: &Job,
    run: &Path,
    machine: &Lane,
    series: &Series,
    tally: &mut Tally,
) -> Result<LoadShares> {
    let (mut lane, _source, build) = bench::build_kernel(job, machine, series)?;
    // The folder of a run is the lane's, and ci/torture has a machine of the same name.
    lane.name = format!("bench-{}", lane.name);
    lane.setup.push(SETUP.to_owned());
    let with = !series.patches.is_empty();
    let (what, names): (_, &[&str]) = match with {
        true => (What::All, &[MODULE, QUEUE]),
        false => (What::Bench, &[MODULE]),
    };
    let arch = lane.arch.kernel();
    let modules = build_modules(&job.cache, &build.dir, arch, &job.checkout, what)?;
    let mut ready = Ready::new(&job.cache, run, &lane, &build.dir, Some((&modules, names)))?;
    ready.guest.cpus = CPUS;
    if with {
        stress_queue(job, ready.clone(), tally)?;
    }
    // Not bench's, which counts instructions.
    ready.guest.qemu.clear();
    ready.guest.memory = MEMORY.to_owned();
    let steps = LOADS.map(|(_, steps)| steps).concat();
    ready.boot("main", &steps, LONGEST)?;
    let facts = ready.read_facts("main")?;
    tally.take(&judge_boot(&lane.name, &facts));
    read_shares(&facts)
}

/// The lanes have lockdep, and with it another lock of the queue's shards than is taken where nothing debugs locks.
/// By a clock that counts instructions: a CPU that pushes all it can outruns one that the host has stopped.
fn stress_queue(job: &Job, mut ready: Ready, tally: &mut Tally) -> Result<()> {
    ready.guest.emulator = qemu::find_even(&job.cache, ready.lane.arch)?;
    ready.lane.setup.retain(|line| line != SETUP);
    ready.boot("queue", &format!("module {QUEUE} {QUEUE}.ko\n"), LONGEST)?;
    let name = format!("{}: queue", ready.lane.name);
    tally.take(&judge_boot_with_case(
        &name,
        &ready.read_facts("queue")?,
        QUEUE,
    ));
    Ok(())
}

fn read_shares(facts: &BootFacts) -> Result<LoadShares> {
    let share = |(load, _)| {
        let said = facts.case(load).map_or("", |case| case.said.as_str());
        let share =
            LoadShare::read(said).with_context(|| format!("{MODULE} said nothing {load}"))?;
        Ok((load, share))
    };
    LOADS.into_iter().map(share).collect()
}

impl ReportedMachine {
    /// Each claim, and whether it holds.
    fn judge_claims(&self, is_rt: bool) -> Vec<(String, Result<()>)> {
        let least = if is_rt { LEAST_ON_RT } else { LEAST };
        let mut claims = Vec::new();
        for ((load, _), least) in LOADS.into_iter().zip(least) {
            let (before, after) = (&self.without[load], &self.with[load]);
            let (without, with) = (before.permille(), after.permille());
            let told = || format!("{with}, and {without} without the series");
            claims.push((
                format!("{load}: at least {least} of a thousand with the series"),
                check_claim(with >= least, told),
            ));
            claims.push((
                format!("{load}: no fewer with the series, but for one of a thousand"),
                check_claim(with + 1 >= without, told),
            ));
        }
        let (before, after) = (&self.without[BOTH], &self.with[BOTH]);
        claims.push((
            format!("{BOTH}: memory was between min and low"),
            check_claim(before.below_low != 0 && after.below_low != 0, || {
                format!("{before:?} without the series, {after:?} with it")
            }),
        ));
        let never = self.without.values().all(|share| share.obtained == 0);
        claims.push(match is_rt {
            true => (
                "never succeeds without the series".to_owned(),
                check_claim(never, || format!("{:?}", self.without)),
            ),
            false => (
                format!("{BOTH}: fails without the series, with memory free"),
                check_claim(before.refused != 0 && !never, || format!("{before:?}")),
            ),
        });
        if !is_rt {
            claims.push((
                format!("{BOTH}: fails at least {FEWER} times less often with the series"),
                check_claim(after.refused * FEWER <= before.refused, || {
                    format!("{} with it, {} without", after.refused, before.refused)
                }),
            ));
        }
        claims
    }

    /// Header and rows of the table.
    pub fn rows(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["", "without", "with"].map(str::to_owned).to_vec();
        let row = |what: &str, load: &str, cell: fn(&LoadShare) -> String| {
            let sides = [&self.without, &self.with].map(|shares| cell(&shares[load]));
            [vec![format!("{load}{what}")], sides.to_vec()].concat()
        };
        let mut rows: Vec<Vec<String>> = LOADS
            .into_iter()
            .map(|(load, _)| row(", of what there was memory for", load, LoadShare::cell))
            .collect();
        rows.push(row(", failed below the min watermark", BOTH, |share| {
            share.below_min.to_string()
        }));
        rows.push(row(", bursts between min and low", BOTH, |share| {
            format!("{} of {}", share.below_low, share.bursts)
        }));
        (header, rows)
    }
}

fn check_claim(holds: bool, told: impl Fn() -> String) -> Result<()> {
    ensure!(holds, told());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::boot::tests::boot_facts;

    fn refusing(refused: u64) -> LoadShares {
        let said = |(load, _)| {
            format!(
                "NOLOCKS: case {load} begin\n[ 1.0] # share: bursts=9 below_low=3 obtained={} refused={refused} below_min=7\n\
                 NOLOCKS: case {load} rc=0\n",
                1000 - refused
            )
        };
        read_shares(&boot_facts(&LOADS.map(said).concat())).unwrap()
    }

    fn failed(is_rt: bool, without: LoadShares, with: LoadShares) -> Vec<String> {
        let about = String::new();
        let machine = ReportedMachine {
            about,
            without,
            with,
        };
        let failed = machine.judge_claims(is_rt).into_iter();
        let failed = failed.filter(|(_, result)| result.is_err());
        failed.map(|(what, _)| what).collect()
    }

    #[test]
    fn what_the_series_is_for_passes() {
        assert_eq!(failed(false, refusing(20), refusing(0)), [""; 0]);
        assert_eq!(failed(true, refusing(1000), refusing(10)), [""; 0]);
    }

    #[test]
    fn a_series_that_is_no_better_and_a_load_that_is_none_are_found() {
        assert_eq!(failed(false, refusing(20), refusing(31)).len(), 7);
        assert_eq!(failed(false, refusing(4), refusing(1)).len(), 1);
        assert_eq!(failed(true, refusing(1000), refusing(300)).len(), 3);
        assert_eq!(failed(true, refusing(999), refusing(0)).len(), 1);
        assert_eq!(failed(false, refusing(0), refusing(0)).len(), 1);
        assert_eq!(failed(false, refusing(1000), refusing(0)).len(), 1);
        let mut plenty = refusing(0);
        plenty.get_mut(BOTH).unwrap().below_low = 0;
        assert_eq!(failed(false, refusing(20), plenty).len(), 1);
    }
}
