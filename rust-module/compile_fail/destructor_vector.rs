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

/// Never called, but compiled.
#[no_mangle]
// Twin: fn nolocks_compile_fail(queue: &BulkQueue, objects: KVec<u64>) {
fn nolocks_compile_fail(queue: &BulkQueue, objects: KVec<KBox<u64>>) {
    queue.push_mightsleep(objects);
}
