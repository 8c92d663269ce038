// SPDX-License-Identifier: GPL-2.0
//! The end of a run: its files, and the screen.

use crate::base::cache::{write_atomic, write_json};
use crate::base::exit::{Exit, stage};
use crate::report::junit::render_junit;
use crate::report::page::render_page;
use crate::report::run::{LaneReport, RunReport};
use crate::report::screen::{render_screen, say_models, say_total};
use crate::source::tree::DIFFERENCE;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

/// When the command began, as far as its user is concerned.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// From here on the run's time is counted.
pub fn start_clock() {
    LazyLock::force(&BEGAN);
}

pub fn seconds_since_start() -> f64 {
    BEGAN.elapsed().as_secs_f64()
}

/// Writes the reports and prints the screen; the tally's verdict is the command's.
pub fn finish(
    run: &Path,
    reports: Vec<(LaneReport, Value)>,
    cache: &str,
    tally: &Tally,
) -> Result<()> {
    let (lanes, metadata): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
    let report = RunReport {
        lanes,
        metadata: Value::Array(metadata),
        total_s: seconds_since_start(),
        cache: cache.to_owned(),
        explored: tally.explored.clone(),
    };
    write_json(&run.join("report.json"), &report)?;
    write_json(&run.join("metadata.json"), &report.metadata)?;
    write_atomic(&run.join("report.html"), &render_page(&report)?)?;
    let junit = render_junit(&report, &tally.checks)?;
    write_atomic(&run.join("junit.xml"), &junit)?;
    println!("\n{}", render_screen(&report));
    println!("report: {}", run.join("report.html").display());
    for (lane, _) in report.changed() {
        let file = run.join(lane).join(DIFFERENCE);
        println!("not patches/ as it is: {}", file.display());
    }
    let result = tally.result();
    if let Err(e) = &result {
        println!("{e:#}");
        let mut lanes = report.lanes.iter().map(|lane| run.join(&lane.name));
        // Only a run that booted has what decodes its addresses; one that was judged again has not.
        if stage(e) == Some(Exit::Splat) && lanes.any(|lane| lane.join("System.map").exists()) {
            let name = run.file_name().unwrap_or_default().to_string_lossy();
            println!("the stack traces by file and line: make decode RUN={name}");
        }
    }
    if let Some(models) = say_models(&report) {
        println!("{models}");
    }
    println!("{}", say_total(report.total_s, &report.cache));
    println!("{}", tally.closing());
    result
}
