// SPDX-License-Identifier: GPL-2.0

//! Must fail: the trait bound `Arc<u64>: Into<Retired<Arc<u64>>>` is not satisfied

use kernel::{
    prelude::*,
    sync::Arc, //
};

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

#[allow(dead_code)]
type Shared = Arc<u64>;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(queue: &DropQueue<Shared>, object: Shared) -> Result {
    // Its memory is shared with others, who may push it too.
    // Twin: queue.push_mightsleep(KBox::new(object, GFP_KERNEL)?);
    queue.push_mightsleep(object);
    Ok(())
}
