// SPDX-License-Identifier: GPL-2.0
//! `ci/mutants/mutants.toml`: what each bug is, and who is to find it.

use crate::lane::cases::{KUNIT, QUEUE, STRESS, cases};
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub const LIST: &str = "ci/mutants/mutants.toml";
pub const LIB: &str = "rust-module/lib";
/// What the models compile.
pub const SHARD: &str = "queue/shard.rs";
/// The source as it is, which must pass where the mutants are to fail.
pub const UNCHANGED: &str = "unchanged";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    pub name: String,
    pub file: String,
    pub from: String,
    pub to: String,
    #[serde(default)]
    pub host: bool,
    pub case: Option<String>,
    #[serde(default)]
    pub module: Stress,
    #[serde(default)]
    pub alone: bool,
    /// In lines that the series leaves as they are.
    #[serde(default)]
    pub of_mainline: bool,
    pub explained: Option<String>,
    /// Beside `case`.
    #[serde(skip)]
    pub more_cases: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Stress {
    #[default]
    Queue,
    Pages,
    /// The kernel's own suite, for the series alone.
    Kunit,
}

impl Stress {
    pub fn suite(self) -> &'static str {
        match self {
            Stress::Queue => QUEUE,
            Stress::Pages => STRESS,
            Stress::Kunit => KUNIT,
        }
    }

    pub fn folder(self) -> &'static str {
        match self {
            Stress::Queue => "queue",
            Stress::Pages => "pages",
            Stress::Kunit => "kunit",
        }
    }

    /// As little as shows what each case looks for.
    pub fn params(self) -> &'static str {
        match self {
            Stress::Queue => "objects=1000 seed=1",
            Stress::Pages => "pages=20000 tick_seconds=1 seed=1",
            Stress::Kunit => "",
        }
    }
}

impl Mutant {
    /// None, of which the series' own suite must find nothing.
    pub fn unchanged_kernel() -> Mutant {
        Mutant {
            name: format!("{UNCHANGED}_kernel"),
            file: String::new(),
            from: String::new(),
            to: String::new(),
            host: false,
            case: None,
            module: Stress::Kunit,
            alone: true,
            of_mainline: false,
            explained: None,
            more_cases: Vec::new(),
        }
    }

    /// It changes the kernel, and not the modules.
    pub fn is_of_series(&self) -> bool {
        self.file.starts_with("mm/") && self.file.ends_with(".c")
    }

    /// The cases that are to find it, as the module's `case=` takes them.
    pub fn case_names(&self) -> Result<Vec<String>> {
        let case = self.case.clone().context("no case")?;
        ensure!(
            cases(self.module.suite()).contains(&case),
            "{}: {} has no case {case}",
            self.name,
            self.module.suite()
        );
        Ok([vec![case], self.more_cases.clone()].concat())
    }

    pub fn apply(&self, text: &str) -> Result<String> {
        let there = text.matches(&self.from).count();
        ensure!(
            there == 1,
            "{}: what it replaces is {there} times in {}",
            self.name,
            self.file
        );
        Ok(text.replace(&self.from, &self.to))
    }
}

pub fn read_list(checkout: &Path) -> Result<Vec<Mutant>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        mutant: Vec<Mutant>,
    }
    let text = fs::read_to_string(checkout.join(LIST)).with_context(|| LIST.to_owned())?;
    let list: List = toml::from_str(&text).with_context(|| LIST.to_owned())?;
    let word = Regex::new("^[a-z][a-z0-9_]*$")?;
    let mut names = BTreeSet::new();
    for mutant in &list.mutant {
        let name = &mutant.name;
        ensure!(word.is_match(name), "{name:?} cannot be a module's name");
        ensure!(
            names.insert(name) && !name.starts_with(UNCHANGED),
            "two mutants are called {name}"
        );
        ensure!(
            mutant.host || mutant.case.is_some(),
            "{name}: neither host nor case says where it is to be found"
        );
        ensure!(
            !mutant.host || mutant.file == SHARD,
            "{name}: the models are of {SHARD} only"
        );
        ensure!(
            mutant.module != Stress::Kunit || mutant.is_of_series(),
            "{name}: KUnit looks at the series, and not at {LIB}"
        );
        ensure!(
            !mutant.of_mainline || mutant.is_of_series(),
            "{name}: {LIB} is not mainline's"
        );
        if mutant.case.is_some() {
            mutant.case_names()?;
        }
    }
    Ok(list.mutant)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn checkout() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn every_mutant_changes_the_source_as_it_is_in_one_place() {
        let all = read_list(&checkout()).unwrap();
        assert!(all.len() >= 30);
        for mutant in all.iter().filter(|m| !m.is_of_series()) {
            let text = fs::read_to_string(checkout().join(LIB).join(&mutant.file)).unwrap();
            let changed = mutant.apply(&text).unwrap();
            assert_ne!(changed, text);
            assert!(mutant.apply("").is_err());
        }
    }

    /// Of a file that the series does not make, the patches show what they touch.
    #[test]
    fn every_mutant_of_the_series_changes_what_its_patches_show() {
        let all = read_list(&checkout()).unwrap();
        let patches = fs::read_dir(checkout().join("patches")).unwrap();
        let patches = patches.map(|p| fs::read_to_string(p.unwrap().path()).unwrap());
        let patches: Vec<String> = patches.collect();
        assert!(all.iter().any(|m| m.is_of_series()));
        for mutant in all.iter().filter(|m| m.is_of_series()) {
            let header = format!("+++ b/{}\n", mutant.file);
            let shown = patches.iter().any(|patch| {
                let diff = patch.split_once(&header).map_or("", |(_, rest)| rest);
                let diff = diff.split("\ndiff --git").next().unwrap_or("");
                let after = diff.lines().filter(|line| !line.starts_with('-'));
                let after: String = after
                    .map(|line| line.get(1..).unwrap_or("").to_owned() + "\n")
                    .collect();
                mutant.apply(&after).is_ok_and(|changed| changed != after)
            });
            assert_eq!(shown, !mutant.of_mainline, "{}", mutant.name);
        }
    }
}
