// SPDX-License-Identifier: GPL-2.0

//! Must fail: duplicate definitions with name `address`

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use nolocks::{
    alloc::NoLocks,
    page::NoLocksPage,
    raw_spin_lock::RawSpinLock, //
};
use queue::*;

// The library is part of this crate, so its types may be given more. What the library asks of a trait
// it does not find here, or it would not compile: nothing here is of the right type.
#[allow(dead_code)]
impl NoLocks {
    const MIN_ALIGN: () = ();
    fn object() {}
}

#[allow(dead_code)]
impl<T> RawSpinLock<T> {
    fn __pin_data() {}
}

#[allow(dead_code)]
impl NoLocksPage {
    // Twin: fn object() {}
    fn address() {}
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(queue: &BulkQueue, page: NoLocksPage) {
    queue.push_mightsleep(page);
}
