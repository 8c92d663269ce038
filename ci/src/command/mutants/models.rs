// SPDX-License-Identifier: GPL-2.0
//! The bugs that the models must find, for which no kernel is needed.

use crate::base::cache::{Cache, write_atomic};
use crate::base::proc::{check_interrupt, spawn_lines};
use crate::base::progress::Progress;
use crate::command::job::Job;
use crate::command::mutants::copy::copy_tree;
use crate::command::mutants::list::{LIB, Mutant, SHARD, UNCHANGED};
use crate::command::mutants::tried::{Fate, HOST, TriedMutant, record};
use crate::host::cargo::cargo;
use crate::source::git::forget_repository;
use anyhow::Result;
use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Of the models' tests, which take seconds. One that is still at it will never end.
const HOST_LIMIT: Duration = Duration::from_secs(300);

const MANIFEST: &str = r#"[package]
name = "mutant"
version = "0.0.0"
edition = "2021"
publish = false

[workspace]

[lib]
path = "lib.rs"

[[test]]
name = "host"
path = "host.rs"

[dev-dependencies]
loom = "0.7"
proptest = { version = "1", default-features = false, features = ["std"] }

[profile.dev]
debug = false
"#;

pub fn try_in_models(
    job: &Job,
    run: &Path,
    mutants: &[&Mutant],
    found: &mut Vec<TriedMutant>,
) -> Result<()> {
    let _alone = job.cache.lock("mutants-models")?;
    let logs = run.join(HOST);
    fs::create_dir_all(&logs)?;
    let package = job.cache.dir("mutants/host")?;
    for (name, text) in [("Cargo.toml", MANIFEST), ("lib.rs", "")] {
        write_atomic(&package.join(name), text)?;
    }
    fs::copy(
        job.checkout.join("ci/Cargo.lock"),
        package.join("Cargo.lock"),
    )?;
    fs::copy(
        job.checkout.join("ci/mutants/host.rs"),
        package.join("host.rs"),
    )?;
    for model in ["interleavings", "sequences"] {
        let from = job.checkout.join("models/queue").join(model);
        copy_tree(&from, &package.join(model), |_, text| Ok(text))?;
    }
    let source = fs::read_to_string(job.checkout.join(LIB).join(SHARD))?;
    let tested = |mutant: Option<&Mutant>| -> Result<Fate> {
        let text = mutant.map_or_else(|| Ok(source.clone()), |m| m.apply(&source))?;
        for model in ["interleavings", "sequences"] {
            fs::write(package.join(model).join("shard.rs"), &text)?;
        }
        let name = mutant.map_or(UNCHANGED, |m| &m.name);
        run_model_tests(&job.cache, &package, &logs.join(format!("{name}.log")))
    };
    let mut progress = Progress::new("mutants for the models", mutants.len() as u64);
    tested(None)?.check_unchanged("the models' tests", &logs)?;
    for mutant in mutants {
        let start = Instant::now();
        let fate = tested(Some(mutant))?;
        found.push(TriedMutant::new(mutant, HOST, fate, start.elapsed()));
        record(run, found)?;
        progress.step(&mutant.name);
    }
    let caught = found
        .iter()
        .filter(|f| matches!(f.fate, Fate::Caught(_)))
        .count();
    progress.finish(&format!("{caught} of {} found", mutants.len()));
    Ok(())
}

fn run_model_tests(cache: &Cache, package: &Path, log: &Path) -> Result<Fate> {
    let test = |args: &[&str]| {
        let mut cargo = cargo("test");
        cargo
            .args(args)
            .current_dir(package)
            .env("CARGO_TARGET_DIR", cache.root.join("mutants/target"))
            // A sequence that fails need not be made short.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0");
        forget_repository(&mut cargo);
        cargo
    };
    let build = &mut test(&["--quiet", "--no-run"]);
    let (built, said) = run_in_time(build, Duration::MAX, |_| false)?;
    if built != Some(true) {
        write_atomic(log, &said)?;
        return Ok(Fate::Broken(said));
    }
    // What one test has found no other has to find again.
    let failed = Regex::new(r"(?m)^test (\S+) \.\.\. .*FAILED|^    (\w+::\S+)$")?;
    let test = &mut test(&["--test", "host"]);
    let (passed, said) = run_in_time(test, HOST_LIMIT, |line| failed.is_match(line))?;
    write_atomic(log, &said)?;
    let by: BTreeSet<&str> = failed
        .captures_iter(&said)
        .filter_map(|c| Some(c.get(1).or(c.get(2))?.as_str()))
        .collect();
    Ok(match passed {
        _ if !by.is_empty() => Fate::Caught(Vec::from_iter(by).join(", ")),
        Some(true) => Fate::Survived,
        Some(false) => Fate::Caught("the tests' end".into()),
        None => Fate::Caught("tests that never end".into()),
    })
}

/// Whether a command succeeded, if it ended in time and said nothing that is `enough`; and what it said.
fn run_in_time(
    command: &mut Command,
    limit: Duration,
    enough: impl Fn(&str) -> bool,
) -> Result<(Option<bool>, String)> {
    let start = Instant::now();
    let (mut group, lines) = spawn_lines(command)?;
    let mut said = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                let enough = enough(&line);
                said += &(line + "\n");
                if enough {
                    return Ok((None, said));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if start.elapsed() > limit => return Ok((None, said)),
            Err(RecvTimeoutError::Timeout) => check_interrupt()?,
        }
    }
    let success = group.wait()?.success();
    check_interrupt()?;
    Ok((Some(success), said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::mutants::list::tests::checkout;

    #[test]
    fn the_host_runs_what_the_models_explore() {
        let read = |file: &str| fs::read_to_string(checkout().join(file)).unwrap();
        let host = read("ci/mutants/host.rs");
        let explored = Regex::new(r"explore\(faithful::(\w+)\)").unwrap();
        let text = read("models/queue/interleavings.rs");
        let scenes: Vec<&str> = explored
            .captures_iter(&text)
            .map(|c| c.extract::<1>().1[0])
            .collect();
        assert!(scenes.len() >= 8);
        for scene in scenes {
            assert!(host.contains(&format!("        {scene}\n")), "{scene}");
        }
    }
}
