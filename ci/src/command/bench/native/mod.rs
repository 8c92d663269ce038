// SPDX-License-Identifier: GPL-2.0
//! The machine that has the host's clock: UML, a kernel that is a process. What QEMU counts are instructions;
//! here are objects a second, waits and memory, where caches and several CPUs have their say.

mod figures;
mod pictures;
mod tables;

use super::tables::Table;
use crate::base::cache::write_atomic;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::{check_interrupt, clear_environment, complete, spawn_lines};
use crate::base::progress::Progress;
use crate::build::kernel::{Build, Recipe, Stamp};
use crate::build::modules::{self, build_modules};
use crate::command::job::Job;
use crate::report::table::markdown;
use crate::source::series::Series;
use crate::source::tree::{Origin, Prepared};
use anyhow::{Context, Result};
use figures::{Figures, PAIRS};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

pub const NAME: &str = "native";
const ARCH: &str = "um";
const MODULE: &str = "nolocks_bench_native";
const CONFIG: &str = "ci/bench/native/um.config";
const SMP: &str = "CONFIG_SMP=y\nCONFIG_NR_CPUS=64\n";
const MEMORY: &str = "2G";
/// The host's files are the root, and what is printed goes to this process.
const HOST: [&str; 9] = [
    "seccomp=on",
    "root=/dev/root",
    "rootfstype=hostfs",
    "rootflags=/",
    "ro",
    "con=null",
    "con0=null,fd:1",
    "panic=-1",
    "noreboot",
];

/// What a boot measures.
struct What {
    param: u32,
    cmdline: Option<&'static str>,
}

const FREED: What = What {
    param: 0,
    cmdline: None,
};
/// An object whose words are gone is free.
const WAITS: What = What {
    param: 1,
    cmdline: Some("init_on_free=1"),
};
const SHARES: What = What {
    param: 2,
    cmdline: None,
};
/// It takes minutes, and tells a hang from work.
const LIMIT: Duration = Duration::from_secs(1200);
/// The last that a boot says.
const DONE: &str = "native: insmod said ";

#[derive(Serialize)]
pub struct Native {
    pub cpus: usize,
    pub figures: Figures,
    pub builds: [Stamp; 2],
    #[serde(skip)]
    pub origin: Origin,
}

pub fn measure(job: &Job, run: &Path, series: &Series) -> Result<Native> {
    let source = job.source(None, series, "")?;
    let cpus = std::thread::available_parallelism()?.get().max(2);
    let config = fs::read_to_string(job.checkout.join(CONFIG)).or_exit(Exit::Config)?;
    let smp = build(job, &source, "smp", &[(CONFIG, &config), ("SMP", SMP)])?;
    // Disabling interrupts takes next to nothing there.
    let up = build(job, &source, "up", &[(CONFIG, &config)])?;
    let boot = |name: &str, kernel: &Kernel, cpus: usize, what: &What| {
        let init = run.join(format!("native-{name}.sh"));
        write_atomic(&init, &script(&kernel.module, what))?;
        complete(Command::new("chmod").arg("+x").arg(&init))?;
        let mut linux = Command::new(kernel.build.dir.join("linux"));
        clear_environment(&mut linux);
        linux
            .args(HOST)
            .args(what.cmdline)
            .arg(format!("ncpus={cpus}"))
            .arg(format!("mem={MEMORY}"))
            .arg(format!("init={}", init.display()));
        boot(name, &mut linux, &run.join(format!("native-{name}.txt")))
    };
    let consoles = [
        boot("shares", &smp, cpus, &SHARES)?,
        boot("up", &up, 1, &FREED)?,
        boot("smp", &smp, cpus, &FREED)?,
        boot("waits", &smp, cpus, &WAITS)?,
    ];
    Ok(Native {
        cpus,
        figures: Figures::read(&consoles.concat())?,
        builds: [up.build.stamp, smp.build.stamp],
        origin: source.origin,
    })
}

struct Kernel {
    build: Build,
    module: PathBuf,
}

/// The tree's own, and before it how often the timer ticks: of two defaults the first holds.
fn kconfig(tree: &str) -> Option<String> {
    const BEHIND: &str = "source \"scripts/Kconfig.include\"\n";
    let (title, rest) = tree.split_once(BEHIND)?;
    Some(format!(
        "{title}{BEHIND}\nconfig HZ\n\tint\n\tdefault 1000\n{rest}"
    ))
}

fn build(job: &Job, source: &Prepared, name: &str, fragments: &[(&str, &str)]) -> Result<Kernel> {
    let text = fs::read_to_string(source.dir.join("Kconfig")).or_exit(Exit::Tree)?;
    let text = kconfig(&text).context("Kconfig begins otherwise");
    let file = job
        .cache
        .dir("build")?
        .join(format!("bench-{NAME}.Kconfig"));
    write_atomic(&file, &text.or_exit(Exit::Tree)?)?;
    let recipe = Recipe {
        name: &format!("bench-{NAME}-{name}"),
        arch: ARCH,
        fragments,
        goals: &["linux", "modules"],
        extra: &[&format!("KBUILD_KCONFIG={}", file.display())],
    };
    let build = recipe.build(&job.cache, source)?;
    let what = modules::What::BenchNative;
    let modules = build_modules(&job.cache, &build.dir, ARCH, &job.checkout, what)?;
    let module = modules.path(MODULE)?;
    Ok(Kernel { build, module })
}

/// What the kernel runs instead of an init: the host's own programs.
fn script(module: &Path, what: &What) -> String {
    format!(
        "#!/bin/sh\n\
        PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
        mount -t proc proc /proc\n\
        barrier=$(sed -n 's/ [tT] kvfree_rcu_barrier$//p' /proc/kallsyms)\n\
        insmod {} barrier=0x$barrier pairs={PAIRS} what={}\n\
        echo \"{DONE}$?\"\n\
        busybox poweroff -f\n",
        module.display(),
        what.param
    )
}

/// Boots it, and returns what it said.
fn boot(name: &str, linux: &mut Command, file: &Path) -> Result<String> {
    let mut progress = Progress::new(format!("native {name}"), 0);
    let end = Instant::now() + LIMIT;
    let (mut group, lines) = spawn_lines(linux)?;
    let mut console = String::new();
    let in_time = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                progress.step(line.trim());
                console += &line;
                console.push('\n');
            }
            Err(e) => break e == RecvTimeoutError::Disconnected,
        }
    };
    write_atomic(file, &console)?;
    check_interrupt()?;
    let what = |why: &str| format!("{why}: see {}", file.display());
    // What was measured beside it is worth nothing, and it explains what else is wrong.
    let is_report = |line: &&str| {
        ["BUG: ", "WARNING: "]
            .iter()
            .any(|word| line.contains(word))
    };
    if let Some(line) = console.lines().find(is_report) {
        return Err(fail(Exit::Splat, what(line)));
    }
    if !in_time {
        return Err(fail(Exit::Hang, what("UML did not end in time")));
    }
    group.wait()?;
    if !console.contains(&format!("{DONE}0")) {
        return Err(fail(Exit::Test, what("the module was not loaded")));
    }
    progress.finish("measured");
    Ok(console)
}

/// What of it `docs/bench.json` is compared by.
#[derive(Deserialize)]
pub struct Before {
    figures: Figures,
}

#[cfg(test)]
impl Before {
    /// What the queue frees in the time in which `kfree_rcu()` frees one object.
    pub fn ratio_on_one_cpu(&self, objects: u64, size: u64) -> Option<f64> {
        let mut rows = self.figures.freed.iter();
        let row = rows.find(|f| (f.cpus, f.objects, f.size) == (1, objects, size))?;
        Some(row.ratio.median)
    }
}

impl Native {
    pub fn moved(&self, old: &Before) -> Vec<String> {
        self.figures.moved(&old.figures)
    }

    pub fn tables(&self) -> Vec<Table> {
        tables::tables(&self.figures)
    }

    /// Its part of the page.
    pub fn page(&self) -> String {
        let tables = self.tables();
        let tables = tables
            .iter()
            .map(|t| format!("\n{}", markdown(&t.header, &t.rows, t.left)));
        let [up, smp] = &self.builds;
        let shown = pictures::FILES.map(|(file, about)| format!("\n![{about}]({file})\n"));
        format!(
            "\n## UML, a process of the host's, on one CPU and on {}, {MEMORY}, PREEMPT, nothing that debugs\n\n{}\n{}{}\n\
            Configurations: {} on one CPU, {} on {}.\n",
            self.cpus,
            tables::legend(&self.figures),
            tables.collect::<String>(),
            shown.concat(),
            up.config,
            smp.config,
            self.cpus
        )
    }

    pub fn draw(&self, run: &Path) -> Result<()> {
        for ((file, _), picture) in pictures::FILES.iter().zip(pictures::draw(&self.figures)?) {
            write_atomic(&run.join(file), &picture).with_context(|| (*file).to_owned())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    #[test]
    fn the_timer_ticks_by_the_first_default() {
        let tree =
            "mainmenu \"x\"\n\nsource \"scripts/Kconfig.include\"\n\nsource \"init/Kconfig\"\n";
        let ours = kconfig(tree).unwrap();
        assert!(ours.starts_with("mainmenu"));
        let at = |what| ours.find(what).unwrap();
        assert!(at("Kconfig.include") < at("default 1000") && at("1000") < at("init/Kconfig"));
        assert_eq!(kconfig("source \"init/Kconfig\"\n"), None);
    }

    #[test]
    fn a_boot_that_did_not_load_the_module_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("console.txt");
        let said = |text: &str| boot("x", Command::new("echo").arg(text), &file);
        assert_eq!(
            said("native: insmod said 0").unwrap(),
            "native: insmod said 0\n"
        );
        for text in ["native: insmod said 1", "silence"] {
            assert_eq!(stage(&said(text).unwrap_err()), Some(Exit::Test));
            assert!(std::fs::read_to_string(&file).unwrap().contains(text));
        }
        let splat = said("BUG: scheduling while atomic\nnative: insmod said 0").unwrap_err();
        assert_eq!(stage(&splat), Some(Exit::Splat));
        let script = script(Path::new("/x.ko"), &SHARES);
        assert!(
            script.contains("insmod /x.ko barrier=0x$barrier pairs=9 what=2\n"),
            "{script}"
        );
    }
}
