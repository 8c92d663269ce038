// SPDX-License-Identifier: GPL-2.0

//! Must fail: reference to field of packed struct is unaligned

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

#[allow(dead_code)]
// Twin: #[repr(C)]
#[repr(C, packed)]
struct Packed {
    byte: u8,
    head: BulkHead,
}

impl_has_bulk_head! {
    impl HasBulkHead for Packed { self.head }
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let queue = BulkQueue::new(c"nolocks")?;
    let packed = Packed {
        byte: 0,
        head: BulkHead::new(),
    };
    queue.push(KBox::new(packed, GFP_KERNEL)?);
    Ok(())
}
