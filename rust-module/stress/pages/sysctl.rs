// SPDX-License-Identifier: GPL-2.0

//! Rule 11: `vm.page_slots` limits what the slots hold, at once and within its bounds.

use kernel::prelude::*;

use crate::{
    api::Api,
    context::Context,
    env::{
        Desk,
        Env,
        DEPTH, //
    },
    ktap::Outcome,
    task::Pinned,
    threads,
    vm::{
        self,
        Events,
        Limit, //
    }, //
};

pub(crate) fn page_slots(env: &Env) -> Result<Outcome> {
    let Some(limit) = Limit::open()? else {
        return Ok(Outcome::Skipped(Limit::MISSING));
    };
    let mut outcome = Outcome::Passed;

    env.fill_slots()?;
    for wrong in ["65", "-1", "x"] {
        outcome = outcome.check(
            limit.refuses(wrong.as_bytes())?,
            fmt!("{wrong} was not refused"),
        );
    }
    outcome = limit.during(b"0", || empty(outcome))?;

    let full = (0..threads::online_cpus().get())
        .map(threads::cpu_of)
        .filter(|cpu| vm::in_slots(*cpu) >= DEPTH)
        .count();
    let mut desk = Desk::new(DEPTH)?;
    let _pinned = Pinned::new();
    let obtained = desk.visit(Context::RawIrqsave, Api::NoLocks, DEPTH);
    Ok(desk
        .check(outcome)
        .check(
            full == threads::online_cpus().get() as usize,
            fmt!("{full} CPUs have full slots once the limit is back"),
        )
        .check(
            obtained == DEPTH,
            fmt!("{obtained} pages in a burst of {DEPTH} once the limit is back"),
        ))
}

/// With a limit of 0 nothing is left, and what went in has come out.
fn empty(outcome: Outcome) -> Result<Outcome> {
    let left: usize = (0..threads::online_cpus().get())
        .map(|nth| vm::in_slots(threads::cpu_of(nth)))
        .sum();
    let events = Events::now();
    let (refilled, taken, drained) = (
        events.refilled(),
        events.taken_from_slots(),
        events.drained(),
    );
    let mut desk = Desk::new(DEPTH)?;
    let _pinned = Pinned::new();
    let obtained = desk.visit(Context::RawIrqsave, Api::NoLocks, DEPTH);

    Ok(outcome
        .check(
            left == 0,
            fmt!("{left} pages are in slots with a limit of 0"),
        )
        .check(
            refilled == taken + drained,
            fmt!("{refilled} pages went into slots, {taken} were obtained and {drained} drained"),
        )
        .check(
            Context::RawIrqsave.trylock_allowed() || obtained == 0,
            fmt!("{obtained} pages came from nowhere"),
        ))
}
