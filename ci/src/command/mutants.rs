// SPDX-License-Identifier: GPL-2.0
//! `make mutants`: bugs of one place each (`ci/mutants/mutants.toml`), each in a copy of the modules' source,
//! and which of them no test finds. First those that the models must find, for which no kernel is needed;
//! then the others, as modules of their own in as few boots as they leave a machine for.

use crate::base::cache::{self, Cache, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::{check_interrupt, spawn_lines};
use crate::base::progress::Progress;
use crate::build::kernel::{Build, Modules, logged, module_make};
use crate::command::args::Where;
use crate::command::job::Job;
use crate::facts::boot::BootFacts;
use crate::facts::scan::Rules;
use crate::guest::boot::{Ending, Limits};
use crate::lane::cases::{QUEUE, STRESS, cases};
use crate::lane::spec::Lane;
use crate::report::table;
use crate::run::ready::Ready;
use crate::source::git::forget_repository;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

const LIST: &str = "ci/mutants/mutants.toml";
/// Where the locks of PREEMPT_RT sleep, lockdep looks and queued objects are recorded.
const LANE: &str = "x86_64-rt";
const LIB: &str = "rust-module/lib";
/// What the models compile.
const SHARD: &str = "queue/shard.rs";
/// The source as it is, which must pass where the mutants are to fail.
const UNCHANGED: &str = "unchanged";
/// Of the models' tests, which take seconds. One that is still at it will never end.
const HOST_LIMIT: Duration = Duration::from_secs(300);
/// Of a case, of which none takes a minute: emulated, and beside a compiler.
const CASE_LIMIT: Duration = Duration::from_secs(150);
/// The cases of one module are few, and their machine is not lost by one of them.
const BATCH: usize = 16;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    file: String,
    from: String,
    to: String,
    #[serde(default)]
    host: bool,
    case: Option<String>,
    #[serde(default)]
    module: Stress,
    #[serde(default)]
    alone: bool,
    explained: Option<String>,
    /// Beside `case`.
    #[serde(skip)]
    more_cases: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Stress {
    #[default]
    Queue,
    Pages,
}

impl Stress {
    fn suite(self) -> &'static str {
        match self {
            Stress::Queue => QUEUE,
            Stress::Pages => STRESS,
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Stress::Queue => "queue",
            Stress::Pages => "pages",
        }
    }

    /// As little as shows what each case looks for.
    fn params(self) -> &'static str {
        match self {
            Stress::Queue => "objects=1000 seed=1",
            Stress::Pages => "pages=20000 tick_seconds=1 seed=1",
        }
    }
}

impl Mutant {
    /// The cases that are to find it, as the module's `case=` takes them.
    fn cases(&self) -> Result<Vec<String>> {
        let case = self.case.clone().context("no case")?;
        ensure!(
            cases(self.module.suite()).contains(&case),
            "{}: {} has no case {case}",
            self.name,
            self.module.suite()
        );
        Ok([vec![case], self.more_cases.clone()].concat())
    }

    fn apply(&self, text: &str) -> Result<String> {
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

fn list(checkout: &Path) -> Result<Vec<Mutant>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        mutant: Vec<Mutant>,
    }
    let text = fs::read_to_string(checkout.join(LIST)).with_context(|| LIST.to_owned())?;
    let list: List = toml::from_str(&text).with_context(|| LIST.to_owned())?;
    let word = Regex::new("^[a-z][a-z0-9_]*$")?;
    let mut names = BTreeSet::from([UNCHANGED]);
    for mutant in &list.mutant {
        let name = &mutant.name;
        ensure!(word.is_match(name), "{name:?} cannot be a module's name");
        ensure!(names.insert(name), "two mutants are called {name}");
        ensure!(
            mutant.host || mutant.case.is_some(),
            "{name}: neither host nor case says where it is to be found"
        );
        ensure!(
            !mutant.host || mutant.file == SHARD,
            "{name}: the models are of {SHARD} only"
        );
        if mutant.case.is_some() {
            mutant.cases()?;
        }
    }
    Ok(list.mutant)
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// By what.
    Caught(String),
    Survived,
    /// It shows nothing: it does not compile, or its case did not run.
    Broken(String),
}

#[derive(Serialize)]
struct Found {
    name: String,
    file: String,
    place: &'static str,
    verdict: Verdict,
    explained: Option<String>,
    seconds: u64,
}

impl Found {
    fn new(mutant: &Mutant, place: &'static str, verdict: Verdict, took: Duration) -> Self {
        Found {
            name: mutant.name.clone(),
            file: mutant.file.clone(),
            place,
            verdict,
            explained: mutant.explained.clone(),
            seconds: took.as_secs(),
        }
    }

    fn is_explained(&self) -> bool {
        self.verdict == Verdict::Survived && self.explained.is_some()
    }

    fn says(&self) -> String {
        match (&self.verdict, &self.explained) {
            (Verdict::Caught(by), None) => by.clone(),
            (Verdict::Caught(by), Some(_)) => format!("{by}, though it is said not to be found"),
            (Verdict::Survived, Some(_)) => "survives, explained".into(),
            (Verdict::Survived, None) => "SURVIVES".into(),
            (Verdict::Broken(why), _) => format!("BROKEN: {}", why.lines().next().unwrap_or("")),
        }
    }

    fn count(&self, tally: &mut Tally) {
        let what = format!(
            "{} ({}, {}): {}",
            self.name,
            self.file,
            self.place,
            self.says()
        );
        match (&self.verdict, &self.explained) {
            (Verdict::Caught(_), _) => tally.passed(1),
            (Verdict::Survived, Some(_)) => tally.skipped(1),
            (Verdict::Survived, None) => tally.failed(Exit::Test, what),
            (Verdict::Broken(why), _) => tally.failed(Exit::Build, format!("{what}\n{why}")),
        }
    }
}

const HOST: &str = "models";
const KERNEL: &str = "kernel";

/// `only`: `models`, `kernel`, or names.
pub fn run(job: &Job, at: &Where, only: Option<&str>) -> Result<()> {
    let all = list(&job.checkout)?;
    let words: Vec<&str> = only
        .unwrap_or_default()
        .split(',')
        .filter(|w| !w.is_empty())
        .collect();
    for word in &words {
        if ![HOST, KERNEL].contains(word) && !all.iter().any(|m| m.name == *word) {
            let what = format!("MUTANTS={word}: neither {HOST}, {KERNEL} nor in {LIST}");
            return Err(fail(Exit::Usage, what));
        }
    }
    let wanted = |mutant: &&Mutant, place: &str| {
        words.is_empty() || words.iter().any(|w| *w == place || *w == mutant.name)
    };
    let hosts: Vec<&Mutant> = all.iter().filter(|m| m.host && wanted(m, HOST)).collect();
    let kernels = all.iter().filter(|m| m.case.is_some() && wanted(m, KERNEL));
    let kernels: Vec<&Mutant> = kernels.collect();

    let folder = job.run_folder("mutants")?;
    let mut found = Vec::new();
    if !hosts.is_empty() {
        on_host(job, &folder, &hosts, &mut found)?;
    }
    if !kernels.is_empty() {
        in_kernel(job, at, &folder, &kernels, &mut found)?;
    }
    let mut tally = Tally::default();
    found.iter().for_each(|f| f.count(&mut tally));
    println!("\n{}", screen(&found));
    println!("all of them: {}", folder.join("mutants.txt").display());
    println!(
        "{}",
        tally
            .closing()
            .replace("skipped", "survive and are explained")
    );
    // Where only those were asked for, nothing is to be caught.
    if !found.is_empty() && found.iter().all(Found::is_explained) {
        return Ok(());
    }
    tally.result()
}

/// After each, so that what was found stays found if the rest is interrupted.
fn record(folder: &Path, found: &[Found]) -> Result<()> {
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
fn screen(found: &[Found]) -> String {
    let files: BTreeSet<(&str, &str)> = found.iter().map(|f| (f.place, f.file.as_str())).collect();
    let rows = files.into_iter().map(|(place, file)| {
        let here = || found.iter().filter(|f| f.place == place && f.file == file);
        let count =
            |wanted: &dyn Fn(&Found) -> bool| here().filter(|f| wanted(f)).count().to_string();
        vec![
            place.to_owned(),
            file.to_owned(),
            here().count().to_string(),
            count(&|f| matches!(f.verdict, Verdict::Caught(_))),
            count(&Found::is_explained),
            count(&|f| f.verdict == Verdict::Survived && f.explained.is_none()),
        ]
    });
    let header = ["where", "file", "mutants", "caught", "explained", "survive"].map(str::to_owned);
    let odd = found
        .iter()
        .filter(|f| !matches!(f.verdict, Verdict::Caught(_)) || f.explained.is_some());
    let odd = odd.map(|f| format!("\n{}: {}", f.name, f.says()));
    table(header.into(), rows.collect(), 2) + &odd.collect::<String>()
}

// ---- the models -------------------------------------------------------------------------------------------

const MANIFEST: &str = r#"[package]
name = "mutant"
version = "0.0.0"
edition = "2021"
publish = false

[workspace]

[lib]
path = "lib.rs"

[[test]]
name = "host"
path = "host.rs"

[dev-dependencies]
loom = "0.7"
proptest = { version = "1", default-features = false, features = ["std"] }

[profile.dev]
debug = false
"#;

fn on_host(job: &Job, run: &Path, mutants: &[&Mutant], found: &mut Vec<Found>) -> Result<()> {
    let _alone = job.cache.lock("mutants-models")?;
    let logs = run.join(HOST);
    fs::create_dir_all(&logs)?;
    let package = job.cache.dir("mutants/host")?;
    for (name, text) in [("Cargo.toml", MANIFEST), ("lib.rs", "")] {
        write_atomic(&package.join(name), text)?;
    }
    fs::copy(
        job.checkout.join("ci/Cargo.lock"),
        package.join("Cargo.lock"),
    )?;
    fs::copy(
        job.checkout.join("ci/mutants/host.rs"),
        package.join("host.rs"),
    )?;
    for model in ["interleavings", "sequences"] {
        let from = job.checkout.join("models/queue").join(model);
        copy_tree(&from, &package.join(model), |_, text| Ok(text))?;
    }
    let source = fs::read_to_string(job.checkout.join(LIB).join(SHARD))?;
    let tested = |mutant: Option<&Mutant>| -> Result<Verdict> {
        let text = mutant.map_or_else(|| Ok(source.clone()), |m| m.apply(&source))?;
        for model in ["interleavings", "sequences"] {
            fs::write(package.join(model).join("shard.rs"), &text)?;
        }
        let name = mutant.map_or(UNCHANGED, |m| &m.name);
        host_test(&job.cache, &package, &logs.join(format!("{name}.log")))
    };
    let mut progress = Progress::new("mutants for the models", mutants.len() as u64);
    match tested(None)? {
        Verdict::Survived => {}
        other => {
            let what = format!(
                "the models' tests fail without a mutant: {other:?}: {}",
                logs.display()
            );
            return Err(fail(Exit::Test, what));
        }
    }
    for mutant in mutants {
        let start = Instant::now();
        let verdict = tested(Some(mutant))?;
        found.push(Found::new(mutant, HOST, verdict, start.elapsed()));
        record(run, found)?;
        progress.step(&mutant.name);
    }
    let caught = found
        .iter()
        .filter(|f| matches!(f.verdict, Verdict::Caught(_)))
        .count();
    progress.finish(&format!("{caught} of {} found", mutants.len()));
    Ok(())
}

fn host_test(cache: &Cache, package: &Path, log: &Path) -> Result<Verdict> {
    let cargo = |args: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(args)
            .current_dir(package)
            .env("CARGO_TARGET_DIR", cache.root.join("mutants/target"))
            // A sequence that fails need not be made short.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0");
        forget_repository(&mut cargo);
        cargo
    };
    let build = &mut cargo(&["test", "--quiet", "--no-run"]);
    let (built, said) = in_time(build, Duration::MAX, |_| false)?;
    if built != Some(true) {
        write_atomic(log, &said)?;
        return Ok(Verdict::Broken(said));
    }
    // What one test has found no other has to find again.
    let failed = Regex::new(r"(?m)^test (\S+) \.\.\. .*FAILED|^    (\w+::\S+)$")?;
    let test = &mut cargo(&["test", "--test", "host"]);
    let (passed, said) = in_time(test, HOST_LIMIT, |line| failed.is_match(line))?;
    write_atomic(log, &said)?;
    let by: BTreeSet<&str> = failed
        .captures_iter(&said)
        .filter_map(|c| Some(c.get(1).or(c.get(2))?.as_str()))
        .collect();
    Ok(match passed {
        _ if !by.is_empty() => Verdict::Caught(Vec::from_iter(by).join(", ")),
        Some(true) => Verdict::Survived,
        Some(false) => Verdict::Caught("the tests' end".into()),
        None => Verdict::Caught("tests that never end".into()),
    })
}

/// Whether a command succeeded, if it ended in time and said nothing that is `enough`; and what it said.
fn in_time(
    command: &mut Command,
    limit: Duration,
    enough: impl Fn(&str) -> bool,
) -> Result<(Option<bool>, String)> {
    let start = Instant::now();
    let (mut group, lines) = spawn_lines(command)?;
    let mut said = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => {
                let enough = enough(&line);
                said += &(line + "\n");
                if enough {
                    return Ok((None, said));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if start.elapsed() > limit => return Ok((None, said)),
            Err(RecvTimeoutError::Timeout) => check_interrupt()?,
        }
    }
    let success = group.wait()?.success();
    check_interrupt()?;
    Ok((Some(success), said))
}

/// Leaves alone what is as it should be, so that make does not compile it again.
fn write_changed(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// With `change` where a file is not to be as it is.
fn copy_tree(
    from: &Path,
    to: &Path,
    change: impl Fn(&Path, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let inside = entry.path().strip_prefix(from)?;
        let path = to.join(inside);
        if entry.file_type().is_dir() {
            fs::create_dir_all(path)?;
        } else {
            write_changed(&path, &change(inside, fs::read(entry.path())?)?)?;
        }
    }
    Ok(())
}

// ---- the kernel -------------------------------------------------------------------------------------------

fn in_kernel(
    job: &Job,
    at: &Where,
    run: &Path,
    mutants: &[&Mutant],
    found: &mut Vec<Found>,
) -> Result<()> {
    let _alone = job.cache.lock("mutants-kernel")?;
    let lanes = job.lanes(at.lane.as_deref(), LANE)?;
    let (_source, builds) = job.builds_of(lanes, None)?;
    let [(lane, build)] = &builds[..] else {
        return Err(fail(Exit::Usage, "make mutants takes one lane"));
    };
    let unchanged = unchanged(mutants)?;
    let everything: Vec<&Mutant> = unchanged.iter().chain(mutants.iter().copied()).collect();
    let (modules, mut left, log) = build_all(job, lane, build, run, &everything)?;
    for mutant in &everything {
        if !left.iter().any(|m| m.name == mutant.name) {
            let why = Verdict::Broken(format!("it does not compile: {}", log.display()));
            found.push(Found::new(mutant, KERNEL, why, Duration::ZERO));
        }
    }
    record(run, found)?;
    let names: Vec<&str> = left.iter().map(|m| m.name.as_str()).collect();
    let mut ready = Ready::new(&job.cache, run, lane, &build.dir, Some((&modules, &names)))?;
    // KUnit looks at the kernel, which has no mutants.
    ready.guest.cmdline.push("kunit.enable=0".to_owned());
    drop(builds);
    let rules = Rules::builtin()?;
    let mut progress = Progress::new("mutants in the kernel", left.len() as u64);
    for boot in 1.. {
        // Those that ruin the machine come last.
        left.sort_by_key(|m| m.alone);
        let Some(first) = left.first() else { break };
        let many = if first.alone { 1 } else { BATCH };
        let batch: Vec<&Mutant> = left
            .iter()
            .copied()
            .filter(|m| m.alone == first.alone)
            .take(many)
            .collect();
        let name = format!("boot-{boot}");
        let took = booted(&ready, &name, &batch)?;
        let judged = judged(&rules, &batch, &ready.facts(&name)?)?;
        if judged.is_empty() {
            let what = format!(
                "{name} did not begin with {}: {}",
                first.name,
                ready.folder.display()
            );
            return Err(fail(Exit::Boot, what));
        }
        let took = took / u32::try_from(judged.len())?;
        for (mutant, verdict) in judged {
            left.retain(|m| m.name != mutant.name);
            progress.step(&mutant.name);
            if !mutant.name.starts_with(UNCHANGED) {
                found.push(Found::new(mutant, KERNEL, verdict, took));
            } else if verdict != Verdict::Survived {
                let what = format!(
                    "the cases fail without a mutant: {verdict:?}: {}",
                    ready.folder.join(&name).display()
                );
                return Err(fail(Exit::Test, what));
            }
        }
        record(run, found)?;
    }
    progress.finish("done");
    Ok(())
}

/// Each module as it is, with all the cases that are to find something.
fn unchanged(mutants: &[&Mutant]) -> Result<Vec<Mutant>> {
    let mut all: Vec<Mutant> = Vec::new();
    for mutant in mutants {
        match all.iter_mut().find(|m| m.module == mutant.module) {
            Some(module) => module.more_cases.extend(mutant.cases()?),
            None => all.push(Mutant {
                name: format!("{UNCHANGED}_{}", mutant.module.folder()),
                from: String::new(),
                alone: false,
                ..(*mutant).clone()
            }),
        }
    }
    Ok(all)
}

/// The modules, those that compile, and where make said why the others do not.
fn build_all<'a>(
    job: &Job,
    lane: &Lane,
    build: &Build,
    run: &Path,
    mutants: &[&'a Mutant],
) -> Result<(Modules, Vec<&'a Mutant>, std::path::PathBuf)> {
    let source = job.cache.dir("mutants/source")?;
    let out = job.cache.dir("mutants/out")?;
    for dir in [&source, &out] {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let stays = |m: &&Mutant| path.ends_with(&m.name);
            if path.is_dir() && !mutants.iter().any(stays) {
                cache::remove_dir(&path)?;
            }
        }
    }
    let mut kbuild = String::new();
    for mutant in mutants {
        let name = &mutant.name;
        let place = source.join(name);
        let changed = Path::new("lib").join(&mutant.file);
        copy_tree(
            &job.checkout.join("rust-module"),
            &place.join("rust-module"),
            |file, text| match file == changed && !mutant.from.is_empty() {
                true => Ok(mutant.apply(&String::from_utf8(text)?)?.into_bytes()),
                false => Ok(text),
            },
        )?;
        let stress = format!("rust-module/stress/{}", mutant.module.folder());
        let text = format!("obj-m := {name}.o\n{name}-y := {stress}/stress.o {stress}/helpers.o\n");
        write_changed(&place.join("Kbuild"), text.as_bytes())?;
        kbuild += &format!("obj-m += {name}/\n");
    }
    write_changed(&source.join("Kbuild"), kbuild.as_bytes())?;
    let log = run.join("modules.log");
    let mut progress = Progress::new(format!("{} modules", mutants.len()), 0);
    let mut make = module_make(&job.cache, &build.dir, lane.arch, &source, &out);
    make.args(["--keep-going", "KBUILD_MODPOST_WARN=1", "modules"]);
    let made = logged(&mut make, &log, &mut progress);
    check_interrupt()?;
    let modules = Modules { dir: out };
    let good: Vec<&Mutant> = mutants
        .iter()
        .copied()
        .filter(|m| modules.path(&m.name).is_ok())
        .collect();
    progress.finish(&format!("{} built", good.len()));
    if good.is_empty() {
        made.or_exit(Exit::Build)?;
    }
    Ok((modules, good, log))
}

fn booted(ready: &Ready, name: &str, batch: &[&Mutant]) -> Result<Duration> {
    let lines: Vec<String> = batch
        .iter()
        .map(|m| {
            let params = m.module.params();
            Ok(format!(
                "module {0} {0}.ko case={1} {params}",
                m.name,
                m.cases()?.join(",")
            ))
        })
        .collect::<Result<_>>()?;
    ready.prepare(name, &lines.join("\n"))?;
    let limits = &ready.lane.limits;
    let limits = Limits {
        boot: limits.boot(),
        silence: limits.boot(),
        run: CASE_LIMIT * (1 + u32::try_from(batch.len())?),
        shutdown: Duration::from_secs(30),
    };
    Ok(ready.boot_once(name, limits, &[])?.took)
}

/// What a boot shows of its mutants, the first at least. After a report of the kernel's nothing is certain any
/// more, least of all that lockdep still looks: who comes later has another boot, as has who was the last to
/// begin, unless it was the first.
fn judged<'a>(
    rules: &Rules,
    batch: &[&'a Mutant],
    boot: &BootFacts,
) -> Result<Vec<(&'a Mutant, Verdict)>> {
    let not_ok = Regex::new(r"(?m): not ok \d+ (\S+)")?;
    let skipped = Regex::new(r"(?m): ok \d+ \S+ # SKIP (.*)$")?;
    let mut all = Vec::new();
    for (nth, mutant) in batch.iter().enumerate() {
        let Some(case) = boot.case(&mutant.name) else {
            break;
        };
        let (part, rc) = (&case.said, case.rc.as_deref());
        let findings = rules.scan(part);
        let report = findings.iter().find(|f| rules.is_report(f));
        if nth > 0 && (rc.is_none() || report.is_some()) {
            break;
        }
        let failed: Vec<&str> = not_ok
            .captures_iter(part)
            .map(|c| c.extract::<1>().1[0])
            .collect();
        let verdict = if !failed.is_empty() {
            Verdict::Caught(failed.join(", "))
        } else if let Some(report) = report {
            Verdict::Caught(format!("{}: {}", report.rule, report.line.trim()))
        } else if let Some(rc) = rc {
            if let Some(why) = skipped.captures(part) {
                Verdict::Broken(format!("its case was skipped: {}", &why[1]))
            } else if !part.contains("KTAP version 1") {
                Verdict::Broken("the module could not be loaded".into())
            } else if rc == "0" {
                Verdict::Survived
            } else {
                Verdict::Caught("a module that cannot be unloaded".into())
            }
        } else {
            match boot.ending {
                Ending::Hung(..) => Verdict::Caught("a case that never ends".into()),
                _ => Verdict::Caught("the machine's end".into()),
            }
        };
        all.push((*mutant, verdict));
        if report.is_some() || rc.is_none() {
            break;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkout() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn every_mutant_changes_the_source_as_it_is_in_one_place() {
        let all = list(&checkout()).unwrap();
        assert!(all.len() >= 30);
        for mutant in all {
            let text = fs::read_to_string(checkout().join(LIB).join(&mutant.file)).unwrap();
            let changed = mutant.apply(&text).unwrap();
            assert_ne!(changed, text);
            assert!(mutant.apply("").is_err());
        }
    }

    #[test]
    fn the_host_runs_what_the_models_explore() {
        let read = |file: &str| fs::read_to_string(checkout().join(file)).unwrap();
        let host = read("ci/mutants/host.rs");
        let explored = Regex::new(r"explore\(faithful::(\w+)\)").unwrap();
        let text = read("models/queue/interleavings.rs");
        let scenes: Vec<&str> = explored
            .captures_iter(&text)
            .map(|c| c.extract::<1>().1[0])
            .collect();
        assert!(scenes.len() >= 8);
        for scene in scenes {
            assert!(host.contains(&format!("        {scene}\n")), "{scene}");
        }
    }

    fn mutant(name: &str) -> Mutant {
        toml::from_str(&format!(
            "name = \"{name}\"\nfile = \"f\"\nfrom = \"a\"\nto = \"b\"\ncase = \"task\""
        ))
        .unwrap()
    }

    fn verdicts(console: &str, ending: Ending) -> Vec<Verdict> {
        let all = ["m1", "m2", "m3"].map(mutant);
        let batch: Vec<&Mutant> = all.iter().collect();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("console.txt"), console).unwrap();
        let rules = Rules::builtin().unwrap();
        let facts = BootFacts::read(dir.path(), &rules).unwrap();
        let judged = judged(&rules, &batch, &BootFacts { ending, ..facts }).unwrap();
        judged.into_iter().map(|(_, verdict)| verdict).collect()
    }

    fn part(name: &str, says: &str, rc: &str) -> String {
        format!(
            "[ 1.0] NOLOCKS: case {name} begin\n[ 1.0] q: KTAP version 1\n{says}[ 1.0] NOLOCKS: case {name} rc={rc}\n"
        )
    }

    const BUG: &str = "[ 1.0] BUG: scheduling while atomic: a/0/1/0x2\n";

    #[test]
    fn a_mutant_is_judged_by_its_own_part() {
        let ok = "[ 1.0] q: ok 1 task\n";
        let not_ok = "[ 1.0] q: not ok 1 task\n";
        let skip = "[ 1.0] q: ok 1 task # SKIP why\n";
        let console = part("m1", ok, "0") + &part("m2", not_ok, "1") + &part("m3", skip, "0");
        let seen = verdicts(&console, Ending::Done);
        assert_eq!(
            seen[..2],
            [Verdict::Survived, Verdict::Caught("task".into())]
        );
        assert!(matches!(&seen[2], Verdict::Broken(why) if why.contains("why")));
        let unloaded = part("m1", ok, "1");
        assert!(matches!(
            verdicts(&unloaded, Ending::Done)[..],
            [Verdict::Caught(_)]
        ));
        let unknown = unloaded.replace("KTAP", "what");
        assert!(matches!(
            verdicts(&unknown, Ending::Done)[..],
            [Verdict::Broken(_)]
        ));
    }

    #[test]
    fn after_a_report_or_an_end_the_others_have_another_boot() {
        let ok = "[ 1.0] q: ok 1 task\n";
        let first = part("m1", BUG, "0") + &part("m2", ok, "0");
        assert!(matches!(
            verdicts(&first, Ending::Done)[..],
            [Verdict::Caught(_)]
        ));
        let later = part("m1", ok, "0") + &part("m2", BUG, "0") + &part("m3", ok, "0");
        assert_eq!(verdicts(&later, Ending::Done), [Verdict::Survived]);
        let died = "[ 1.0] NOLOCKS: case m1 begin\n";
        let hung = Ending::Hung(crate::guest::boot::Phase::Run, Duration::ZERO);
        assert!(matches!(verdicts(died, hung)[..], [Verdict::Caught(_)]));
        let died = part("m1", ok, "0") + &died.replace("m1", "m2");
        assert_eq!(verdicts(&died, hung), [Verdict::Survived]);
        assert!(verdicts("", hung).is_empty());
    }
}
