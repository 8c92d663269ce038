// SPDX-License-Identifier: GPL-2.0
//! `make mutants`: bugs of one place each (`ci/mutants/mutants.toml`), each in a copy of the modules' source,
//! and which of them no test finds. First those that the models must find, for which no kernel is needed;
//! then the others, as modules of their own in as few boots as they leave a machine for; and those of the
//! series, each as a kernel of its own.

mod copy;
mod judge;
mod kernel;
mod list;
mod models;
mod series;
mod tried;

use crate::base::exit::{Exit, fail};
use crate::command::args::Where;
use crate::command::job::Job;
use crate::verdict::tally::Tally;
use anyhow::Result;
use kernel::try_in_kernel;
use list::{LIST, Mutant, read_list};
use models::try_in_models;
use tried::{HOST, KERNEL, SERIES, TriedMutant, summary};

/// `only`: `models`, `kernel`, `series`, or names.
pub fn run(job: &Job, at: &Where, only: Option<&str>) -> Result<()> {
    let all = read_list(&job.checkout)?;
    let words: Vec<&str> = only
        .unwrap_or_default()
        .split(',')
        .filter(|w| !w.is_empty())
        .collect();
    for word in &words {
        if ![HOST, KERNEL, SERIES].contains(word) && !all.iter().any(|m| m.name == *word) {
            let what = format!("MUTANTS={word}: neither {HOST}, {KERNEL}, {SERIES} nor in {LIST}");
            return Err(fail(Exit::Usage, what));
        }
    }
    let wanted = |mutant: &&Mutant, place: &str| {
        words.is_empty() || words.iter().any(|w| *w == place || *w == mutant.name)
    };
    let hosts: Vec<&Mutant> = all.iter().filter(|m| m.host && wanted(m, HOST)).collect();
    let place = |m: &Mutant| if m.is_of_series() { SERIES } else { KERNEL };
    let kernels = all
        .iter()
        .filter(|m| m.case.is_some() && wanted(m, place(m)));
    let kernels: Vec<&Mutant> = kernels.collect();

    let folder = job.run_folder("mutants")?;
    let mut found = Vec::new();
    if !hosts.is_empty() {
        try_in_models(job, &folder, &hosts, &mut found)?;
    }
    if !kernels.is_empty() {
        try_in_kernel(job, at, &folder, &kernels, &mut found)?;
    }
    let mut tally = Tally::default();
    found.iter().for_each(|f| f.count(&mut tally));
    println!("\n{}", summary(&found));
    println!("all of them: {}", folder.join("mutants.txt").display());
    println!(
        "{}",
        tally
            .closing()
            .replace("skipped", "survive and are explained")
    );
    // Where only those were asked for, nothing is to be caught.
    if !found.is_empty() && found.iter().all(TriedMutant::is_explained) {
        return Ok(());
    }
    tally.result()
}
