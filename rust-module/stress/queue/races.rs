// SPDX-License-Identifier: GPL-2.0

//! Pushes beside readers, and pushes that are interrupted by others.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    types::ScopeGuard, //
};

use crate::{
    env::{
        check_stats,
        Env,
        Ledger,
        NAME, //
    },
    ktap::Outcome,
    nmi::{
        send_nmi,
        Nmis, //
    },
    node::{
        Boxed,
        How,
        Origin,
        Watched,
        FREED, //
    },
    queue::{
        Queue,
        CAPACITY, //
    },
    readers,
    task::breathe,
    threads, //
};

pub(crate) fn readers_and_writers(env: &Env) -> Result<Outcome> {
    // The slow ones now and then.
    const ORIGINS: [Origin; 8] = {
        let mut origins = [Origin::Kmalloc; 8];
        origins[0] = Origin::Vmalloc;
        origins[1] = Origin::KVmalloc;
        origins
    };
    let mut contexts = KVec::new();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        contexts.push(ctx, GFP_KERNEL)?;
    }
    let choice = readers::Choice {
        contexts: &contexts,
        origins: &ORIGINS,
        seed: env.config.seed,
        patience: 1 << 20,
    };
    // So many that blocks and lists are full on every CPU, and are freed while others read.
    let writes = env.config.objects.max(8 * CAPACITY);
    // Of blocks, and of lists.
    for memory in [true, false] {
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;

        Watched::fail((!memory).then_some(0), !memory);
        let before = FREED.load(Relaxed);
        let tally = readers::run(&queue, &choice, writes)?;
        let beside = FREED.load(Relaxed) - before;
        Watched::fail(None, false);
        queue.barrier();

        let stats = queue.stats();
        let (queued, returned) = (tally.queued.load(Relaxed), tally.returned.load(Relaxed));
        let (reads, stale) = (tally.reads.load(Relaxed), tally.stale.load(Relaxed));
        let strays = tally.strays.load(Relaxed);
        pr_info!("# readers: reads={reads} stale={stale} freed_beside={beside} {stats:?}\n");
        outcome = ledger
            .close(check_stats(outcome, stats, queued, returned), queued)
            .check(
                stale == 0,
                fmt!("{stale} of {reads} reads met a freed object"),
            )
            .check(
                reads != 0 && beside != 0,
                fmt!("{reads} reads, beside which {beside} objects were freed"),
            )
            .check(
                strays == 0,
                fmt!("{strays} visits were not in the context asked for"),
            );
    }
    Ok(outcome)
}

/// NMIs push while what they interrupt pushes, and may hold the lock.
pub(crate) fn nested_nmi(env: &Env) -> Result<Outcome> {
    const BATCH: usize = 8;
    /// What the victim pushes before it allocates again.
    const BURST: usize = 64;
    /// NMIs that have to come in the midst of a push, and how many may be sent to that end.
    const HITS: u64 = 100;
    const MOST: usize = 100_000;
    if env.nmi.is_none() {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is one CPU only"));
    }

    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let over = Atomic::new(false);
    // The task that is pushing.
    let pushing = Atomic::new(core::ptr::null_mut::<bindings::task_struct>());
    let hits = Atomic::new(0u64);
    let queued = Atomic::new(0u64);
    let returned = Atomic::new(0u64);

    threads::run(2, &|nth| {
        // Whoever ends, for whatever reason, has the other end too.
        let _over = ScopeGuard::new(|| over.store(true, Relaxed));
        if nth == 0 {
            // SAFETY: Only reads who we are.
            let this = unsafe { bindings::get_current() };
            let mut nodes = KVec::with_capacity(BURST, GFP_KERNEL)?;
            while !over.load(Relaxed) {
                while nodes.len() < BURST {
                    nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
                }
                while let Some(node) = nodes.pop() {
                    pushing.store(this, Relaxed);
                    // Cannot come back: it has a head.
                    let _ = node.push(&queue, How::Push);
                    pushing.store(core::ptr::null_mut(), Relaxed);
                    queued.add(1, Relaxed);
                }
                breathe();
            }
            return Ok(());
        }
        let mut nodes = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut back = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let cpu = threads::cpu_of(0);
        let _nmis = Nmis::new(cpu);
        for sent in 0..MOST {
            let is_enough = sent >= env.config.objects / BATCH && hits.load(Relaxed) >= HITS;
            if is_enough || over.load(Relaxed) {
                break;
            }
            while nodes.len() < BATCH {
                nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
            }
            let answered = send_nmi(cpu, &mut |_| {
                // SAFETY: Only reads whom we interrupted.
                if pushing.load(Relaxed) == unsafe { bindings::get_current() } {
                    hits.add(1, Relaxed);
                }
                while let Some(node) = nodes.pop() {
                    match node.push(&queue, How::Try) {
                        None => queued.add(1, Relaxed),
                        // There is room for all.
                        Some(node) => drop(back.push_within_capacity(node)),
                    }
                }
            });
            if !answered {
                return Err(ETIMEDOUT);
            }
            returned.add(back.len() as u64, Relaxed);
            back.clear();
            breathe();
        }
        Ok(())
    })?;
    queue.barrier();

    let (queued, returned) = (queued.load(Relaxed), returned.load(Relaxed));
    let hits = hits.load(Relaxed);
    pr_info!("# nested: hits={hits} queued={queued} returned={returned}\n");
    let outcome = check_stats(Outcome::Passed, queue.stats(), queued, returned).check(
        hits >= HITS,
        fmt!("{hits} NMIs of {HITS} came in the midst of a push"),
    );
    Ok(ledger.close(outcome, queued))
}
