// SPDX-License-Identifier: GPL-2.0

//! Must fail: an object that a `BulkQueue` frees must have no destructor

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Owns memory that only its destructor frees.
#[allow(dead_code)]
struct Owner(KBox<u64>);

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let owner = KBox::new(Owner(KBox::new(1, GFP_KERNEL)?), GFP_KERNEL)?;
    // Twin: let queue = DropQueue::<Owner>::new(c"nolocks")?;
    let queue = BulkQueue::new(c"nolocks")?;
    let _ = queue.push_headless(owner);
    Ok(())
}
