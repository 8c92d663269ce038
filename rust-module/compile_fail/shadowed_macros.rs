// SPDX-License-Identifier: GPL-2.0

//! Must fail: an object of no size has no memory to free

#![allow(unused_macros)]

use kernel::prelude::*;

// What is defined before a module is defined in it too, and comes before all that the module could
// import. If the library took any of these for the one that it means, this would compile, or the twin
// would not: they match nothing.
macro_rules! assert {
    ($($any:tt)*) => {};
}
macro_rules! addr_of_mut {
    () => {};
}
macro_rules! cfg {
    () => {};
}
macro_rules! new_mutex {
    () => {};
}
macro_rules! panic {
    () => {};
}
macro_rules! pin_init {
    () => {};
}
macro_rules! try_pin_init {
    () => {};
}
macro_rules! writeln {
    () => {};
}

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(queue: &BulkQueue) -> Result {
    // Twin: queue.push_mightsleep(KBox::new(1u64, GFP_KERNEL)?);
    queue.push_mightsleep(KBox::new((), GFP_KERNEL)?);
    Ok(())
}
