// SPDX-License-Identifier: GPL-2.0

//! Must fail: `*mut u64` cannot be sent between threads safely

use kernel::prelude::*;

#[allow(dead_code)]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code)]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::*;

/// Must be dropped where it was made.
#[allow(dead_code)]
// Twin: struct Local(u64);
struct Local(*mut u64);

impl Drop for Local {
    fn drop(&mut self) {}
}

/// Never called, but compiled.
#[no_mangle]
fn nolocks_compile_fail() -> Result {
    let queue = DropQueue::<Local>::new(c"nolocks")?;
    let local = KBox::<Local>::new_uninit(GFP_KERNEL)?;
    // SAFETY: This is never run.
    queue.push_mightsleep(unsafe { local.assume_init() });
    Ok(())
}
