// SPDX-License-Identifier: GPL-2.0

//! Must fail: const `CHECK` is not a member of trait `Accepts`

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

struct Any(());

// SAFETY: The default asks RCU.
unsafe impl Hooks for Any {}

// SAFETY: The default does nothing.
unsafe impl Policy for Any {
    const DESTROYS: bool = false;
    const OWNS_MEMORY: bool = false;
}

// SAFETY: The default does nothing.
unsafe impl<T> Accepts<T> for Any {
    // Which objects have memory, and which a destructor, is for nobody to say.
    // Twin: // Nothing.
    const CHECK: () = ();
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail(queue: &Queue<Any>) -> Result {
    queue.push_mightsleep(KBox::new(1u64, GFP_KERNEL)?);
    Ok(())
}
