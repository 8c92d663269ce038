// SPDX-License-Identifier: GPL-2.0
//! Building the modules against a kernel, and clippy on them.

use crate::base::arch::Arch;
use crate::base::cache::{self, Cache, sha256, write_atomic};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::progress::Progress;
use crate::build::kernel::Build;
use crate::build::make::{clean_env, jobs, run_logged, toolchain_args};
use crate::source::files::tree_hash;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone)]
pub struct Modules {
    pub dir: PathBuf,
}

impl Modules {
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let file = format!("{name}.ko");
        walkdir::WalkDir::new(&self.dir)
            .into_iter()
            .flatten()
            .find(|e| e.file_name() == file.as_str())
            .map(walkdir::DirEntry::into_path)
            .ok_or_else(|| {
                fail(
                    Exit::Build,
                    format!("{file} was not built: {}", self.dir.display()),
                )
            })
    }
}

/// make for modules of `source`, with its products in `out`.
pub fn module_make(cache: &Cache, kernel: &Path, arch: &str, source: &Path, out: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(kernel)
        .arg(format!("M={}", source.display()))
        .arg(format!("MO={}", out.display()))
        .arg(format!("ARCH={arch}"))
        .args(toolchain_args(cache))
        .arg(jobs());
    clean_env(&mut make, &cache.root);
    make
}

/// The name of a kernel's folder in those of modules and of clippy.
fn module_id(kernel: &Path) -> String {
    sha256(kernel.as_os_str().as_encoded_bytes())[..12].to_owned()
}

/// What is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum What {
    All,
    /// What mainline compiles, too.
    Bench,
    /// For UML.
    BenchNative,
    /// All, and what clippy says of it.
    Clippy,
}

impl What {
    /// A folder of the cache.
    fn name(self) -> &'static str {
        match self {
            What::All => "modules",
            What::Bench => "modules-bench",
            What::BenchNative => "modules-bench-native",
            What::Clippy => "clippy",
        }
    }

    fn source(self, checkout: &Path) -> PathBuf {
        match self {
            What::Bench => checkout.join("rust-module/bench"),
            What::BenchNative => checkout.join("rust-module/bench/native"),
            What::All | What::Clippy => checkout.to_owned(),
        }
    }
}

/// Out of tree and out of the checkout: `MO=` puts every product below the cache.
pub fn build_modules(
    cache: &Cache,
    kernel: &Path,
    arch: &str,
    checkout: &Path,
    what: What,
) -> Result<Modules> {
    let clippy = what == What::Clippy;
    let kind = what.name();
    let id = module_id(kernel);
    let dir = cache.dir(&format!("{kind}/{id}"))?;
    let _alone = cache.lock(&format!("{kind}-{id}"))?;
    if clippy {
        // A crate that is up to date would not be looked at again, and would have no warnings.
        cache::remove_dir(&dir)?;
        fs::create_dir_all(&dir)?;
    }
    let mut progress = Progress::new(
        if clippy {
            "clippy on the modules"
        } else {
            "modules"
        },
        0,
    );
    let mut make = module_make(cache, kernel, arch, &what.source(checkout), &dir);
    if clippy {
        make.arg("CLIPPY=1");
    }
    make.arg("modules");
    let log = dir.join("nolocks-modules.log");
    run_logged(&mut make, &log, &mut progress).or_exit(Exit::Build)?;
    if clippy {
        let text = fs::read_to_string(&log)?;
        let warnings: Vec<&str> = text.lines().filter(|l| l.contains("warning")).collect();
        if !warnings.is_empty() {
            return Err(fail(
                Exit::Test,
                format!(
                    "{} warnings, the first: {}; all are in {}",
                    warnings.len(),
                    warnings[0],
                    log.display()
                ),
            ));
        }
    }
    progress.finish("built");
    Ok(Modules { dir })
}

/// Said of a check that was not made again.
const UNCHANGED: &str = " (unchanged since it passed)";

/// A check of the modules' source against one kernel: what has passed with the same input passes again.
pub struct Passed {
    file: PathBuf,
    input: String,
}

impl Passed {
    pub fn load(folder: &Path, build: &Build, checkout: &Path) -> Result<Passed> {
        let input = [
            serde_json::to_string(&build.stamp)?,
            tree_hash(&checkout.join("rust-module"))?,
            cache::sha256_file(&checkout.join("Kbuild"))?,
        ];
        Ok(Passed {
            file: folder.join("passed"),
            input: sha256(input.concat()),
        })
    }

    /// What to say of the check instead of making it.
    pub fn again(&self) -> Option<&'static str> {
        (fs::read_to_string(&self.file).ok()? == self.input).then_some(UNCHANGED)
    }

    pub fn record(&self) -> Result<()> {
        write_atomic(&self.file, &self.input)
    }
}

/// clippy on the modules; returns what to add to the check's name.
pub fn lint_modules(
    cache: &Cache,
    build: &Build,
    arch: Arch,
    checkout: &Path,
) -> Result<&'static str> {
    let dir = cache.dir(&format!("clippy/{}", module_id(&build.dir)))?;
    let passed = Passed::load(&dir, build, checkout)?;
    if let Some(again) = passed.again() {
        return Ok(again);
    }
    build_modules(cache, &build.dir, arch.kernel(), checkout, What::Clippy)?;
    passed.record()?;
    Ok("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::build::kernel::tests::placed;

    #[test]
    fn what_passed_with_a_build_passes_again_until_a_source_changes() {
        let dir = tempfile::tempdir().unwrap();
        let build = placed(dir.path());
        let checkout = dir.path().join("checkout");
        fs::create_dir_all(checkout.join("rust-module")).unwrap();
        fs::write(checkout.join("Kbuild"), "").unwrap();
        let passed = || Passed::load(dir.path(), &build, &checkout).unwrap();
        assert!(passed().again().is_none());
        passed().record().unwrap();
        assert!(
            passed()
                .again()
                .unwrap()
                .contains("unchanged since it passed")
        );
        fs::write(checkout.join("rust-module/a.rs"), "").unwrap();
        assert!(passed().again().is_none());
    }

    #[test]
    fn clean_knows_where_each_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        for what in [What::All, What::Bench, What::BenchNative, What::Clippy] {
            cache.dir(what.name()).unwrap();
        }
    }

    #[test]
    fn a_missing_module_names_its_stage() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rust-module")).unwrap();
        fs::write(dir.path().join("rust-module/a.ko"), "").unwrap();
        let modules = Modules {
            dir: dir.path().to_owned(),
        };
        assert!(modules.path("a").unwrap().ends_with("rust-module/a.ko"));
        assert_eq!(stage(&modules.path("b").unwrap_err()), Some(Exit::Build));
    }
}
