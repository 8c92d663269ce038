// SPDX-License-Identifier: GPL-2.0
//! `make bench`: what a page and what queueing an object cost, in instructions, with the series and
//! without it. Counted by QEMU, so that the digits come again on any machine.

use crate::cache::write_json;
use crate::exit::{Exit, fail};
use crate::judge;
use crate::kernel::{self, Plan};
use crate::lane::{Arch, Lane};
use crate::report;
use crate::run::Job;
use crate::series::Series;
use crate::setup::{self, Need};
use crate::tally::Tally;
use crate::verify::without;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Parts of the names of options in Kconfig.fragment that would be in every count.
const DEBUGGING: &[&str] = &[
    "KUNIT",
    "DEBUG_KERNEL",
    "DEBUG_ASSERTIONS",
    "OVERFLOW_CHECKS",
    "LOCKUP",
    "WATCHDOG",
    "HUNG",
];
/// What the series may cost everybody else, in instructions for an allocation and its free.
const PRICE: f64 = 2.0;

/// Instructions by operation.
type Counts = BTreeMap<String, f64>;

pub fn run(job: &Job) -> Result<()> {
    setup::ensure(&job.cache, Need::Lanes, job.yes)?;
    let series = job.series()?;
    let run = job.run_folder("bench")?;
    let mut tally = Tally::default();
    let mut results = BTreeMap::new();
    for machine in Lane::load_all(&job.checkout.join("ci/bench"))? {
        let mut sides = BTreeMap::new();
        for (side, prefix, modules) in [
            (
                "without",
                series.prefix(0),
                &["nolocks_bench_pages", "nolocks_strand"][..],
            ),
            (
                "with",
                series.prefix(series.patches.len()),
                &[
                    "nolocks_bench_pages",
                    "nolocks_strand",
                    "nolocks_bench_queue",
                ][..],
            ),
        ] {
            let lane = Lane {
                name: format!("{}-{side}", machine.name),
                ..machine.clone()
            };
            let (console, stamp) = measure(job, &run, &lane, &prefix, modules, &mut tally)?;
            tally.check(
                &format!("{}: a page that could not be freed at once", lane.name),
                fate(&console, side == "with"),
            )?;
            let counts = counts(&console)?;
            sides.insert(side, (counts, stamp));
        }
        let (before, after) = (&sides["without"].0, &sides["with"].0);
        println!("\n{}\n{}", machine.about, table(before, after));
        tally.check(
            &format!(
                "{}: GFP_KERNEL costs at most {PRICE} instructions more",
                machine.name
            ),
            price(before, after),
        )?;
        results.insert(machine.name.clone(), sides);
    }
    let file = run.join("bench.json");
    write_json(
        &file,
        &json!({
            "date": jiff::Zoned::now().date().to_string(),
            "unit": "instructions an operation",
            "machines": results.iter().map(|(name, sides)| {
                let sides: BTreeMap<_, _> = sides.iter().map(|(side, (counts, stamp))| {
                    (side, json!({ "counts": counts, "build": stamp }))
                }).collect();
                (name, sides)
            }).collect::<BTreeMap<_, _>>(),
            "tools": setup::versions(&job.cache, Arch::X86.qemu()),
        }),
    )?;
    println!("results: {}", file.display());
    println!("{}", tally.closing());
    tally.result()
}

fn measure(
    job: &Job,
    run: &Path,
    lane: &Lane,
    series: &Series,
    modules: &[&str],
    tally: &mut Tally,
) -> Result<(String, kernel::Stamp)> {
    let fragment = without(&job.fragment()?, DEBUGGING);
    let slot = if series.patches.is_empty() {
        "-bench"
    } else {
        ""
    };
    let source = job.source(None, series, slot)?;
    let image = lane.arch.image().rsplit('/').next().unwrap_or_default();
    let plan = Plan {
        name: &format!("bench-{}", lane.name),
        arch: lane.arch.kernel(),
        fragments: &[("Kconfig.fragment", &fragment), ("ci/bench", &lane.config)],
        goals: &[image, "modules"],
        extra: &[],
    };
    let build = plan.build(&job.cache, &source)?;
    let place = job.checkout.join("rust-module/bench");
    let built = kernel::modules(&job.cache, &build.dir, lane.arch, &place, false)?;
    let ready = job.ready(run, lane, &build.dir, Some((&built, modules)))?;
    let plan: Vec<String> = modules
        .iter()
        .map(|m| format!("module {m} {m}.ko"))
        .collect();
    let outcome = ready.boot("main", &plan.join("\n"), Duration::ZERO)?;
    for module in modules {
        judge::plain(&lane.name, &outcome, module, tally)?;
    }
    Ok((outcome.console, build.stamp))
}

fn counts(console: &str) -> Result<Counts> {
    let line = Regex::new(r"# bench: op=(\w+) ops=(\d+) ns=(\d+)").expect("a constant pattern");
    let counts: Counts = line
        .captures_iter(console)
        .map(|c| {
            let number = |i: usize| c[i].parse::<f64>().context("digits are a number");
            Ok((c[1].to_owned(), number(3)? / number(2)?))
        })
        .collect::<Result<_>>()?;
    ensure!(!counts.is_empty(), "nothing was counted: see console.txt");
    Ok(counts)
}

/// Freed soon with the series; without it, left until somebody else frees one.
fn fate(console: &str, with: bool) -> Result<()> {
    let line = Regex::new(r"# strand: deferred=(\d+) stranded=(\d+) of=(\d+)")
        .expect("a constant pattern")
        .captures(console)
        .context("nolocks_strand said nothing")?;
    println!("{}", &line[0]);
    let number = |i: usize| line[i].parse::<u32>().context("digits are a number");
    let (deferred, stranded, of) = (number(1)?, number(2)?, number(3)?);
    ensure!(deferred == of, "only {deferred} of {of} were deferred");
    match with {
        true => ensure!(stranded == 0, "{stranded} of {of} were stranded"),
        false => ensure!(
            stranded != 0,
            "none was stranded, so that the series would be proved by nothing"
        ),
    }
    Ok(())
}

fn price(before: &Counts, after: &Counts) -> Result<()> {
    let op = "gfp_kernel";
    let (before, after) = (
        before.get(op).context("not counted without the series")?,
        after.get(op).context("not counted with the series")?,
    );
    if after - before > PRICE {
        return Err(fail(
            Exit::Test,
            format!("{before:.2} before, {after:.2} after"),
        ));
    }
    Ok(())
}

fn table(before: &Counts, after: &Counts) -> String {
    let cell = |counts: &Counts, op: &str| match counts.get(op) {
        Some(n) => format!("{n:.2}"),
        None => "–".to_owned(),
    };
    let ops: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let rows = ops
        .into_iter()
        .map(|op| vec![op.clone(), cell(before, op), cell(after, op)]);
    let header = ["operation", "without the series", "with it"].map(str::to_owned);
    report::table(header.to_vec(), rows.collect(), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[ 1.0] nolocks_bench_pages: # bench: op=gfp_kernel ops=100 ns=73800\n\
        [ 1.0] nolocks_bench_pages: # bench: op=no_locks ops=100 ns=30050\n";

    #[test]
    fn instructions_are_those_of_one_operation() {
        let counts = counts(CONSOLE).unwrap();
        assert_eq!(counts["gfp_kernel"], 738.0);
        assert_eq!(counts["no_locks"], 300.5);
        assert!(super::counts("silence").is_err());
    }

    #[test]
    fn mainline_must_strand_pages_and_the_series_must_not() {
        let line = |stranded| format!("[ 1] x: # strand: deferred=20 stranded={stranded} of=20");
        assert!(fate(&line(20), false).is_ok() && fate(&line(0), true).is_ok());
        assert!(fate(&line(0), false).is_err() && fate(&line(1), true).is_err());
        assert!(fate("silence", true).is_err());
        assert!(fate(&line(0).replace("deferred=20", "deferred=0"), true).is_err());
    }

    #[test]
    fn a_dear_series_is_a_failure() {
        let counts = |n: f64| Counts::from([("gfp_kernel".to_owned(), n)]);
        assert!(price(&counts(738.0), &counts(740.0)).is_ok());
        assert!(price(&counts(738.0), &counts(740.5)).is_err());
        assert!(price(&counts(738.0), &Counts::new()).is_err());
    }
}
