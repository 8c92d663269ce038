// SPDX-License-Identifier: GPL-2.0
//! `make perf-kmem`: a trace of the guest, and what perf kmem makes of it.

use crate::build::tools::build_tool;
use crate::command::args::Where;
use crate::command::job::{Job, check_users_tree};
use crate::host::setup::{self, Need};
use crate::lane::cases::STRESS;
use crate::run::ready::Ready;
use crate::verdict::judge::judge_boot_with_case;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::fs;
use std::time::Duration;

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

/// Few pages: every one of them is an event, written by an emulated machine.
const TRACED: &str = "case=task pages=2000";

pub fn perf_kmem(job: &Job, at: &Where) -> Result<()> {
    at.one_lane("perf-kmem")?;
    check_users_tree(at.kdir.as_deref())?;
    setup::ensure(&job.cache, Need::Perf, job.yes)?;
    let (source, builds) = job.build_kernels(at)?;
    let (lane, build) = builds.first().context("no lane")?;
    let perf = build_tool(&job.cache, &source.dir, "perf", PERF)?;
    let modules = job.build_lane_modules(lane, build)?;
    let run = job.run_folder("perf-kmem")?;
    let ready = Ready::new(
        &job.cache,
        &run,
        lane,
        &build.dir,
        Some((&modules, &[STRESS])),
    )?;
    let steps = format!("perf perf {STRESS}.ko {TRACED}");
    ready.boot_env(
        "main",
        &steps,
        Duration::ZERO,
        &[("PERF", perf.display().to_string())],
    )?;
    let mut tally = Tally::default();
    tally.take(&judge_boot_with_case(
        &lane.name,
        &ready.read_facts("main")?,
        "perf",
    ));
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
