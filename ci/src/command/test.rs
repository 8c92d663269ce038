// SPDX-License-Identifier: GPL-2.0
//! `make test`: every check, and the lanes with all their boots.

use crate::base::exit::{Exit, fail};
use crate::build::modules::lint_modules;
use crate::command::args::Where;
use crate::command::job::{Job, check_users_tree};
use crate::command::stress::cache_was;
use crate::command::{check, compile_fail};
use crate::host::setup::{self, Need};
use crate::lane::plan::Plan;
use crate::lane::spec::Lane;
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
        let names: Vec<&str> = builds.iter().map(|(lane, _)| &*lane.name).collect();
        let linted = checked(&LINTED, &names);
        let refused = checked(&REFUSED, &names);
        for (lane, build) in &builds {
            // Or there were no build.
            tally.check(
                &format!("{}: its .config has every option asked for", lane.name),
                Ok(()),
            )?;
            let modules = self.build_lane_modules(lane, build)?;
            if linted.contains(&&*lane.name) {
                let result = lint_modules(&self.cache, build, lane.arch, &self.checkout);
                let again = result.as_ref().copied().unwrap_or_default();
                let of = &lane.name;
                tally.check(
                    &format!("rust-module: CLIPPY=1 of {of} without a warning{again}"),
                    result.map(drop),
                )?;
            }
            if refused.contains(&&*lane.name) {
                compile_fail::check(&self.cache, build, lane.arch, &self.checkout, &mut tally)?;
            }
            let ready = self.ready_with_modules(&run, lane, build, &modules)?;
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

/// The lanes whose configurations clippy sees: both architectures, with PREEMPT_RT and without. The time
/// of another is half a minute.
const LINTED: [&str; 2] = ["arm64-lockdep", "x86_64-rt"];
/// The one whose kernel the uses that must not compile are tried with.
const REFUSED: [&str; 1] = ["x86_64-rt"];

/// Those of `wanted` that this run has; its first lane if it has none of them.
fn checked<'a>(wanted: &[&str], lanes: &[&'a str]) -> Vec<&'a str> {
    let lanes = lanes.iter().copied();
    let found: Vec<&str> = lanes.clone().filter(|l| wanted.contains(l)).collect();
    match found.is_empty() {
        true => lanes.take(1).collect(),
        false => found,
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
    for lane in &mut lanes {
        lane.cpus = lane.test_load().cpus.unwrap_or(lane.cpus);
    }
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arch::Arch;
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
    fn clippy_sees_both_architectures_with_preempt_rt_and_without() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lanes = tested(None, Lane::load_all(&dir).unwrap()).unwrap();
        let names: Vec<&str> = lanes.iter().map(|l| &*l.name).collect();
        let linted = checked(&LINTED, &names);
        let linted: Vec<&Lane> = lanes
            .iter()
            .filter(|l| linted.contains(&&*l.name))
            .collect();
        for is in [
            |l: &Lane| l.arch == Arch::X86,
            |l: &Lane| l.config.contains("\nCONFIG_PREEMPT_RT=y\n"),
        ] {
            let there = linted.iter().filter(|l| is(l)).count();
            assert!(0 < there && there < linted.len());
        }
        assert_eq!(checked(&REFUSED, &names), REFUSED);
        assert_eq!(checked(&REFUSED, &["a", "b"]), ["a"]);
    }

    #[test]
    fn a_lane_is_tested_with_the_cpus_of_its_test_table() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lane = Lane::load(&dir, DEFAULT_LANE).unwrap();
        let cpus = |of_test| {
            let mut lane = lane.clone();
            lane.test.as_mut().unwrap().cpus = of_test;
            tested(None, vec![lane]).unwrap()[0].cpus
        };
        assert_eq!((cpus(None), cpus(Some(3))), (lane.cpus, 3));
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
