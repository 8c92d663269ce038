// SPDX-License-Identifier: GPL-2.0
//! `make series-check` : every prefix builds, boots and adds no warning.

use crate::base::cache::{Lock, read_json, remove_dir, sha256, write_json};
use crate::base::progress::say;
use crate::build::kernel::{Recipe, Stamp};
use crate::build::make::LOG;
use crate::command::job::{DEFAULT_LANE, Job};
use crate::command::sparse;
use crate::host::setup::{self, Need};
use crate::lane::spec::Lane;
use crate::run::ready::Ready;
use crate::source::debian;
use crate::source::series::Series;
use crate::verdict::judge::judge_boot;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONFIG: &str = include_str!("../../series-check.config");
const GUEST: &str = include_str!("../../fragments/guest-x86_64.config");
const SLOT: &str = "-check";

/// Kernels that are not booted here: mm/ must compile for them all the same.
const VARIANTS: &[(&str, &str, &str)] = &[
    (
        "up",
        "x86_64",
        "CONFIG_64BIT=y\nCONFIG_SMP=n\nCONFIG_MEMCG=n\n",
    ),
    (
        "no-numa",
        "x86_64",
        "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_NUMA=n\n",
    ),
    (
        "highmem",
        "i386",
        "CONFIG_64BIT=n\nCONFIG_SMP=y\nCONFIG_HIGHMEM4G=y\n",
    ),
    (
        "no-mmu",
        "riscv",
        "CONFIG_64BIT=y\nCONFIG_NONPORTABLE=y\nCONFIG_MMU=n\n",
    ),
    // Without ARCH_HAVE_NMI_SAFE_CMPXCHG.
    (
        "no-slots",
        "loongarch",
        "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_PAGE_SLOTS=n\n",
    ),
];

/// Where the series' own tests can be had, they compile, too.
fn suite(config: &str) -> &'static str {
    if config.contains("CONFIG_SMP=y") {
        "CONFIG_KUNIT=y\nCONFIG_PAGE_ALLOC_NO_LOCKS_KUNIT_TEST=y\n"
    } else {
        ""
    }
}

pub fn run(job: &Job) -> Result<()> {
    setup::ensure(&job.cache, Need::Lanes, job.yes)?;
    let series = job.series()?;
    let fragment = without_options(&job.fragment()?, &["RUST", "KUNIT"]);
    let lane = Lane::load(&job.checkout.join("ci/lanes"), DEFAULT_LANE)?;
    let run = job.run_folder("series-check")?;
    let recipe = Recipe {
        name: "series-check",
        arch: lane.arch.kernel(),
        fragments: &[
            ("Kconfig.fragment", &fragment),
            ("ci/fragments/guest-x86_64.config", GUEST),
            ("ci/series-check.config", CONFIG),
        ],
        goals: &["bzImage"],
        extra: &["W=1"],
    };
    let mut prefixes = Prefixes {
        job,
        recipe,
        image: lane.arch.image(),
        dir: job.cache.dir("build/series-check")?,
        used: BTreeSet::new(),
        _alone: job.cache.lock("series-check")?,
    };
    let mut tally = Tally::default();
    say("mainline, for the warnings that it has itself");
    let before = prefixes.built(&series.prefix(0), None)?;
    let before = warnings(&fs::read_to_string(before.join(LOG))?);
    for n in 1..=series.patches.len() {
        let what = format!("patches 1 to {n}");
        say(&format!(
            "patch {n} of {}: {}",
            series.patches.len(),
            series.patches[n - 1].subject
        ));
        let built = prefixes.built(&series.prefix(n), Some(&before));
        let dir = built.as_ref().ok().cloned();
        tally.check(
            &format!("{what}: builds, W=1 adds no warning"),
            built.map(drop),
        )?;
        if let Some(dir) = dir {
            let folder = Lane {
                name: format!("prefix-{n}"),
                ..lane.clone()
            };
            let ready = Ready::new(&job.cache, &run, &folder, &dir, None)?;
            ready.boot("main", "", Duration::ZERO)?;
            tally.take(&judge_boot(&what, &ready.read_facts("main")?));
        }
    }
    prefixes.prune()?;
    for (name, arch, config) in VARIANTS {
        let source = job.source(None, &series, SLOT)?;
        let recipe = Recipe {
            name: &format!("mm-{name}"),
            arch,
            fragments: &[
                ("the variant", config),
                ("its tests", suite(config)),
                ("no warning", "CONFIG_WERROR=y\n"),
            ],
            goals: &["mm/"],
            // Mainline's asm-generic/io.h adds to a null PCI_IOBASE where there is no MMU.
            extra: &["KCFLAGS=-Wno-null-pointer-arithmetic"],
        };
        tally.check(
            &format!("mm/ compiles for {name} ({arch})"),
            recipe.build(&job.cache, &source).map(drop),
        )?;
    }
    sparse::check(job, &mut tally)?;
    println!("{}", tally.closing());
    tally.result()
}

/// Where the prefixes of the series are built, one after the other in one folder. What came of each
/// is kept: on the way back to the first, headers change that every file includes.
struct Prefixes<'a> {
    job: &'a Job,
    recipe: Recipe<'a>,
    image: &'a str,
    dir: PathBuf,
    used: BTreeSet<PathBuf>,
    _alone: Lock,
}

impl Prefixes<'_> {
    /// The folder with the image of `prefix`, which gave no warning but those of `before`.
    fn built(&mut self, prefix: &Series, before: Option<&[String]>) -> Result<PathBuf> {
        let cache = &self.job.cache;
        let tree = debian::fetch_unless_cached(cache)?.origin.id;
        let stamp = self.recipe.stamp(cache, &tree, &prefix.diffs_hash())?;
        let place = self.dir.join(&sha256(serde_json::to_string(&stamp)?)[..16]);
        self.used.insert(place.clone());
        if place.exists() {
            say("its kernel is in the cache");
            return Ok(place);
        }
        say("no kernel of these patches, this config and these tools is in the cache");
        let source = self.job.source(None, prefix, SLOT)?;
        let dir = self.recipe.place(cache, &source)?.dir;
        let earlier = begin(&dir, &stamp, before.is_none())?;
        let build = self.recipe.build(cache, &source)?;
        let said = earlier + &fs::read_to_string(build.dir.join(LOG))?;
        if let Some(before) = before {
            let new = fresh(warnings(&said), before);
            ensure!(new.is_empty(), "{new:?}");
        }
        fs::rename(dir.join(BEGUN), dir.join(KNOWN))?;
        let next = tempfile::tempdir_in(&self.dir)?;
        for file in [self.image, ".config", "System.map"] {
            let to = next.path().join(file);
            fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
            fs::copy(build.dir.join(file), to)?;
        }
        fs::write(next.path().join(LOG), said)?;
        fs::rename(next.keep(), &place)?;
        Ok(place)
    }

    /// Keeps nothing of a series that is no longer asked for.
    fn prune(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir)?.flatten() {
            if !self.used.contains(&entry.path()) {
                remove_dir(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// make says each warning once. A build folder whose objects' warnings are all known holds `KNOWN`; one whose build was
/// begun holds `BEGUN`, with what make said until it was interrupted.
const KNOWN: &str = "nolocks-warnings-known";
const BEGUN: &str = "nolocks-begun.json";

#[derive(Deserialize, Serialize)]
struct Begun {
    stamp: Stamp,
    said: String,
}

/// Makes `dir` ready for a build of `stamp`, and returns what make said in one that was interrupted. A build of others'
/// objects, of which nobody knows the warnings, starts from nothing; so does one `from_nothing`.
fn begin(dir: &Path, stamp: &Stamp, from_nothing: bool) -> Result<String> {
    let begun = read_json::<Begun>(&dir.join(BEGUN)).filter(|begun| begun.stamp == *stamp);
    let said = if let Some(begun) = begun {
        begun.said + &fs::read_to_string(dir.join(LOG)).unwrap_or_default()
    } else {
        if from_nothing || !dir.join(KNOWN).exists() {
            remove_dir(dir)?;
        }
        String::new()
    };
    fs::create_dir_all(dir)?;
    let begun = Begun {
        stamp: stamp.clone(),
        said,
    };
    write_json(&dir.join(BEGUN), &begun)?;
    let _ = fs::remove_file(dir.join(KNOWN));
    Ok(begun.said)
}

/// Kconfig.fragment but for the options with one of `dropped` in their names.
pub fn without_options(fragment: &str, dropped: &[&str]) -> String {
    let kept = fragment
        .lines()
        .filter(|l| l.starts_with('#') || !dropped.iter().any(|d| l.contains(d)));
    kept.map(|l| format!("{l}\n")).collect()
}

/// Without line numbers, which every patch moves. Each place counts once, however many files include
/// it; two places with the same warning are two.
fn warnings(log: &str) -> Vec<String> {
    let place = Regex::new(r":\d+(:\d+)?:").expect("a constant pattern");
    let lines: BTreeSet<&str> = log.lines().filter(|l| l.contains("warning:")).collect();
    let lines = lines.into_iter();
    lines
        .map(|l| place.replace_all(l, ":").into_owned())
        .collect()
}

fn fresh(mut now: Vec<String>, before: &[String]) -> Vec<String> {
    for known in before {
        if let Some(i) = now.iter().position(|w| w == known) {
            now.swap_remove(i);
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_warning_is_no_new_one() {
        let before = warnings("CC a.o\nmm/a.c:10:3: warning: unused x [-Wx]\n");
        let moved = warnings("mm/a.c:99:3: warning: unused x [-Wx]\n");
        let other = warnings("mm/a.c:10:3: warning: unused y [-Wx]\n");
        assert_eq!(before.len(), 1);
        assert!(fresh(moved, &before).is_empty());
        assert_eq!(fresh(other.clone(), &before), other);
    }

    #[test]
    fn a_second_warning_of_the_same_words_is_a_new_one() {
        const ONE: &str = "mm/a.c:10:3: warning: unused x [-Wx]\n";
        let before = warnings(ONE);
        let second = format!("{ONE}{}", ONE.replace("10", "20"));
        assert_eq!(fresh(warnings(&second), &before), before);
        // A header's comes again with every file that includes it.
        assert!(fresh(warnings(&ONE.repeat(3)), &before).is_empty());
    }

    /// An interrupted build was begun from nothing, half an hour on a slow machine.
    #[test]
    fn an_interrupted_build_goes_on_with_what_make_said() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("build");
        let stamp = |series: &str| Stamp {
            tree: "t".to_owned(),
            series: series.to_owned(),
            config: "c".to_owned(),
            toolchain: "k".to_owned(),
        };
        let object = dir.join("a.o");
        let interrupted = |said: &str| {
            fs::write(&object, "").unwrap();
            fs::write(dir.join(LOG), said).unwrap();
        };
        assert_eq!(begin(&dir, &stamp("1"), true).unwrap(), "");
        interrupted("first\n");
        assert_eq!(begin(&dir, &stamp("1"), true).unwrap(), "first\n");
        interrupted("second\n");
        assert_eq!(begin(&dir, &stamp("1"), false).unwrap(), "first\nsecond\n");
        assert!(object.exists());
        // Nobody knows what warnings another's objects have.
        assert_eq!(begin(&dir, &stamp("2"), false).unwrap(), "");
        assert!(!object.exists());
        interrupted("");
        fs::rename(dir.join(BEGUN), dir.join(KNOWN)).unwrap();
        assert_eq!(begin(&dir, &stamp("3"), false).unwrap(), "");
        assert!(object.exists() && !dir.join(KNOWN).exists());
        fs::rename(dir.join(BEGUN), dir.join(KNOWN)).unwrap();
        assert_eq!(begin(&dir, &stamp("4"), true).unwrap(), "");
        assert!(!object.exists());
    }

    #[test]
    fn every_variant_with_smp_compiles_the_suite_and_one_has_no_slots() {
        let all = VARIANTS
            .iter()
            .map(|(name, _, config)| (*name, suite(config)));
        let with: Vec<&str> = all.filter(|(_, s)| !s.is_empty()).map(|(n, _)| n).collect();
        assert_eq!(with, ["no-numa", "highmem", "no-slots"]);
    }

    #[test]
    fn the_small_config_has_nothing_that_a_prefix_lacks() {
        let text = without_options(
            "# RUST\nCONFIG_RUST=y\nCONFIG_SMP=y\nCONFIG_X_KUNIT_TEST=y\n",
            &["RUST", "KUNIT"],
        );
        assert_eq!(text, "# RUST\nCONFIG_SMP=y\n");
    }
}
