// SPDX-License-Identifier: GPL-2.0

//! Must fail: module `shard` is private

use kernel::{
    prelude::*,
    sync::rcu::synchronize_rcu, //
};

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

struct Entry {
    head: BulkHead,
}

impl_has_bulk_head! {
    impl HasBulkHead for Entry { self.head }
}

// What is in a `BulkHead` is overwritten under the shard's lock, and what was there would be dropped.
// Twin: impl Drop for Entry {
impl Drop for queue::shard::Head {
    fn drop(&mut self) {
        synchronize_rcu();
    }
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(queue: &DropQueue<Entry>) -> Result {
    let head = BulkHead::new();
    queue.push(KBox::new(Entry { head }, GFP_KERNEL)?);
    Ok(())
}
