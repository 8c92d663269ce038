// SPDX-License-Identifier: GPL-2.0
//! `make bench`: what a page and what queueing an object cost, in instructions, with the series and
//! without it. Counted by QEMU, so that the digits come again on any machine; what takes time and memory is
//! measured natively.

pub mod committed;
mod counts;
mod goals;
mod native;
mod open_loop;
mod picture;
mod profile;
mod tables;

use crate::base::cache::{Cache, write_atomic, write_json};
use crate::build::kernel::{Build, Stamp};
use crate::build::modules::{What, build_modules};
use crate::command::job::Job;
use crate::command::series_check::without_options;
use crate::host::qemu;
use crate::host::setup::{self, Need};
use crate::lane::cases::STRESS;
use crate::lane::spec::Lane;
use crate::report::screen::say_total;
use crate::report::table::{markdown, table};
use crate::run::beside::{fit_here, run_beside};
use crate::run::finish::{seconds_since_start, start_clock};
use crate::run::ready::Ready;
use crate::source::series::Series;
use crate::source::tree::{Origin, Prepared};
use crate::verdict::judge::judge_boot_with_case;
use crate::verdict::tally::Tally;
use anyhow::Result;
use committed::Committed;
use counts::{Counted, Profile, check_stranded};
use goals::check_prices;
use native::Native;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tables::Table;

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
/// In a boot of its own, in which nobody has registered for slots before it does.
const PAGES: &str = "nolocks_bench_pages";
const UNREGISTERED: &str = "rcutree.rcu_min_cached_objs=0";
/// Modules that need nothing that mainline lacks, and one that does.
const MODULES: &[&str] = &["nolocks_bench_kvfree", "nolocks_strand"];
const QUEUE: &str = "nolocks_bench_queue";
const PICTURE: &str = "bench.svg";
const PATHS: &str = "bench-paths.svg";

/// One machine's kernel, with the series or without it.
struct Side {
    counted: Counted,
    stamp: Stamp,
    origin: Origin,
}

struct Machine {
    lane: Lane,
    before: Side,
    after: Side,
}

impl Machine {
    fn tables(&self) -> Vec<Table> {
        let (before, after) = (&self.before.counted, &self.after.counted);
        let mut all = tables::tables(before, after, is_rt(&self.lane));
        if !after.shares.is_empty() {
            all.push(open_loop::rows(&after.shares));
            all.push(open_loop::absences(&after.absences));
        }
        all
    }

    fn page(&self) -> String {
        let mut tables = self.tables();
        let (before, after) = (&self.before.counted, &self.after.counted);
        tables.extend(profile::tables(&before.profile, &after.profile));
        let tables = tables
            .iter()
            .map(|t| format!("\n{}", markdown(&t.header, &t.rows, t.left)));
        let no_nmi = tables::say_no_nmi(&after.bursts);
        let no_nmi = no_nmi.map(|why| format!("\n{why}\n"));
        format!(
            "\n## {}\n{}{}\nConfigurations: {} without the series, {} with it.\n",
            self.lane.about,
            tables.collect::<String>(),
            no_nmi.unwrap_or_default(),
            self.before.stamp.config,
            self.after.stamp.config
        )
    }
}

pub fn is_rt(lane: &Lane) -> bool {
    let mut options = lane.config.lines();
    options.any(|line| line == "CONFIG_PREEMPT_RT=y")
}

/// On one machine of `ci/bench/` or natively, or on all of them.
pub fn run(job: &Job, machine: Option<&str>) -> Result<()> {
    start_clock();
    setup::ensure(&job.cache, Need::Bench, job.yes)?;
    let known = job.kernels_built_before();
    let series = job.series()?;
    let run = job.run_folder("bench")?;
    let mut tally = Tally::default();
    let dir = job.checkout.join("ci/bench");
    let (machines, with_native) = match machine {
        None | Some("all") => (Lane::load_all(&dir)?, true),
        Some(native::NAME) => (Vec::new(), true),
        Some(name) => (vec![Lane::load(&dir, name)?], false),
    };
    let mut built = Vec::new();
    for machine in &machines {
        for series in [&series.prefix(0), &series] {
            built.push(build_side(job, &run, machine, series)?);
        }
    }
    // With `-icount` one thread emulates all CPUs, and what it counts is the same beside others.
    let at_once = fit_here(built.iter().map(|b| (1, &*b.ready.lane.memory)));
    let mut sides = run_beside(built, at_once, &mut tally, |built, tally| {
        count(&job.cache, built, tally)
    })?
    .into_iter();
    let mut measured = Vec::new();
    for lane in machines {
        let (before, after) = (sides.next(), sides.next());
        let (Some(before), Some(after)) = (before, after) else {
            break;
        };
        tally.check(
            &format!("{}: nothing of mainline's became dearer", lane.name),
            check_prices(&before.counted.ops, &after.counted.ops, is_rt(&lane)),
        )?;
        let machine = Machine {
            lane,
            before,
            after,
        };
        println!("\n{}", machine.lane.about);
        for shown in machine.tables() {
            println!("{}", table(shown.header, shown.rows, shown.left));
        }
        measured.push(machine);
    }
    let mut native = None;
    if with_native {
        let result = native::measure(job, &run, &series).map(|measured| native = Some(measured));
        tally.check("native: all was measured", result)?;
    }
    for shown in native.iter().flat_map(Native::tables) {
        println!("\n{}", table(shown.header, shown.rows, shown.left));
    }
    if let Some(committed) = Committed::of(&job.checkout) {
        say_moved(&committed, &measured, native.as_ref());
    }
    write(job, &run, &measured, native.as_ref())?;
    let cache = match job.kernels_built_before().is_subset(&known) {
        true => "warm",
        false => "cold",
    };
    println!("{}", say_total(seconds_since_start(), cache));
    println!("{}", tally.closing());
    tally.result()
}

fn say_moved(committed: &Committed, measured: &[Machine], native: Option<&Native>) {
    if measured.is_empty() && native.is_none() {
        return;
    }
    let machines = measured
        .iter()
        .flat_map(|m| committed.moved(&m.lane.name, &m.before.counted, &m.after.counted));
    let natively = native.zip(committed.native.as_ref());
    let natively = natively
        .map(|(new, old)| new.moved(old))
        .unwrap_or_default();
    let moved: Vec<String> = machines.chain(natively).collect();
    match moved.as_slice() {
        [] => println!("nothing is other than in {}", committed::JSON),
        moved => println!(
            "other than in {}:\n  {}",
            committed::JSON,
            moved.join("\n  ")
        ),
    }
}

/// What is to be kept in docs/: the counts, a page of them and its picture.
fn write(job: &Job, run: &Path, measured: &[Machine], native: Option<&Native>) -> Result<()> {
    let (origin, stamp) = match (measured.first(), native) {
        (Some(machine), _) => (&machine.after.origin, &machine.after.stamp),
        (None, Some(native)) => (&native.origin, &native.builds[0]),
        (None, None) => return Ok(()),
    };
    let date = jiff::Zoned::now().date().to_string();
    let side = |side: &Side| -> Result<Value> {
        let mut value = serde_json::to_value(&side.counted)?;
        value["build"] = serde_json::to_value(&side.stamp)?;
        Ok(value)
    };
    let machines: BTreeMap<_, _> = measured
        .iter()
        .map(|m| {
            let both = json!({ "without": side(&m.before)?, "with": side(&m.after)? });
            Ok((&m.lane.name, both))
        })
        .collect::<Result<_>>()?;
    let all = json!({
        "date": date,
        "unit": "instructions an operation",
        "tree": origin,
        "series": stamp.series,
        "machines": machines,
        "native": native,
        "tools": tools(job, measured)?,
    });
    let file = run.join("bench.json");
    write_json(&file, &all)?;

    let counted = measured.iter().map(|m| (&*m.lane.name, &m.after.counted));
    let counted = counted.collect();
    let mut shown = String::new();
    for (picture, file, about) in [
        (picture::paths(&counted)?, PATHS, "instructions by path"),
        (
            picture::bursts(&counted)?,
            PICTURE,
            "instructions a page and its free cost, by the size of the burst",
        ),
    ] {
        if let Some(picture) = picture {
            write_atomic(&run.join(file), &picture)?;
            shown += &format!("\n![{about}]({file})\n");
        }
    }
    let summary = committed::summary(&serde_json::from_value(all)?);
    let pages = measured.iter().map(Machine::page);
    let pages: String = pages.chain(native.map(Native::page)).collect();
    if let Some(native) = native {
        native.draw(run)?;
    }
    let page = run.join("bench.md");
    let preface = preface(&date, origin, &stamp.series);
    let text = format!("{preface}\n{summary}{shown}{pages}");
    write_atomic(&page, &text)?;
    println!("results: {} and {}", file.display(), page.display());
    Ok(())
}

/// Each machine's QEMU is one of them: it does the counting.
fn tools(job: &Job, machines: &[Machine]) -> Result<Value> {
    let mut all = serde_json::Map::new();
    for arch in machines.iter().map(|m| m.lane.arch) {
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

fn preface(date: &str, origin: &Origin, series: &str) -> String {
    let Origin { version, from, id } = origin;
    format!(
        "# What a page and queueing an object cost\n\n\
        Instructions an operation, counted by QEMU with `-icount shift=0` on one CPU: `make bench`, {date}.\n\
        Linux {version} ({from}, SHA-256 {id}), series {series}. `bench.json` beside this has the tools too.\n"
    )
}

/// The machine's kernel with as much of the series as is given, and the lane that this is.
pub fn build_kernel(job: &Job, machine: &Lane, series: &Series) -> Result<(Lane, Prepared, Build)> {
    let side = match series.patches.is_empty() {
        true => "without",
        false => "with",
    };
    let lane = Lane {
        name: format!("{}-{side}", machine.name),
        ..machine.clone()
    };
    let fragment = without_options(&job.fragment()?, DEBUGGING);
    let (source, build) = job.build_machine_kernel("bench", &lane, series, &fragment)?;
    Ok((lane, source, build))
}

/// A side's kernel and modules, ready to boot.
struct Built {
    with: bool,
    ready: Ready,
    build: Build,
    origin: Origin,
}

/// Those of `MODULES`, and the queue's where there is one.
fn modules(with: bool) -> Vec<&'static str> {
    let queue = with.then_some(QUEUE);
    MODULES.iter().copied().chain(queue).collect()
}

/// Elsewhere the lists have a page for an interrupt, too.
fn has_open_loop(with: bool, lane: &Lane) -> bool {
    with && is_rt(lane)
}

fn build_side(job: &Job, run: &Path, machine: &Lane, series: &Series) -> Result<Built> {
    let with = !series.patches.is_empty();
    let (lane, source, build) = build_kernel(job, machine, series)?;
    let what = match with {
        true => What::All,
        false => What::Bench,
    };
    let arch = lane.arch.kernel();
    let built = build_modules(&job.cache, &build.dir, arch, &job.checkout, what)?;
    let own: &[&str] = match has_open_loop(with, machine) {
        true => &[PAGES, STRESS],
        false => &[PAGES],
    };
    let everything = [own, &modules(with)].concat();
    let with_modules = Some((&built, &*everything));
    let ready = Ready::new(&job.cache, run, &lane, &build.dir, with_modules)?;
    Ok(Built {
        with,
        ready,
        build,
        origin: source.origin.clone(),
    })
}

fn count(cache: &Cache, built: Built, tally: &mut Tally) -> Result<Side> {
    let Built {
        with,
        mut ready,
        build,
        origin,
    } = built;
    let (lane, modules) = (ready.lane.clone(), modules(with));
    let steps = |modules: &[&str]| -> String {
        let lines = modules.iter().map(|m| format!("module {m} {m}.ko\n"));
        lines.collect()
    };
    let mut boot = |ready: &Ready, name: &str, modules: &[&str]| -> Result<String> {
        let outcome = ready.boot(name, &steps(modules), Duration::ZERO)?;
        let facts = ready.read_facts(name)?;
        for module in modules {
            tally.take(&judge_boot_with_case(&lane.name, &facts, module));
        }
        Ok(outcome.console)
    };
    let main = boot(&ready, "main", &modules)?;
    let vmlinux = build.dir.join("vmlinux");
    let profile = |name: &str, ready: &Ready, modules: &[&str]| {
        profile::measure(ready.clone(), name, &vmlinux, &steps(modules))
    };
    // Only there do the calls stand beside each other.
    let queue = match with {
        true => profile("profile-queue", &ready, &modules)?,
        false => Profile::new(),
    };
    ready.guest.cmdline.push(UNREGISTERED.to_owned());
    let pages = boot(&ready, "pages", &[PAGES])?;
    tally.check(
        &format!("{}: a page that could not be freed at once", lane.name),
        check_stranded(&main, with),
    )?;
    let mut counted = Counted::read(&(main + &pages))?;
    if has_open_loop(with, &lane) {
        let facts = open_loop::boot(cache, &ready)?;
        counted.shares = open_loop::read(&facts)?;
        counted.absences = open_loop::read_absences(&facts)?;
        let name = format!("{}: open loop", lane.name);
        tally.take(&judge_boot_with_case(&name, &facts, STRESS));
        tally.check(
            &format!("{name}: each case gets what it asks for"),
            open_loop::check(&counted.shares),
        )?;
        tally.check(
            &format!("{name}: pages are back soon beside a CPU that takes no part"),
            open_loop::check_absences(&counted.absences),
        )?;
        tally.check(
            &format!("{name}: no tick is more than five ticks late"),
            open_loop::check_lateness(&facts),
        )?;
    }
    counted.profile = profile("profile", &ready, &[PAGES])?;
    counted.profile.extend(queue);
    tally.check(
        &format!("{}: the profile adds up", lane.name),
        profile::check(&counted, with),
    )?;
    if with {
        tally.check(
            &format!("{}: bursts of pages are whole", lane.name),
            counted.check_bursts(),
        )?;
    }
    Ok(Side {
        counted,
        stamp: build.stamp,
        origin,
    })
}
