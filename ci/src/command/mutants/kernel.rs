// SPDX-License-Identifier: GPL-2.0
//! The bugs that a case of a stress module must find, as modules of their own in as few boots as they leave
//! a machine for.

use crate::base::cache;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::check_interrupt;
use crate::base::progress::Progress;
use crate::build::kernel::Build;
use crate::build::make::run_logged;
use crate::build::modules::{Modules, module_make};
use crate::command::args::Where;
use crate::command::job::Job;
use crate::command::mutants::copy::{copy_tree, write_changed};
use crate::command::mutants::judge::{judge_batch, judge_kunit};
use crate::command::mutants::list::{Mutant, Stress, UNCHANGED};
use crate::command::mutants::series::build_changed;
use crate::command::mutants::tried::{Fate, KERNEL, SERIES, TriedMutant, record};
use crate::facts::ending::Ending;
use crate::facts::scan::Rules;
use crate::guest::boot::PhaseLimits;
use crate::lane::cases::{KUNIT, NO_KUNIT};
use crate::lane::spec::Lane;
use crate::run::ready::Ready;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the locks of PREEMPT_RT sleep, lockdep looks and queued objects are recorded.
const LANE: &str = "x86_64-rt";

/// Of a case, of which none takes a minute: emulated, and beside a compiler.
const CASE_LIMIT: Duration = Duration::from_secs(150);
/// The cases of one module are few, and their machine is not lost by one of them.
const BATCH: usize = 16;

pub fn try_in_kernel(
    job: &Job,
    at: &Where,
    run: &Path,
    mutants: &[&Mutant],
    found: &mut Vec<TriedMutant>,
) -> Result<()> {
    let _alone = job.cache.lock("mutants-kernel")?;
    let lanes = job.lanes(at.lane.as_deref(), LANE)?;
    let (source, builds) = job.build_kernels_of(lanes, None)?;
    let [(lane, build)] = &builds[..] else {
        return Err(fail(Exit::Usage, "make mutants takes one lane"));
    };
    let (series, others): (Vec<&Mutant>, Vec<&Mutant>) =
        mutants.iter().copied().partition(|m| m.is_of_series());
    let with_modules = mutants.iter().filter(|m| m.module != Stress::Kunit);
    let with_modules: Vec<&Mutant> = with_modules.copied().collect();
    let unchanged = unchanged_modules(&with_modules)?;
    let everything: Vec<&Mutant> = unchanged.iter().chain(with_modules).collect();
    let (modules, built, log) = build_modules(job, lane, build, run, &everything)?;
    for mutant in &everything {
        if !built.contains(&&*mutant.name) {
            let why = Fate::Broken(format!("it does not compile: {}", log.display()));
            found.push(TriedMutant::new(mutant, KERNEL, why, Duration::ZERO));
        }
    }
    record(run, found)?;
    let mut left: Vec<&Mutant> = unchanged.iter().chain(others).collect();
    left.retain(|m| built.contains(&&*m.name));
    let mut ready = Ready::new(&job.cache, run, lane, &build.dir, Some((&modules, &built)))?;
    // The cases of the modules are to find them.
    ready.guest.cmdline.push(NO_KUNIT.to_owned());
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
        let took = boot_batch(&ready, &name, &batch)?;
        let judged = judge_batch(&rules, &batch, &ready.read_facts(&name)?)?;
        if judged.is_empty() {
            let what = format!(
                "{name} did not begin with {}: {}",
                first.name,
                ready.folder.display()
            );
            return Err(fail(Exit::Boot, what));
        }
        let took = took / u32::try_from(judged.len())?;
        for (mutant, fate) in judged {
            left.retain(|m| m.name != mutant.name);
            progress.step(&mutant.name);
            if mutant.name.starts_with(UNCHANGED) {
                fate.check_unchanged("the cases", &ready.folder.join(&name))?;
            } else {
                found.push(TriedMutant::new(mutant, KERNEL, fate, took));
            }
        }
        record(run, found)?;
    }
    progress.finish("done");
    if !series.is_empty() {
        let unchanged = Mutant::unchanged_kernel();
        let kernel = build_changed(job, lane, &source, build, &unchanged)?;
        let fate = boot_changed(job, run, lane, &kernel, &unchanged, &modules, &rules)?;
        fate.check_unchanged("KUnit's cases", run)?;
    }
    for mutant in series {
        let begun = Instant::now();
        let fate = match build_changed(job, lane, &source, build, mutant) {
            Ok(kernel) => boot_changed(job, run, lane, &kernel, mutant, &modules, &rules)?,
            Err(why) => {
                check_interrupt()?;
                Fate::Broken(format!("{why:#}"))
            }
        };
        found.push(TriedMutant::new(mutant, SERIES, fate, begun.elapsed()));
        record(run, found)?;
    }
    Ok(())
}

/// A module as it is, or KUnit, must find it.
fn boot_changed(
    job: &Job,
    run: &Path,
    lane: &Lane,
    kernel: &Path,
    mutant: &Mutant,
    modules: &Modules,
    rules: &Rules,
) -> Result<Fate> {
    let folder = run.join(&mutant.name);
    let names = [mutant.name.as_str()];
    let is_kunit = mutant.module == Stress::Kunit;
    let modules = (!is_kunit).then_some((modules, &names[..]));
    let mut ready = Ready::new(&job.cache, &folder, lane, kernel, modules)?;
    ready.guest.cmdline.push(match is_kunit {
        true => format!(
            "kunit.filter_glob={KUNIT}.{}",
            mutant.case.as_deref().unwrap_or("*")
        ),
        false => NO_KUNIT.to_owned(),
    });
    boot_batch(&ready, "boot", &[mutant])?;
    let facts = ready.read_facts("boot")?;
    if is_kunit {
        return Ok(judge_kunit(rules, &facts));
    }
    let judged = judge_batch(rules, &[mutant], &facts)?;
    let fate = judged.into_iter().next().map(|(_, fate)| fate);
    Ok(fate.unwrap_or(match facts.ending {
        Ending::Done => Fate::Broken("its boot did not begin with the module".into()),
        _ => Fate::Caught("the machine's end".into()),
    }))
}

/// Each module as it is, with all the cases that are to find something.
fn unchanged_modules(mutants: &[&Mutant]) -> Result<Vec<Mutant>> {
    let mut all: Vec<Mutant> = Vec::new();
    for mutant in mutants {
        match all.iter_mut().find(|m| m.module == mutant.module) {
            Some(module) => module.more_cases.extend(mutant.case_names()?),
            None => all.push(Mutant {
                name: format!("{UNCHANGED}_{}", mutant.module.folder()),
                file: String::new(),
                from: String::new(),
                alone: false,
                of_mainline: false,
                ..(*mutant).clone()
            }),
        }
    }
    Ok(all)
}

/// The modules, those that compile, and where make said why the others do not.
fn build_modules<'a>(
    job: &Job,
    lane: &Lane,
    build: &Build,
    run: &Path,
    mutants: &[&'a Mutant],
) -> Result<(Modules, Vec<&'a str>, PathBuf)> {
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
    let mut make = module_make(&job.cache, &build.dir, lane.arch.kernel(), &source, &out);
    make.args(["--keep-going", "KBUILD_MODPOST_WARN=1", "modules"]);
    let made = run_logged(&mut make, &log, &mut progress);
    check_interrupt()?;
    let modules = Modules { dir: out };
    let good: Vec<&str> = mutants
        .iter()
        .map(|m| m.name.as_str())
        .filter(|name| modules.path(name).is_ok())
        .collect();
    progress.finish(&format!("{} built", good.len()));
    if good.is_empty() {
        made.or_exit(Exit::Build)?;
    }
    Ok((modules, good, log))
}

fn boot_batch(ready: &Ready, name: &str, batch: &[&Mutant]) -> Result<Duration> {
    let lines: Vec<String> = batch
        .iter()
        .filter(|m| m.module != Stress::Kunit)
        .map(|m| {
            let params = m.module.params();
            Ok(format!(
                "module {0} {0}.ko case={1} {params}",
                m.name,
                m.case_names()?.join(",")
            ))
        })
        .collect::<Result<_>>()?;
    ready.write_steps(name, &lines.join("\n"))?;
    let limits = &ready.lane.limits;
    let limits = PhaseLimits {
        boot: limits.boot(),
        silence: limits.boot(),
        run: CASE_LIMIT * (1 + u32::try_from(batch.len())?),
        shutdown: Duration::from_secs(30),
    };
    Ok(ready.boot_within(name, limits, &[])?.took)
}
