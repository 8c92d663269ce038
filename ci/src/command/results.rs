// SPDX-License-Identifier: GPL-2.0
//! `make results`: docs/results.md and its picture, of a run that is to be shown.

use crate::base::cache::{read_json, write_atomic};
use crate::base::exit::{Exit, fail};
use crate::command::job::Job;
use crate::report::results;
use crate::report::run::RunReport;
use anyhow::Result;
use std::path::Path;

const PAGE: &str = "docs/results.md";
const PICTURE: &str = "results.svg";

/// `run` is a run's folder, or its name in the cache.
pub fn write(job: &Job, run: &Path) -> Result<()> {
    let in_cache = job.cache.root.join("runs").join(run);
    let folder = if run.exists() { run } else { &in_cache };
    let usage = |why: &str| fail(Exit::Usage, format!("RUN={}: {why}", folder.display()));
    let report: RunReport = read_json(&folder.join("report.json"))
        .ok_or_else(|| usage("there is no report.json that this runner reads"))?;
    if let Some(why) = results::why_unfit(&report) {
        return Err(usage(&why));
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let page = job.checkout.join(PAGE);
    write_atomic(&page.with_file_name(PICTURE), &results::picture(&report)?)?;
    write_atomic(&page, &results::page(&report, &name, PICTURE))?;
    println!("{PAGE} and docs/{PICTURE} show {name}");
    Ok(())
}
