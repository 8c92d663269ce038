// SPDX-License-Identifier: GPL-2.0

//! Pages set aside for contexts in which no lock may even be tried.

use kernel::prelude::*;

extern "C" {
    fn nolocks_page_slots_register(nr_pages: c_uint) -> c_int;
    fn nolocks_page_slots_unregister(nr_pages: c_uint);
}

/// A claim on the allocator's lock-free slots.
///
/// As long as it lives, every CPU keeps pages in slots beside its lists, which
/// [`alloc_page_nolocks`] reaches in any context, on `PREEMPT_RT` too.
///
/// # Contexts
///
/// To register and to drop the claim may sleep: both take a mutex of the allocator's. So the claim
/// does not belong in what is dropped under a lock or in an interrupt.
///
/// [`alloc_page_nolocks`]: super::page::alloc_page_nolocks
///
/// # Invariants
///
/// `self.0` pages are registered with `page_slots_register()` and nobody else takes that back.
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
    /// - [`EINVAL`] for no page at all or for more than `PAGE_SLOTS_MAX`.
    /// - [`EOPNOTSUPP`] where the kernel has no slots: without `CONFIG_PAGE_SLOTS`, for which an
    ///   architecture that has NMIs needs a `cmpxchg()` that may be used in them.
    pub fn register(pages: u32) -> Result<Self> {
        // SAFETY: Takes any number and checks it; the caller may sleep.
        kernel::error::to_result(unsafe { nolocks_page_slots_register(pages) })?;
        // INVARIANT: Registered just now.
        Ok(Self(pages))
    }
}

impl Drop for PageSlots {
    fn drop(&mut self) {
        // SAFETY: By the invariant the pages were registered, and are taken back only here.
        unsafe { nolocks_page_slots_unregister(self.0) }
    }
}
