// SPDX-License-Identifier: GPL-2.0
//! `make bench`: what a page and what queueing an object cost, in instructions, with the series and
//! without it. Counted by QEMU, so that the digits come again on any machine.

use crate::base::cache::{write_atomic, write_json};
use crate::base::exit::{Exit, fail};
use crate::build::kernel::Stamp;
use crate::build::modules::build_modules;
use crate::command::job::Job;
use crate::command::series_check::without_options;
use crate::host::qemu;
use crate::host::setup::{self, Need};
use crate::lane::spec::Lane;
use crate::report::table::{markdown, table};
use crate::run::ready::Ready;
use crate::source::series::Series;
use crate::source::tree::Origin;
use crate::verdict::judge::judge_boot_with_case;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::{Value, json};
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

/// What the series aims at: an operation, and what it may cost at most, as a multiple of another's cost
/// and so much on top.
const GOALS: &[(&str, f64, &str, f64)] = &[
    ("no_locks_free_nolock", 0.8, "gfp_nowait", 0.0),
    ("no_locks_registered", 1.0, "no_locks_free_nolock", 10.0),
    ("no_locks_irqs_off", 0.35, "gfp_nowait", 0.0),
    ("no_locks_failing", 1.0, "no_locks_free_nolock", 0.0),
];

/// The queue's calls, and what each stands in for.
const PAIRS: &[(&str, &str)] = &[
    ("push", "kfree_rcu"),
    ("push_headless", "kfree_rcu_mightsleep"),
    ("try_push", "kfree_rcu_nolock"),
];

/// Instructions by operation.
type Counts = BTreeMap<String, f64>;

/// One machine's kernel, with the series or without it.
struct Side {
    counts: Counts,
    /// Interrupts that a CPU sent to itself to have its slots filled, by what it did.
    irq_works: Counts,
    stamp: Stamp,
    origin: Origin,
}

/// On one machine of `ci/bench/`, or on all of them.
pub fn run(job: &Job, machine: Option<&str>) -> Result<()> {
    setup::ensure(&job.cache, Need::Lanes, job.yes)?;
    let series = job.series()?;
    let run = job.run_folder("bench")?;
    let mut tally = Tally::default();
    let dir = job.checkout.join("ci/bench");
    let machines = match machine {
        None | Some("all") => Lane::load_all(&dir)?,
        Some(name) => vec![Lane::load(&dir, name)?],
    };
    let mut results = BTreeMap::new();
    let mut text = String::new();
    for machine in &machines {
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
            let (console, measured) = measure(job, &run, &lane, &prefix, modules, &mut tally)?;
            tally.check(
                &format!("{}: a page that could not be freed at once", lane.name),
                fate(&console, side == "with"),
            )?;
            sides.insert(side, measured);
        }
        let (before, after) = (&sides["without"], &sides["with"]);
        let tables = tables(&before.counts, &after.counts, &after.irq_works);
        println!("\n{}", machine.about);
        text += &format!("\n## {}\n", machine.about);
        for (header, rows, left) in tables {
            text += &format!("\n{}", markdown(&header, &rows, left));
            println!("{}", table(header, rows, left));
        }
        text += &format!(
            "\nConfigurations: {} without the series, {} with it.\n",
            before.stamp.config, after.stamp.config
        );
        tally.check(
            &format!(
                "{}: GFP_KERNEL costs at most {PRICE} instructions more",
                machine.name
            ),
            price(&before.counts, &after.counts),
        )?;
        results.insert(machine.name.as_str(), sides);
    }
    let with = results.values().next().context("ci/bench has no machine")?;
    let with = &with["with"];
    let date = jiff::Zoned::now().date().to_string();
    let qemus = tools(job, &machines)?;
    let file = run.join("bench.json");
    write_json(
        &file,
        &json!({
            "date": date,
            "unit": "instructions an operation",
            "tree": with.origin,
            "series": with.stamp.series,
            "machines": results.iter().map(|(name, sides)| {
                let sides: BTreeMap<_, _> = sides.iter().map(|(side, measured)| {
                    (side, json!({
                        "counts": measured.counts,
                        "irq_works": measured.irq_works,
                        "build": measured.stamp,
                    }))
                }).collect();
                (name, sides)
            }).collect::<BTreeMap<_, _>>(),
            "tools": qemus,
        }),
    )?;
    let page = run.join("bench.md");
    write_atomic(&page, &(preface(&date, with) + &text))?;
    println!("results: {} and {}", file.display(), page.display());
    println!("{}", tally.closing());
    tally.result()
}

/// Each machine's QEMU is one of them: it does the counting.
fn tools(job: &Job, machines: &[Lane]) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for arch in machines.iter().map(|m| m.arch) {
        let qemu = qemu::find(&job.cache, arch)?;
        let Value::Object(mut tools) = setup::versions(&job.cache, &qemu.program) else {
            continue;
        };
        if let Some(qemu) = tools.remove("qemu") {
            all.insert(arch.qemu().to_owned(), qemu);
        }
        all.append(&mut tools);
    }
    Ok(Value::Object(all))
}

fn preface(date: &str, with: &Side) -> String {
    let Origin { version, from, id } = &with.origin;
    format!(
        "# What a page and queueing an object cost\n\n\
        Instructions an operation, counted by QEMU with `-icount shift=0` on one CPU: `make bench`, {date}.\n\
        Linux {version} ({from}, SHA-256 {id}), series {}. `bench.json` beside this has the tools too.\n",
        with.stamp.series
    )
}

fn measure(
    job: &Job,
    run: &Path,
    lane: &Lane,
    series: &Series,
    modules: &[&str],
    tally: &mut Tally,
) -> Result<(String, Side)> {
    let fragment = without_options(&job.fragment()?, DEBUGGING);
    let (source, build) = job.build_machine_kernel("bench", lane, series, &fragment)?;
    let place = job.checkout.join("rust-module/bench");
    let built = build_modules(&job.cache, &build.dir, lane.arch, &place, false)?;
    let ready = Ready::new(&job.cache, run, lane, &build.dir, Some((&built, modules)))?;
    let steps: Vec<String> = modules
        .iter()
        .map(|m| format!("module {m} {m}.ko"))
        .collect();
    let outcome = ready.boot("main", &steps.join("\n"), Duration::ZERO)?;
    let facts = ready.read_facts("main")?;
    for module in modules {
        tally.take(&judge_boot_with_case(&lane.name, &facts, module));
    }
    let side = Side {
        counts: counts(&outcome.console)?,
        irq_works: irq_works(&outcome.console)?,
        stamp: build.stamp,
        origin: source.origin.clone(),
    };
    Ok((outcome.console, side))
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

/// None without the series, which alone has any.
fn irq_works(console: &str) -> Result<Counts> {
    let line = Regex::new(r"# irq_works: op=(\w+) ops=\d+ n=(\d+)").expect("a constant pattern");
    line.captures_iter(console)
        .map(|c| {
            let n = c[2].parse().context("digits are a number")?;
            Ok((c[1].to_owned(), n))
        })
        .collect()
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

/// Header, rows, and how many columns are text.
type Table = (Vec<String>, Vec<Vec<String>>, usize);

/// The pages' operations, the series' own beside what they aim at, and the queue's beside what each
/// stands in for.
fn tables(before: &Counts, after: &Counts, irq_works: &Counts) -> Vec<Table> {
    let cell = |counts: &Counts, op: &str| match counts.get(op) {
        Some(n) => format!("{n:.2}"),
        None => "–".to_owned(),
    };
    let pair = |(ours, other): &(&str, &str)| {
        let (n, of) = (after.get(*ours)?, after.get(*other)?);
        let ratio = format!("{:.2}", n / of);
        let (n, of) = (cell(after, ours), cell(after, other));
        Some(vec![(*ours).to_owned(), (*other).to_owned(), n, of, ratio])
    };
    let goal = |(op, factor, of, plus): &(&str, f64, &str, f64)| {
        let (n, most) = (after.get(*op)?, factor * after.get(*of)? + plus);
        let met = if *n <= most { "yes" } else { "no" };
        Some(vec![
            (*op).to_owned(),
            format!("{factor} of {of}, and {plus}"),
            cell(after, op),
            format!("{most:.2}"),
            met.to_owned(),
        ])
    };
    let pairs: Vec<Vec<String>> = PAIRS.iter().filter_map(pair).collect();
    let ops: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let alone = ops
        .into_iter()
        .filter(|op| !pairs.iter().any(|row| row[..2].contains(op)));
    let pages = alone.map(|op| vec![op.clone(), cell(before, op), cell(after, op)]);
    let header = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    let asked = irq_works
        .iter()
        .map(|(op, n)| vec![op.clone(), n.to_string()]);
    [
        (
            header(&["operation", "without the series", "with it"]),
            pages.collect(),
            1,
        ),
        (
            header(&["operation", "at most", "costs", "that is", "met"]),
            GOALS.iter().filter_map(goal).collect(),
            2,
        ),
        (
            header(&["with slots to fill", "irq_works"]),
            asked.collect(),
            1,
        ),
        (
            header(&["queue", "stands in for", "costs", "that costs", "ratio"]),
            pairs,
            2,
        ),
    ]
    .into_iter()
    .filter(|(_, rows, _): &Table| !rows.is_empty())
    .collect()
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
    fn the_queue_stands_beside_what_it_replaces() {
        let ops = [
            ("gfp_kernel", 738.0),
            ("push", 60.0),
            ("kfree_rcu", 120.0),
            ("try_push", 1.0),
        ];
        let after: Counts = ops.map(|(op, n)| (op.to_owned(), n)).into();
        let irq_works = Counts::from([("burst".to_owned(), 1.0)]);
        let tables = tables(&Counts::new(), &after, &irq_works);
        let ops: Vec<_> = tables[0].1.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(ops, ["gfp_kernel", "try_push"]);
        assert_eq!(tables[1].1, [["burst", "1"]]);
        let (header, rows, left) = &tables[2];
        let text = markdown(header, rows, *left);
        let want =
            "| --- | --- | ---: | ---: | ---: |\n| push | kfree_rcu | 60.00 | 120.00 | 0.50 |\n";
        assert!(text.ends_with(want), "{text}");
        assert_eq!(
            super::tables(&Counts::new(), &Counts::new(), &Counts::new()),
            []
        );
    }

    #[test]
    fn a_goal_says_whether_it_is_met() {
        let ops = [("gfp_nowait", 849.0), ("no_locks_irqs_off", 553.0)];
        let counts = |n: f64| {
            let mut counts: Counts = ops.map(|(op, n)| (op.to_owned(), n)).into();
            counts.insert("no_locks_free_nolock".to_owned(), n);
            counts
        };
        let rows = |n| {
            tables(&Counts::new(), &counts(n), &Counts::new())[1]
                .1
                .clone()
        };
        let met = |n| -> Vec<String> { rows(n).iter().map(|row| row[4].clone()).collect() };
        assert_eq!(met(679.0), ["yes", "no"]);
        assert_eq!(met(680.0), ["no", "no"]);
        assert_eq!(rows(680.0)[0][3], "679.20");
    }

    #[test]
    fn irq_works_are_counted_by_what_asked() {
        let counts = irq_works("[ 1.0] x: # irq_works: op=failing ops=100 n=37\n").unwrap();
        assert_eq!(counts["failing"], 37.0);
        assert!(irq_works("silence").unwrap().is_empty());
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
