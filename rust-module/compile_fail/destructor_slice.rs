// SPDX-License-Identifier: GPL-2.0

//! Must fail: type mismatch resolving `<Vec<

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
fn nolocks_compile_fail(queue: &DropQueue<KBox<u64>>, mut objects: KVec<KBox<u64>>) -> Result {
    // A block has no room for how many there are.
    // Twin: queue.push_mightsleep(KBox::new(objects.pop().ok_or(EINVAL)?, GFP_KERNEL)?);
    queue.push_mightsleep(objects);
    Ok(())
}
