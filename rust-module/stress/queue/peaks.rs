// SPDX-License-Identifier: GPL-2.0

//! All CPUs push as fast as they can.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    context::Context,
    env::{
        check_stats,
        push_all,
        Desk,
        Env,
        Ledger,
        NAME, //
    },
    ktap::Outcome,
    node::{
        Boxed,
        How,
        Origin,
        Watched, //
    },
    queue::{
        Queue,
        Stats,
        CAPACITY, //
    },
    task::{
        breathe,
        Pinned, //
    },
    threads, //
};

/// One of so many objects may find no block.
const RARE: u64 = 100_000;

/// All CPUs push as fast as they can, and nobody waits for the queue.
pub(crate) fn peak(env: &Env) -> Result<Outcome> {
    /// The bulk of a run.
    const SHARE: usize = 256;
    let cpus = threads::online_cpus().get();
    let each = env.config.objects * SHARE / cpus as usize;
    let queued = each as u64 * u64::from(cpus);
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let start = Instant::<Monotonic>::now();

    threads::run(cpus, &|_| {
        for _ in 0..each / CAPACITY {
            push_all(&queue, CAPACITY)?;
            breathe();
        }
        push_all(&queue, each % CAPACITY)
    })?;
    let ms = (Instant::now() - start).as_millis();
    queue.barrier();

    let stats = queue.stats();
    pr_info!(
        "# peak: cpus={cpus} pushed={} listed={} ms={ms}\n",
        stats.pushed,
        stats.listed
    );
    let outcome = check_stats(Outcome::Passed, stats, queued, 0).check(
        stats.listed <= queued / RARE || env.config.fail,
        fmt!("{} of {queued} objects found no block", stats.listed),
    );
    Ok(ledger.close(outcome, queued))
}

/// The same where no lock may be tried: what blocks come from are the slots and the spares.
pub(crate) fn peak_atomic(env: &Env) -> Result<Outcome> {
    const SHARE: usize = 64;
    const CONTEXT: Context = Context::RawIrqsave;
    /// Objects to push before interrupts are enabled again.
    const BATCH: usize = 64;
    let cpus = threads::online_cpus().get();
    let batches = (env.config.objects * SHARE / cpus as usize).div_ceil(BATCH);
    let attempts = (batches * BATCH) as u64 * u64::from(cpus);
    let strays = Atomic::new(0u64);
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let start = Instant::<Monotonic>::now();

    threads::run(cpus, &|_| {
        let desk = Desk::new(1)?;
        let mut nodes = KVVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut back = KVVec::with_capacity(BATCH, GFP_KERNEL)?;

        for nth in 0..batches {
            while nodes.len() < BATCH {
                nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
            }
            // What is tried may also find the lock taken, by a drain.
            let how = [How::Push, How::Headless][nth % 2];
            let _pinned = Pinned::new();
            desk.site.run(CONTEXT, || {
                while let Some(node) = nodes.pop() {
                    if let Some(node) = node.push(&queue, how) {
                        // There is room for all.
                        let _ = back.push_within_capacity(node);
                    }
                }
            });
            // Nobody has ever read them.
            back.clear();
            breathe();
        }
        strays.add(desk.site.strays(), Relaxed);
        Ok(())
    })?;
    let ms = (Instant::now() - start).as_millis();
    queue.barrier();

    let stats = queue.stats();
    let Stats {
        pushed,
        listed,
        returned,
        ..
    } = stats;
    pr_info!(
        "# peak_atomic: context={} cpus={cpus} pushed={pushed} listed={listed} returned={returned} ms={ms}\n",
        CONTEXT.name()
    );
    let strays = strays.load(Relaxed);
    let outcome = check_stats(Outcome::Passed, stats, attempts - returned, returned)
        .check(
            listed + returned <= attempts / RARE || env.config.fail,
            fmt!("{} of {attempts} objects found no block", listed + returned),
        )
        .check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        );
    Ok(ledger.close(outcome, attempts - returned))
}
