// SPDX-License-Identifier: GPL-2.0
//! `make stress` and `make soak`: lanes with one boot each.

use crate::build::kernel::Build;
use crate::command::args::Where;
use crate::command::job::Job;
use crate::lane::plan::{MODULES, Plan};
use crate::lane::spec::Lane;
use crate::run::finish::finish;
use crate::run::lane::lane_report;
use crate::run::ready::Ready;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

impl Job {
    pub fn stress(&self, at: &Where, given: &BTreeMap<String, u64>) -> Result<()> {
        self.run_lanes("stress", at, |lane| {
            Plan::new(&lane.stress, lane.queue.as_ref(), given)
        })
    }

    /// The queue's stress module with as many objects as it takes.
    pub fn soak(&self, at: &Where, total: u64) -> Result<()> {
        self.run_lanes("soak", at, |lane| Plan::soak(lane, total))
    }

    fn run_lanes(&self, what: &str, at: &Where, plan: impl Fn(&Lane) -> Plan) -> Result<()> {
        let known = self.built();
        let (source, builds) = self.builds(at)?;
        let run = self.run_folder(what)?;
        let lanes = builds
            .iter()
            .map(|(lane, build)| {
                let modules = self.lane_modules(lane, build)?;
                let ready = Ready::new(
                    &self.cache,
                    &run,
                    lane,
                    &build.dir,
                    Some((&modules, MODULES)),
                )?;
                let plan = plan(lane);
                let metadata = self.metadata(&ready, &source, build, &plan);
                Ok((ready, plan, metadata))
            })
            .collect::<Result<Vec<_>>>()?;
        let cache = cache_was(&known, &builds);
        drop((source, builds));
        self.boot_lanes(&run, lanes, cache, Tally::default())
    }

    /// The builds are given back before: from here on everything lies in the run's own folder.
    pub fn boot_lanes(
        &self,
        run: &Path,
        lanes: Vec<(Ready, Plan, Value)>,
        cache: &str,
        mut tally: Tally,
    ) -> Result<()> {
        let mut reports = Vec::new();
        for (ready, plan, metadata) in lanes {
            let report = lane_report(&ready, &metadata, &plan, &mut tally)?;
            reports.push((report, metadata));
        }
        finish(run, reports, cache, &tally)
    }
}

/// A cache is cold if a kernel of this run had never been built in it.
pub fn cache_was(known: &BTreeSet<PathBuf>, builds: &[(Lane, Build)]) -> &'static str {
    match builds.iter().all(|(_, b)| known.contains(&b.dir)) {
        true => "warm",
        false => "cold",
    }
}
