// SPDX-License-Identifier: GPL-2.0

//! Who fills the slots where the thread for it does not come.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
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
    context::Context,
    env::{
        empty_slots,
        Desk,
        Env,
        LARGEST_BURST, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    probes::Filler,
    task::{
        breathe,
        Pinned, //
    },
    threads,
    vm, //
};

/// More pages than the slots of a CPU and the lists of all zones hold.
const ROOM: usize = 16 * LARGEST_BURST;
/// In which the thread is asleep again.
const SETTLE: Delta = Delta::from_millis(20);

/// The thread was last on a CPU that sits with interrupts disabled, and is woken there. Another CPU's
/// slots are filled all the same.
pub(crate) fn irqs_off(env: &Env) -> Result<Outcome> {
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is no other CPU"));
    }
    let (away, is_stuck) = repeat(
        || beside_irqs_off(env),
        |(away, is_stuck)| away.is_short() && *is_stuck,
    )?;

    Ok(Outcome::Passed
        .check(
            is_stuck,
            fmt!("the thread was not woken on the CPU that sits with interrupts disabled"),
        )
        .check(
            away.is_short(),
            fmt!("the slots were not filled in time beside that CPU"),
        ))
}

/// How long it took, and whether the thread could not run meanwhile.
fn beside_irqs_off(env: &Env) -> Result<(Away, bool)> {
    let sitting = Sitting::new();
    let is_stuck = Atomic::new(0);
    let reference = Atomic::new(0);
    let took = Atomic::new(-1);

    env.fill_slots()?;
    {
        // Where it runs for the last time it stays, though it may be anywhere again.
        let _filler = Filler::keep_on(threads::cpu_of(1))?;
        threads::run(1, &|_| {
            let mut desk = Desk::new(ROOM)?;
            let delta = empty_and_wait(&mut desk)?.ok_or(ETIMEDOUT)?;
            reference.store(delta.as_nanos(), Relaxed);
            desk.free(Context::Task);
            Ok(())
        })?;
        fsleep(SETTLE);
    }
    threads::run(2, &|nth| {
        let mut desk = Desk::new(ROOM)?;

        if nth == 1 {
            desk.site.run(Context::RawIrqsave, || sitting.sit());
            return Ok(());
        }
        sitting.wait();
        let delta = empty_and_wait(&mut desk);
        is_stuck.store(i32::from(Filler::is_woken_on(threads::cpu_of(1))), Relaxed);
        sitting.end();
        if let Some(delta) = delta? {
            took.store(delta.as_nanos(), Relaxed);
        }
        desk.free(Context::Task);
        Ok(())
    })?;
    let away = Away::new(
        took.load(Relaxed),
        Delta::from_nanos(reference.load(Relaxed)),
    );
    away.print("refill", "irqs_off");
    Ok((away, is_stuck.load(Relaxed) != 0))
}

/// Takes all pages of this CPU that can be had without a lock, frees none, and says how long it took until
/// its slots were as full as before: `None` if they were not within [`SIT`].
fn empty_and_wait(desk: &mut Desk) -> Result<Option<Delta>> {
    let _pinned = Pinned::new();
    let cpu = threads::cpu_of(0);
    let wanted = vm::in_slots(cpu);
    let mut is_empty = false;

    let pile = &mut desk.pile;
    desk.site
        .run(Context::RawIrqsave, || is_empty = empty_slots(pile, cpu));
    if wanted == 0 || !is_empty {
        return Err(ENOSPC);
    }
    let start = Instant::<Monotonic>::now();
    while vm::in_slots(cpu) < wanted {
        if start.elapsed() > SIT {
            return Ok(None);
        }
        breathe();
    }
    Ok(Some(start.elapsed()))
}
