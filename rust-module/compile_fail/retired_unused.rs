// SPDX-License-Identifier: GPL-2.0

//! Must fail: unused return value of

#![deny(unused_must_use)]

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
fn nolocks_compile_fail(queue: &BulkQueue, place: &RcuPointer<KBox<u64>>) -> Result {
    let fresh = KBox::new(1, GFP_KERNEL)?;
    // What it replaces may be read, and would be leaked.
    // Twin: place.replace(fresh).into_iter().for_each(|old| queue.push_mightsleep(old));
    place.replace(fresh);
    queue.barrier();
    Ok(())
}
