// SPDX-License-Identifier: GPL-2.0
//! Tools that the machine's own Debian suite lacks or has too old: packages of another suite, extracted
//! below the cache and never installed, so that nothing of the machine's is replaced.

use crate::base::cache::Cache;
use crate::base::exit::perhaps_network;
use crate::source::debian;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

pub struct Packages<'a> {
    /// Below `tools/`; with the suite's name it is the place where they are.
    pub folder: &'a str,
    pub suite: &'a str,
    pub names: &'a [&'a str],
}

impl Packages<'_> {
    /// The folder that they are extracted in, fetched if they are not there.
    pub fn fetched(&self, cache: &Cache) -> Result<PathBuf> {
        let tools = cache.dir("tools")?;
        let place = tools.join(format!("{}-{}", self.folder, self.suite));
        let _alone = cache.lock("tools")?;
        if !place.exists() {
            let temp = tempfile::Builder::new()
                .prefix(&format!("{}-", self.folder))
                .tempdir_in(&tools)?;
            debian::extract(cache, self.suite, self.names, temp.path()).map_err(|e| {
                let network = perhaps_network(&format!("{e:#}"));
                let (what, suite) = (self.folder, self.suite);
                e.context(format!("fetching {what} of Debian {suite}{network}"))
            })?;
            fs::rename(temp.keep(), &place)?;
        }
        Ok(place)
    }
}

/// The words that start a program of such a folder with the C library beside it, which the machine's own
/// loader would not take.
pub fn started_with_its_libc(root: &Path, program: &str) -> Result<Vec<String>> {
    let loader = loader(root).with_context(|| format!("{} holds no libc6", root.display()))?;
    let libraries = loader.parent().context("a loader lies in a folder")?;
    Ok(vec![
        loader.display().to_string(),
        "--library-path".to_owned(),
        libraries.display().to_string(),
        root.join(program).display().to_string(),
    ])
}

/// usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2, or as another architecture calls it.
fn loader(root: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib")).ok()?.flatten();
    let files = folders
        .filter_map(|f| fs::read_dir(f.path()).ok())
        .flatten()
        .flatten();
    let mut paths = files.map(|f| f.path());
    paths.find(|p| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("ld-linux-"))
    })
}
