// SPDX-License-Identifier: GPL-2.0

//! Must fail: cannot be dereferenced

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
fn nolocks_compile_fail(object: Retired<KBox<KBox<u64>>>) -> u64 {
    // A destructor may be running by now, and who reads is no RCU reader.
    // Twin: **object.wait()
    **object
}
