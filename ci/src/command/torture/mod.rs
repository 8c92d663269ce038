// SPDX-License-Identifier: GPL-2.0
//! `make torture`: tests that nobody here wrote, of what the series changes in the tree, with the series
//! and without it: slub_kunit, test_vmalloc, rcutorture, and rcuscale's kfree_rcu() test; a BPF program
//! that needs memory in a hard interrupt; and the load under which alloc_pages_nolock() was reported to fail.

#[cfg(test)]
mod committed;
mod rcuscale;
mod reported;

use crate::base::cache::{write_atomic, write_json};
use crate::base::pins::LLVM;
use crate::base::proc;
use crate::build::tools::build_tool;
use crate::command::job::Job;
use crate::facts::boot::BootFacts;
use crate::host::setup::{self, Need};
use crate::lane::spec::Lane;
use crate::report::table::{markdown, table};
use crate::run::ready::Ready;
use crate::source::series::Series;
use crate::verdict::judge::judge_boot;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use rcuscale::{MOST, Scale, check_no_larger, check_no_slower, ratio, read_scales};
use regex::Regex;
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Below the kernel's build folder.
const MODULES: &[&str] = &[
    "kernel/torture.ko",
    "kernel/rcu/rcuscale.ko",
    "kernel/rcu/rcutorture.ko",
    "lib/test_vmalloc.ko",
    "lib/tests/slub_kunit.ko",
];

/// The guest's steps for the tests that pass or fail. rcutorture runs for a minute, with CPU hotplug.
const FUNCTION: &str = "module slub_kunit slub_kunit.ko
module test_vmalloc test_vmalloc.ko run_test_mask=768 test_loop_count=20000 nr_threads=4
hold rcutorture rcutorture.ko 60 torture_type=rcu onoff_interval=200 stat_interval=0 verbose=0
load busy
bpf task_storage task_storage.bpf.o 10
";

/// The BPF program, in the run's folder and in the guest.
const OBJECT: &str = "task_storage.bpf.o";
/// What its share is called in the table, and what slub_kunit calls its own.
const STORAGE: &str = "BPF task storage in a hard interrupt";
const KPROBES: &str = "kprobes";

/// Parts of the names of options in Kconfig.fragment that are for our own tests.
const OURS: &[&str] = &["PAGE_ALLOC_NO_LOCKS", "KUNIT_DEFAULT_FILTER_GLOB"];
/// One CPU whose clock counts instructions, so that a time is the same on any machine.
const COUNTING: &str = "-icount shift=0,sleep=off";

/// What one kernel showed.
#[derive(Debug, Serialize)]
struct KernelResults {
    /// How many objects of kmalloc_nolock() came of how many: slub_kunit's by kprobe or perf event, and
    /// the BPF program's.
    nolock: BTreeMap<String, (u64, u64)>,
    /// How often at least each work of kvfree_rcu() has kept a CPU for 10 ms.
    hogs: BTreeMap<String, u64>,
    scales: BTreeMap<String, Scale>,
}

pub fn run(job: &Job) -> Result<()> {
    setup::ensure(&job.cache, Need::Torture, job.yes)?;
    let series = job.series()?;
    let run = job.run_folder("torture")?;
    let bpf = Bpf::build(job, &run, &series)?;
    let mut tally = Tally::default();
    let machines = Lane::load_all(&job.checkout.join("ci/torture"))?;
    let date = jiff::Zoned::now().date().to_string();
    let mut text = format!(
        "# The kernel's own tests, with the series and without it\n\n`make torture`, {date}, series {}.\n",
        series.hash
    );
    let mut results = BTreeMap::new();
    for machine in &machines {
        let mut sides = BTreeMap::new();
        for (name, prefix) in [
            ("without", series.prefix(0)),
            ("with", series.prefix(series.patches.len())),
        ] {
            let lane = Lane {
                name: format!("{}-{name}", machine.name),
                ..machine.clone()
            };
            sides.insert(
                name,
                measure_kernel(job, &run, &lane, &prefix, &bpf, &mut tally)?,
            );
        }
        let (header, rows) = rows(&sides["without"], &sides["with"]);
        text += &print_table(&machine.about, header, rows);
        for (side, what, often, check) in SHARES {
            tally.check(
                &format!(
                    "{}-{side}: kmalloc_nolock() {often} succeeds: {what}",
                    machine.name
                ),
                check(sides[side].nolock.get(what).copied()),
            )?;
        }
        for (set, before) in &sides["without"].scales {
            let after = sides["with"].scales.get(set).cloned().unwrap_or_default();
            tally.check(
                &format!(
                    "{}: rcuscale {set}: at most {MOST} of the time without the series",
                    machine.name
                ),
                check_no_slower(before, &after),
            )?;
            tally.check(
                &format!(
                    "{}: rcuscale {set}: at most 1 MB more than without the series",
                    machine.name
                ),
                check_no_larger(before, &after),
            )?;
        }
        results.insert(machine.name.as_str(), sides);
    }
    let reported = reported::measure(job, &run, &series, &mut tally)?;
    for machine in &reported {
        let (header, rows) = machine.rows();
        text += &print_table(&machine.about, header, rows);
    }
    let all = json!({
        "date": date,
        "series": series.hash,
        "own": results,
        "reported": reported,
    });
    write_json(&run.join("torture.json"), &all)?;
    let page = run.join("torture.md");
    write_atomic(&page, &text)?;
    println!("results: {}", page.display());
    println!("{}", tally.closing());
    tally.result()
}

/// Prints a table, and returns it for the page.
fn print_table(about: &str, header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let page = format!("\n## {about}\n\n{}", markdown(&header, &rows, 1));
    println!("\n{about}\n{}", table(header, rows, 1));
    page
}

/// Judges how many came of how many.
type ShareCheck = fn(Option<(u64, u64)>) -> Result<()>;

/// What each kernel has to give. slub_kunit asks in a loop, faster than any reserve is filled.
const SHARES: [(&str, &str, &str, ShareCheck); 4] = [
    ("without", KPROBES, "never", check_never_given),
    ("with", KPROBES, "sometimes", check_sometimes_given),
    ("without", STORAGE, "never", check_never_given),
    ("with", STORAGE, "nearly always", check_nearly_always_given),
];

/// Else it does not show what the series is for.
fn check_never_given(share: Option<(u64, u64)>) -> Result<()> {
    let (ok, of) = share.context("nothing was counted")?;
    ensure!(
        ok == 0 && of != 0,
        "mainline gave {ok} of {of}: is that still a hard interrupt?"
    );
    Ok(())
}

fn check_sometimes_given(share: Option<(u64, u64)>) -> Result<()> {
    let (ok, of) = share.context("nothing was counted")?;
    ensure!(ok != 0, "{ok} of {of}");
    Ok(())
}

fn check_nearly_always_given(share: Option<(u64, u64)>) -> Result<()> {
    let (ok, of) = share.context("nothing was counted")?;
    ensure!(of != 0 && ok * 100 >= of * 99, "{ok} of {of}");
    Ok(())
}

/// The program and what loads it, which no kernel needs built anew.
struct Bpf {
    tool: PathBuf,
    object: PathBuf,
}

impl Bpf {
    fn build(job: &Job, run: &Path, series: &Series) -> Result<Bpf> {
        let source = job.source(None, series, "")?;
        // Debian 12's attaches no program by itself. Only to take one apart it needs LLVM's libraries.
        let tool = build_tool(&job.cache, &source.dir, "bpf/bpftool", &["SKIP_LLVM=1"])?;
        let object = run.join(OBJECT);
        proc::output(
            Command::new(format!("clang{}", *LLVM))
                .args(["-target", "bpf", "-O2", "-g", "-Wall", "-Werror", "-c"])
                // Where Debian has the headers of each machine.
                .arg(format!("-I/usr/include/{}-linux-gnu", ARCH))
                .arg(job.checkout.join("ci/torture/task_storage.bpf.c"))
                .arg("-o")
                .arg(&object),
        )?;
        Ok(Bpf { tool, object })
    }
}

fn measure_kernel(
    job: &Job,
    run: &Path,
    lane: &Lane,
    series: &Series,
    bpf: &Bpf,
    tally: &mut Tally,
) -> Result<KernelResults> {
    let fragment = job.fragment()?;
    let fragment: String = fragment
        .lines()
        .filter(|line| !OURS.iter().any(|ours| line.contains(ours)))
        .map(|line| format!("{line}\n"))
        .collect();
    let (_source, build) = job.build_machine_kernel("torture", lane, series, &fragment)?;
    let ready = Ready::new(&job.cache, run, lane, &build.dir, None)?;
    for module in MODULES {
        let name = module.rsplit('/').next().unwrap_or(module);
        fs::copy(
            build.dir.join(module),
            ready.folder.join("modules").join(name),
        )
        .with_context(|| format!("the build made no {module}"))?;
    }
    fs::copy(&bpf.object, ready.folder.join("modules").join(OBJECT))?;
    let env = [("BPFTOOL", bpf.tool.display().to_string())];
    let outcome = ready.boot_env("function", FUNCTION, Duration::ZERO, &env)?;
    let facts = ready.read_facts("function")?;
    tally.take(&judge_boot(&lane.name, &facts));
    for (what, result) in judge_tests(&facts) {
        tally.check(&format!("{}: {what}", lane.name), result)?;
    }
    let mut counting = ready.clone();
    // Only an emulated CPU counts.
    counting.guest.kvm = false;
    counting.guest.cpus = 1;
    counting.guest.qemu = vec![COUNTING.to_owned()];
    let scaled = counting.boot("scale", &rcuscale::steps(), Duration::ZERO)?;
    let timed = counting.read_facts("scale")?;
    tally.take(&judge_boot(&format!("{}: scale", lane.name), &timed));
    let mut nolock = read_nolock_shares(&outcome.console)?;
    nolock.extend(read_storage_share(&facts).map(|share| (STORAGE.to_owned(), share)));
    Ok(KernelResults {
        nolock,
        hogs: count_hogs(&[&outcome.console, &scaled.console])?,
        scales: read_scales(&timed)?,
    })
}

/// Each test by name, and whether it says that it passed.
fn judge_tests(facts: &BootFacts) -> Vec<(&'static str, Result<()>)> {
    let said = |case| facts.case(case).map_or("", |c| c.said.as_str());
    let says = |case, line: &str| {
        ensure!(
            Regex::new(line)?.is_match(said(case)),
            "no line of its part is {line:?}: see console.txt"
        );
        Ok(())
    };
    let vmalloc = || {
        let line =
            Regex::new(r"Summary: (\w+) passed: (\d+) failed: (\d+)").expect("a constant pattern");
        let mut lines = 0;
        for found in line.captures_iter(said("test_vmalloc")) {
            lines += 1;
            ensure!(&found[3] == "0" && &found[2] != "0", "{}", &found[0]);
        }
        ensure!(lines != 0, "it printed no summary");
        Ok(())
    };
    vec![
        ("slub_kunit", says("slub_kunit", r"(?m)^ok 1 slub_test\b")),
        (
            "slub_kunit's kprobe allocates",
            says("slub_kunit", r"kprobes: callback_count: [1-9]"),
        ),
        ("test_vmalloc", vmalloc()),
        ("rcutorture", says("rcutorture", "End of test: SUCCESS")),
    ]
}

fn read_nolock_shares(console: &str) -> Result<BTreeMap<String, (u64, u64)>> {
    let line = Regex::new(
        r"# test_\w+: ([\w ]+): callback_count: (\d+), alloc_ok: (\d+), alloc_fail: \d+",
    )
    .expect("a constant pattern");
    line.captures_iter(console)
        .map(|c| Ok((c[1].to_owned(), (c[3].parse()?, c[2].parse()?))))
        .collect()
}

/// The last line of each work in a boot has the count, which is said at powers of two only.
fn count_hogs(consoles: &[&str]) -> Result<BTreeMap<String, u64>> {
    let line = Regex::new(
        r"workqueue: (fill_page_cache_func|kfree_rcu_\w+) hogged CPU for >10000us (\d+) times",
    )
    .expect("a constant pattern");
    let mut all = BTreeMap::new();
    for console in consoles {
        let lines = line.captures_iter(console);
        let last: BTreeMap<_, u64> = lines
            .map(|c| Ok((c[1].to_owned(), c[2].parse()?)))
            .collect::<Result<_>>()?;
        for (work, times) in last {
            *all.entry(work).or_default() += times;
        }
    }
    Ok(all)
}

/// What the BPF program has counted: storage that was created, and all that was asked for.
fn read_storage_share(facts: &BootFacts) -> Option<(u64, u64)> {
    let line = Regex::new(r#"counted .*"key": 0, "value": (\d+) .*"key": 1, "value": (\d+) "#)
        .expect("a constant pattern");
    let found = line.captures(&facts.case("task_storage")?.said)?;
    let (created, failed): (u64, u64) = (found[1].parse().ok()?, found[2].parse().ok()?);
    Some((created, created + failed))
}

/// Header and rows of the table: shares of slub_kunit's allocations, works that kept a CPU, and medians of
/// rcuscale's times.
fn rows(without: &KernelResults, with: &KernelResults) -> (Vec<String>, Vec<Vec<String>>) {
    let header = ["", "without", "with", "ratio"].map(str::to_owned).to_vec();
    let share = |side: &KernelResults, by: &str| match side.nolock.get(by) {
        Some((ok, of)) => format!("{ok} of {of}"),
        None => "–".to_owned(),
    };
    let mut rows: Vec<Vec<String>> = with
        .nolock
        .keys()
        .map(|by| {
            let name = format!("kmalloc_nolock(), {by}");
            vec![name, share(without, by), share(with, by), String::new()]
        })
        .collect();
    let works: BTreeSet<&String> = without.hogs.keys().chain(with.hogs.keys()).collect();
    for work in works {
        let times = |side: &KernelResults| side.hogs.get(work).copied().unwrap_or(0).to_string();
        let name = format!("{work}() hogged a CPU, at least");
        rows.push(vec![name, times(without), times(with), String::new()]);
    }
    for (set, after) in &with.scales {
        let before = without.scales.get(set);
        let ratio = before.and_then(|before| ratio(before, after));
        rows.push(vec![
            format!("rcuscale {set}"),
            rcuscale::cell(before),
            rcuscale::cell(Some(after)),
            ratio.map_or(String::new(), |r| format!("{r:.3}")),
        ]);
    }
    (header, rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::boot::tests::{boot_facts, case_part};

    #[test]
    fn each_test_must_say_that_it_passed() {
        let good = case_part(
            "slub_kunit",
            "[ 0.9] # test_kmalloc_nolock_and_friends_kprobe: kprobes: callback_count: 9, alloc_ok: 9, alloc_fail: 0\n\
             [ 1.0] ok 1 slub_test",
        ) + &case_part(
            "test_vmalloc",
            "[ 1.0] Summary: kvfree_rcu_1_arg passed: 1 failed: 0 xfailed: 0",
        ) + &case_part(
            "rcutorture",
            "[ 1.0] rcu-torture:--- End of test: SUCCESS: nreaders=3",
        );
        let passed = |console: &str| {
            judge_tests(&boot_facts(console))
                .into_iter()
                .filter(|(_, result)| result.is_ok())
                .count()
        };
        assert_eq!(passed(&good), 4);
        for (good_word, bad) in [
            ("] ok 1 slub", "] not ok 1 slub"),
            ("callback_count: 9", "callback_count: 0"),
            ("failed: 0 x", "failed: 1 x"),
            ("Summary", "Nothing"),
            ("SUCCESS", "FAILURE"),
        ] {
            assert_eq!(passed(&good.replace(good_word, bad)), 3, "{bad}");
        }
    }

    #[test]
    fn mainline_gives_a_bpf_program_nothing_and_the_series_nearly_all() {
        let share = |created, failed| {
            let said = format!(
                "NOLOCKS: counted [{{ \"key\": 0, \"value\": {created} }},{{ \"key\": 1, \"value\": {failed} }} ]"
            );
            read_storage_share(&boot_facts(&case_part("task_storage", &said)))
        };
        assert_eq!(share(7, 2), Some((7, 9)));
        for (share, is_none, is_some, is_nearly_all) in [
            (None, false, false, false),
            (share(0, 0), false, false, false),
            (share(0, 9), true, false, false),
            (share(1, 8), false, true, false),
            (share(98, 2), false, true, false),
            (share(99, 1), false, true, true),
        ] {
            let found = [
                check_never_given,
                check_sometimes_given,
                check_nearly_always_given,
            ]
            .map(|check: ShareCheck| check(share).is_ok());
            assert_eq!(found, [is_none, is_some, is_nearly_all], "{share:?}");
        }
    }

    #[test]
    fn the_last_count_of_a_work_that_hogs_a_cpu_is_read() {
        let line = |work, n| {
            format!(
                "[ 1.0] workqueue: {work} hogged CPU for >10000us {n} times, consider switching to WQ_UNBOUND\n"
            )
        };
        let said = line("fill_page_cache_func", 1)
            + &line("vmstat_shepherd", 5)
            + &line("fill_page_cache_func", 3);
        let of = BTreeMap::from([("fill_page_cache_func".to_owned(), 4)]);
        assert_eq!(
            count_hogs(&[&said, &line("fill_page_cache_func", 1)]).unwrap(),
            of
        );
    }

    #[test]
    fn the_shares_of_slub_kunit_are_read() {
        let said = "    # test_kmalloc_kfree_nolock_kprobe: kprobes: callback_count: 9, alloc_ok: 7, alloc_fail: 2\n";
        let nolock = read_nolock_shares(said).unwrap();
        assert_eq!(nolock, BTreeMap::from([("kprobes".to_owned(), (7, 9))]));
    }
}
