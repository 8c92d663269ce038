// SPDX-License-Identifier: GPL-2.0

//! Must fail: unused `core::result::Result` that must be used

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
fn nolocks_compile_fail(queue: &BulkQueue) -> Result {
    let object = KBox::new(1u64, GFP_KERNEL)?;
    // Twin: let _back = queue.push_headless(object).map_err(Retired::wait);
    queue.push_headless(object);
    Ok(())
}
