// SPDX-License-Identifier: GPL-2.0
//! Configuring and building a lane's kernel.

use crate::base::cache::{self, Cache, Lock, sha256, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit};
use crate::base::pins::LLVM;
use crate::base::proc::output;
use crate::base::progress::Progress;
use crate::build::make::{LOG, make, run_logged};
use crate::host::own_tools::own_tools;
use crate::host::setup::RUSTC;
use crate::lane::config::Options;
use crate::lane::spec::Lane;
use crate::source::tree::Prepared;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a finished build was made from; a build folder whose stamp says the same needs no make.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stamp {
    pub tree: String,
    pub series: String,
    pub config: String,
    pub toolchain: String,
}

pub struct Build {
    pub dir: PathBuf,
    pub stamp: Stamp,
    options: Options,
    /// Until its image has been copied, no other run may build something else here.
    hold: Option<Lock>,
}

impl Build {
    fn stamp_file(&self) -> PathBuf {
        self.dir.join("nolocks-stamp.json")
    }

    /// The MiB that it still takes.
    fn needs_mib(&self) -> u64 {
        if self.is_done() {
            0
        } else if self.dir.join("vmlinux").exists() {
            // make replaces what is there.
            300
        } else if self.options.render().contains("CONFIG_DEBUG_INFO_DWARF5=y") {
            // Objects are five times as large, and vmlinux is there three times.
            2000
        } else {
            1000
        }
    }

    fn is_done(&self) -> bool {
        cache::read_json::<Stamp>(&self.stamp_file()).as_ref() == Some(&self.stamp)
    }
}

/// What a kernel is built of.
pub struct Recipe<'a> {
    pub name: &'a str,
    /// As in ARCH=.
    pub arch: &'a str,
    pub fragments: &'a [(&'a str, &'a str)],
    pub goals: &'a [&'a str],
    pub extra: &'a [&'a str],
}

impl Recipe<'_> {
    /// Where the build is, finished or not.
    pub fn place(&self, cache: &Cache, source: &Prepared) -> Result<Build> {
        let stamp = self.stamp(cache, &source.origin.id, &source.series)?;
        let slot = source
            .dir
            .file_name()
            .context("a source folder has a name")?
            .to_string_lossy();
        // Series and configuration are in the stamp, not in the name: make builds only what they changed.
        let dir = cache.dir(&format!("build/{slot}-{}", self.name))?;
        Ok(Build {
            dir,
            stamp,
            options: Options::parse(self.fragments)?,
            hold: None,
        })
    }

    pub fn stamp(&self, cache: &Cache, tree: &str, series: &str) -> Result<Stamp> {
        Ok(Stamp {
            tree: tree.to_owned(),
            series: series.to_owned(),
            config: sha256(Options::parse(self.fragments)?.render()),
            toolchain: toolchain(cache)?,
        })
    }

    pub fn build(&self, cache: &Cache, source: &Prepared) -> Result<Build> {
        let mut build = self.place(cache, source)?;
        let name = build.dir.file_name().context("a build folder has a name")?;
        build.hold = Some(cache.lock(&format!("build-{}", name.to_string_lossy()))?);
        if build.is_done() {
            return Ok(build);
        }
        cache.need_space("a kernel build", build.needs_mib())?;
        let _ = fs::remove_file(build.stamp_file());
        self.configure(cache, source, &build)?;
        self.compile(cache, source, &build)?;
        write_json(&build.stamp_file(), &build.stamp)?;
        Ok(build)
    }

    /// Each time, because a new series may bring new options, and make would stop and ask for them.
    fn configure(&self, cache: &Cache, source: &Prepared, build: &Build) -> Result<()> {
        let dot_config = build.dir.join(".config");
        let asked_file = build.dir.join("nolocks-asked.config");
        write_atomic(&asked_file, &build.options.render()).or_exit(Exit::Config)?;
        let mut progress = Progress::new(format!("config {}", self.name), 0);
        let mut make = make(cache, self.arch, &source.dir, &build.dir);
        make.args(self.extra)
            .env("KCONFIG_ALLCONFIG", &asked_file)
            .arg("allnoconfig");
        run_logged(
            &mut make,
            &build.dir.join("nolocks-config.log"),
            &mut progress,
        )
        .or_exit(Exit::Config)?;
        let have = fs::read_to_string(&dot_config)
            .context("make wrote no .config")
            .or_exit(Exit::Config)?;
        build.options.assert_in(&have)?;
        progress.finish("every option asked for is there");
        Ok(())
    }

    fn compile(&self, cache: &Cache, source: &Prepared, build: &Build) -> Result<()> {
        let count_file = cache.dir("build")?.join(format!("{}.steps", self.name));
        let expected = fs::read_to_string(&count_file)
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(2100);
        let objects = fs::read_dir(build.dir.join("kernel")).is_ok();
        let mut progress = Progress::new(
            format!("build {}", self.name),
            // A build that goes on has no total that means anything.
            if objects { 0 } else { expected },
        );
        let mut make = make(cache, self.arch, &source.dir, &build.dir);
        make.args(self.extra).args(self.goals);
        run_logged(&mut make, &build.dir.join(LOG), &mut progress).or_exit(Exit::Build)?;
        if !objects {
            write_atomic(&count_file, &progress.count().to_string())?;
        }
        progress.finish("built");
        Ok(())
    }
}

fn toolchain(cache: &Cache) -> Result<String> {
    let clang = format!("clang{}", *LLVM);
    let mut text = String::new();
    for program in [
        Path::new(RUSTC),
        Path::new(&clang),
        &own_tools(cache).bindgen,
    ] {
        if let Ok(version) = output(Command::new(program).arg("--version")) {
            text += version.lines().next().unwrap_or("");
        }
    }
    Ok(sha256(text))
}

/// The kernels of lanes.
pub fn build_lanes(
    cache: &Cache,
    lanes: Vec<Lane>,
    fragment: &str,
    source: &Prepared,
) -> Result<Vec<(Lane, Build)>> {
    // All at once: the last one is built long after the first.
    let mut need = 0;
    for lane in &lanes {
        need += with_recipe_of(lane, fragment, |recipe| recipe.place(cache, source))?.needs_mib();
    }
    cache.need_space("building the kernels", need)?;
    lanes
        .into_iter()
        .map(|lane| {
            let build = with_recipe_of(&lane, fragment, |recipe| recipe.build(cache, source))?;
            Ok((lane, build))
        })
        .collect()
}

fn with_recipe_of<T>(
    lane: &Lane,
    fragment: &str,
    act: impl FnOnce(&Recipe) -> Result<T>,
) -> Result<T> {
    let file = format!("ci/lanes/{}.config", lane.name);
    let image = Path::new(lane.arch.image())
        .file_name()
        .context("an image has a name")?
        .to_string_lossy();
    act(&Recipe {
        name: &lane.name,
        arch: lane.arch.kernel(),
        fragments: &[("Kconfig.fragment", fragment), (&file, &lane.config)],
        goals: &[&image, "modules"],
        extra: &[],
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn placed(dir: &Path) -> Build {
        let cache = Cache::open(Some(dir)).unwrap();
        let origin = serde_json::json!({ "version": "7.3.4", "from": "x", "id": "i" });
        let source: Prepared = serde_json::from_value(
            serde_json::json!({ "dir": "/src/debian", "origin": origin, "series": "s" }),
        )
        .unwrap();
        let recipe = Recipe {
            name: "x",
            arch: "x86_64",
            fragments: &[],
            goals: &[],
            extra: &[],
        };
        recipe.place(&cache, &source).unwrap()
    }

    #[test]
    fn only_what_is_not_built_needs_space() {
        let dir = tempfile::tempdir().unwrap();
        let build = placed(dir.path());
        let needs = || build.needs_mib();
        let first = needs();
        fs::write(build.dir.join("vmlinux"), "").unwrap();
        assert!(0 < needs() && needs() < first);
        write_json(&build.stamp_file(), &build.stamp).unwrap();
        assert_eq!(needs(), 0);
    }
}
