// SPDX-License-Identifier: GPL-2.0

//! What the guards of a [`RawSpinLock`] leave of interrupts, in whatever order they go.

use kernel::{
    interrupt::local_interrupt_disable,
    prelude::*, //
};

use crate::{
    env::Env,
    ktap::Outcome,
    nolocks::raw_spin_lock::{
        new_raw_spin_lock,
        RawSpinLock, //
    },
    task::{
        state,
        IRQS_OFF, //
    }, //
};

fn are_off() -> bool {
    state() & IRQS_OFF != 0
}

/// Interrupts are disabled from the first guard on to the end of the last one.
pub(crate) fn order(_env: &Env) -> Result<Outcome> {
    let a: Pin<KBox<RawSpinLock<u32>>> =
        KBox::pin_init(new_raw_spin_lock!(0, "nolocks_first"), GFP_KERNEL)?;
    let b: Pin<KBox<RawSpinLock<u32>>> =
        KBox::pin_init(new_raw_spin_lock!(0, "nolocks_second"), GFP_KERNEL)?;

    let first = a.lock();
    let mut second = b.lock();
    drop(first);
    let with_second = are_off();
    *second += 1;
    let twice = b.try_lock().is_some();
    let refused = are_off();
    drop(second);
    let without = are_off();

    let token = local_interrupt_disable();
    let third = a.lock_with(&token);
    let fourth = b.try_lock_with(&token);
    let tried = fourth.as_ref().map(|guard| **guard);
    drop(third);
    drop(fourth);
    let with_token = are_off();
    drop(token);

    Ok(Outcome::Passed
        .check(
            with_second && refused && with_token,
            fmt!("interrupts are enabled while a guard or a token is left"),
        )
        .check(
            !without && !are_off(),
            fmt!("interrupts are disabled when all guards are gone"),
        )
        .check(!twice, fmt!("a lock that is held was given once more"))
        .check(tried == Some(1), fmt!("a lock that is free gave {tried:?}")))
}
