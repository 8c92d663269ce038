// SPDX-License-Identifier: GPL-2.0

//! Must fail: mismatched types

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(place: &RcuPointer<KBox<u64>>) {
    if let Some(old) = place.take() {
        // Readers may be reading it.
        // Twin: drop::<KBox<u64>>(old.wait());
        drop::<KBox<u64>>(old);
    }
}
