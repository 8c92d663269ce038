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

#[allow(dead_code)]
struct Owner {
    head: BulkHead,
    // Twin: memory: *const u64,
    memory: KBox<u64>,
}

impl_has_bulk_head! {
    impl HasBulkHead for Owner { self.head }
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let queue = BulkQueue::new(c"nolocks")?;
    let owner = KBox::<Owner>::new_uninit(GFP_KERNEL)?;
    // SAFETY: This is never run.
    queue.push(unsafe { owner.assume_init() });
    Ok(())
}
