// SPDX-License-Identifier: GPL-2.0
//! `make test`: every check, and the lanes with all their boots.

use crate::base::exit::{Exit, fail};
use crate::build::modules::lint_modules;
use crate::command::args::Where;
use crate::command::job::{Job, check_users_tree};
use crate::command::stress::cache_was;
use crate::command::{check, compile_fail};
use crate::host::setup::{self, Need};
use crate::lane::plan::{MODULES, Plan};
use crate::lane::spec::Lane;
use crate::run::ready::Ready;
use crate::verdict::tally::Tally;
use anyhow::Result;
use std::collections::BTreeMap;

impl Job {
    pub fn test(&self, at: &Where) -> Result<()> {
        let named = at.lane.as_deref();
        let lanes = tested(named, self.lanes(named, "all")?)?;
        check_users_tree(at.kdir.as_deref())?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let mut tally = Tally::default();
        check::all(self, &mut tally)?;
        let known = self.kernels_built_before();
        let (source, builds) = self.build_kernels_of(lanes, at.kdir.as_deref())?;
        let run = self.run_folder("test")?;
        let mut ready_lanes = Vec::new();
        for (i, (lane, build)) in builds.iter().enumerate() {
            tally.passed(1); // The .config holds every option asked for, or there were no build.
            let modules = self.build_lane_modules(lane, build)?;
            if i == 0 {
                let linted = lint_modules(&self.cache, build, lane.arch, &self.checkout);
                let again = linted.as_ref().copied().unwrap_or_default();
                tally.check(
                    &format!("rust-module: CLIPPY=1 without a warning{again}"),
                    linted.map(drop),
                )?;
                compile_fail::check(&self.cache, build, lane.arch, &self.checkout, &mut tally)?;
            }
            let ready = Ready::new(
                &self.cache,
                &run,
                lane,
                &build.dir,
                Some((&modules, MODULES)),
            )?;
            let plan = Plan {
                all_boots: true,
                ..Plan::new(lane.test_load(), lane.queue.as_ref(), &BTreeMap::new())
            };
            let metadata = self.metadata(&ready, &source, build, &plan)?;
            ready_lanes.push((ready, plan, metadata));
        }
        let cache = cache_was(&known, &builds);
        drop((source, builds));
        self.boot_lanes(&run, ready_lanes, cache, tally)
    }
}

/// What `make test` boots: the lane that was named, or else all with a [test] table.
fn tested(named: Option<&str>, mut lanes: Vec<Lane>) -> Result<Vec<Lane>> {
    if named.is_none_or(|name| name == "all") {
        lanes.retain(|l| l.test.is_some());
    }
    if lanes.is_empty() {
        return Err(fail(
            Exit::Usage,
            "no lane has a [test] table: name one with LANE=",
        ));
    }
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::job::DEFAULT_LANE;
    use crate::command::job::tests::job;
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_wrong_tree_is_refused_before_anything_is_done_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir.path().join("cache"));
        let at = Where {
            kdir: Some(dir.path().to_owned()),
            lane: None,
        };
        for result in [
            job.test(&at),
            job.modules(&at),
            job.build_kernels(&at).map(drop),
            crate::command::perf_kmem::perf_kmem(&job, &at),
        ] {
            assert_eq!(
                crate::base::exit::stage(&result.unwrap_err()),
                Some(Exit::Tree)
            );
        }
        assert_eq!(fs::read_dir(&job.cache.root).unwrap().count(), 0);
    }

    #[test]
    fn a_lane_without_a_test_table_is_tested_only_when_named() {
        const EXTRA: &str = "x86_64-ftrace";
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let all = || Lane::load_all(&dir).unwrap();
        let names = |named, lanes| -> Vec<String> {
            let lanes: Vec<Lane> = tested(named, lanes).unwrap();
            lanes.into_iter().map(|l| l.name).collect()
        };
        let extra = || vec![Lane::load(&dir, EXTRA).unwrap()];
        assert_eq!(names(Some(EXTRA), extra()), [EXTRA]);
        for named in [None, Some("all")] {
            let tested = names(named, all());
            assert!(tested.contains(&DEFAULT_LANE.to_owned()), "{tested:?}");
            assert!(!tested.contains(&EXTRA.to_owned()), "{tested:?}");
            assert!(super::tested(named, extra()).is_err());
        }
    }
}
