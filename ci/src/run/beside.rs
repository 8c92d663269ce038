// SPDX-License-Identifier: GPL-2.0
//! Guests that are booted beside each other.

use crate::base::progress::say;
use crate::lane::plan::Plan;
use crate::report::run::LaneReport;
use crate::run::lane::boot_lane;
use crate::run::ready::Ready;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::Value;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

/// A lane with what it is to do, and what is recorded of it.
pub type ReadyLane = (Ready, Plan, Value);

/// What an emulator takes beside its guest's memory, in MB: most of it translated code.
const OVERHEAD: u64 = 1024;

/// Boots all of them, `at_once` beside each other.
pub fn boot_all(
    lanes: Vec<ReadyLane>,
    at_once: usize,
    tally: &mut Tally,
) -> Result<Vec<(LaneReport, Value)>> {
    run_beside(lanes, at_once, tally, |(ready, plan, metadata), tally| {
        let report = boot_lane(&ready, &metadata, &plan, tally)?;
        Ok((report, metadata))
    })
}

/// Runs each of `all`, `at_once` beside each other. What was found is counted in their order. After an error,
/// which is no finding, none is begun.
pub fn run_beside<T: Send, R: Send>(
    all: Vec<T>,
    at_once: usize,
    tally: &mut Tally,
    run: impl Fn(T, &mut Tally) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let left = Mutex::new(all.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let next = left.lock().expect("no thread panics").next();
                    let Some((nth, one)) = next else {
                        return;
                    };
                    let mut tally = Tally::default();
                    let result = run(one, &mut tally);
                    is_over.fetch_or(result.is_err(), Relaxed);
                    let ended = (nth, tally, result);
                    done.lock().expect("no thread panics").push(ended);
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no thread panics");
    done.sort_by_key(|(nth, ..)| *nth);
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for (_, of_one, result) in done {
        tally.absorb(of_one);
        match result {
            Ok(result) => results.push(result),
            Err(error) => errors.push(error),
        }
    }
    let first = errors.into_iter().reduce(|first, other| {
        say(&format!("FAIL {other:#}"));
        first
    });
    first.map_or(Ok(results), Err)
}

/// As many guests as there are cores and memory for: an emulated CPU that waits for a core looks to its kernel as if
/// it stood still, which is what is tested.
pub fn how_many(lanes: &[ReadyLane]) -> usize {
    let guests = lanes.iter().map(|(ready, ..)| &ready.lane);
    fit_here(guests.map(|lane| (lane.cpus as usize, &*lane.memory)))
}

/// The same for guests that keep `cores` busy each, and have so much memory.
pub fn fit_here<'a>(guests: impl Iterator<Item = (usize, &'a str)> + Clone) -> usize {
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let guests = guests.map(|(busy, memory)| (busy, megabytes(memory)));
    fit(cores, free_megabytes(), guests)
}

fn fit(cores: usize, free: u64, guests: impl Iterator<Item = (usize, u64)> + Clone) -> usize {
    let cpus = guests.clone().map(|(cpus, _)| cpus).max().unwrap_or(1);
    let memory = guests.map(|(_, memory)| memory).max().unwrap_or(0);
    let by_memory = free / (memory + OVERHEAD);
    (cores / cpus).min(by_memory as usize).max(1)
}

/// Of QEMU's way to say it: 4G, 512M.
fn megabytes(memory: &str) -> u64 {
    let number = memory.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = number.parse().unwrap_or(0);
    match memory.ends_with(['G', 'g']) {
        true => number * 1024,
        false => number,
    }
}

/// 0 where nobody tells.
fn free_megabytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::spec::Lane;
    use crate::run::ready::tests::made_up;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::path::Path;

    /// A lane of this name whose guest does what `script` says.
    fn ready(dir: &Path, name: &str, script: &str) -> ReadyLane {
        let lanes = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let mut lane = Lane::load(&lanes, "x86_64-up").unwrap();
        name.clone_into(&mut lane.name);
        let home = dir.join(name);
        fs::create_dir_all(&home).unwrap();
        let plan = Plan::new(&lane.stress, lane.queue.as_ref(), &BTreeMap::new());
        let ready = made_up(&home, lane, script);
        (ready, plan, json!({}))
    }

    const UP: &str = "echo NOLOCKS: guest up; echo NOLOCKS: guest done";

    #[test]
    fn lanes_beside_each_other_are_told_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let slow = format!(
            "until [ -e {}/b ]; do sleep 0.1; done; {UP}",
            dir.path().display()
        );
        // The first ends only if the second runs beside it.
        let quick = format!("touch {}/b; {UP}", dir.path().display());
        fs::create_dir(dir.path().join("lanes")).unwrap();
        let folder = dir.path().join("lanes");
        let lanes = vec![
            ready(&folder, "slow", &slow),
            ready(&folder, "quick", &quick),
        ];
        let mut tally = Tally::default();
        let reports = boot_all(lanes, 2, &mut tally).unwrap();
        let names: Vec<&str> = reports.iter().map(|(r, _)| &*r.name).collect();
        assert_eq!(names, ["slow", "quick"]);
        // Of both, whose guests did nothing of what they should.
        let why = tally.result().unwrap_err().to_string();
        assert!(why.contains("slow") && why.contains("quick"), "{why}");
    }

    #[test]
    fn after_an_error_no_lane_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let mut broken = ready(dir.path(), "broken", UP);
        broken.0.guest.vng = dir.path().join("no-vng");
        let later = ready(dir.path(), "later", UP);
        let begun = later.0.folder.join("main");
        let mut tally = Tally::default();
        assert!(boot_all(vec![broken, later], 1, &mut tally).is_err());
        assert!(!begun.exists());
    }

    #[test]
    fn there_are_as_many_guests_as_cores_and_memory_allow() {
        let guests = [(4, 4096), (4, 2048)].into_iter();
        for (cores, free, fits) in [
            (2, 1 << 20, 1),
            (7, 1 << 20, 1),
            (8, 1 << 20, 2),
            (64, 1 << 20, 16),
            (64, 11 << 10, 2),
            (64, 0, 1),
        ] {
            assert_eq!(fit(cores, free, guests.clone()), fits, "{cores} {free}");
        }
        assert_eq!(fit(2, 1 << 20, [].into_iter()), 2);
        assert_eq!((megabytes("4G"), megabytes("512M")), (4096, 512));
        assert!(free_megabytes() > 0);
    }
}
