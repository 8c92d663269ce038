// SPDX-License-Identifier: GPL-2.0

//! When what was pushed is freed.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    env::{
        in_time,
        push_all,
        wait_until_freed,
        Env,
        Ledger,
        NAME, //
    },
    ktap::{
        tell_tries,
        Outcome, //
    },
    node::{
        Watched,
        FREED_OF, //
    },
    queue::{
        Queue,
        CAPACITY, //
    },
    task::Pinned,
    threads, //
};

/// A full block is drained although nobody asks and nothing is old.
pub(crate) fn drained_when_full(env: &Env) -> Result<Outcome> {
    /// A slow machine, or a long grace period, may spoil some.
    const ROUNDS: u32 = 50;
    let ledger = Ledger::open();
    let mut queued = 0;
    let mut seen = None;

    for round in 1..=ROUNDS {
        let queue = Queue::<Watched>::new(NAME)?;
        let (stats, is_young) = in_time(|| {
            // All in one shard.
            let pinned = Pinned::new();
            push_all(&queue, CAPACITY)?;
            drop(pinned);
            Ok(wait_until_freed(&queue, CAPACITY as u64))
        })?;
        queued += CAPACITY as u64;
        if is_young {
            seen = Some(stats);
            tell_tries(round);
            break;
        }
    }
    let outcome = Outcome::Passed.check(
        seen.is_some_and(|stats| stats.full == 1 && stats.aged == 0) || env.config.fail,
        fmt!("of a full block and {ROUNDS} rounds at most, this was seen in time: {seen:?}"),
    );
    Ok(ledger.close(outcome, queued))
}

/// A block with one object is drained when that is old.
pub(crate) fn drained_by_time(env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;

    push_all(&queue, 1)?;
    let stats = wait_until_freed(&queue, 1);
    let outcome = Outcome::Passed.check(
        stats.full == 0 && stats.aged == 1 || env.config.fail,
        fmt!("one object was old, but {stats:?}"),
    );
    Ok(ledger.close(outcome, 1))
}

/// After a barrier nothing is left of what was pushed before, whoever else pushes.
pub(crate) fn barrier(env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 20;
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let cpus = threads::online_cpus().get();
    let objects = env.config.objects / ROUNDS / 8;
    let left = Atomic::new(0u64);

    for memory in [true, false] {
        Watched::fail((!memory).then_some(0), !memory);
        threads::run(cpus, &|nth| {
            // What is freed of others' does not make up for what is left of ours.
            let freed = &FREED_OF[threads::cpu_of(nth) as usize % FREED_OF.len()];
            let mut pushed = freed.load(Relaxed);

            for _ in 0..ROUNDS {
                push_all(&queue, objects)?;
                pushed += objects as u64;
                queue.barrier();
                left.add(pushed - freed.load(Relaxed), Relaxed);
            }
            Ok(())
        })?;
        Watched::fail(None, false);
    }
    let left = left.load(Relaxed);
    let outcome = Outcome::Passed.check(left == 0, fmt!("{left} objects were left by a barrier"));
    Ok(ledger.close(outcome, (2 * cpus as usize * ROUNDS * objects) as u64))
}
