// SPDX-License-Identifier: GPL-2.0
//! The commands that build and boot lanes, and the folder that each run leaves.

use crate::accel::{self, Accel};
use crate::boot::{Guest, Limits, Outcome};
use crate::cache::{self, Cache, write_atomic, write_json};
use crate::exit::{Exit, OrExit, fail};
use crate::judge::{self, STRESS};
use crate::kernel::{self, Build, Modules};
use crate::lane::{Lane, Load};
use crate::proc::output;
use crate::report::{self, LaneReport, RunReport};
use crate::series::Series;
use crate::setup::{self, Need, tools};
use crate::tally::Tally;
use crate::tree::{self, Prepared};
use crate::{Where, check, root};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const DEFAULT_LANE: &str = "x86_64-lockdep";
const GUEST_SCRIPT: &str = include_str!("../guest/run.sh");

pub struct Job {
    pub cache: Cache,
    pub checkout: PathBuf,
    pub yes: bool,
}

/// A lane that is ready to boot: everything it needs is in its own folder.
pub struct Ready {
    pub lane: Lane,
    pub folder: PathBuf,
    pub guest: Guest,
    pub accel: Accel,
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
        match given.unwrap_or(default) {
            "all" => Lane::load_all(&self.lanes_dir()),
            name => Ok(vec![Lane::load(&self.lanes_dir(), name)?]),
        }
    }

    /// The tree that the user gave, or Debian's, with the series on it.
    pub fn source(&self, kdir: Option<&Path>, series: &Series, use_: &str) -> Result<Prepared> {
        let tree = match kdir {
            Some(dir) => tree::own(dir)?,
            None => tree::debian(&self.cache)?,
        };
        tree.prepare(&self.cache, series, use_)
    }

    pub fn builds(&self, at: &Where) -> Result<(Prepared, Vec<(Lane, Build)>)> {
        self.builds_of(
            self.lanes(at.lane.as_deref(), DEFAULT_LANE)?,
            at.kdir.as_deref(),
        )
    }

    fn builds_of(
        &self,
        lanes: Vec<Lane>,
        kdir: Option<&Path>,
    ) -> Result<(Prepared, Vec<(Lane, Build)>)> {
        let series = self.series()?;
        let fragment = self.fragment()?;
        // The user's tree is looked at before anything is installed for it.
        if let Some(dir) = kdir {
            tree::own(dir)?;
        }
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let source = self.source(kdir, &series, "")?;
        let builds = lanes
            .into_iter()
            .map(|lane| {
                let build = kernel::lane(&self.cache, &lane, &fragment, &source)?;
                Ok((lane, build))
            })
            .collect::<Result<_>>()?;
        Ok((source, builds))
    }

    pub fn run_folder(&self, what: &str) -> Result<PathBuf> {
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        self.cache.dir(&format!("runs/{stamp}-{what}"))
    }

    /// Copies what a boot needs, so that a later build cannot change what a run meant.
    pub fn ready(
        &self,
        run: &Path,
        lane: &Lane,
        build: &Build,
        modules: Option<&Modules>,
    ) -> Result<Ready> {
        let folder = run.join(&lane.name);
        fs::create_dir_all(folder.join("modules"))?;
        let image = build.dir.join(lane.arch.image());
        let kernel = folder.join("kernel");
        fs::copy(&image, &kernel).with_context(|| format!("cannot copy {}", image.display()))?;
        fs::copy(build.dir.join(".config"), folder.join("config"))?;
        if let Some(modules) = modules {
            for name in [STRESS, "nolocks_control"] {
                fs::copy(
                    modules.path(name)?,
                    folder.join(format!("modules/{name}.ko")),
                )?;
            }
        }
        write_atomic(&folder.join("lane.config"), &lane.config)?;
        self.ready_again(&folder, lane)
    }

    fn ready_again(&self, folder: &Path, lane: &Lane) -> Result<Ready> {
        write_atomic(&folder.join("guest.sh"), GUEST_SCRIPT)?;
        let mut guest = Guest {
            vng: tools(&self.cache).vng,
            arch: lane.arch,
            image: folder.join("kernel"),
            root: root::ensure(&self.cache, lane.arch)?,
            cpus: lane.cpus,
            memory: lane.memory.clone(),
            cmdline: lane.cmdline.clone(),
            kvm: false,
            share: folder.to_owned(),
            home: self.cache.dir("home")?,
        };
        let accel = accel::choose(&self.cache, &guest)?;
        guest.kvm = accel.kvm;
        Ok(Ready {
            lane: lane.clone(),
            folder: folder.to_owned(),
            guest,
            accel,
        })
    }

    fn metadata(
        &self,
        ready: &Ready,
        source: &Prepared,
        build: &Build,
        params: &BTreeMap<String, u64>,
    ) -> Value {
        let checkout = |args: &[&str]| {
            output(tree::git(&self.checkout).args(args))
                .map(|t| t.trim().to_owned())
                .unwrap_or_default()
        };
        json!({
            "lane": ready.lane.name,
            "about": ready.lane.about,
            "tree": { "version": source.origin.version, "from": source.origin.from, "id": source.origin.id },
            "series": build.stamp.series,
            "config": build.stamp.config,
            "tools": setup::versions(&self.cache, ready.lane.arch.qemu()),
            "accelerator": ready.accel,
            "guest_packages": ready.guest.root.as_deref().map(root::packages),
            "project": checkout(&["rev-parse", "HEAD"]),
            "project_changes": checkout(&["status", "--porcelain"]).lines().count(),
            "cpus": ready.lane.cpus,
            "memory": ready.lane.memory,
            "cmdline": ready.lane.cmdline,
            "params": params,
        })
    }

    /// The green boot, then the red ones.
    fn lane_report(
        &self,
        ready: &Ready,
        metadata: &Value,
        plan: &Planned,
        controls: bool,
        tally: &mut Tally,
    ) -> Result<LaneReport> {
        write_json(&ready.folder.join("metadata.json"), metadata)?;
        let lane = &ready.lane;
        let line = format!("module stress {STRESS}.ko {}", plan.words());
        let outcome = ready.boot("main", &line, plan.seconds())?;
        let mut own = Tally::default();
        let seen = judge::green(
            lane,
            &plan.load,
            plan.floor,
            &ready.folder.join("main"),
            &outcome,
            &mut own,
        )?;
        let mut took = outcome.took;
        if let Some(suite) = &seen.suite {
            write_json(&ready.folder.join("main/suite.json"), suite)?;
        }
        let ktap: String = outcome
            .console
            .lines()
            .filter_map(|l| l.split_once(&format!("{STRESS}: ")))
            .map(|(_, text)| format!("{text}\n"))
            .collect();
        write_atomic(&ready.folder.join("main/ktap.txt"), &ktap)?;
        let mut results = Vec::new();
        for control in lane.controls.iter().filter(|_| controls) {
            let name = format!("control-{}", control.name);
            let line = format!(
                "module {} {}.ko {}",
                control.name, control.module, control.params
            );
            let outcome = ready.boot(&name, &line, Duration::ZERO)?;
            took += outcome.took;
            results.push(judge::red(lane, control, &outcome, &mut own)?);
        }
        let report = LaneReport {
            name: lane.name.clone(),
            arch: lane.arch.kernel().to_owned(),
            kernel: metadata["tree"]["version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            accel: if ready.accel.kvm { "kvm" } else { "tcg" }.to_owned(),
            duration_s: took.as_secs_f64(),
            suite: seen.suite,
            kunit: seen.kunit,
            controls: results,
            findings: seen.findings,
            debug_locks: seen.debug_locks,
            verdict: own.verdict(),
        };
        tally.merge(own);
        Ok(report)
    }

    pub fn stress(&self, at: &Where, given: &BTreeMap<String, u64>) -> Result<()> {
        let (source, builds) = self.builds(at)?;
        let run = self.run_folder("stress")?;
        let lanes = builds
            .iter()
            .map(|(lane, build)| {
                let modules = self.lane_modules(lane, build)?;
                let ready = self.ready(&run, lane, build, Some(&modules))?;
                let plan = Planned::new(&lane.stress, given);
                let metadata = self.metadata(&ready, &source, build, &plan.params);
                Ok((ready, plan, metadata))
            })
            .collect::<Result<Vec<_>>>()?;
        drop((source, builds));
        self.boot_lanes(&run, lanes, false, Tally::default())
    }

    /// The builds are given back before: from here on everything lies in the run's own folder.
    fn boot_lanes(
        &self,
        run: &Path,
        lanes: Vec<(Ready, Planned, Value)>,
        controls: bool,
        mut tally: Tally,
    ) -> Result<()> {
        let mut reports = Vec::new();
        for (ready, plan, metadata) in lanes {
            let report = self.lane_report(&ready, &metadata, &plan, controls, &mut tally)?;
            reports.push((report, metadata));
        }
        finish(run, reports, &tally)
    }

    pub fn test(&self, at: &Where) -> Result<()> {
        let mut lanes = self.lanes(at.lane.as_deref(), "all")?;
        lanes.retain(|l| l.test.is_some());
        if lanes.is_empty() {
            return Err(fail(
                Exit::Usage,
                "that lane has no [test] table, and is no part of make test",
            ));
        }
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let mut tally = Tally::default();
        check::all(self, &mut tally)?;
        let (source, builds) = self.builds_of(lanes, at.kdir.as_deref())?;
        let run = self.run_folder("test")?;
        let mut ready_lanes = Vec::new();
        for (i, (lane, build)) in builds.iter().enumerate() {
            let load = lane.test.as_ref().context("kept for its test table")?;
            tally.passed(1); // The .config holds every option asked for, or there were no build.
            let modules = self.lane_modules(lane, build)?;
            if i == 0 {
                let linted =
                    kernel::modules(&self.cache, &build.dir, lane.arch, &self.checkout, true);
                tally.check("rust-module: CLIPPY=1 without a warning", linted.map(drop))?;
            }
            let ready = self.ready(&run, lane, build, Some(&modules))?;
            let plan = Planned::new(load, &BTreeMap::new());
            let metadata = self.metadata(&ready, &source, build, &plan.params);
            ready_lanes.push((ready, plan, metadata));
        }
        drop((source, builds));
        self.boot_lanes(&run, ready_lanes, true, tally)
    }

    pub fn lane_modules(&self, lane: &Lane, build: &Build) -> Result<Modules> {
        kernel::modules(&self.cache, &build.dir, lane.arch, &self.checkout, false)
    }

    pub fn modules(&self, at: &Where) -> Result<()> {
        let modules = match &at.kdir {
            // Built there by its owner, who keeps the choice of configuration.
            Some(kdir) => {
                let kdir = fs::canonicalize(kdir).or_exit(Exit::Tree)?;
                for file in [".config", "Module.symvers"] {
                    if !kdir.join(file).exists() {
                        return Err(fail(
                            Exit::Tree,
                            format!(
                                "{} has no {file}: `make apply KDIR=...`, configure with Kconfig.fragment and build the kernel there first; without KDIR= the runner builds its own",
                                kdir.display()
                            ),
                        ));
                    }
                }
                setup::ensure(&self.cache, Need::Lanes, self.yes)?;
                let config = fs::read_to_string(kdir.join(".config"))?;
                let arch = if config.contains("CONFIG_ARM64=y") {
                    crate::lane::Arch::Arm64
                } else {
                    crate::lane::Arch::X86
                };
                vec![kernel::modules(
                    &self.cache,
                    &kdir,
                    arch,
                    &self.checkout,
                    false,
                )?]
            }
            None => {
                let (_, builds) = self.builds(at)?;
                builds
                    .iter()
                    .map(|(l, b)| self.lane_modules(l, b))
                    .collect::<Result<_>>()?
            }
        };
        for m in modules {
            for name in [STRESS, "nolocks_control"] {
                println!("{}", m.path(name)?.display());
            }
        }
        Ok(())
    }

    pub fn shell(&self, at: &Where) -> Result<()> {
        let (_, builds) = self.builds(at)?;
        let (lane, build) = builds.first().context("no lane")?;
        let modules = self.lane_modules(lane, build)?;
        let run = self.run_folder("shell")?;
        let ready = self.ready(&run, lane, build, Some(&modules))?;
        println!(
            "in the guest: insmod /mnt/modules/{STRESS}.ko seconds=1; files left in /mnt stay in {}",
            ready.folder.display()
        );
        // A terminal's job control belongs to the guest, so no group of its own here.
        let status = ready
            .guest
            .command()
            .args(["--user", "root"])
            .status()
            .or_exit(Exit::Boot)?;
        if !status.success() {
            return Err(fail(Exit::Boot, format!("virtme-ng ended with {status}")));
        }
        Ok(())
    }

    pub fn boot(
        &self,
        lane: Option<&str>,
        build: &Path,
        module: &Path,
        params: &str,
    ) -> Result<()> {
        let lane = self.lanes(lane, DEFAULT_LANE)?.swap_remove(0);
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let folder = self.run_folder("boot")?;
        fs::create_dir_all(folder.join("modules"))?;
        let file = module
            .file_name()
            .context("--module names a file")?
            .to_string_lossy();
        fs::copy(module, folder.join("modules").join(&*file))
            .with_context(|| format!("cannot copy {}", module.display()))
            .or_exit(Exit::Usage)?;
        fs::copy(build.join(lane.arch.image()), folder.join("kernel"))
            .with_context(|| format!("{} holds no {}", build.display(), lane.arch.image()))
            .or_exit(Exit::Usage)?;
        let ready = self.ready_again(&folder, &lane)?;
        let outcome = ready.boot(
            "main",
            &format!("module given {file} {params}"),
            Duration::ZERO,
        )?;
        let mut tally = Tally::default();
        judge::plain(&lane.name, &outcome, "given", &mut tally)?;
        println!("console: {}", folder.join("main/console.txt").display());
        println!("{}", tally.closing());
        tally.result()
    }

    /// Boots a run's own images again, with its parameters and seed.
    /// `old` is a run's folder, or its name in the cache.
    pub fn repro(&self, old: &Path) -> Result<()> {
        let in_cache = self.cache.root.join("runs").join(old);
        let old = if old.exists() { old } else { &in_cache };
        let mut folders: Vec<PathBuf> = fs::read_dir(old)
            .with_context(|| format!("RUN={}", old.display()))
            .or_exit(Exit::Usage)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.join("metadata.json").exists() && p.join("kernel").exists())
            .collect();
        folders.sort();
        if old.join("kernel").exists() {
            folders.push(old.to_owned());
        }
        if folders.is_empty() {
            return Err(fail(
                Exit::Usage,
                format!("RUN={} is no run's folder", old.display()),
            ));
        }
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let run = self.run_folder("repro")?;
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        for from in folders {
            let metadata: Value =
                cache::read_json(&from.join("metadata.json")).ok_or_else(|| {
                    fail(Exit::Usage, format!("{}: no metadata.json", from.display()))
                })?;
            let name = metadata["lane"]
                .as_str()
                .context("metadata names its lane")?
                .to_owned();
            let folder = run.join(&name);
            fs::create_dir_all(&folder)?;
            for part in ["kernel", "config", "lane.config", "modules"] {
                output(
                    Command::new("cp")
                        .arg("--recursive")
                        .arg(from.join(part))
                        .arg(&folder),
                )?;
            }
            let lanes = tempfile::tempdir()?;
            fs::copy(
                from.join("lane.config"),
                lanes.path().join(format!("{name}.config")),
            )?;
            let lane = Lane::load(lanes.path(), &name)?;
            let ready = self.ready_again(&folder, &lane)?;
            let params: BTreeMap<String, u64> = serde_json::from_value(metadata["params"].clone())?;
            let plan = Planned {
                load: lane.stress.clone(),
                params,
                floor: false,
            };
            reports.push((
                self.lane_report(&ready, &metadata, &plan, false, &mut tally)?,
                metadata.clone(),
            ));
        }
        finish(&run, reports, &tally)
    }
}

impl Ready {
    pub fn boot(&self, name: &str, plan: &str, load: Duration) -> Result<Outcome> {
        self.boot_env(name, plan, load, &[])
    }

    pub fn boot_env(
        &self,
        name: &str,
        plan: &str,
        load: Duration,
        env: &[(&str, String)],
    ) -> Result<Outcome> {
        fs::create_dir_all(self.folder.join(name))?;
        write_atomic(&self.folder.join(name).join("plan"), &format!("{plan}\n"))?;
        let limits = &self.lane.limits;
        let limits = Limits {
            boot: limits.boot(),
            run: limits.run(load),
            shutdown: limits.shutdown(),
        };
        self.guest.boot(name, limits, env).or_exit(Exit::Boot)
    }
}

/// What the stress module is told in one run.
struct Planned {
    load: Load,
    params: BTreeMap<String, u64>,
    /// The lane's least numbers hold for its own load, not for one that the user made smaller.
    floor: bool,
}

impl Planned {
    fn new(load: &Load, given: &BTreeMap<String, u64>) -> Planned {
        let mut params = load.params.clone();
        params.extend(given.clone());
        // Chosen here, so that it is recorded even if the guest never says it.
        params
            .entry("seed".into())
            .or_insert_with(|| u64::from(std::process::id()) + 1);
        Planned {
            load: load.clone(),
            params,
            floor: given.keys().all(|k| k == "seed"),
        }
    }

    fn words(&self) -> String {
        self.params
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn seconds(&self) -> Duration {
        // The cases take turns, and an emulated machine is slow: this is a limit, not a forecast.
        Duration::from_secs(self.params.get("seconds").copied().unwrap_or(0) * 10)
    }
}

/// Writes the reports and prints the screen; the tally's verdict is the command's.
fn finish(run: &Path, reports: Vec<(LaneReport, Value)>, tally: &Tally) -> Result<()> {
    let (lanes, metadata): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
    let report = RunReport {
        lanes,
        metadata: Value::Array(metadata),
    };
    write_json(&run.join("report.json"), &report)?;
    write_json(&run.join("metadata.json"), &report.metadata)?;
    write_atomic(&run.join("report.html"), &report::html(&report)?)?;
    write_atomic(&run.join("junit.xml"), &report::junit(&report)?)?;
    println!("\n{}", report::screen(&report));
    println!("report: {}", run.join("report.html").display());
    let result = tally.result();
    if let Err(e) = &result {
        println!("{e:#}");
    }
    println!("{}", tally.closing());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            params: BTreeMap::from([("seconds".into(), 10)]),
            obtained: 1,
            obtained_each: 1,
            contexts: vec![],
        }
    }

    #[test]
    fn given_parameters_win_and_lift_the_floor() {
        let load = load();
        let plan = Planned::new(
            &load,
            &BTreeMap::from([("seconds".into(), 3), ("seed".into(), 7)]),
        );
        assert_eq!(plan.words(), "seconds=3 seed=7");
        assert!(!plan.floor);
        assert!(Planned::new(&load, &BTreeMap::from([("seed".into(), 7)])).floor);
    }

    #[test]
    fn every_run_has_a_seed() {
        let load = load();
        assert!(Planned::new(&load, &BTreeMap::new()).params["seed"] > 0);
    }
}
