// SPDX-License-Identifier: GPL-2.0

//! Must fail: an object of no size has no memory to free

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
fn nolocks_compile_fail() -> Result {
    let queue = BulkQueue::new(c"nolocks")?;
    // Twin: let _ = queue.push_headless(KBox::new(1u8, GFP_KERNEL)?);
    let _ = queue.push_headless(KBox::new((), GFP_KERNEL)?);
    Ok(())
}
