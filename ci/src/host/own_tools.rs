// SPDX-License-Identifier: GPL-2.0
//! The tools that the runner makes itself, of one version: bindgen and virtme-ng.

use crate::base::cache::{Cache, remove_dir, sha256};
use crate::base::exit::{Exit, OrExit, fail, perhaps_network};
use crate::base::pins::PINS;
use crate::base::proc;
use crate::base::progress::Progress;
use crate::host::cargo::cargo;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const VIRTME: &str = include_str!("../../virtme-ng.txt");

/// Where they are.
pub struct OwnTools {
    pub bindgen: PathBuf,
    pub vng: PathBuf,
}

pub fn own_tools(cache: &Cache) -> OwnTools {
    OwnTools {
        bindgen: cache.root.join(format!(
            "tools/bindgen-{}/bin/bindgen",
            PINS.toolchain.bindgen
        )),
        vng: virtme_dir(cache).join("bin/vng"),
    }
}

pub fn ensure(cache: &Cache) -> Result<()> {
    let _alone = cache.lock("tools")?;
    make_bindgen(cache)?;
    make_virtme(cache)
}

/// Built in a folder beside its place and renamed, so that what is there is whole.
fn make_bindgen(cache: &Cache) -> Result<()> {
    if own_tools(cache).bindgen.exists() {
        return Ok(());
    }
    let parent = cache.dir("tools")?;
    let temp = tempfile::Builder::new()
        .prefix("bindgen-")
        .tempdir_in(&parent)?;
    let version = &PINS.toolchain.bindgen;
    run_step(
        "bindgen",
        cargo("install")
            .args(["--locked", "--version", version, "bindgen-cli", "--root"])
            .arg(temp.path())
            .env("CARGO_TARGET_DIR", temp.path().join("target"))
            .current_dir(&parent),
        260,
    )?;
    remove_dir(&temp.path().join("target"))?;
    fs::rename(temp.keep(), parent.join(format!("bindgen-{version}"))).or_exit(Exit::Setup)
}

fn virtme_dir(cache: &Cache) -> PathBuf {
    cache
        .root
        .join(format!("tools/virtme-{}", &sha256(VIRTME)[..8]))
}

/// A virtual environment cannot be renamed, so a stamp written last says that it is whole.
fn make_virtme(cache: &Cache) -> Result<()> {
    cache.dir("tools")?;
    let dir = virtme_dir(cache);
    let stamp = dir.join("complete");
    if stamp.exists() {
        return Ok(());
    }
    remove_dir(&dir)?;
    run_step(
        "python venv",
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&dir),
        0,
    )?;
    let requirements = dir.join("requirements.txt");
    fs::write(&requirements, VIRTME)?;
    run_step(
        "virtme-ng",
        Command::new(dir.join("bin/pip"))
            .args(["install", "--no-input", "-r"])
            .arg(&requirements),
        0,
    )?;
    fs::write(stamp, "").or_exit(Exit::Setup)
}

fn run_step(what: &str, command: &mut Command, total: u64) -> Result<()> {
    let mut progress = Progress::new(what, total);
    let mut lines = Vec::new();
    let status = proc::run_lines(command, |line| {
        progress.step(line.trim());
        lines.push(line.to_owned());
    })
    .or_exit(Exit::Setup)?;
    if !status.success() {
        let tail = lines[lines.len().saturating_sub(15)..].join("\n");
        return Err(fail(
            Exit::Setup,
            format!(
                "{} failed{}:\n{tail}",
                proc::show(command),
                perhaps_network(&lines.join("\n"))
            ),
        ));
    }
    progress.finish("ready");
    Ok(())
}
