// SPDX-License-Identifier: GPL-2.0
//! make in a kernel tree: its arguments, its environment, and what it said.

use crate::base::cache::Cache;
use crate::base::exit::{Exit, FULL, FULL_SAID, fail, stage};
use crate::base::pins::LLVM;
use crate::base::proc::{check_interrupt, clear_environment, run_lines};
use crate::base::progress::Progress;
use crate::host::own_tools::own_tools;
use crate::host::setup::{CLIPPY, RUSTC};
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::Path;
use std::process::Command;

/// In a build folder: what make said.
pub const LOG: &str = "nolocks-build.log";

pub fn jobs() -> String {
    format!(
        "-j{}",
        std::thread::available_parallelism().map_or(1, |n| n.get())
    )
}

/// RUSTC must stand on the command line: Kbuild ignores it in the environment.
pub fn make(cache: &Cache, arch: &str, source: &Path, build: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(source)
        .arg(format!("O={}", build.display()))
        .arg(format!("ARCH={arch}"))
        .args(toolchain_args(cache))
        .arg(jobs());
    clean_env(&mut make, &cache.root);
    make
}

pub fn toolchain_args(cache: &Cache) -> Vec<String> {
    vec![
        format!("LLVM={}", *LLVM),
        format!("RUSTC={RUSTC}"),
        format!("CLIPPY_DRIVER={CLIPPY}"),
        format!("BINDGEN={}", own_tools(cache).bindgen.display()),
    ]
}

/// What steers a kernel's build stands on make's command line or in its stamp, never in the environment.
pub fn clean_env(command: &mut Command, cache: &Path) {
    clear_environment(command);
    command
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
        .env("KBUILD_BUILD_USER", "nolocks")
        .env("KBUILD_BUILD_HOST", "nolocks")
        // setlocalversion would describe whatever repository the cache lies in.
        .env("GIT_CEILING_DIRECTORIES", cache);
}

/// Runs make with its whole output in `log`; on failure the error holds what matters of it.
pub fn run_logged(command: &mut Command, log: &Path, progress: &mut Progress) -> Result<()> {
    // By lines: who goes on with an interrupted build reads what was said.
    let mut file = LineWriter::new(
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?,
    );
    let mut lines: Vec<String> = Vec::new();
    let mut written = Ok(());
    let status = run_lines(command, |line| {
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| writeln!(file, "{line}"));
        progress.step(line.trim());
        lines.push(line.to_owned());
    });
    if status
        .as_ref()
        .is_err_and(|e| stage(e) == Some(Exit::Interrupted))
    {
        return Err(fail(
            Exit::Interrupted,
            "interrupted; the same command goes on where it stopped",
        ));
    }
    written
        .and_then(|()| file.flush())
        .with_context(|| format!("cannot write {}", log.display()))?;
    if status?.success() {
        return Ok(());
    }
    check_interrupt()?;
    let full = lines
        .iter()
        .any(|l| l.contains(FULL_SAID) || l.contains("ENOSPC"));
    let errors: Vec<&String> = lines
        .iter()
        .filter(|l| l.contains("error:") || l.contains("error[") || l.contains("Error "))
        .take(8)
        .collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    let mut text = String::new();
    for line in errors.into_iter().filter(|l| !tail.contains(l)).chain(tail) {
        text += line;
        text += "\n";
    }
    text += &format!("the whole log is {}", log.display());
    if full {
        return Err(fail(
            Exit::Setup,
            format!("{FULL}, and run the same command again\n{text}"),
        ));
    }
    anyhow::bail!(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::proc;
    use std::fs;

    fn failing(script: &str) -> anyhow::Error {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let e = run_logged(
            Command::new("sh").args(["-c", script]),
            &log,
            &mut Progress::new("x", 0),
        )
        .unwrap_err();
        assert!(fs::read_to_string(&log).unwrap().contains("CC a.o"));
        e
    }

    #[test]
    fn a_variable_of_the_users_does_not_reach_a_build() {
        const NAME: &str = "build::make::tests::a_variable_of_the_users_does_not_reach_a_build";
        let names = "KCFLAGS KRUSTFLAGS KCONFIG_CONFIG KCONFIG_ALLCONFIG KBUILD_OUTPUT CROSS_COMPILE \
            LOCALVERSION LIBCLANG_PATH MAKEFLAGS KDIR LANE M O W V GIT_DIR CARGO_HOME LC_MESSAGES";
        let env: Vec<_> = names.split_whitespace().map(|n| (n, "a value")).collect();
        proc::tests::alone_with(NAME, &env, || {
            let mut printenv = Command::new("env");
            clean_env(&mut printenv, Path::new("/c"));
            let said = proc::output(&mut printenv).unwrap();
            for (name, _) in &env {
                assert!(std::env::var_os(name).is_some());
                let line = format!("{name}=a value\n");
                assert!(!said.contains(&line), "{said}");
            }
            for kept in ["PATH=", "LC_ALL=C.UTF-8\n", "KBUILD_BUILD_USER=nolocks\n"] {
                assert!(said.contains(kept), "{said}");
            }
        });
    }

    #[test]
    fn a_failed_build_shows_errors_tail_and_log() {
        let noise = "for i in $(seq 40); do echo CC $i.o; done";
        let text = failing(&format!(
            "echo CC a.o; echo 'x.c:3: error: boom' >&2; {noise}; exit 2"
        ))
        .to_string();
        for part in ["x.c:3: error: boom", "CC 40.o", "the whole log is"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("CC 5.o"), "{text}");
    }

    #[test]
    fn a_full_disk_is_named() {
        let e = failing("echo CC a.o; echo 'clang: error: No space left on device'; exit 1");
        assert_eq!(stage(&e), Some(Exit::Setup));
        let text = e.to_string();
        assert!(text.starts_with("the disk is full"), "{text}");
    }
}
