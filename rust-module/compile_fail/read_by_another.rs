// SPDX-License-Identifier: GPL-2.0

//! Must fail: `*mut u64` cannot be shared between threads safely

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

fn share<T: Sync>(_: &T) {}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(place: &RcuPointer<KBox<*mut u64>>) {
    // Twin: let _ = place;
    share(place);
}
