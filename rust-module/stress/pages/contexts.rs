// SPDX-License-Identifier: GPL-2.0

//! Every context, one by one.

use kernel::prelude::*;

use crate::{
    api::Api,
    context::Context,
    env::{
        Desk,
        Env,
        Stat,
        DEPTH,
        LARGEST_BURST,
        PROMISED, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    nolocks::page::NoLocksFlags,
    task::{
        breathe,
        Pinned, //
    },
    vm, //
};

/// With nobody registered no slot holds a page, and where no lock may be tried NULL is right.
pub(crate) fn unregistered(env: &Env) -> Result<Outcome> {
    const ROUNDS: u32 = 10;
    let mut desk = Desk::new(PROMISED)?;
    let before = vm::in_all_slots();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let promised = if ctx.trylock_allowed() { PROMISED } else { 0 };
        let mut stat = Stat::default();
        let mut wrong = 0;

        for _ in 0..ROUNDS {
            // Somebody else of this CPU may have been preempted at pcp->lock.
            let visit = || {
                let _pinned = Pinned::new();
                desk.warm(PROMISED)?;
                Ok(desk.visit(ctx, Api::NoLocks, PROMISED))
            };
            let obtained = repeat(visit, |obtained| promised == 0 || *obtained == promised)?;
            stat.add(PROMISED, obtained);
            wrong += u32::from(obtained != promised);
        }
        let name = ctx.name();
        outcome = outcome.check(
            wrong == 0,
            fmt!("{name}: {wrong} of {ROUNDS} bursts from warm lists were not {promised}"),
        );
        pr_info!(
            "# unregistered: context={name} attempts={} obtained={}\n",
            stat.attempts,
            stat.obtained
        );
    }
    let after = vm::in_all_slots();
    Ok(desk.check(outcome).check(
        before == 0 && after == 0,
        fmt!("{before} pages were in slots before, and {after} after"),
    ))
}

/// Whether full slots are enough for a burst of [`DEPTH`] by it: `alloc_pages_nolock()` goes to them where
/// its trylocks are not legal, and else only if they fail. (Without SMP its rule is another than the flag's.)
fn is_promised(api: Api, ctx: Context) -> bool {
    match api {
        Api::NoLocks => true,
        Api::TryLock => cfg!(CONFIG_PREEMPT_RT) && !ctx.trylock_allowed(),
        Api::GfpNowait => false,
    }
}

pub(crate) fn context(env: &Env, ctx: Context) -> Result<Outcome> {
    const ROUNDS: u32 = 100;

    if !ctx.is_possible(&env.nmi) {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }

    let mut desk = Desk::new(DEPTH)?;
    let mut outcome = Outcome::Passed;
    let mut stat = Stat::default();

    for api in [Api::NoLocks, Api::TryLock] {
        if !is_promised(api, ctx) {
            continue;
        }
        let mut short = 0;
        for _ in 0..ROUNDS {
            let _pinned = Pinned::new();
            env.fill_slots()?;
            let obtained = desk.visit(ctx, api, DEPTH);
            if api == Api::NoLocks {
                stat.add(DEPTH, obtained);
            }
            short += u32::from(obtained != DEPTH);
        }
        let name = api.name();
        outcome = outcome.check(
            short == 0,
            fmt!("{short} of {ROUNDS} bursts of {DEPTH} by {name} were not complete"),
        );
    }
    outcome = outcome.check(
        volume(&mut desk, ctx, Api::NoLocks, env.config.pages, &mut stat)?,
        fmt!(
            "lists and slots were empty: {} pages in {} attempts",
            stat.obtained,
            stat.attempts
        ),
    );
    stat.print(ctx.name(), Api::NoLocks);

    for api in [Api::TryLock, Api::GfpNowait] {
        if api.is_legal(ctx) {
            let mut stat = Stat::default();
            // Where mainline has less than all here, that is no failure of ours.
            let _ = volume(&mut desk, ctx, api, env.config.pages / 20, &mut stat)?;
            stat.print(ctx.name(), api);
        }
    }
    Ok(desk.check(outcome))
}

/// Obtains `pages` pages in `ctx`. False if one of four attempts or more was in vain, or warm lists have
/// nothing, when it gives up.
fn volume(desk: &mut Desk, ctx: Context, api: Api, pages: u64, stat: &mut Stat) -> Result<bool> {
    const PATIENCE: u32 = 100;
    let burst = ctx.chunk(2 * PROMISED);
    let mut empty = 0;
    let mut obtained = burst;

    while stat.obtained < pages {
        let _pinned = Pinned::new();
        if obtained < burst {
            desk.warm(burst)?;
        }
        obtained = desk.visit(ctx, api, burst);
        stat.add(burst, obtained);
        empty = if obtained == 0 { empty + 1 } else { 0 };
        if empty == PATIENCE {
            return Ok(false);
        }
        breathe();
    }
    Ok(4 * stat.obtained >= 3 * stat.attempts)
}

/// Pages obtained in one context are freed in another, for every pair.
pub(crate) fn free_elsewhere(env: &Env) -> Result<Outcome> {
    const ROUNDS: u32 = 4;
    let mut desk = Desk::new(PROMISED)?;
    let mut stat = Stat::default();

    for _ in 0..ROUNDS {
        for from in env.contexts() {
            for to in env.contexts() {
                let _pinned = Pinned::new();
                env.fill_slots()?;
                let obtained = desk.obtain(from, Api::NoLocks, NoLocksFlags::NONE, PROMISED);
                stat.add(PROMISED, obtained);
                desk.free(to);
                breathe();
            }
        }
    }
    stat.print("free_elsewhere", Api::NoLocks);
    Ok(desk.check(Outcome::Passed).check(
        stat.obtained == stat.attempts,
        fmt!("{} of {} pages", stat.obtained, stat.attempts),
    ))
}

/// Bursts from empty lists and full slots.
pub(crate) fn bursts(env: &Env) -> Result<Outcome> {
    let mut desk = Desk::new(LARGEST_BURST)?;
    let mut outcome = Outcome::Passed;
    let mut undrained = 0;

    for ctx in env.contexts() {
        for api in Api::ALL.into_iter().filter(|api| api.is_legal(ctx)) {
            for exponent in (0..=LARGEST_BURST.ilog2()).step_by(2) {
                let size = 1 << exponent;
                let _pinned = Pinned::new();
                undrained += u32::from(!vm::drain_pcp_lists());
                env.fill_slots()?;
                let obtained = desk.obtain(ctx, api, NoLocksFlags::NONE, size);
                desk.free(ctx);

                let name = ctx.name();
                pr_info!(
                    "# burst: context={name} api={} size={size} obtained={obtained}\n",
                    api.name()
                );
                if is_promised(api, ctx) && size <= DEPTH {
                    let api = api.name();
                    outcome = outcome.check(
                        obtained == size,
                        fmt!("{name}: {obtained} pages by {api} in a burst of {size}"),
                    );
                }
                breathe();
            }
        }
    }
    if undrained != 0 {
        pr_info!("# note: {undrained} bursts from lists that could not be drained before\n");
    }
    Ok(desk.check(outcome))
}
