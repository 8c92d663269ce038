// SPDX-License-Identifier: GPL-2.0

//! A call takes `pcp->lock` where the contract allows it, and no other lock anywhere.

use kernel::prelude::*;

use crate::{
    api::{
        Api,
        Held, //
    },
    charged::{
        charge,
        is_deferred, //
    },
    context::Context,
    env::{
        Desk,
        Env,
        LARGEST_BURST, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
    oracle::{
        is_pcp_lock,
        Oracle,
        Tally,
        CALLS,
        NAMED,
        VISITS, //
    },
    task::{
        breathe,
        Pinned, //
    },
    vm::{
        self,
        Events,
        Limit, //
    }, //
};

/// An allocation and a free take pcp->lock once where they may, and nothing where they may not.
pub(crate) fn locks(env: &Env) -> Result<Outcome> {
    let oracle = match Oracle::new() {
        Err(err) if err == EOPNOTSUPP => {
            return Ok(Outcome::Skipped(
                "nobody counts without CONFIG_LOCKDEP or CONFIG_DYNAMIC_FTRACE",
            ));
        }
        oracle => oracle?,
    };
    let mut desk = Desk::new(LARGEST_BURST)?;
    let mut outcome = Outcome::Passed;

    // Without SMP a page taken or freed has an interrupt come, which takes zone->lock before the call is over.
    for ctx in env.contexts().filter(|ctx| !UP || !ctx.irqs_enabled()) {
        outcome = calibrate(&oracle, &mut desk, ctx, outcome)?;
        outcome = measure(env, &oracle, &mut desk, ctx, outcome)?;
        outcome = fail(&oracle, &mut desk, ctx, outcome)?;
        outcome = defer(env, &oracle, &mut desk, ctx, outcome)?;
        breathe();
    }
    Ok(desk.check(outcome))
}

/// Mainline's refills to be counted, which are long enough to be disturbed often.
const REFILLS: usize = 2;
/// After so many their locks count as not to be seen.
const MOST: usize = 50 * REFILLS;
const WARM: usize = 4;
/// Without SMP there is no pcp->lock that could be taken.
const UP: bool = !cfg!(CONFIG_SMP);

/// The oracle must see one lock as one lock, and mainline's refill as more than one.
fn calibrate(oracle: &Oracle, desk: &mut Desk, ctx: Context, outcome: Outcome) -> Result<Outcome> {
    let known: Pin<KBox<RawSpinLock<()>>> =
        KBox::pin_init(new_raw_spin_lock!((), "nolocks_known"), GFP_KERNEL)?;
    let name = ctx.name();
    let mut one = Tally::new();
    let mut refill = Tally::new();
    let mut obtained = 0;

    for _ in 0..VISITS {
        let _pinned = Pinned::new();
        desk.site.run(ctx, || {
            // Ftrace must see a trylock that fails, as lockdep cannot.
            let _held = (!NAMED).then(|| known.try_lock());
            oracle.count(&mut one, || drop(known.try_lock()));
        });
        if one.calls >= CALLS {
            break;
        }
    }
    // Without lockdep both are the same function; without SMP it goes past the lists, and takes
    // zone->lock alone.
    let seen = |refill: &Tally| {
        let pcp = refill.named(is_pcp_lock) / if NAMED || UP { 1 } else { 2 };
        let zone = refill.named(|name| name == b"&zone->lock");
        (
            match UP && Api::tries_locks(ctx) {
                true => REFILLS,
                false => pcp,
            },
            if NAMED { zone } else { pcp },
        )
    };
    let enough = |refill: &Tally| {
        let (pcp, zone) = seen(refill);
        match Api::tries_locks(ctx) {
            true => pcp >= REFILLS && zone >= REFILLS,
            false => refill.calls >= REFILLS,
        }
    };
    for _ in 0..VISITS {
        // Not all need zone->lock: what somebody frees on this CPU meanwhile is on the lists.
        if enough(&refill) || refill.calls >= MOST {
            break;
        }
        let _pinned = Pinned::new();
        vm::drain_pcp_lists();
        desk.site.run(ctx, || {
            let page = oracle.count_if(
                &mut refill,
                || Held::obtain_unmarked(Api::TryLock, NoLocksFlags::NONE),
                // Somebody else may be at zone->lock. Emulated, a refill takes longer than a tick: no
                // interrupt that comes in between takes either lock, if the lock's own name is known.
                |page, alone| (alone || NAMED) && (page.is_some() || !Api::tries_locks(ctx)),
            );
            obtained += usize::from(page.is_some());
        });
    }
    refill.print(ctx, Api::TryLock, "refill");

    let (ones, all) = (
        one.locks(|name| {
            name == match NAMED {
                true => b"nolocks_known".as_slice(),
                false => b"_raw_spin_trylock",
            }
        }),
        one.locks(|_| true),
    );
    let (pcp, zone) = seen(&refill);
    Ok(outcome
        .check(
            one.calls >= CALLS && ones == one.calls && all == ones,
            fmt!(
                "{name}: {} known locks were counted as {ones} of {all}",
                one.calls
            ),
        )
        .check(
            !Api::tries_locks(ctx) || obtained != 0,
            fmt!("{name}: mainline obtained {obtained} pages from empty lists"),
        )
        .check(
            !Api::tries_locks(ctx) || obtained == 0 || enough(&refill),
            fmt!(
                "{name}: mainline's refill was seen to take {pcp} and {zone} locks in {} calls",
                refill.calls
            ),
        )
        .check(
            Api::tries_locks(ctx) || pcp + zone == 0,
            fmt!("{name}: mainline took {pcp} and {zone} locks where none may be tried"),
        ))
}

fn measure(
    env: &Env,
    oracle: &Oracle,
    desk: &mut Desk,
    ctx: Context,
    outcome: Outcome,
) -> Result<Outcome> {
    let mut outcome = outcome;
    // Where it is tried and somebody else of this CPU has pcp->lock, the page comes from a slot.
    let (alloc, free, obtained, attempts) = repeat(
        || visit(env, oracle, desk, ctx),
        |(alloc, free, ..)| alloc.is_final(ctx) && free.is_final(ctx),
    )?;

    outcome = outcome.check(
        obtained == attempts,
        fmt!("{}: {obtained} pages of {attempts}", ctx.name()),
    );
    for (op, tally) in [("alloc", &alloc), ("free", &free)] {
        outcome = tally.check(ctx, op, outcome);
    }
    Ok(outcome)
}

/// Allocations and frees of single pages: what locks they took, and how many came of how many.
fn visit(
    env: &Env,
    oracle: &Oracle,
    desk: &mut Desk,
    ctx: Context,
) -> Result<(Tally, Tally, usize, usize)> {
    let mut alloc = Tally::new();
    let mut free = Tally::new();
    let (mut attempts, mut obtained) = (0, 0);

    for _ in 0..VISITS {
        if alloc.calls >= CALLS && free.calls >= CALLS {
            break;
        }
        let _pinned = Pinned::new();
        env.fill_slots()?;
        desk.warm(WARM)?;
        attempts += 1;
        desk.site.run(ctx, || {
            // The first page out of the slots raises an irq_work. With interrupts enabled that runs
            // in the midst of the call, which cannot be told from the locks that the call takes.
            let _first = ctx
                .irqs_enabled()
                .then(|| Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE));
            let held = oracle.count(&mut alloc, || {
                Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE)
            });
            if held.is_some() {
                obtained += 1;
                oracle.count(&mut free, || drop(held));
            }
        });
    }
    Ok((alloc, free, obtained, attempts))
}

/// An allocation that finds lists and slots empty takes no lock either, but pcp->lock once for each
/// zone where it may.
fn fail(oracle: &Oracle, desk: &mut Desk, ctx: Context, outcome: Outcome) -> Result<Outcome> {
    // Else the thread that fills the slots is as fast as this, where interrupts are enabled.
    let limit = Limit::open()?.ok_or(ENOENT)?;
    let tally = limit.during(b"0", || {
        repeat(
            || Ok(exhaust(oracle, desk, ctx)),
            |tally| tally.is_final(ctx),
        )
    });
    Ok(tally?.check_each(ctx, "fail", usize::MAX, outcome))
}

fn exhaust(oracle: &Oracle, desk: &mut Desk, ctx: Context) -> Tally {
    let mut tally = Tally::new();

    for _ in 0..CALLS {
        if tally.calls >= CALLS {
            break;
        }
        let _pinned = Pinned::new();
        vm::drain_pcp_lists();
        loop {
            let pile = &mut desk.pile;
            let mut obtained = 0;

            // As many in one visit as an NMI is good for.
            desk.site.run(ctx, || {
                for _ in 0..CALLS {
                    let page = oracle.count_if(
                        &mut tally,
                        || Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE),
                        |page, alone| alone && page.is_none(),
                    );
                    obtained += usize::from(page.and_then(|page| pile.push(page)).is_some());
                }
            });
            if obtained < CALLS {
                break;
            }
        }
        desk.free(Context::Task);
    }
    tally
}

/// A page whose free is left to the worker takes no lock anywhere: a charged one, and where the
/// trylock is forbidden one for which the slots have no room.
fn defer(
    env: &Env,
    oracle: &Oracle,
    desk: &mut Desk,
    ctx: Context,
    outcome: Outcome,
) -> Result<Outcome> {
    /// Pages for one visit.
    const PAGES: usize = CALLS / 2;
    let mut outcome = outcome;
    // Else the irq_work that frees the page runs in the midst of the call, and takes locks.
    let alone = cfg!(CONFIG_PREEMPT_RT) || !ctx.irqs_enabled();

    for (op, charged, deferred) in [
        (
            "free_charged",
            true,
            alone && is_deferred(ctx) && charge().is_some(),
        ),
        ("free_full", false, !ctx.trylock_allowed()),
    ] {
        let mut tally = Tally::new();
        let before = Events::now().deferred();
        let mut freed = 0;

        for _ in 0..VISITS {
            if tally.calls >= CALLS || !deferred {
                break;
            }
            let _pinned = Pinned::new();
            for _ in 0..PAGES {
                desk.pile
                    .push(Held::obtain_as_usual(charged).ok_or(ENOMEM)?);
            }
            env.fill_slots()?;
            let pile = &mut desk.pile;
            desk.site.run(ctx, || {
                while let Some(held) = pile.pop() {
                    oracle.count(&mut tally, || drop(held));
                }
            });
            freed += PAGES as u64;
        }
        let left = Events::now().deferred() - before;
        if deferred {
            outcome = tally.check_each(ctx, op, 0, outcome).check(
                left >= freed,
                fmt!("{}: {op} left {left} pages of {freed}", ctx.name()),
            );
        }
    }
    Ok(outcome)
}
