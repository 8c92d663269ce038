// SPDX-License-Identifier: GPL-2.0
//! What became of each bug, and how it is told.

use crate::base::cache::{write_atomic, write_json};
use crate::base::exit::{Exit, fail};
use crate::command::mutants::list::Mutant;
use crate::report::table::table;
use crate::verdict::check::{Check, Found};
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Where a bug was looked for.
pub const HOST: &str = "models";
pub const KERNEL: &str = "kernel";
pub const SERIES: &str = "series";

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// By what.
    Caught(String),
    Survived,
    /// It shows nothing: it does not compile, or its case did not run.
    Broken(String),
}

impl Fate {
    /// Of the source as it is, in which `tests` are to find nothing; `place` has what they said.
    pub fn check_unchanged(&self, tests: &str, place: &Path) -> Result<()> {
        if *self == Fate::Survived {
            return Ok(());
        }
        let place = place.display();
        let what = format!("{tests} fail without a mutant: {self:?}: {place}");
        Err(fail(Exit::Test, what))
    }
}

#[derive(Serialize)]
pub struct TriedMutant {
    pub name: String,
    pub file: String,
    pub place: &'static str,
    pub fate: Fate,
    pub explained: Option<String>,
    pub seconds: u64,
}

impl TriedMutant {
    pub fn new(mutant: &Mutant, place: &'static str, fate: Fate, took: Duration) -> Self {
        TriedMutant {
            name: mutant.name.clone(),
            file: mutant.file.clone(),
            place,
            fate,
            explained: mutant.explained.clone(),
            seconds: took.as_secs(),
        }
    }

    pub fn is_explained(&self) -> bool {
        self.fate == Fate::Survived && self.explained.is_some()
    }

    pub fn says(&self) -> String {
        match (&self.fate, &self.explained) {
            (Fate::Caught(by), None) => by.clone(),
            (Fate::Caught(by), Some(_)) => format!("{by}, though it is said not to be found"),
            (Fate::Survived, Some(_)) => "survives, explained".into(),
            (Fate::Survived, None) => "SURVIVES".into(),
            (Fate::Broken(why), _) => format!("BROKEN: {}", why.lines().next().unwrap_or("")),
        }
    }

    pub fn count(&self, tally: &mut Tally) {
        let failed = |exit, why| Found::Failed { exit, why };
        let found = match (&self.fate, &self.explained) {
            (Fate::Caught(_), _) => Found::Passed,
            (Fate::Survived, Some(why)) => Found::Skipped { why: why.clone() },
            (Fate::Survived, None) => failed(Exit::Test, self.says()),
            (Fate::Broken(why), _) => failed(Exit::Build, format!("{}\n{why}", self.says())),
        };
        let name = format!("{} ({}, {})", self.name, self.file, self.place);
        tally.take(&[Check::case(name, found)]);
    }
}

/// After each, so that what was found stays found if the rest is interrupted.
pub fn record(folder: &Path, found: &[TriedMutant]) -> Result<()> {
    let header = ["mutant", "file", "where", "found by"].map(str::to_owned);
    let rows = found
        .iter()
        .map(|f| vec![f.name.clone(), f.file.clone(), f.place.to_owned(), f.says()]);
    write_atomic(
        &folder.join("mutants.txt"),
        &(table(header.into(), rows.collect(), 4) + "\n"),
    )?;
    write_json(&folder.join("mutants.json"), &found)
}

/// By file, and those that are not simply caught.
pub fn summary(found: &[TriedMutant]) -> String {
    let files: BTreeSet<(&str, &str)> = found.iter().map(|f| (f.place, f.file.as_str())).collect();
    let rows = files.into_iter().map(|(place, file)| {
        let here = || found.iter().filter(|f| f.place == place && f.file == file);
        let count = |wanted: &dyn Fn(&TriedMutant) -> bool| {
            here().filter(|f| wanted(f)).count().to_string()
        };
        vec![
            place.to_owned(),
            file.to_owned(),
            here().count().to_string(),
            count(&|f| matches!(f.fate, Fate::Caught(_))),
            count(&TriedMutant::is_explained),
            count(&|f| f.fate == Fate::Survived && f.explained.is_none()),
        ]
    });
    let header = ["where", "file", "mutants", "caught", "explained", "survive"].map(str::to_owned);
    let odd = found
        .iter()
        .filter(|f| !matches!(f.fate, Fate::Caught(_)) || f.explained.is_some());
    let odd = odd.map(|f| format!("\n{}: {}", f.name, f.says()));
    table(header.into(), rows.collect(), 2) + &odd.collect::<String>()
}
