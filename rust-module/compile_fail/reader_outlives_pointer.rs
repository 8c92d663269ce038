// SPDX-License-Identifier: GPL-2.0

//! Must fail: cannot move out of `place` because it is borrowed

use kernel::{
    prelude::*,
    sync::rcu, //
};

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(place: RcuPointer<KBox<u64>>) -> u64 {
    let reader = rcu::read_lock();
    let value = place.get(&reader);

    // Twin: let _ = &place;
    drop(place);
    value.map_or(0, |value| *value)
}
