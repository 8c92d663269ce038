// SPDX-License-Identifier: GPL-2.0

//! What `free_pages_nolock()` cannot free at once: it stays within bounds, and comes back whatever
//! another CPU does.

use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        new_mutex,
        Completion,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    absence::{
        Away,
        Sitting,
        SIT, //
    },
    api::{
        Held,
        Pile, //
    },
    context::{
        Context,
        Site, //
    },
    env::Env,
    hotplug::set_cpu,
    ktap::{
        repeat,
        Outcome, //
    },
    probes::Dying,
    task::{
        breathe,
        wait_for,
        Pinned, //
    },
    threads,
    vm::{
        self,
        Events,
        Setting, //
    }, //
};

/// Pages that one CPU frees while another is in the way.
const FREED: usize = 9_600;
/// Pages that the other one has freed before.
const STUCK: usize = 1_024;
/// How many pages may be missing because somebody took them meanwhile: less than [`STUCK`].
const NOISE: usize = STUCK / 2;
/// In which others leave a CPU that is to sit.
const SETTLE: Delta = Delta::from_millis(20);
/// For a thread that frees them: less than a batch takes.
const A_FEW_PAGES: Delta = Delta::from_micros(50);
/// `DEFERRED_FREE_BATCH`.
const BATCH: u64 = 64;
/// Freed in one visit, so that interrupts are not off for long.
const CHUNK: usize = 64;

/// Pages that are charged to a memory cgroup if this task is in one, whose free is then never
/// immediate where interrupts are disabled. Without one it is not on PREEMPT_RT.
fn charged(n: usize) -> Result<Pile> {
    let mut pages = Pile::new(n)?;

    for _ in 0..n {
        pages
            .push(Held::obtain_as_usual(true).ok_or(ENOMEM)?)
            .ok_or(ENOMEM)?;
        breathe();
    }
    Ok(pages)
}

/// Frees the pages with interrupts disabled, but not for long.
fn free_irqs_off(site: &Site, pages: &mut Pile) {
    let mut more = true;

    while more {
        site.run(Context::RawIrqsave, || more = pages.free(CHUNK));
    }
}

/// Frees the pages with interrupts disabled, and says how long it took until `unused` pages and they
/// were unused: `None` if they were not within [`SIT`].
fn free_and_wait(site: &Site, mut pages: Pile, unused: usize) -> Option<Delta> {
    let wanted = unused + pages.pages().len() - NOISE;
    let start = Instant::<Monotonic>::now();

    free_irqs_off(site, &mut pages);
    while vm::unused_pages() < wanted {
        if start.elapsed() > SIT {
            return None;
        }
        breathe();
    }
    Some(start.elapsed())
}

/// Frees the pages with nobody in the way, for what that takes on this machine, and waits until nobody is
/// at it any more: a worker that is preempted by who sits with interrupts disabled would keep the pages that
/// it has taken, and `zone->lock`, from everybody.
fn reference() -> Result<Delta> {
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let pages = charged(FREED)?;
    let _pinned = Pinned::new();
    let took = free_and_wait(&site, pages, vm::unused_pages()).ok_or(ETIMEDOUT)?;

    if !wait_for(|| !vm::is_deferring()) {
        return Err(ETIMEDOUT);
    }
    fsleep(SETTLE);
    Ok(took)
}

fn judge(away: &Away, outcome: Outcome, beside: &str) -> Outcome {
    outcome.check(
        away.is_short(),
        fmt!("{FREED} pages did not come back in time beside a CPU that is {beside}"),
    )
}

/// One CPU frees and then sits with interrupts disabled; what another frees meanwhile comes back.
///
/// Once beside all CPUs, and once with no third one: a thread that frees for the other has nowhere else
/// to go then, and must not be left with `zone->lock` where nothing runs.
pub(crate) fn irqs_off(env: &Env) -> Result<Outcome> {
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is no other CPU"));
    }
    let all = repeat(beside_irqs_off, Away::is_short)?;
    let mut others = KVec::new();
    for nth in 2..threads::online_cpus().get() {
        others.push(threads::cpu_of(nth), GFP_KERNEL)?;
    }
    // With two CPUs that was it already.
    let are_gone = !others.is_empty() && others.iter().all(|cpu| set_cpu(*cpu, false).is_ok());
    let two = are_gone.then(|| repeat(beside_irqs_off, Away::is_short));
    for cpu in &others {
        // Not one that has not gone.
        let _ = set_cpu(*cpu, true);
    }
    let two = two.transpose()?;
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }
    let outcome = judge(&all, Outcome::Passed, "sitting with interrupts disabled");
    Ok(match two {
        Some(two) => judge(&two, outcome, "the only other one, and sitting so"),
        None => outcome,
    })
}

fn beside_irqs_off() -> Result<Away> {
    let sitting = Sitting::new();
    // Charged to this task's cgroup: the threads are in none.
    let pages = KBox::pin_init(new_mutex!(charged(FREED)?), GFP_KERNEL)?;
    let stuck = KBox::pin_init(new_mutex!(charged(STUCK)?), GFP_KERNEL)?;
    let took = Atomic::new(-1);
    let reference = reference()?;

    threads::run(2, &|nth| {
        let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
        let _pinned = Pinned::new();

        if nth == 1 {
            let mut stuck = take(&stuck)?;
            // Woken on an idle CPU, so that nobody is left on it with a lock that the others need.
            fsleep(SETTLE);
            site.run(Context::RawIrqsave, || {
                stuck.free(STUCK);
                sitting.sit();
            });
        } else {
            let pages = take(&pages)?;
            sitting.wait();
            if let Some(delta) = free_and_wait(&site, pages, vm::unused_pages()) {
                took.store(delta.as_nanos(), Relaxed);
            }
            sitting.end();
        }
        Ok(())
    })?;
    let away = Away::new(took.load(Relaxed), reference);
    away.print("deferred", "irqs_off");
    Ok(away)
}

/// Takes the pages out of where a thread finds them.
fn take(pages: &Mutex<Pile>) -> Result<Pile> {
    Ok(core::mem::replace(&mut *pages.lock(), Pile::new(0)?))
}

/// A CPU frees on its way offline, and while it is away another does: all of it comes back.
pub(crate) fn dying(env: &Env) -> Result<Outcome> {
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("one CPU has to stay"));
    }
    let Some(away) = repeat(beside_dying, |away| {
        away.as_ref().is_none_or(Away::is_short)
    })?
    else {
        return Ok(Outcome::Skipped("the kernel takes no CPU offline here"));
    };
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }
    Ok(judge(&away, Outcome::Passed, "offline"))
}

fn beside_dying() -> Result<Option<Away>> {
    let victim = threads::cpu_of(threads::online_cpus().get() - 1);
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let reference = reference()?;
    let pages = charged(FREED)?;
    let dying = Dying::new(charged(STUCK)?)?;
    let before = vm::unused_pages();

    if set_cpu(victim, false).is_err() {
        return Ok(None);
    }
    let took = {
        // Not on the CPU that is away.
        let _pinned = Pinned::new();
        free_and_wait(&site, pages, before + STUCK)
    };
    set_cpu(victim, true)?;
    drop(dying);
    let away = Away::new(took.map_or(-1, Delta::as_nanos), reference);
    away.print("deferred", "dying");
    Ok(Some(away))
}

/// A thread that frees what its CPU has deferred may be preempted by another for as long as that likes:
/// the worker finds all but the batch in its hands.
pub(crate) fn preempted(_env: &Env) -> Result<Outcome> {
    if !cfg!(CONFIG_PREEMPT_RT) {
        return Ok(Outcome::Skipped("an interrupt frees them here"));
    }
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is no other CPU"));
    }
    let (before, after) = repeat(beside_preempted, |(before, _)| *before > 2 * BATCH)?;

    pr_info!("# preempted: left={before} hidden={after}\n");
    Ok(Outcome::Passed
        .check(
            before > 2 * BATCH,
            fmt!("the thread was through before it could be preempted"),
        )
        .check(
            after <= BATCH,
            fmt!("the worker left {after} pages to a thread that cannot run"),
        ))
}

/// How many pages were deferred when the thread was preempted, and while it could not run.
fn beside_preempted() -> Result<(u64, u64)> {
    let sitting = Sitting::new();
    let is_midway = KBox::pin_init(Completion::new(), GFP_KERNEL)?;
    let pages = KBox::pin_init(new_mutex!(charged(FREED)?), GFP_KERNEL)?;
    let before = Atomic::new(0);
    let after = Atomic::new(0);
    let undeferred = Atomic::new(u64::MAX);

    threads::run(2, &|nth| {
        let _pinned = Pinned::new();

        if nth == 1 {
            let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
            let mut pages = take(&pages)?;

            // SAFETY: The current task, to which no other policy matters.
            unsafe { bindings::sched_set_fifo(kernel::current!().as_ptr()) };
            free_irqs_off(&site, &mut pages);
            // What the worker has freed by now is none of the thread's.
            undeferred.store(Events::now().undeferred(), Relaxed);
            // Now the thread frees them.
            is_midway.wait_for_completion();
            // One that has zone->lock keeps it from whoever frees a page: it may go on a little.
            while vm::is_zone_locked() {
                fsleep(A_FEW_PAGES);
            }
            sitting.sit();
        } else {
            let is_begun = wait_for(|| {
                Events::now().undeferred() > undeferred.load(Relaxed).saturating_add(2 * BATCH)
            });
            is_midway.complete_all();
            sitting.wait();
            if is_begun {
                let deferring = vm::deferring();
                before.store(deferring, Relaxed);
                after.store(deferring, Relaxed);
                wait_for(|| {
                    // What is freed when the other does not sit any more the thread may have freed.
                    let deferring = vm::deferring();
                    let is_on = sitting.is_on();
                    if is_on {
                        after.store(deferring, Relaxed);
                    }
                    !is_on || deferring <= BATCH
                });
            }
            sitting.end();
        }
        Ok(())
    })?;
    Ok((before.load(Relaxed), after.load(Relaxed)))
}

/// Pages of one CPU that another frees with `free_pages_nolock()` do not make its lists longer than
/// `__free_pages()` would: at most `pcp->high` and a batch.
pub(crate) fn pcp_high(env: &Env) -> Result<Outcome> {
    // As small as they come: a list could have all that is freed here before it had too much.
    Setting::open(c"/proc/sys/vm/percpu_pagelist_high_fraction")?
        .during(b"1000000", || beyond_pcp_high(env))
}

fn beyond_pcp_high(env: &Env) -> Result<Outcome> {
    const PAGES: usize = 40_000;
    let cpus = threads::online_cpus().get();
    if vm::unused_pages() < 2 * PAGES {
        return Ok(Outcome::Skipped("80,000 pages have to be free"));
    }
    let pages = KBox::pin_init(new_mutex!(Pile::new(PAGES)?), GFP_KERNEL)?;
    let excess = Atomic::new(i32::MIN);

    // What a list had before may be more than it may have now, and one that nobody frees to keeps it.
    {
        let _pinned = Pinned::new();
        vm::drain_pcp_lists();
    }
    env.fill_slots()?;
    threads::run(1, &|_| {
        let mut pages = pages.lock();
        for _ in 0..PAGES {
            pages
                .push(Held::obtain_as_usual(false).ok_or(ENOMEM)?)
                .ok_or(ENOMEM)?;
            breathe();
        }
        Ok(())
    })?;
    let strays = Atomic::new(0);
    threads::run(cpus.min(2), &|nth| {
        if nth + 1 != cpus.min(2) {
            return Ok(());
        }
        let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
        let mut pages = take(&pages)?;
        let contexts = env.contexts().count();
        for ctx in env.contexts() {
            let _pinned = Pinned::new();
            let mut most = i32::MIN;
            let mut left = PAGES / contexts;
            while left != 0 {
                let chunk = ctx.chunk(left.min(CHUNK));
                site.run(ctx, || {
                    for _ in 0..chunk {
                        pages.free(1);
                        most = most.max(vm::pcp_excess());
                    }
                });
                left -= chunk;
                breathe();
            }
            pr_info!("# pcp_high: context={} excess={most}\n", ctx.name());
            excess.store(excess.load(Relaxed).max(most), Relaxed);
        }
        strays.add(site.strays(), Relaxed);
        Ok(())
    })?;
    let (excess, strays) = (excess.load(Relaxed), strays.load(Relaxed));
    let back = wait_for(|| !vm::is_deferring());
    Ok(Outcome::Passed
        .check(
            excess <= 0,
            fmt!("a pcp list had {excess} pages more than its highest limit and a batch"),
        )
        .check(back, fmt!("pages are left to a worker that does not come"))
        .check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        ))
}
