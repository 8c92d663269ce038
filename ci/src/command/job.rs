// SPDX-License-Identifier: GPL-2.0
//! What every command has: the checkout and the cache, and what they are asked for.

use crate::base::cache::Cache;
use crate::base::exit::{Exit, OrExit};
use crate::base::proc::output;
use crate::build::kernel::{Build, Recipe, build_lanes};
use crate::build::modules::{Modules, What, build_modules};
use crate::command::args::{OnTop, Where};
use crate::guest::root;
use crate::host::qemu;
use crate::host::setup::{self, Need};
use crate::lane::plan::{MODULES, Plan};
use crate::lane::spec::Lane;
use crate::run::ready::Ready;
use crate::run::{finish, folder};
use crate::source::debian;
use crate::source::git::git;
use crate::source::series::Series;
use crate::source::tree::{self, DIFFERENCE, Prepared};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub const DEFAULT_LANE: &str = "x86_64-lockdep";

pub struct Job {
    pub cache: Cache,
    pub checkout: PathBuf,
    pub yes: bool,
    /// Guests beside each other; nothing if it is to be found out.
    pub jobs: Option<usize>,
}

impl Job {
    pub fn series(&self) -> Result<Series> {
        Series::load(&self.checkout.join("patches"))
    }

    pub fn fragment(&self) -> Result<String> {
        let path = self.checkout.join("Kconfig.fragment");
        fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))
            .or_exit(Exit::Config)
    }

    fn lanes_dir(&self) -> PathBuf {
        self.checkout.join("ci/lanes")
    }

    pub fn lanes(&self, given: Option<&str>, default: &str) -> Result<Vec<Lane>> {
        // Whatever boots lanes asks for them first.
        finish::start_clock();
        match given.unwrap_or(default) {
            "all" => Lane::load_all(&self.lanes_dir()),
            name => Ok(vec![Lane::load(&self.lanes_dir(), name)?]),
        }
    }

    /// The tree that the user gave, or Debian's, with the series on it.
    pub fn source(&self, kdir: Option<&Path>, series: &Series, use_: &str) -> Result<Prepared> {
        let tree = match kdir {
            Some(dir) => tree::open_users_tree(dir)?
                .compared_with(debian::find_cached(&self.cache)?.as_ref()),
            None => debian::fetch_unless_cached(&self.cache)?,
        };
        tree.prepare(&self.cache, series, use_)
    }

    /// A kernel of a machine in `ci/KIND/`, with so many of the patches, and its own modules.
    pub fn build_machine_kernel(
        &self,
        kind: &str,
        lane: &Lane,
        series: &Series,
        fragment: &str,
    ) -> Result<(Prepared, Build)> {
        // A tree without the series is a copy beside the one with it.
        let beside = if series.patches.is_empty() {
            "-bench"
        } else {
            ""
        };
        let source = self.source(None, series, beside)?;
        let image = lane.arch.image().rsplit('/').next().unwrap_or_default();
        let recipe = Recipe {
            name: &format!("{kind}-{}", lane.name),
            arch: lane.arch.kernel(),
            fragments: &[
                ("Kconfig.fragment", fragment),
                (&format!("ci/{kind}"), &lane.config),
            ],
            goals: &[image, "modules"],
            extra: &[],
        };
        let build = recipe.build(&self.cache, &source)?;
        Ok((source, build))
    }

    pub fn build_kernels(&self, at: &Where) -> Result<(Prepared, Vec<(Lane, Build)>)> {
        self.build_kernels_of(
            self.lanes(at.lane.as_deref(), DEFAULT_LANE)?,
            at.kdir.as_deref(),
        )
    }

    /// As `build_kernels`, of the lanes with what this run has on top of them.
    pub fn build_kernels_with(
        &self,
        at: &Where,
        on_top: &OnTop,
    ) -> Result<(Prepared, Vec<(Lane, Build)>)> {
        let lanes = self.lanes(at.lane.as_deref(), DEFAULT_LANE)?.into_iter();
        let lanes =
            lanes.map(|lane| lane.with(on_top.config.as_deref(), on_top.bootargs.as_deref()));
        self.build_kernels_of(lanes.collect::<Result<_>>()?, at.kdir.as_deref())
    }

    pub fn build_kernels_of(
        &self,
        lanes: Vec<Lane>,
        kdir: Option<&Path>,
    ) -> Result<(Prepared, Vec<(Lane, Build)>)> {
        let series = self.series()?;
        let fragment = self.fragment()?;
        check_users_tree(kdir)?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        // Need root and the network once, which is better known before the kernels are built.
        for lane in &lanes {
            root::ensure(&self.cache, lane.arch)?;
            qemu::find(&self.cache, lane.arch)?;
        }
        let source = self.source(kdir, &series, "")?;
        let builds = build_lanes(&self.cache, lanes, &fragment, &source)?;
        Ok((source, builds))
    }

    pub fn run_folder(&self, what: &str) -> Result<PathBuf> {
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        folder::new_folder(&self.cache.dir("runs")?, &format!("{stamp}-{what}"))
    }

    /// What the run is of; the difference of the user's own tree goes beside it.
    pub fn metadata(
        &self,
        ready: &Ready,
        source: &Prepared,
        build: &Build,
        plan: &Plan,
    ) -> Result<Value> {
        if source.changes.is_some() {
            fs::copy(source.diff(), ready.folder.join(DIFFERENCE))?;
        }
        let checkout = |args: &[&str]| {
            output(git(&self.checkout).args(args))
                .map(|t| t.trim().to_owned())
                .unwrap_or_default()
        };
        Ok(json!({
            "lane": ready.lane.name,
            "about": ready.lane.about,
            "tree": { "version": source.origin.version, "from": source.origin.from, "id": source.origin.id },
            "series": build.stamp.series,
            "changes": source.changes,
            "config": build.stamp.config,
            "tools": setup::versions(&self.cache, &ready.guest.emulator.program),
            "accelerator": ready.accel,
            "guest_packages": ready.guest.root.as_deref().map(root::packages),
            "project": checkout(&["rev-parse", "HEAD"]),
            "project_changes": checkout(&["status", "--porcelain"]).lines().count(),
            "cpus": ready.lane.cpus,
            "memory": ready.lane.memory,
            "cmdline": ready.lane.cmdline,
            "plan": plan,
        }))
    }

    /// The kernels that some run has finished before.
    pub fn kernels_built_before(&self) -> BTreeSet<PathBuf> {
        let folders = fs::read_dir(self.cache.root.join("build"));
        let folders = folders.into_iter().flatten().flatten().map(|e| e.path());
        folders
            .filter(|dir| dir.join("nolocks-stamp.json").exists())
            .collect()
    }

    /// A guest of the lane's kernel, with the modules that every lane has.
    pub fn ready_with_modules(
        &self,
        run: &Path,
        lane: &Lane,
        build: &Build,
        modules: &Modules,
    ) -> Result<Ready> {
        Ready::new(&self.cache, run, lane, &build.dir, Some((modules, MODULES)))
    }

    pub fn build_lane_modules(&self, lane: &Lane, build: &Build) -> Result<Modules> {
        build_modules(
            &self.cache,
            &build.dir,
            lane.arch.kernel(),
            &self.checkout,
            What::All,
        )
    }
}

/// The user's tree, before anything is fetched, installed or built for it.
pub fn check_users_tree(kdir: Option<&Path>) -> Result<()> {
    kdir.map_or(Ok(()), |dir| tree::open_users_tree(dir).map(drop))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::build::kernel::tests::placed;
    use crate::report::run::RunReport;
    use crate::run::ready::tests::{FINE, made_up, small_lane};
    use crate::source::series::tests::{fixture, sh};

    pub fn job(cache: &Path) -> Job {
        Job {
            cache: Cache::open(Some(cache)).unwrap(),
            checkout: Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
            yes: false,
            jobs: None,
        }
    }

    #[test]
    fn what_a_tree_has_of_its_own_lies_where_the_report_says() {
        let f = fixture(true);
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir.path().join("cache"));
        let told = |own: &str| {
            sh(&f.tree, own);
            let tree = tree::open_users_tree(&f.tree).unwrap();
            let source = tree.prepare(&job.cache, &f.series, "").unwrap();
            let ready = made_up(dir.path(), small_lane(dir.path(), "x86_64", 1, 1), FINE);
            let plan = Plan::stress(&ready.lane, &Default::default(), None).unwrap();
            let build = placed(&job.cache.root);
            let metadata = job.metadata(&ready, &source, &build, &plan).unwrap();
            let report = RunReport {
                metadata: json!([metadata]),
                ..RunReport::default()
            };
            let told = report.changed();
            let lanes: Vec<_> = told.iter().map(|(lane, _)| (*lane).to_owned()).collect();
            let diff = fs::read_to_string(ready.folder.join(DIFFERENCE));
            (lanes, diff.unwrap_or_default())
        };
        assert_eq!(told("true"), (vec![], String::new()));
        let (lanes, diff) = told("echo mine >> Makefile");
        assert_eq!(lanes, ["l"]);
        assert!(diff.contains("+mine\n"), "{diff}");
    }
}
