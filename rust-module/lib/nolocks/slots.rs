// SPDX-License-Identifier: GPL-2.0

//! Pages set aside for contexts in which no lock may even be tried.

use kernel::{
    bindings,
    prelude::*, //
};

/// A claim on the allocator's lock-free slots.
///
/// As long as it lives, every CPU keeps pages for [`alloc_page_nolocks`] in slots beside its lists,
/// of its own node's zones, which that reaches in any context, on `PREEMPT_RT` too.
///
/// [`alloc_page_nolocks`]: super::page::alloc_page_nolocks
///
/// # Invariants
///
/// `0` pages are registered with `page_slots_register()` and nobody else takes that back.
#[must_use = "the slots are given up with the claim"]
pub struct PageSlots(u32);

impl PageSlots {
    /// Asks for `pages` pages on each CPU, beside what others asked for.
    ///
    /// The slots are full on return if there is memory. The `vm.page_slots` sysctl limits the sum
    /// of all claims. May sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] for no page at all or for more than `PAGE_SLOTS_MAX`.
    pub fn register(pages: u32) -> Result<Self> {
        // SAFETY: Takes any number and checks it.
        kernel::error::to_result(unsafe { bindings::page_slots_register(pages) })?;
        // INVARIANT: Registered just now.
        Ok(Self(pages))
    }
}

impl Drop for PageSlots {
    fn drop(&mut self) {
        // SAFETY: By the invariant the pages were registered, and are taken back only here.
        unsafe { bindings::page_slots_unregister(self.0) }
    }
}
