// SPDX-License-Identifier: GPL-2.0
//! `make repro` boots a recorded run once more; `make judge` judges it again, without a boot.

use crate::base::cache;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::command::job::Job;
use crate::host::setup::{self, Need};
use crate::lane::plan::Plan;
use crate::lane::spec::Lane;
use crate::run::finish::{self, finish};
use crate::run::lane::{Recorded, boot_lane, judge_lane};
use crate::run::ready::Ready;
use crate::source::tree::DIFFERENCE;
use crate::verdict::standards::{CASES, RULES, Standards};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A lane of a run, as its folder records it.
pub struct LaneFolder {
    pub folder: PathBuf,
    pub lane: Lane,
    plan: Plan,
    pub metadata: Value,
}

impl LaneFolder {
    fn read(folder: PathBuf, standards: &Standards) -> Result<LaneFolder> {
        let metadata: Value = cache::read_json(&folder.join("metadata.json")).ok_or_else(|| {
            fail(
                Exit::Usage,
                format!("{}: no metadata.json", folder.display()),
            )
        })?;
        let name = metadata["lane"]
            .as_str()
            .context("metadata names its lane")?;
        let mut lane = Lane::read(&folder.join("lane.config"), name, &standards.cases)?;
        // BOOTARGS= of that run are in no file of the lane's.
        if let Ok(words) = serde_json::from_value(metadata["cmdline"].clone()) {
            lane.cmdline = words;
        }
        // As are the CPUs of `make test`.
        if let Ok(cpus) = serde_json::from_value(metadata["cpus"].clone()) {
            lane.cpus = cpus;
        }
        let plan = serde_json::from_value(metadata["plan"].clone())
            .with_context(|| format!("{} records no plan", folder.display()))
            .or_exit(Exit::Usage)?;
        Ok(LaneFolder {
            folder,
            lane,
            plan,
            metadata,
        })
    }
}

impl Job {
    /// `run` is a run's folder, that of one of its lanes, or a run's name in the cache.
    pub fn lane_folders(&self, run: &Path) -> Result<Vec<LaneFolder>> {
        let in_cache = self.cache.root.join("runs").join(run);
        let run = if run.exists() { run } else { &in_cache };
        let mut folders: Vec<PathBuf> = fs::read_dir(run)
            .with_context(|| format!("RUN={}", run.display()))
            .or_exit(Exit::Usage)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.join("metadata.json").exists() && p.join("kernel").exists())
            .collect();
        folders.sort();
        if run.join("kernel").exists() {
            folders.push(run.to_owned());
        }
        if folders.is_empty() {
            return Err(fail(
                Exit::Usage,
                format!("RUN={} is no run's folder", run.display()),
            ));
        }
        let read = |folder: PathBuf| {
            let standards = Standards::kept(&folder)?;
            LaneFolder::read(folder, &standards)
        };
        folders.into_iter().map(read).collect()
    }

    /// Boots a run's own images again, with the plan, the guest's script, the cases and the rules that
    /// it had, and all its boots.
    pub fn repro(&self, old: &Path) -> Result<()> {
        finish::start_clock();
        let recorded = self.lane_folders(old)?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        self.boot_again(recorded, |folder, lane| {
            Ready::again(&self.cache, folder, lane)
        })
    }

    fn boot_again(
        &self,
        recorded: Vec<LaneFolder>,
        ready: impl Fn(&Path, &Lane) -> Result<Ready>,
    ) -> Result<()> {
        let run = self.run_folder("repro")?;
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        for old in recorded {
            let folder = run.join(&old.lane.name);
            fs::create_dir_all(&folder)?;
            for part in ["kernel", "System.map", "config", "lane.config", "modules"] {
                copy(&old.folder.join(part), &folder)?;
            }
            // Runs of a time when the first three were not kept are repeated with today's.
            for part in ["guest.sh", CASES, RULES, DIFFERENCE] {
                if old.folder.join(part).exists() {
                    copy(&old.folder.join(part), &folder)?;
                }
            }
            let ready = ready(&folder, &old.lane)?;
            let report = boot_lane(&ready, &old.metadata, &old.plan, &mut tally)?;
            reports.push((report, old.metadata));
        }
        finish(&run, reports, "untouched", &tally)
    }

    /// Judges a run by what it left, and by its own lanes, cases and rules; or, with `todays`, by the
    /// cases and rules of this checkout. The run stays as it is: the reports are in a run of their own.
    pub fn judge(&self, run: &Path, todays: bool) -> Result<()> {
        finish::start_clock();
        let recorded = self.lane_folders(run)?;
        let into = self.run_folder("judge")?;
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        for old in recorded {
            let standards = match todays {
                true => Standards::builtin()?,
                false => Standards::kept(&old.folder)?,
            };
            let folder = into.join(&old.lane.name);
            fs::create_dir_all(&folder)?;
            let difference = old.folder.join(DIFFERENCE);
            let difference = Some(difference).filter(|file| file.exists());
            for part in boots(&old.folder)?.into_iter().chain(difference) {
                copy(&part, &folder)?;
            }
            let lane = Recorded {
                lane: &old.lane,
                folder: &folder,
                plan: &old.plan,
                metadata: &old.metadata,
            };
            let nothing = |_: &str, _: &str, _| Ok(());
            reports.push((
                judge_lane(&lane, &standards, &mut tally, nothing)?,
                old.metadata.clone(),
            ));
        }
        finish(&into, reports, "untouched", &tally)
    }
}

/// The folders of a lane that hold what a boot left.
pub fn boots(lane: &Path) -> Result<Vec<PathBuf>> {
    let folders = fs::read_dir(lane)?.flatten().map(|e| e.path());
    Ok(folders.filter(|p| p.join("console.txt").exists()).collect())
}

fn copy(from: &Path, into: &Path) -> Result<()> {
    output(Command::new("cp").arg("--recursive").arg(from).arg(into)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::command::job::tests::job;
    use crate::guest::boot::Guest;
    use crate::report::run::RunReport;
    use crate::run::ready::tests::{idle_plan, made_up, small_lane};
    use crate::verdict::standards::tests::keep_older;
    use serde_json::json;

    /// A virtme-ng that runs the guest's script of its run.
    const VNG: &str = "for word; do case $word in --rwdir=/mnt=*) cd ${word#--rwdir=/mnt=};; \
        esac; done; sh guest.sh";
    /// Says and leaves what the run's own cases and rules know, and today's do not.
    const OLDER: &str = "echo NOLOCKS: guest up; echo NOLOCKS: guest done; echo on fire
        cat >main/out/kunit.txt <<END
KTAP version 1
1..1
    KTAP version 1
    # Subtest: older
    1..1
    ok 1 a
ok 1 older
END
";

    /// Of the newest run that a command made, which has what the tree had of its own.
    fn report(job: &Job, command: &str) -> (PathBuf, RunReport) {
        let runs = fs::read_dir(job.cache.root.join("runs")).unwrap();
        let runs = runs.map(|run| run.unwrap().path());
        let run = runs.filter(|run| run.display().to_string().contains(command));
        let run = run.max().unwrap();
        let report: RunReport = cache::read_json(&run.join("report.json")).unwrap();
        let difference = fs::read_to_string(run.join("l").join(DIFFERENCE));
        assert_eq!(difference.unwrap(), "+mine", "{}", run.display());
        let total_s = 0.0;
        (run, RunReport { total_s, ..report })
    }

    #[test]
    fn a_run_is_booted_and_judged_again_by_what_it_has_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir.path().join("cache"));
        let run = job.run_folder("stress").unwrap();
        let folder = run.join("l");
        fs::create_dir_all(folder.join("modules")).unwrap();
        let lane = small_lane(dir.path(), "x86_64", 60, 60);
        let metadata = json!({ "lane": "l", "plan": idle_plan(&lane) });
        for (part, text) in [
            ("kernel", ""),
            ("System.map", ""),
            ("config", ""),
            ("guest.sh", OLDER),
            (DIFFERENCE, "+mine"),
            (
                "lane.config",
                &format!("{}#: [kunit]\n#: older = []\n", lane.config),
            ),
            ("metadata.json", &metadata.to_string()),
        ] {
            fs::write(folder.join(part), text).unwrap();
        }
        keep_older(&folder);
        let again = |folder: &Path, lane: &Lane| {
            let ready = made_up(dir.path(), lane.clone(), VNG);
            let (folder, share) = (folder.to_owned(), folder.to_owned());
            let guest = Guest {
                share,
                ..ready.guest
            };
            Ok(Ready {
                folder,
                guest,
                ..ready
            })
        };
        let recorded = job.lane_folders(&run).unwrap();
        let e = job.boot_again(recorded, again).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Splat));
        let (run, booted) = report(&job, "repro");
        assert_eq!(
            booted.lanes[0].problems(),
            ["fire (console line 3): on fire"]
        );
        let e = job.judge(&run, false).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Splat));
        assert_eq!(report(&job, "judge").1, booted);
        let e = job.judge(&run, true).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Test));
        let problems = report(&job, "judge").1.lanes[0].problems().join("; ");
        assert!(
            problems.starts_with("KUnit suite older: its cases: a was"),
            "{problems}"
        );
    }
}
