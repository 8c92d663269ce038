// SPDX-License-Identifier: GPL-2.0
//! `make series-check` (every prefix builds, boots and adds no warning) and `make perf-kmem`.

use crate::Where;
use crate::cache::{remove_dir, sha256};
use crate::exit::{Exit, OrExit};
use crate::judge::{self, STRESS};
use crate::kernel::{self, Plan, clean_env, logged};
use crate::lane::{Arch, Lane};
use crate::progress::Progress;
use crate::run::{DEFAULT_LANE, Job};
use crate::setup::{self, LLVM, Need};
use crate::sparse;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CONFIG: &str = include_str!("../series-check.config");
const SLOT: &str = "-check";

/// Kernels that nobody boots here: mm/ must compile for them all the same.
const VARIANTS: &[(&str, &str, &str)] = &[
    (
        "up",
        "x86_64",
        "CONFIG_64BIT=y\nCONFIG_SMP=n\nCONFIG_MEMCG=n\n",
    ),
    (
        "no-numa",
        "x86_64",
        "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_NUMA=n\n",
    ),
    (
        "highmem",
        "i386",
        "CONFIG_64BIT=n\nCONFIG_SMP=y\nCONFIG_HIGHMEM4G=y\n",
    ),
    (
        "no-mmu",
        "riscv",
        "CONFIG_64BIT=y\nCONFIG_NONPORTABLE=y\nCONFIG_MMU=n\n",
    ),
];

pub fn series(job: &Job) -> Result<()> {
    setup::ensure(&job.cache, Need::Lanes, job.yes)?;
    let series = job.series()?;
    let fragment = without_rust_and_kunit(&job.fragment()?);
    let lane = Lane::load(&job.checkout.join("ci/lanes"), DEFAULT_LANE)?;
    let run = job.run_folder("series-check")?;
    let mut tally = Tally::default();
    let mut before = BTreeSet::new();
    for n in 0..=series.patches.len() {
        let what = match n {
            0 => "the tree before the series".to_owned(),
            n => format!("patches 1 to {n}"),
        };
        let source = job.source(None, &series.prefix(n), SLOT)?;
        let plan = Plan {
            name: "series-check",
            arch: Arch::X86.kernel(),
            fragments: &[
                ("Kconfig.fragment", &fragment),
                ("ci/series-check.config", CONFIG),
            ],
            goals: &["bzImage"],
            extra: &["W=1"],
        };
        if n == 0 {
            // Only a build from nothing prints every warning that was there before.
            remove_dir(&plan.place(&job.cache, &source)?.dir)?;
        }
        let built = plan.build(&job.cache, &source);
        let Ok(build) = built else {
            tally.check(&format!("{what}: builds"), built.map(drop))?;
            continue;
        };
        tally.check(&format!("{what}: builds"), Ok(()))?;
        let now = warnings(&fs::read_to_string(build.dir.join("nolocks-build.log"))?);
        if n == 0 {
            before = now;
        } else {
            let new: Vec<&String> = now.difference(&before).collect();
            let result = if new.is_empty() {
                Ok(())
            } else {
                Err(anyhow::anyhow!("{new:?}"))
            };
            tally.check(&format!("{what}: W=1 adds no warning"), result)?;
        }
        let folder = Lane {
            name: format!("prefix-{n}"),
            ..lane.clone()
        };
        let ready = job.ready(&run, &folder, &build, None)?;
        let outcome = ready.boot("main", "", Duration::ZERO)?;
        judge::booted(&what, &outcome, &mut tally)?;
    }
    for (name, arch, config) in VARIANTS {
        let source = job.source(None, &series, SLOT)?;
        let plan = Plan {
            name: &format!("mm-{name}"),
            arch,
            fragments: &[("the variant", config)],
            goals: &["mm/"],
            extra: &[],
        };
        tally.check(
            &format!("mm/ compiles for {name} ({arch})"),
            plan.build(&job.cache, &source).map(drop),
        )?;
    }
    sparse::check(job, &mut tally)?;
    println!("{}", tally.closing());
    tally.result()
}

fn without_rust_and_kunit(fragment: &str) -> String {
    let dropped = ["RUST", "KUNIT"];
    let kept = fragment
        .lines()
        .filter(|l| l.starts_with('#') || !dropped.iter().any(|d| l.contains(d)));
    kept.map(|l| format!("{l}\n")).collect()
}

/// Without line numbers, which every patch moves.
fn warnings(log: &str) -> BTreeSet<String> {
    let place = Regex::new(r":\d+(:\d+)?:").expect("a constant pattern");
    log.lines()
        .filter(|l| l.contains("warning:"))
        .map(|l| place.replace_all(l, ":").into_owned())
        .collect()
}

/// Without the options, tools/perf fails to build or to link with this toolchain.
const PERF: &[&str] = &[
    "NO_RUST=1",
    "NO_LIBPYTHON=1",
    "NO_LIBPERL=1",
    "NO_LIBBPF=1",
    "BUILD_BPF_SKEL=0",
    "NO_SLANG=1",
    "NO_JVMTI=1",
    "NO_LIBLLVM=1",
    "NO_JEVENTS=1",
];

fn build_perf(job: &Job, source: &Path) -> Result<PathBuf> {
    let dir = job.cache.dir(&format!(
        "perf/{}",
        &sha256(source.as_os_str().as_encoded_bytes())[..12]
    ))?;
    let _alone = job.cache.lock("perf")?;
    let mut progress = Progress::new("tools/perf", 0);
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(source.join("tools/perf"))
        .arg(format!("O={}", dir.display()))
        .arg(format!("LLVM={LLVM}"))
        .args(PERF)
        .arg(kernel::jobs());
    clean_env(&mut make, &job.cache.root);
    logged(&mut make, &dir.join("nolocks-build.log"), &mut progress).or_exit(Exit::Build)?;
    progress.finish("built");
    Ok(dir.join("perf"))
}

/// Few pages: every one of them is an event, written by an emulated machine.
const TRACED: &str = "mask=1 pages=2000";

pub fn perf_kmem(job: &Job, at: &Where) -> Result<()> {
    setup::ensure(&job.cache, Need::Perf, job.yes)?;
    let (source, builds) = job.builds(at)?;
    let (lane, build) = builds.first().context("no lane")?;
    let perf = build_perf(job, &source.dir)?;
    let modules = job.lane_modules(lane, build)?;
    let run = job.run_folder("perf-kmem")?;
    let ready = job.ready(&run, lane, build, Some(&modules))?;
    let plan = format!("perf perf {STRESS}.ko {TRACED}");
    let outcome = ready.boot_env(
        "main",
        &plan,
        Duration::ZERO,
        &[("PERF", perf.display().to_string())],
    )?;
    let mut tally = Tally::default();
    judge::plain(&lane.name, &outcome, "perf", &mut tally)?;
    let out = ready.folder.join("main/out");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default();
    let (script, kmem) = (read("perf-script.txt"), read("perf-kmem.txt"));
    tally.check(
        "the trace names __GFP_NO_LOCKS",
        has(&script, r"gfp_flags=\S*__GFP_NO_LOCKS"),
    )?;
    tally.check("perf kmem prints NL", has(&kmem, r"(?m)\bNL\b"))?;
    for line in kmem.lines().filter(|l| has(l, r"\bNL\b").is_ok()).take(5) {
        println!("{line}");
    }
    println!("trace: {}", out.display());
    println!("{}", tally.closing());
    tally.result()
}

fn has(text: &str, pattern: &str) -> Result<()> {
    ensure!(
        Regex::new(pattern)?.is_match(text),
        "{pattern} is nowhere in {} lines",
        text.lines().count()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_warning_is_no_new_one() {
        let before = warnings("CC a.o\nmm/a.c:10:3: warning: unused x [-Wx]\n");
        let moved = warnings("mm/a.c:99:3: warning: unused x [-Wx]\n");
        let other = warnings("mm/a.c:10:3: warning: unused y [-Wx]\n");
        assert_eq!(before.len(), 1);
        assert!(moved.is_subset(&before));
        assert!(!other.is_subset(&before));
    }

    #[test]
    fn the_small_config_has_nothing_that_a_prefix_lacks() {
        let text =
            without_rust_and_kunit("# RUST\nCONFIG_RUST=y\nCONFIG_SMP=y\nCONFIG_X_KUNIT_TEST=y\n");
        assert_eq!(text, "# RUST\nCONFIG_SMP=y\n");
    }
}
