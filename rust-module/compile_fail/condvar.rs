// SPDX-License-Identifier: GPL-2.0

//! Must fail: mismatched types

use kernel::{
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;

use nolocks::raw_spin_lock::RawSpinLock;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(raw: &RawSpinLock<u32>, mutex: &Mutex<u32>, condvar: &CondVar) {
    // It would take the waitqueue's sleeping lock under the raw one.
    // Twin: let (_, mut guard) = (raw, mutex.lock());
    let (_, mut guard) = (mutex, raw.lock());
    condvar.wait(&mut guard);
}
