// SPDX-License-Identifier: GPL-2.0

//! What is in a page: nobody else's data, and zeroes when asked.

use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use crate::{
    api::{
        Api,
        CORRUPT, //
    },
    context::Context,
    env::{
        Desk,
        Env,
        Stat,
        LARGEST_BURST,
        PROMISED, //
    },
    ktap::{
        tell_tries,
        Outcome, //
    },
    nolocks::page::NoLocksFlags,
    task::Pinned, //
};

extern "C" {
    fn nolocks_overwritten_anyway() -> bool;
}

/// Pages from all contexts, held at the same time, are all different.
pub(crate) fn handed_out_once(env: &Env) -> Result<Outcome> {
    let corrupt = CORRUPT.load(Relaxed);
    let mut desk = Desk::new(LARGEST_BURST)?;
    let mut addresses = KVVec::with_capacity(LARGEST_BURST, GFP_KERNEL)?;
    let mut stat = Stat::default();
    let mut contexts = env.contexts().cycle();

    while stat.attempts < LARGEST_BURST as u64 {
        let _pinned = Pinned::new();
        let Some(ctx) = contexts.next() else {
            return Ok(Outcome::Skipped("no context may try a lock here"));
        };
        env.fill_slots()?;
        let obtained = desk.obtain(ctx, Api::NoLocks, NoLocksFlags::NONE, PROMISED);
        stat.add(PROMISED, obtained);
    }
    for held in desk.pile.pages() {
        addresses.push_within_capacity(held.page() as usize)?;
    }
    addresses.as_mut_slice().sort_unstable();
    let twice = addresses
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .count();
    desk.free(Context::Task);
    stat.print("handed_out_once", Api::NoLocks);

    let corrupt = CORRUPT.load(Relaxed) - corrupt;
    Ok(desk
        .check(Outcome::Passed)
        .check(twice == 0, fmt!("{twice} pages were handed out twice"))
        .check(
            corrupt == 0,
            fmt!("{corrupt} pages lost their owner's mark"),
        )
        .check(
            stat.obtained == stat.attempts,
            fmt!("{} of {} pages", stat.obtained, stat.attempts),
        ))
}

/// A page is zeroed when asked, and only then.
pub(crate) fn zero(env: &Env) -> Result<Outcome> {
    const DIRT: u64 = 0xd1d1_d1d1_d1d1_d1d1;
    // A worker on another CPU may put clean pages into the slots between our free and our request;
    // it does so when asked, which is once a round at most.
    const ROUNDS: u32 = 16;
    let mut desk = Desk::new(PROMISED)?;
    let mut stat = Stat::default();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let mut dirty = false;
        for round in 1..=ROUNDS {
            let pages = desk.reuse(env, ctx, NoLocksFlags::NONE, DIRT)?;
            stat.add(PROMISED, pages.len());
            dirty = pages.iter().any(|held| held.has(DIRT));
            desk.free(ctx);
            if dirty || round == ROUNDS {
                tell_tries(round);
                break;
            }
        }
        // SAFETY: Only reads static keys.
        let wiped = unsafe { nolocks_overwritten_anyway() };
        let name = ctx.name();
        outcome = outcome.check(
            dirty != wiped,
            fmt!("{name}: dirty={dirty} without __GFP_ZERO, wiped anyway={wiped}"),
        );

        let pages = desk.reuse(env, ctx, NoLocksFlags::NONE.zeroed(), DIRT)?;
        let got = pages.len();
        let zeroed = pages.iter().filter(|held| held.is_filled_with(0)).count();
        stat.add(PROMISED, got);
        desk.free(ctx);
        outcome = outcome.check(
            zeroed == got,
            fmt!("{name}: {zeroed} of {got} pages zeroed with __GFP_ZERO"),
        );
    }
    stat.print("zero", Api::NoLocks);
    Ok(desk.check(outcome).check(
        stat.obtained == stat.attempts,
        fmt!("{} of {} pages", stat.obtained, stat.attempts),
    ))
}
