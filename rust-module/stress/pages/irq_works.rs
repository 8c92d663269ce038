// SPDX-License-Identifier: GPL-2.0

//! How often a CPU interrupts itself to ask for pages.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    api::{
        Api,
        Held, //
    },
    context::Context,
    env::{
        empty_slots,
        Desk,
        Env,
        DEPTH,
        LARGEST_BURST, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    nolocks::page::NoLocksFlags,
    probes::{
        Filler,
        IrqWorks, //
    },
    task::{
        breathe,
        Pinned, //
    },
    threads,
    vm::{
        self,
        Limit, //
    }, //
};

/// Interrupts that others may have caused meanwhile, as a line on the console does.
const NOISE: u64 = 2;

/// One interrupt asks for what a burst took, and none asks where nothing is missing.
pub(crate) fn irq_works(env: &Env) -> Result<Outcome> {
    let Ok(irq_works) = IrqWorks::watch() else {
        return Ok(Outcome::Skipped("no tracepoint tells of irq_works"));
    };
    let Some(limit) = Limit::open()? else {
        return Ok(Outcome::Skipped(Limit::MISSING));
    };

    let burst = repeat(|| burst(env, &irq_works), is_one)?;
    let (calls, failing) = limit.during(b"0", || {
        repeat(|| failing(&irq_works), |(_, n)| *n <= NOISE)
    })?;

    pr_info!("# irq_works: burst={burst} failing={failing} calls={calls}\n");
    Ok(Outcome::Passed
        .check(
            is_one(&burst),
            fmt!("{burst} interrupts asked for what a burst of {DEPTH} took out of the slots"),
        )
        .check(calls != 0, fmt!("no call failed"))
        .check(
            failing <= NOISE,
            fmt!("{failing} interrupts asked for nothing in {calls} failing calls"),
        ))
}

fn is_one(interrupts: &u64) -> bool {
    (1..=1 + NOISE).contains(interrupts)
}

/// Takes all that is in the slots where each page could interrupt, and what fills them could not run, and
/// says how many interrupts that took.
fn burst(env: &Env, irq_works: &IrqWorks) -> Result<u64> {
    let interrupts = Atomic::new(0);

    vm::drain_pcp_lists();
    env.fill_slots()?;
    threads::run(1, &|nth| {
        let mut desk = Desk::new(LARGEST_BURST)?;
        let cpu = threads::cpu_of(nth);
        let _filler = Filler::keep_on(cpu)?;
        let before = irq_works.of_this_cpu();
        let pile = &mut desk.pile;

        desk.site.run(Context::PreemptOff, || {
            empty_slots(pile, cpu);
        });
        interrupts.store(irq_works.of_this_cpu() - before, Relaxed);
        desk.free(Context::Task);
        Ok(())
    })?;
    Ok(interrupts.load(Relaxed))
}

/// Calls that fail, each with interrupts enabled before and after, and how many interrupts they took.
/// With a limit of 0 no slot is to be filled.
fn failing(irq_works: &IrqWorks) -> Result<(u32, u64)> {
    const CALLS: u32 = 40_000;
    /// More than the lists of all zones hold.
    const ROOM: usize = 16 * LARGEST_BURST;
    let mut desk = Desk::new(ROOM)?;
    let mut failed = 0;
    let _pinned = Pinned::new();

    // Where the lists may be tried, there may be something on them.
    while desk.obtain(Context::RawIrqsave, Api::NoLocks, NoLocksFlags::NONE, DEPTH) == DEPTH {
        breathe();
    }
    let before = irq_works.of_this_cpu();
    for _ in 0..CALLS {
        let mut held = None;
        desk.site.run(Context::RawIrqsave, || {
            held = Held::obtain(Api::NoLocks, NoLocksFlags::NONE);
        });
        match held {
            None => failed += 1,
            // Somebody else of this CPU has refilled a list: held, so that it gets empty again.
            Some(held) => desk.pile.push(held).ok_or(ENOMEM)?,
        }
    }
    let after = irq_works.of_this_cpu();
    desk.free(Context::Task);
    Ok((failed, after - before))
}
