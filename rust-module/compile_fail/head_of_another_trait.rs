// SPDX-License-Identifier: GPL-2.0

//! Must fail: missing parameters for function definition

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Of one task's, as it has a pointer.
#[allow(dead_code)]
struct Bound(*mut u8);

#[allow(dead_code)]
struct Entry {
    head: BulkHead,
}

// What is unsafe would be written by nobody.
impl_has_bulk_head! {
    // Twin: impl HasBulkHead for Entry { self.head }
    impl{> Send for Bound {} #[cfg(any())] impl<} HasBulkHead for Entry { self.head }
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let queue = BulkQueue::new(c"nolocks")?;
    let entry = KBox::<Entry>::new_uninit(GFP_KERNEL)?;
    // SAFETY: This is never run.
    queue.push(unsafe { entry.assume_init() });
    Ok(())
}
