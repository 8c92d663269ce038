// SPDX-License-Identifier: GPL-2.0

//! Must fail: no field `head` on type `Outer`

use core::ops::Deref;

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

#[allow(dead_code)]
struct Inner {
    head: BulkHead,
}

/// Its head is in another object.
#[allow(dead_code)]
struct Outer {
    inner: &'static Inner,
    // Twin: head: BulkHead,
    name: u64,
}

impl Deref for Outer {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.inner
    }
}

impl_has_bulk_head! {
    impl HasBulkHead for Outer { self.head }
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let queue = BulkQueue::new(c"nolocks")?;
    let outer = KBox::<Outer>::new_uninit(GFP_KERNEL)?;
    // SAFETY: This is never run.
    queue.push(unsafe { outer.assume_init() });
    Ok(())
}
