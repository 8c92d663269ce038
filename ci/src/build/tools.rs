// SPDX-License-Identifier: GPL-2.0
//! Programs of a kernel tree's tools/.

use crate::base::cache::{Cache, sha256};
use crate::base::exit::{Exit, OrExit};
use crate::base::pins::LLVM;
use crate::base::progress::Progress;
use crate::build::make::{LOG, clean_env, jobs, run_logged};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the program that `folder`, below tools/, is named after, in the cache.
pub fn build_tool(cache: &Cache, source: &Path, folder: &str, options: &[&str]) -> Result<PathBuf> {
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let tree = sha256(source.as_os_str().as_encoded_bytes());
    let dir = cache.dir(&format!("{name}/{}", &tree[..12]))?;
    let _alone = cache.lock(name)?;
    let mut progress = Progress::new(format!("tools/{folder}"), 0);
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(source.join("tools").join(folder))
        .arg(format!("O={}", dir.display()))
        .arg(format!("LLVM={}", *LLVM))
        .args(options)
        .arg(jobs());
    clean_env(&mut make, &cache.root);
    run_logged(&mut make, &dir.join(LOG), &mut progress).or_exit(Exit::Build)?;
    progress.finish("built");
    Ok(dir.join(name))
}
