// SPDX-License-Identifier: GPL-2.0

//! Memory for blocks, where it may be waited for.

use core::ptr::NonNull;

use kernel::bindings;

use crate::nolocks::page::NoLocksPage;

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_queue_page_mightsleep() -> *mut bindings::page;
}

/// A page for a block, in a task that may sleep.
pub fn page_mightsleep() -> Option<NoLocksPage> {
    // SAFETY: By the caller's context, which `might_sleep()` checks.
    let page = NonNull::new(unsafe { nolocks_queue_page_mightsleep() })?;

    // SAFETY: The allocator has just given us this page of order 0, which is not charged, and its only
    // reference. It has asked for no high memory.
    Some(unsafe { NoLocksPage::from_raw(page) })
}
