// SPDX-License-Identifier: GPL-2.0

//! Must fail: `local` does not live long enough

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
fn nolocks_compile_fail(place: &RcuPointer<KBox<&'static u64>>) -> Result {
    let local = 1;
    // Who reads it later believes that it lives for ever.
    // Twin: let object = KBox::new(&1, GFP_KERNEL)?;
    let object = KBox::new(&local, GFP_KERNEL)?;
    let _old = place.replace(object).map(Retired::wait);
    Ok(())
}
