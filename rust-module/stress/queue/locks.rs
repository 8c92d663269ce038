// SPDX-License-Identifier: GPL-2.0

//! A push takes its shard's lock, and a page's one where it needs a block; nothing else.

use kernel::prelude::*;

use crate::{
    context::Context,
    env::{
        Desk,
        Env, //
    },
    ktap::Outcome,
    node::{
        Boxed,
        How,
        Origin,
        Watched, //
    },
    oracle::{
        Oracle,
        Tally,
        NAMED, //
    },
    queue::{
        Queue,
        CAPACITY, //
    },
    task::{
        breathe,
        Pinned, //
    }, //
};

/// The lock of a shard, by the name that it was given.
const SHARD: &[u8] = b"nolocks_queue";
/// One of so many is vmalloc's, the others kmalloc's.
const VMALLOC: usize = 16;
/// Pushes to be counted undisturbed, all to one shard, which has a block for kmalloc's and one
/// for vmalloc's: enough for some to fill a block of kmalloc's and to open one.
const PUSHES: usize = CAPACITY * VMALLOC / (VMALLOC - 1) + BLOCKLESS;
/// Where no push finds a block each is like the one before.
const BLOCKLESS: usize = 64;
/// Visits that one of them may take: where each push has a drain come, that interrupts most of them.
const VISITS: usize = 1000;

pub(crate) fn locks(env: &Env) -> Result<Outcome> {
    if !NAMED {
        return Ok(Outcome::Skipped(
            "no lock has a name without CONFIG_LOCKDEP",
        ));
    }
    let oracle = Oracle::new()?;
    let mut desk = Desk::new(2)?;
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        for how in How::ALL.into_iter().filter(|how| how.is_legal(ctx)) {
            for memory in [true, false] {
                // Blocks that fail are another run's, and full ones this one's.
                let pushes = match memory && !env.config.fail {
                    true => PUSHES,
                    false => BLOCKLESS,
                };
                outcome = count(&oracle, &mut desk, ctx, how, memory, pushes, outcome)?;
            }
        }
    }
    Ok(desk.check(outcome))
}

/// Counts `pushes`, with `memory` for their blocks or without.
fn count(
    oracle: &Oracle,
    desk: &mut Desk,
    ctx: Context,
    how: How,
    memory: bool,
    pushes: usize,
    outcome: Outcome,
) -> Result<Outcome> {
    let queue = Queue::<Watched>::new(c"nolocks_queue_locks")?;
    let mut tally = Tally::new();
    let _pinned = Pinned::new();

    Watched::fail((!memory).then_some(0), !memory);
    for nth in 0..VISITS * pushes {
        if tally.calls >= pushes {
            break;
        }
        let origin = match nth % VMALLOC {
            0 => Origin::Vmalloc,
            _ => Origin::Kmalloc,
        };
        let mut node = Some(Boxed::new(origin)?);
        desk.warm(2)?;
        desk.site.run(ctx, || {
            oracle.count(&mut tally, || {
                node = node.take().and_then(|node| node.push(&queue, how));
            });
        });
        breathe();
    }
    Watched::fail(None, false);

    let calls = tally.calls;
    let shard = tally.locks(|name| name == SHARD);
    let pcp = tally.locks(|name| name == b"&pcp->lock");
    let inner = tally.locks(crate::oracle::is_wait_lock);
    let all = tally.locks(|name| !crate::oracle::is_stack_depot(name));
    // The shard's own lock, which each push takes, shows that the oracle sees what there is: once
    // more for a push that finds no block at first, and all that in a second shard.
    let most = if how == How::Try { 4 } else { 2 };
    // Without SMP nothing can be tried where interrupts are disabled.
    let least = match cfg!(CONFIG_SMP) || how != How::Try {
        true => calls,
        false => 0,
    };
    // A push allocates no more than one block, and none where it is not to find one.
    let most_pcp = match memory && ctx.trylock_allowed() {
        true => calls,
        false => 0,
    };
    let (context, how) = (ctx.name(), how.name());
    pr_info!(
        "# push: context={context} how={how} memory={memory} calls={calls} shard={shard} pcp={pcp} all={all}\n"
    );
    for (name, n) in tally.iter() {
        pr_info!("# taken: {n} of {name}\n");
    }
    Ok(outcome
        .check(
            calls >= pushes,
            fmt!("{context}: {how} was undisturbed {calls} times of {pushes}"),
        )
        .check(
            // In its trylock and in its unlock, pcp->lock takes its own wait_lock.
            shard >= least
                && shard <= most * calls
                && pcp <= most_pcp
                && inner <= 2 * pcp
                && all == shard + pcp + inner,
            fmt!(
                "{context}: {how} took {shard} locks of its own, {pcp} of {most_pcp} for pages with {inner} in them, and {all} in all"
            ),
        ))
}
