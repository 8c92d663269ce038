// SPDX-License-Identifier: GPL-2.0

//! Must fail: cannot move out of `disabled` because it is borrowed

use kernel::{
    interrupt::local_interrupt_disable,
    prelude::*, //
};

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;

use nolocks::raw_spin_lock::RawSpinLock;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(lock: &RawSpinLock<u32>) {
    let disabled = local_interrupt_disable();
    let mut guard = lock.lock_with(&disabled);

    *guard += 1;
    // Interrupts would be enabled under the guard.
    // Twin: drop(guard);
    drop(disabled);
}
