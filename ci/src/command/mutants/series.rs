// SPDX-License-Identifier: GPL-2.0
//! A kernel with one file of the series changed.

use crate::base::cache;
use crate::base::exit::{Exit, OrExit};
use crate::base::progress::Progress;
use crate::build::kernel::Build;
use crate::build::make::{LOG, make, run_logged};
use crate::command::job::Job;
use crate::command::mutants::list::Mutant;
use crate::lane::spec::Lane;
use crate::source::tree::Prepared;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::WalkDir;

/// In the copy: what file of the tree is not as it is there.
const CHANGED: &str = "nolocks-changed";

/// Builds it in a copy of the lane's, and returns that. make looks for a source in the folder that it builds in
/// before it looks in the tree, which therefore stays as it is.
pub fn build_changed(
    job: &Job,
    lane: &Lane,
    source: &Prepared,
    build: &Build,
    mutant: &Mutant,
) -> Result<PathBuf> {
    let copy = job.cache.dir(&format!("mutants/kernel-{}", lane.name))?;
    let stamp = copy.join("nolocks-stamp.json");
    if cache::read_json(&stamp).as_ref() != Some(&build.stamp) {
        let half = copy.with_extension("copying");
        cache::remove_dir(&copy)?;
        cache::remove_dir(&half)?;
        job.cache.need_space("a copy of a kernel's build", 1000)?;
        let mut cp = Command::new("cp");
        let status = cp.arg("-a").arg(&build.dir).arg(&half).status();
        ensure!(status?.success(), "cannot copy {}", build.dir.display());
        move_commands(&half, &build.dir, &copy)?;
        fs::rename(&half, &copy)?;
    }
    restore(&copy)?;
    if mutant.is_of_series() {
        let text = fs::read_to_string(source.dir.join(&mutant.file))?;
        fs::write(copy.join(CHANGED), &mutant.file)?;
        fs::write(copy.join(&mutant.file), mutant.apply(&text)?)?;
    }

    let image = Path::new(lane.arch.image()).file_name();
    let mut progress = Progress::new(format!("build {}", mutant.name), 0);
    let mut make = make(&job.cache, lane.arch.kernel(), &source.dir, &copy);
    make.arg(image.context("an image has a name")?);
    run_logged(&mut make, &copy.join(LOG), &mut progress).or_exit(Exit::Build)?;
    progress.finish("built");
    Ok(copy)
}

/// objtool's commands, and Rust's, have the folder in them; make compiles anew what they differ for, and
/// everything for a new objtool.
fn move_commands(dir: &Path, from: &Path, to: &Path) -> Result<()> {
    let [from, to] = [from, to].map(|path| path.display().to_string());
    for part in ["rust", "tools"] {
        for entry in WalkDir::new(dir.join(part)) {
            let path = entry?.into_path();
            if path.extension().is_some_and(|e| e == "cmd") {
                fs::write(&path, fs::read_to_string(&path)?.replace(&from, &to))?;
            }
        }
    }
    Ok(())
}

/// Without the file that was changed last make goes by the tree's again.
fn restore(copy: &Path) -> Result<()> {
    if let Ok(file) = fs::read_to_string(copy.join(CHANGED)) {
        // It may not have come to that.
        let _ = fs::remove_file(copy.join(file));
        fs::remove_file(copy.join(CHANGED))?;
    }
    Ok(())
}
