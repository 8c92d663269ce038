// SPDX-License-Identifier: GPL-2.0
//! The commands that build and boot lanes, and the folder that each run leaves.

use crate::base::cache::{self, Cache, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::build::kernel::{self, Build, Modules};
use crate::command::{Where, check, compile_fail};
use crate::guest::accel::{self, Accel};
use crate::guest::boot::{Ending, Guest, Limits, Outcome, Phase};
use crate::guest::root;
use crate::host::qemu;
use crate::host::setup::{self, Need, tools};
use crate::lane::spec::{Arch, Control, Lane, Load, Queue};
use crate::report::{self, LaneReport, RunReport};
use crate::source::series::Series;
use crate::source::tree::{self, Prepared};
use crate::verdict::judge::{self, EXAMPLE, FAILING, MAIN, QUEUE, STRESS, STRESS_CASE};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub const DEFAULT_LANE: &str = "x86_64-lockdep";
/// What a lane's guest may be told to load.
pub const MODULES: &[&str] = &[
    STRESS,
    "nolocks_control",
    QUEUE,
    "nolocks_queue_control",
    EXAMPLE,
];
/// Between two lines of a boot lay 60 seconds at most, an emulated arm64's beside a compiler.
const SILENCE: Duration = Duration::from_secs(240);
const GUEST_SCRIPT: &str = include_str!("../../guest/run.sh");
/// When the command began, as far as its user is concerned.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

pub struct Job {
    pub cache: Cache,
    pub checkout: PathBuf,
    pub yes: bool,
}

/// A lane that is ready to boot: everything it needs is in its own folder.
#[derive(Clone)]
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
        // Whatever boots lanes asks for them first.
        LazyLock::force(&BEGAN);
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
        look(kdir)?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        // Need root and the network once, which is better known before the kernels are built.
        for lane in &lanes {
            qemu::find(&self.cache, lane.arch)?;
            root::ensure(&self.cache, lane.arch)?;
        }
        let source = self.source(kdir, &series, "")?;
        let builds = kernel::lanes(&self.cache, lanes, &fragment, &source)?;
        Ok((source, builds))
    }

    pub fn run_folder(&self, what: &str) -> Result<PathBuf> {
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        new_folder(&self.cache.dir("runs")?, &format!("{stamp}-{what}"))
    }

    /// Copies what a boot needs, so that a later build cannot change what a run meant.
    pub fn ready(
        &self,
        run: &Path,
        lane: &Lane,
        build: &Path,
        modules: Option<(&Modules, &[&str])>,
    ) -> Result<Ready> {
        let folder = run.join(&lane.name);
        fs::create_dir_all(folder.join("modules"))?;
        let image = build.join(lane.arch.image());
        let kernel = folder.join("kernel");
        fs::copy(&image, &kernel).with_context(|| format!("cannot copy {}", image.display()))?;
        fs::copy(build.join(".config"), folder.join("config"))?;
        fs::copy(build.join("System.map"), folder.join("System.map"))?;
        if let Some((modules, names)) = modules {
            for name in names {
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
            emulator: qemu::find(&self.cache, lane.arch)?,
            image: folder.join("kernel"),
            root: root::ensure(&self.cache, lane.arch)?,
            cpus: lane.cpus,
            memory: lane.memory.clone(),
            cmdline: lane.cmdline.clone(),
            qemu: lane.qemu.clone(),
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

    fn metadata(&self, ready: &Ready, source: &Prepared, build: &Build, plan: &Planned) -> Value {
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
            "tools": setup::versions(&self.cache, &ready.guest.emulator.program),
            "accelerator": ready.accel,
            "guest_packages": ready.guest.root.as_deref().map(root::packages),
            "project": checkout(&["rev-parse", "HEAD"]),
            "project_changes": checkout(&["status", "--porcelain"]).lines().count(),
            "cpus": ready.lane.cpus,
            "memory": ready.lane.memory,
            "cmdline": ready.lane.cmdline,
            "plan": plan,
        })
    }

    /// The kernels that some run has finished before.
    fn built(&self) -> BTreeSet<PathBuf> {
        let folders = fs::read_dir(self.cache.root.join("build"));
        let folders = folders.into_iter().flatten().flatten().map(|e| e.path());
        folders
            .filter(|dir| dir.join("nolocks-stamp.json").exists())
            .collect()
    }

    /// The green boots, then the red ones.
    fn lane_report(
        ready: &Ready,
        metadata: &Value,
        plan: &Planned,
        tally: &mut Tally,
    ) -> Result<LaneReport> {
        write_json(&ready.folder.join("metadata.json"), metadata)?;
        let lane = &ready.lane;
        let load = Duration::from_secs(plan.load_s);
        let outcome = ready.boot(MAIN, &plan.lines, load)?;
        let mut own = Tally::default();
        let folder = ready.folder.join(MAIN);
        let seen = judge::green(lane, plan, &folder, &outcome, &mut own)?;
        let mut took = outcome.took;
        let mut hung = Vec::from_iter(outcome.hung(MAIN));
        let mut consoles = vec![MAIN.to_owned()];
        for (file, case, module) in [
            ("ktap.txt", STRESS_CASE, STRESS),
            ("ktap-queue.txt", QUEUE, QUEUE),
            ("ktap-queue-fail.txt", FAILING, QUEUE),
        ] {
            if plan.has(case) {
                ready.keep(file, case, module, &outcome)?;
            }
        }
        let (mut boots, mut results) = (Vec::new(), Vec::new());
        let later = lane.later_boots().into_iter();
        for (name, controls) in later.filter(|_| plan.all_boots) {
            let green = lane.boots.iter().find(|b| b.name == name);
            let mut ready = ready.clone();
            let words = green.iter().flat_map(|b| &b.cmdline);
            ready.guest.cmdline.extend(words.cloned());
            let line = |c: &&Control| format!("module {} {}.ko {}", c.name, c.module, c.params);
            let lines: Vec<String> = controls.iter().map(line).collect();
            let outcome = ready.boot(&name, &lines.join("\n"), Duration::ZERO)?;
            took += outcome.took;
            hung.extend(outcome.hung(&name));
            if let Some(wanted) = green {
                let folder = ready.folder.join(&name);
                boots.push(judge::quiet(
                    lane, wanted, &controls, &folder, &outcome, &mut own,
                )?);
            }
            for control in &controls {
                results.push(judge::red(lane, control, &controls, &outcome, &mut own)?);
            }
            consoles.push(name);
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
            promised: plan.load.iter().flat_map(|l| l.contexts.clone()).collect(),
            suite: seen.suite,
            queue: seen.queue,
            failing: seen.failing,
            kunit: seen.main.kunit,
            boots,
            controls: results,
            findings: seen.main.findings,
            debug_locks: seen.main.debug_locks,
            hung,
            consoles,
            verdict: own.verdict(),
        };
        tally.merge(own);
        Ok(report)
    }

    pub fn stress(&self, at: &Where, given: &BTreeMap<String, u64>) -> Result<()> {
        self.run_lanes("stress", at, |lane| {
            Planned::new(&lane.stress, lane.queue.as_ref(), given)
        })
    }

    /// The queue's stress module with as many objects as it takes.
    pub fn soak(&self, at: &Where, total: u64) -> Result<()> {
        self.run_lanes("soak", at, |lane| Planned::soak(lane, total))
    }

    fn run_lanes(&self, what: &str, at: &Where, plan: impl Fn(&Lane) -> Planned) -> Result<()> {
        let known = self.built();
        let (source, builds) = self.builds(at)?;
        let run = self.run_folder(what)?;
        let lanes = builds
            .iter()
            .map(|(lane, build)| {
                let modules = self.lane_modules(lane, build)?;
                let ready = self.ready(&run, lane, &build.dir, Some((&modules, MODULES)))?;
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
    fn boot_lanes(
        &self,
        run: &Path,
        lanes: Vec<(Ready, Planned, Value)>,
        cache: &str,
        mut tally: Tally,
    ) -> Result<()> {
        let mut reports = Vec::new();
        for (ready, plan, metadata) in lanes {
            let report = Self::lane_report(&ready, &metadata, &plan, &mut tally)?;
            reports.push((report, metadata));
        }
        finish(run, reports, cache, &tally)
    }

    pub fn test(&self, at: &Where) -> Result<()> {
        let named = at.lane.as_deref();
        let lanes = tested(named, self.lanes(named, "all")?)?;
        look(at.kdir.as_deref())?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let mut tally = Tally::default();
        check::all(self, &mut tally)?;
        let known = self.built();
        let (source, builds) = self.builds_of(lanes, at.kdir.as_deref())?;
        let run = self.run_folder("test")?;
        let mut ready_lanes = Vec::new();
        for (i, (lane, build)) in builds.iter().enumerate() {
            tally.passed(1); // The .config holds every option asked for, or there were no build.
            let modules = self.lane_modules(lane, build)?;
            if i == 0 {
                let linted = kernel::lint(&self.cache, build, lane.arch, &self.checkout);
                let again = linted.as_ref().copied().unwrap_or_default();
                tally.check(
                    &format!("rust-module: CLIPPY=1 without a warning{again}"),
                    linted.map(drop),
                )?;
                compile_fail::check(&self.cache, build, lane.arch, &self.checkout, &mut tally)?;
            }
            let ready = self.ready(&run, lane, &build.dir, Some((&modules, MODULES)))?;
            let plan = Planned {
                all_boots: true,
                ..Planned::new(lane.test_load(), lane.queue.as_ref(), &BTreeMap::new())
            };
            let metadata = self.metadata(&ready, &source, build, &plan);
            ready_lanes.push((ready, plan, metadata));
        }
        let cache = cache_was(&known, &builds);
        drop((source, builds));
        self.boot_lanes(&run, ready_lanes, cache, tally)
    }

    pub fn lane_modules(&self, lane: &Lane, build: &Build) -> Result<Modules> {
        kernel::modules(&self.cache, &build.dir, lane.arch, &self.checkout, false)
    }

    pub fn modules(&self, at: &Where) -> Result<()> {
        let modules = match &at.kdir {
            // Built there by its owner, who keeps the choice of configuration.
            Some(kdir) => {
                if at.lane.is_some() {
                    let what =
                        "LANE= means nothing to `make modules KDIR=`: the tree has a configuration";
                    return Err(fail(Exit::Usage, what));
                }
                let kdir = fs::canonicalize(kdir).or_exit(Exit::Tree)?;
                let (arch, config) = kernel::users_own(&kdir)?;
                setup::ensure(&self.cache, Need::Lanes, self.yes)?;
                kernel::same_tools(&kdir, &config)?;
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
            for name in MODULES {
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
        let ready = self.ready(&run, lane, &build.dir, Some((&modules, MODULES)))?;
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

    /// Boots a run's own images again, with the plan that it had and all its boots.
    /// `old` is a run's folder, or its name in the cache.
    pub fn repro(&self, old: &Path) -> Result<()> {
        LazyLock::force(&BEGAN);
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
            for part in ["kernel", "System.map", "config", "lane.config", "modules"] {
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
            let plan = serde_json::from_value(metadata["plan"].clone())
                .with_context(|| format!("{} records no plan", from.display()))
                .or_exit(Exit::Usage)?;
            reports.push((
                Self::lane_report(&ready, &metadata, &plan, &mut tally)?,
                metadata.clone(),
            ));
        }
        finish(&run, reports, "untouched", &tally)
    }
}

/// The user's tree, before anything is fetched, installed or built for it.
pub fn look(kdir: Option<&Path>) -> Result<()> {
    kdir.map_or(Ok(()), |dir| tree::own(dir).map(drop))
}

/// Two runs may begin within a second.
fn new_folder(parent: &Path, name: &str) -> Result<PathBuf> {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    for name in std::iter::once(name.to_owned()).chain(numbered) {
        let folder = parent.join(name);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => {
                return made
                    .with_context(|| format!("cannot create {}", folder.display()))
                    .or_exit(Exit::Setup)
                    .map(|()| folder);
            }
        }
    }
    unreachable!("the numbers do not end")
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
        let folder = self.prepare(name, plan)?;
        let limits = &self.lane.limits;
        let limits = Limits {
            boot: limits.boot(),
            silence: SILENCE,
            run: limits.run(load),
            shutdown: limits.shutdown(),
        };
        let outcome = self.guest.boot(name, limits, env).or_exit(Exit::Boot)?;
        // An emulated GICv3 with pseudo-NMIs: interrupts that nobody acknowledges, for ever.
        let storms = self.lane.arch == Arch::Arm64 && !self.accel.kvm;
        let hung = match outcome.ending {
            Ending::Hung(Phase::Boot, _) => true,
            Ending::Hung(Phase::Run, _) => storms,
            _ => false,
        };
        if !hung || judge::blamed(&outcome.console, storms)? {
            return Ok(outcome);
        }
        // Seen a few times in hundreds of boots. A kernel that hangs by itself hangs again; one that does not
        // is not to be blamed for its emulator, but nor is it kept quiet.
        let kept = self.folder.join(format!("{name}-hung"));
        cache::remove_dir(&kept)?;
        fs::rename(&folder, &kept)?;
        self.prepare(name, plan)?;
        let again = self.guest.boot(name, limits, env).or_exit(Exit::Boot)?;
        Ok(Outcome {
            took: outcome.took + again.took,
            hung_before: Some(kept),
            ..again
        })
    }

    /// What a module printed, as a file of its own.
    fn keep(&self, file: &str, case: &str, module: &str, outcome: &Outcome) -> Result<()> {
        let ktap: String = judge::part(case, &outcome.console)
            .unwrap_or_default()
            .lines()
            .filter_map(|l| l.split_once(&format!("{module}: ")))
            .map(|(_, text)| format!("{text}\n"))
            .collect();
        write_atomic(&self.folder.join(MAIN).join(file), &ktap)
    }

    fn prepare(&self, name: &str, plan: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        write_atomic(&folder.join("plan"), &format!("{plan}\n"))?;
        let setup: String = self.lane.setup.iter().map(|l| format!("{l}\n")).collect();
        write_atomic(&folder.join("setup"), &setup)?;
        Ok(folder)
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

/// The queue's parameter among all others.
const OBJECTS: &str = "objects";
const SEED: &str = "seed";
/// Few, because a third of all blocks fails and each goes the long way.
const FAIL: &str = "objects=400 fail=3";

/// What a run boots, as its metadata.json records it: `make repro` does exactly that again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Planned {
    /// Of the stress module, where it is loaded.
    pub load: Option<Load>,
    pub queue: Option<Queue>,
    pub params: BTreeMap<String, u64>,
    /// The guest's plan.
    pub lines: String,
    /// How much longer than the lane's limit it may run.
    pub load_s: u64,
    /// The lane's least numbers hold for its own load, not for one that the user made smaller.
    pub floor: bool,
    /// The lane's other boots and its controls too.
    pub all_boots: bool,
}

impl Planned {
    pub fn new(load: &Load, queue: Option<&Queue>, given: &BTreeMap<String, u64>) -> Planned {
        let mut params = load.params.clone();
        params.extend(queue.map(|q| (OBJECTS.to_owned(), q.objects)));
        params.extend(given.clone());
        params.entry(SEED.into()).or_insert_with(seed);
        let words = |wanted: &dyn Fn(&str) -> bool| {
            let params = params.iter().filter(|(name, _)| wanted(name));
            params
                .map(|(name, value)| format!(" {name}={value}"))
                .collect::<String>()
        };
        let mut lines = format!(
            "module {STRESS_CASE} {STRESS}.ko{}",
            words(&|n| n != OBJECTS)
        );
        if queue.is_some() {
            lines += "\n";
            lines += &queue_lines(&words(&|n| [OBJECTS, SEED].contains(&n)));
            lines += &format!(
                "\nmodule {FAILING} {QUEUE}.ko {FAIL}{}",
                words(&|n| n == SEED)
            );
        }
        Planned {
            load: Some(load.clone()),
            queue: queue.cloned(),
            lines,
            // The cases take turns, and an emulated machine is slow: this is a limit, not a forecast.
            load_s: params.get("seconds").copied().unwrap_or(0) * 10,
            params,
            floor: given.keys().all(|k| k == SEED),
            all_boots: false,
        }
    }

    pub fn soak(lane: &Lane, total: u64) -> Planned {
        /// Of the module's `objects`, how many it pushes in the case that carries a run.
        const SHARE: u64 = 256;
        /// Objects a second that no emulated machine falls short of.
        const SLOWEST: u64 = 500;
        let wanted = Queue {
            objects: total.div_ceil(SHARE),
            freed: total,
            skips: lane.queue.iter().flat_map(|q| q.skips.clone()).collect(),
        };
        let (objects, seed) = (wanted.objects, seed());
        Planned {
            load: None,
            queue: Some(wanted),
            params: BTreeMap::from([(OBJECTS.into(), objects), (SEED.into(), seed)]),
            lines: queue_lines(&format!(" {OBJECTS}={objects} {SEED}={seed}")),
            load_s: total / SLOWEST,
            floor: true,
            all_boots: false,
        }
    }

    /// Whether the guest carries out a case of this name.
    pub fn has(&self, case: &str) -> bool {
        let mut lines = self.lines.lines();
        lines.any(|l| l.split(' ').nth(1) == Some(case))
    }
}

/// Chosen here, so that it is recorded even if the guest never says it.
fn seed() -> u64 {
    u64::from(std::process::id()) + 1
}

/// A cache is cold if a kernel of this run had never been built in it.
fn cache_was(known: &BTreeSet<PathBuf>, builds: &[(Lane, Build)]) -> &'static str {
    match builds.iter().all(|(_, b)| known.contains(&b.dir)) {
        true => "warm",
        false => "cold",
    }
}

fn queue_lines(params: &str) -> String {
    format!("module {QUEUE} {QUEUE}.ko{params}\nmodule {EXAMPLE} {EXAMPLE}.ko")
}

/// Writes the reports and prints the screen; the tally's verdict is the command's.
fn finish(run: &Path, reports: Vec<(LaneReport, Value)>, cache: &str, tally: &Tally) -> Result<()> {
    let (lanes, metadata): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
    let report = RunReport {
        lanes,
        metadata: Value::Array(metadata),
        total_s: BEGAN.elapsed().as_secs_f64(),
        cache: cache.to_owned(),
        explored: tally.explored.clone(),
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
    if let Some(models) = report::models(&report) {
        println!("{models}");
    }
    println!("{}", report::total(&report));
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
        let given = BTreeMap::from([("seconds".into(), 3), ("seed".into(), 7)]);
        let plan = Planned::new(&load, None, &given);
        assert_eq!(
            plan.lines,
            "module stress nolocks_stress.ko seconds=3 seed=7"
        );
        assert_eq!((plan.floor, plan.load_s), (false, 30));
        let seed = BTreeMap::from([("seed".into(), 7)]);
        assert!(Planned::new(&load, None, &seed).floor);
    }

    #[test]
    fn the_queue_gets_its_own_parameters() {
        let queue = Queue {
            objects: 4000,
            freed: 1,
            skips: Default::default(),
        };
        let given = BTreeMap::from([("seed".into(), 7)]);
        let lines = Planned::new(&load(), Some(&queue), &given).lines;
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "module stress nolocks_stress.ko seconds=10 seed=7",
                "module nolocks_queue_stress nolocks_queue_stress.ko objects=4000 seed=7",
                "module nolocks_example nolocks_example.ko",
                "module queue_fail nolocks_queue_stress.ko objects=400 fail=3 seed=7",
            ]
        );
    }

    #[test]
    fn runs_of_one_second_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let names = [(); 3].map(|()| new_folder(dir.path(), "t-stress").unwrap());
        let want = ["t-stress", "t-stress-2", "t-stress-3"].map(|n| dir.path().join(n));
        assert_eq!(names, want);
        let e = new_folder(&dir.path().join("none"), "x").unwrap_err();
        assert_eq!(crate::base::exit::stage(&e), Some(Exit::Setup));
    }

    #[test]
    fn a_wrong_tree_is_refused_before_anything_is_done_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let job = Job {
            cache: Cache::open(Some(&dir.path().join("cache"))).unwrap(),
            checkout: Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
            yes: false,
        };
        let at = Where {
            kdir: Some(dir.path().to_owned()),
            lane: None,
        };
        for result in [
            job.test(&at),
            job.modules(&at),
            job.builds(&at).map(drop),
            crate::command::verify::perf_kmem(&job, &at),
        ] {
            assert_eq!(
                crate::base::exit::stage(&result.unwrap_err()),
                Some(Exit::Tree)
            );
        }
        assert_eq!(fs::read_dir(&job.cache.root).unwrap().count(), 0);
    }

    #[test]
    fn every_run_has_a_seed() {
        let plan = Planned::new(&load(), None, &BTreeMap::new());
        assert!(plan.params["seed"] > 0);
    }

    #[test]
    fn a_soak_is_recorded_with_its_seed_and_comes_again() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lane = Lane::load(&dir, "x86_64-ftrace").unwrap();
        let plan = Planned::soak(&lane, 10_000_000);
        let seed = plan.params["seed"];
        assert!(seed > 0 && plan.has(QUEUE) && plan.has(EXAMPLE) && !plan.has(FAILING));
        assert!(
            plan.lines
                .contains(&format!(" objects=39063 seed={seed}\n"))
        );
        assert_eq!(plan.load_s, 20_000);
        assert!(plan.queue.as_ref().unwrap().skips.contains("locks"));
        let record = serde_json::to_string(&json!({ "plan": plan })).unwrap();
        let metadata: Value = serde_json::from_str(&record).unwrap();
        let again: Planned = serde_json::from_value(metadata["plan"].clone()).unwrap();
        assert_eq!(again, plan);
    }

    /// A guest whose virtme-ng is `script`, which has a second to boot.
    fn booted(script: &str) -> (Outcome, tempfile::TempDir) {
        booted_on("x86_64", 60, script)
    }

    fn booted_on(arch: &str, run: u64, script: &str) -> (Outcome, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let lane = format!(
            "#: about = \"x\"\n#: arch = \"{arch}\"\n#: cpus = 1\n#: memory = \"1G\"\n\
            #: limits = {{ boot = 1, run = {run}, shutdown = 60 }}\n#: [stress]\n#: obtained = 1\n\
            #: obtained_each = 1\n#: contexts = []\n"
        );
        fs::write(dir.path().join("l.config"), lane).unwrap();
        let guest = crate::guest::boot::tests::guest(dir.path(), script);
        let ready = Ready {
            lane: Lane::load(dir.path(), "l").unwrap(),
            folder: guest.share.clone(),
            guest,
            accel: Accel {
                kvm: false,
                why: String::new(),
            },
        };
        (ready.boot("main", "", Duration::ZERO).unwrap(), dir)
    }

    const FINE: &str = "echo NOLOCKS: guest up; echo NOLOCKS: guest done";

    #[test]
    fn a_test_boots_the_lane_in_all_its_ways_and_a_stress_run_once() {
        let dir = tempfile::tempdir().unwrap();
        let lanes = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lane = Lane::load(&lanes, "x86_64-rt").unwrap();
        let words = "for last; do :; done; echo \"$*\" >$HOME/run/${last##* }/out/words";
        let guest = crate::guest::boot::tests::guest(dir.path(), &format!("{words}; {FINE}"));
        let ready = Ready {
            lane: lane.clone(),
            folder: guest.share.clone(),
            guest,
            accel: Accel {
                kvm: false,
                why: String::new(),
            },
        };
        fs::create_dir_all(&ready.folder).unwrap();
        let read = |file: &str| fs::read_to_string(ready.folder.join(file)).unwrap();
        let boots = |all_boots| {
            let plan = Planned::new(&lane.stress, lane.queue.as_ref(), &BTreeMap::new());
            let plan = Planned { all_boots, ..plan };
            let metadata = json!({ "plan": plan });
            let report = Job::lane_report(&ready, &metadata, &plan, &mut Tally::default()).unwrap();
            assert_eq!(read("main/plan"), format!("{}\n", plan.lines));
            let record: Value = serde_json::from_str(&read("metadata.json")).unwrap();
            assert_eq!(
                serde_json::from_value::<Planned>(record["plan"].clone()).unwrap(),
                plan
            );
            (report.consoles, report.boots.len(), report.controls.len())
        };
        assert_eq!(boots(false), (vec!["main".to_owned()], 0, 0));
        let (consoles, others, controls) = boots(true);
        assert_eq!((others, controls), (lane.boots.len(), lane.controls.len()));
        let mut want = vec!["main".to_owned()];
        want.extend(lane.later_boots().into_iter().map(|(name, _)| name));
        assert_eq!(consoles, want);
        for boot in consoles {
            let faked = read(&format!("{boot}/out/words")).contains("--append numa=fake=2");
            assert_eq!(faked, boot == "kunit-numa", "{boot}");
        }
        let (_, shared) = lane.later_boots().swap_remove(0);
        let plan = read("kunit-numa/plan");
        assert!(!shared.is_empty() && plan.lines().count() == shared.len());
    }

    #[test]
    fn a_boot_that_hangs_is_repeated_once_and_told() {
        let once = format!("if mkdir $HOME/tried; then echo wedged; sleep 1000; else {FINE}; fi");
        let (outcome, dir) = booted(&once);
        assert_eq!(outcome.ending, Ending::Done);
        assert!(outcome.hung("main").unwrap().contains("main-hung"));
        let kept = fs::read_to_string(dir.path().join("run/main-hung/console.txt")).unwrap();
        assert!(kept.contains("wedged"));
        assert!(matches!(
            booted("sleep 1000").0.ending,
            Ending::Hung(Phase::Boot, _)
        ));
        assert!(booted(FINE).0.hung_before.is_none());
    }

    #[test]
    fn a_run_that_hangs_is_repeated_where_the_emulator_is_known_for_it() {
        let stall = "[  9.0] watchdog: BUG: soft lockup - CPU#2 stuck for 156s! [nolocks/2:505]";
        let failed = "[  9.0] nolocks_stress: not ok 3 raw";
        for (arch, says, repeated) in [
            ("arm64", "", true),
            ("arm64", stall, true),
            ("arm64", failed, false),
            ("arm64", "BUG: scheduling while atomic: a/0/1/0x2", false),
            ("x86_64", "", false),
        ] {
            let script = format!(
                "echo NOLOCKS: guest up; if mkdir $HOME/tried; then echo '{says}'; sleep 1000; \
                else echo NOLOCKS: guest done; fi"
            );
            let outcome = booted_on(arch, 1, &script).0;
            assert_eq!(outcome.hung_before.is_some(), repeated, "{arch} {says}");
            assert_eq!(outcome.ending == Ending::Done, repeated, "{arch} {says}");
        }
    }

    /// A splat, or a test of our own that never ends, would be forgotten by the second boot.
    #[test]
    fn a_boot_that_shows_more_than_a_hang_is_not_repeated() {
        let case = "    # Subtest: page_alloc_no_locks\\n    ok 1 no_locks_zero";
        let over = format!("{case}\\nnot ok 1 page_alloc_no_locks");
        for (says, repeated) in [
            ("BUG: scheduling while atomic: swapper/0/1/0x2", false),
            (
                "watchdog: BUG: soft lockup - CPU#0 stuck for 156s! [swapper/0:1]",
                false,
            ),
            (case, false),
            (over.as_str(), true),
            ("Linux version 7.3.4", true),
        ] {
            let script = format!(
                "if mkdir $HOME/tried; then printf '{says}\\n'; sleep 1000; else {FINE}; fi"
            );
            let outcome = booted(&script).0;
            assert_eq!(outcome.hung_before.is_some(), repeated, "{says}");
            assert_eq!(outcome.ending == Ending::Done, repeated, "{says}");
        }
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
