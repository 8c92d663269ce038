// SPDX-License-Identifier: GPL-2.0
//! `make stress` and `make soak`: lanes with one boot each.

use crate::build::kernel::Build;
use crate::command::args::{OnTop, Where};
use crate::command::job::{DEFAULT_LANE, Job};
use crate::lane::cases::Selection;
use crate::lane::plan::{MAIN, Plan};
use crate::lane::spec::Lane;
use crate::report::run::LaneReport;
use crate::run::beside::{ReadyLane, boot_all, how_many};
use crate::run::finish::finish;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

impl Job {
    pub fn stress(
        &self,
        at: &Where,
        on_top: &OnTop,
        given: &BTreeMap<String, u64>,
        case: Option<&str>,
        repeat: u32,
    ) -> Result<()> {
        // Before anything is built for a name that there is not, or a lane that does not have it.
        let selection = case.map(Selection::parse).transpose()?;
        for lane in self.lanes(at.lane.as_deref(), DEFAULT_LANE)? {
            Plan::stress(&lane, given, selection.as_ref())?;
        }
        self.run_lanes("stress", at, on_top, repeat, |lane| {
            Plan::stress(lane, given, selection.as_ref())
        })
    }

    /// The queue's stress module with as many objects as it takes.
    pub fn soak(&self, at: &Where, total: u64) -> Result<()> {
        self.run_lanes("soak", at, &OnTop::default(), 1, |lane| {
            Ok(Plan::soak(lane, total))
        })
    }

    fn run_lanes(
        &self,
        what: &str,
        at: &Where,
        on_top: &OnTop,
        repeat: u32,
        plan: impl Fn(&Lane) -> Result<Plan>,
    ) -> Result<()> {
        let known = self.kernels_built_before();
        let (source, builds) = self.build_kernels_with(at, on_top)?;
        let run = self.run_folder(what)?;
        let lanes = builds
            .iter()
            .map(|(lane, build)| {
                let modules = self.build_lane_modules(lane, build)?;
                let ready = self.ready_with_modules(&run, lane, build, &modules)?;
                let plan = plan(lane)?;
                let metadata = self.metadata(&ready, &source, build, &plan)?;
                Ok((ready, plan, metadata))
            })
            .collect::<Result<Vec<_>>>()?;
        let cache = cache_was(&known, &builds);
        drop((source, builds));
        self.boot_repeatedly(&run, lanes, cache, repeat)
    }

    /// Until it is red, or `repeat` times. All but the last are judged and told, and their consoles kept.
    fn boot_repeatedly(
        &self,
        run: &Path,
        lanes: Vec<ReadyLane>,
        cache: &str,
        repeat: u32,
    ) -> Result<()> {
        for nth in 1..repeat {
            let of = |(ready, plan, metadata): &ReadyLane| {
                let (plan, metadata) = of_repetition(plan, metadata, nth);
                (ready.clone(), plan, metadata)
            };
            let mut tally = Tally::default();
            let reports = self.boot_beside(lanes.iter().map(of).collect(), &mut tally)?;
            for (report, _) in &reports {
                let how = match report.problems().join("; ") {
                    why if !why.is_empty() => why,
                    _ => "green".to_owned(),
                };
                println!("repetition {nth} of {repeat}: {}: {how}", report.name);
            }
            if tally.result().is_err() {
                return finish(run, reports, cache, &tally);
            }
            for (ready, ..) in &lanes {
                let kept = ready.folder.join(format!("{MAIN}-{nth}"));
                fs::rename(ready.folder.join(MAIN), kept)?;
            }
        }
        if repeat > 1 {
            println!("repetition {repeat} of {repeat}, the last:");
        }
        let of = |(ready, plan, metadata)| {
            let (plan, metadata) = of_repetition(&plan, &metadata, repeat);
            (ready, plan, metadata)
        };
        let lanes = lanes.into_iter().map(of).collect();
        self.boot_lanes(run, lanes, cache, Tally::default())
    }

    /// The builds are given back before: from here on everything lies in the run's own folder.
    pub fn boot_lanes(
        &self,
        run: &Path,
        lanes: Vec<ReadyLane>,
        cache: &str,
        mut tally: Tally,
    ) -> Result<()> {
        let reports = self.boot_beside(lanes, &mut tally)?;
        finish(run, reports, cache, &tally)
    }

    /// As many beside each other as the user said, or the machine can.
    fn boot_beside(
        &self,
        lanes: Vec<ReadyLane>,
        tally: &mut Tally,
    ) -> Result<Vec<(LaneReport, Value)>> {
        let at_once = self.jobs.unwrap_or_else(|| how_many(&lanes));
        boot_all(lanes, at_once, tally)
    }
}

/// The first is as planned; each later one has a seed of its own, unless the user gave one.
fn of_repetition(plan: &Plan, metadata: &Value, nth: u32) -> (Plan, Value) {
    let plan = plan.with_later_seed(u64::from(nth - 1));
    let mut metadata = metadata.clone();
    metadata["plan"] = json!(plan);
    (plan, metadata)
}

/// A cache is cold if a kernel of this run had never been built in it.
pub fn cache_was(known: &BTreeSet<PathBuf>, builds: &[(Lane, Build)]) -> &'static str {
    match builds.iter().all(|(_, b)| known.contains(&b.dir)) {
        true => "warm",
        false => "cold",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::cache::read_json;
    use crate::base::exit::{Exit, stage};
    use crate::command::job::tests::job;
    use crate::report::run::RunReport;
    use crate::run::ready::tests::{FINE, idle_plan, made_up, small_lane};

    /// At most `repeat` repetitions, of a guest that says `FINE` behind `script`, which knows which boot it is. With
    /// the report, and how often it was booted.
    fn repeated(
        dir: &Path,
        limit: u64,
        repeat: u32,
        script: &str,
    ) -> (Result<()>, RunReport, usize) {
        let script = format!("echo >>$HOME/boots; nth=$(wc -l <$HOME/boots); {script}; {FINE}");
        let ready = made_up(dir, small_lane(dir, "x86_64", limit, 60), &script);
        let plan = idle_plan(&ready.lane);
        let job = job(&dir.join("cache"));
        let lanes = vec![(ready, plan, json!({}))];
        let result = job.boot_repeatedly(dir, lanes, "warm", repeat);
        let boots = fs::read_to_string(dir.join("boots")).unwrap();
        let report = read_json(&dir.join("report.json")).unwrap();
        (result, report, boots.lines().count())
    }

    #[test]
    fn repetitions_end_with_the_first_red_one_and_the_green_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "echo nth=$nth; [ $nth != 3 ] || echo 'BUG: scheduling while atomic: a/0/1/0x2'";
        let (result, report, boots) = repeated(dir.path(), 60, 5, script);
        assert_eq!(stage(&result.unwrap_err()), Some(Exit::Splat));
        assert!(!report.lanes[0].has_passed());
        assert_eq!(boots, 3);
        let read = |file: &str| fs::read_to_string(dir.path().join("run").join(file)).unwrap();
        let mut seeds = Vec::new();
        for (nth, boot) in [(1, "main-1"), (2, "main-2"), (3, "main")] {
            let console = read(&format!("{boot}/console.txt"));
            assert!(
                console.contains(&format!("nth={nth}\n")),
                "{boot}: {console}"
            );
            let plan = read(&format!("{boot}/plan"));
            let seed = plan.trim().rsplit('=').next().unwrap().parse::<u64>();
            seeds.push(seed.unwrap() - nth);
        }
        assert_eq!(seeds, [seeds[0]; 3]);
        assert!(!dir.path().join("run/main-3").exists());
    }
}
