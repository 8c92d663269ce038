// SPDX-License-Identifier: GPL-2.0
//! The commands, and how the runner ends: docs/runner.md.

pub mod args;
pub mod bench;
pub mod check;
pub mod compile_fail;
pub mod decode;
pub mod form;
pub mod gdb;
pub mod job;
pub mod litmus;
pub mod modules;
pub mod mutants;
pub mod perf_kmem;
pub mod refresh;
pub mod repro;
pub mod results;
pub mod rust_analyzer;
pub mod series_check;
pub mod sparse;
pub mod stress;
pub mod test;
pub mod torture;

use crate::base::exit::{self, Exit};
use crate::base::{cache, pins, proc};
use crate::host::cargo::check_cargo;
use crate::host::setup::{self, Need};
use crate::source::{debian, series};
use anyhow::Result;
use args::{Cli, Task};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub fn main() -> ExitCode {
    // Also asked for by test harnesses of their own; clap itself exits with 2 on bad usage.
    let cli = Cli::parse();
    let result = proc::install_handler()
        .and_then(|()| pins::check())
        .and_then(|()| dispatch(cli));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (code, name) = match exit::stage(&error) {
                _ if proc::interrupted() => (130, "Interrupted".to_owned()),
                Some(exit) => (exit as u8, format!("{exit:?}")),
                None => (1, "internal error".to_owned()),
            };
            let error = exit::explained(error);
            eprintln!(
                "\nnolocks: {error:#}\nnolocks: exit code {code} ({})",
                name.to_lowercase()
            );
            ExitCode::from(code)
        }
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    let checkout = std::path::absolute(&cli.checkout)?;
    if !checkout.join("ci/lanes").is_dir() {
        return Err(exit::fail(
            Exit::Usage,
            format!(
                "{} is not the project's checkout: run make there",
                checkout.display()
            ),
        ));
    }
    let yes = cli.yes || std::env::var("CI").is_ok_and(|v| v == "true");
    let series = || series::Series::load(&checkout.join("patches"));
    // These need neither the cache nor a tool that may be missing.
    match &cli.command {
        Task::Apply { kdir } => return say(&series()?.apply(given(kdir, "KDIR=/path/to/linux")?)?),
        Task::Unapply { kdir } => {
            return say(&series()?.unapply(given(kdir, "KDIR=/path/to/linux")?)?);
        }
        Task::Rebase { kdir } => {
            return say(&series()?.rebase(given(kdir, "KDIR=/path/to/linux")?)?);
        }
        Task::Refresh { kdir, base } => {
            let kdir = given(kdir, "KDIR=/path/to/linux")?;
            return refresh::run(&checkout, kdir, base.as_deref());
        }
        _ => {}
    }
    if cli.command.makes_modules() {
        cache::buildable("the checkout ", &checkout)?;
    }
    let cache = cache::Cache::open(cli.cache.as_deref())?;
    if matches!(cli.command, Task::Clean) {
        cache.clean()?;
        return say(&format!(
            "removed sources, builds and runs; the fetched tree and tools stay in {}",
            cache.root.display()
        ));
    }
    let _in_use = cache.in_use()?;
    let job = job::Job {
        cache,
        checkout,
        yes,
        jobs: cli.jobs.map(usize::from),
    };
    match cli.command {
        Task::Apply { .. }
        | Task::Unapply { .. }
        | Task::Rebase { .. }
        | Task::Refresh { .. }
        | Task::Clean => Ok(()),
        Task::Setup => {
            setup::ensure(&job.cache, Need::Perf, yes)?;
            check_cargo()?;
            say("every tool is there")?;
            say(&debian::fetch_newer(&job.cache)?)
        }
        Task::Stress {
            at,
            on_top,
            params,
            case,
            repeat,
        } => job.stress(&at, &on_top, &params.given(), case.as_deref(), repeat),
        Task::Soak { at, objects } => job.soak(&at, objects),
        Task::Test { at } => job.test(&at),
        Task::Check => check::run(&job),
        Task::SeriesCheck => series_check::run(&job),
        Task::Sparse => sparse::run(&job),
        Task::Torture => torture::run(&job),
        Task::Bench { lane } => bench::run(&job, lane.as_deref()),
        Task::Build { at } => {
            let (_, builds) = job.build_kernels(&at)?;
            builds
                .iter()
                .try_for_each(|(_, b)| say(&b.dir.display().to_string()))
        }
        Task::Modules { at } => job.modules(&at),
        Task::Mutants { at, mutants } => mutants::run(&job, &at, mutants.as_deref()),
        Task::Shell { at, on_top } => job.shell(&at, &on_top),
        Task::Gdb { at, on_top } => job.gdb(&at, &on_top),
        Task::Decode { run, kdir } => job.decode(
            given(&run, "RUN=, a run's folder or name")?,
            kdir.as_deref(),
        ),
        Task::RustAnalyzer { at } => rust_analyzer::write(&job, &at),
        Task::PerfKmem { at } => perf_kmem::perf_kmem(&job, &at),
        Task::Judge { run, todays } => {
            job.judge(given(&run, "RUN=, a run's folder or name")?, todays)
        }
        Task::Results { run } => results::write(&job, given(&run, "RUN=, a run's folder or name")?),
        Task::Repro { run } => job.repro(given(&run, "RUN=, a run's folder or name")?),
    }
}

fn given<'a>(path: &'a Option<PathBuf>, say: &str) -> Result<&'a Path> {
    path.as_deref()
        .ok_or_else(|| exit::fail(Exit::Usage, format!("this needs {say}")))
}

fn say(text: &str) -> Result<()> {
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_checkout_that_kbuild_cannot_take_is_refused_before_the_kernel_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let checkout = dir.path().join("a b");
        std::fs::create_dir_all(checkout.join("ci/lanes")).unwrap();
        let run = |task: &[&str]| {
            let cache = dir.path().join("cache").display().to_string();
            let checkout = checkout.display().to_string();
            let at = ["x", "--checkout", &checkout, "--cache", &cache];
            dispatch(Cli::parse_from(at.into_iter().chain(task.iter().copied())))
        };
        for task in ["stress", "test", "modules", "bench"] {
            let e = run(&[task]).unwrap_err();
            assert_eq!(exit::stage(&e), Some(Exit::Usage), "{task}");
            assert!(e.to_string().contains("a b"), "{e}");
        }
        run(&["clean"]).unwrap();
    }

    #[test]
    fn a_command_that_its_input_does_not_fit_ends_before_anything_is_fetched_or_built() {
        let dir = tempfile::tempdir().unwrap();
        let blank = dir.path().join("a tree");
        std::fs::create_dir(&blank).unwrap();
        let run = |words: &[&str]| {
            let cache = dir.path().join("cache").display().to_string();
            let checkout = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
            let at = ["x", "--checkout", checkout, "--cache", &cache];
            dispatch(Cli::parse_from(at.into_iter().chain(words.iter().copied()))).unwrap_err()
        };
        let kdir = |dir: &Path| format!("--kdir={}", dir.display());
        for (words, stage, said) in [
            (["shell", "--lane=all"], Exit::Usage, "one lane"),
            (["perf-kmem", "--lane=all"], Exit::Usage, "one lane"),
            (["gdb", "--lane=all"], Exit::Usage, "one lane"),
            (["decode", "--run=/no/such"], Exit::Usage, "RUN="),
            (["modules", &kdir(&blank)], Exit::Usage, "without blanks"),
            (["modules", "--kdir=/no/such"], Exit::Tree, "KDIR=/no/such"),
            (
                ["modules", &kdir(dir.path())],
                Exit::Tree,
                "neither a kernel tree",
            ),
            (["stress", "--kdir=/no/such"], Exit::Tree, "KDIR=/no/such"),
            (
                ["stress", &kdir(&blank)],
                Exit::Tree,
                "is not a kernel tree",
            ),
        ] {
            let e = run(&words);
            assert_eq!(exit::stage(&e), Some(stage), "{words:?}: {e:#}");
            assert!(e.to_string().contains(said), "{words:?}: {e:#}");
        }
    }

    #[test]
    fn make_refuses_what_a_target_would_ignore() {
        let make = |words: &str| {
            let mut make = Command::new("make");
            crate::build::make::clean_env(&mut make, Path::new("/"));
            make.arg("--dry-run")
                .arg("--directory")
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
                .args(words.split(' '))
                .env("SECONDS", "1");
            proc::output(&mut make)
        };
        for bad in [
            "series-check KDIR=x",
            "test PAGES=1",
            "test CASE=pages/nmi",
            "soak REPEAT=2",
            "soak SEED=1",
            "clean RUN=x",
            "repro LANE=x",
            "test CONFIG=x",
            "soak BOOTARGS=x",
            "decode LANE=x",
            "gdb RUN=x",
            "rebase BASE=x",
            // Nobody's: a slip of the finger.
            "stress LAN=x",
            "test lane=x",
        ] {
            let e = make(bad).expect_err(bad).to_string();
            assert!(e.contains("takes no"), "{e}");
        }
        for (missing, what) in [
            ("apply", "KDIR"),
            ("refresh BASE=x", "KDIR"),
            ("repro", "RUN"),
            ("decode KDIR=x", "RUN"),
            ("judge TODAYS=1", "RUN"),
            ("results", "RUN"),
        ] {
            let e = make(missing).expect_err(missing).to_string();
            assert!(e.contains(&format!("needs {what}=")), "{e}");
        }
        for empty in ["stress KDIR=", "apply KDIR=", "test LANE=", "repro RUN="] {
            let e = make(empty).expect_err(empty).to_string();
            assert!(e.contains("= is empty"), "{e}");
        }
        let quoted = make("apply KDIR=/a'b").unwrap();
        assert!(quoted.contains("--kdir='/a'\\''b'"), "{quoted}");
        for good in [
            "check",
            "check YES=1 NOLOCKS_CACHE=/x",
            "stress SECONDS=1 LANE=x KDIR=y OBJECTS=3",
            "stress CASE=*/nmi,queue/locks REPEAT=3",
            "soak OBJECTS=1",
            "stress CONFIG=x BOOTARGS=quiet",
            "shell BOOTARGS=x",
            "rust-analyzer LANE=x",
            "results RUN=x",
            "test LANE=x",
            "bench LANE=x",
            "apply KDIR=x",
            "rebase KDIR=x",
            "refresh KDIR=x BASE=v7.3.4",
            "gdb LANE=x CONFIG=y BOOTARGS=quiet",
            "decode RUN=x KDIR=y",
            "repro RUN=x",
            "judge RUN=x TODAYS=1",
        ] {
            make(good).expect(good);
        }
    }
}
