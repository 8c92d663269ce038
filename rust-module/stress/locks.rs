// SPDX-License-Identifier: GPL-2.0

//! A call takes `pcp->lock` where the contract allows it, and no other lock anywhere.

use kernel::prelude::*;

use crate::{
    api::{
        Api,
        Held, //
    },
    cases::{
        Desk,
        Env, //
    },
    context::{
        breathe,
        Context,
        Pinned, //
    },
    ktap::Outcome,
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
    oracle::{
        Oracle,
        Tally,
        CALLS,
        NAMED,
        VISITS, //
    },
    vm, //
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
    let mut desk = Desk::new(WARM)?;
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        outcome = calibrate(&oracle, &mut desk, ctx, outcome)?;
        outcome = measure(env, &oracle, &mut desk, ctx, outcome)?;
        breathe();
    }
    Ok(desk.check(outcome))
}

/// Mainline's refills to be counted, which are long enough to be disturbed often.
const REFILLS: usize = 2;
const WARM: usize = 4;

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
    for _ in 0..VISITS {
        if refill.calls >= REFILLS || !Api::TryLock.is_legal(ctx) {
            break;
        }
        let _pinned = Pinned::new();
        vm::drain_pcp_lists();
        desk.site.run(ctx, || {
            let page = oracle.count(&mut refill, || {
                Held::obtain_unmarked(Api::TryLock, NoLocksFlags::NONE)
            });
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
    Ok(outcome
        .check(
            one.calls >= CALLS && ones == one.calls && all == one.calls,
            fmt!(
                "{name}: {} known locks were counted as {ones} of {all}",
                one.calls
            ),
        )
        .check(
            obtained == 0 || refill.locks(|_| true) > refill.calls,
            fmt!("{name}: mainline's refill was seen to take no more than one lock"),
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
            // The first page out of the slots makes an irq_work ask for another, in the midst of
            // the call where interrupts are enabled. That is once for a burst, before which the
            // slots are full: a page freed during it finds room.
            let _first = Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE);
            let held = oracle.count(&mut alloc, || {
                Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE)
            });
            if held.is_some() {
                obtained += 1;
                oracle.count(&mut free, || drop(held));
            }
        });
    }

    outcome = outcome.check(
        obtained == attempts,
        fmt!("{}: {obtained} pages of {attempts}", ctx.name()),
    );
    for (op, tally) in [("alloc", &alloc), ("free", &free)] {
        outcome = tally.check(ctx, op, outcome);
    }
    Ok(outcome)
}
