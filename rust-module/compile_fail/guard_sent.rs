// SPDX-License-Identifier: GPL-2.0

//! Must fail: `*mut ()` cannot be sent between threads safely

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;

use nolocks::raw_spin_lock::RawSpinLock;

fn send<T: Send>(_: T) {}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(lock: &RawSpinLock<u32>) {
    // Another CPU would enable its interrupts, and this one never.
    // Twin: send(*lock.lock());
    send(lock.lock());
}
