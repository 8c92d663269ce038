// SPDX-License-Identifier: GPL-2.0

//! Pages that can be obtained and given back in any context.
//!
//! Built on `__GFP_NO_LOCKS`: the allocator takes no lock that it would have to wait for, and
//! where even a trylock is illegal it touches none. See `docs/contract.md`.

use core::ptr::NonNull;

use kernel::{
    alloc::AllocError,
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_page_address(page: *mut bindings::page) -> *mut c_void;
}

/// What kind of pageblock a page should come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mobility {
    /// The page stays where it is until it is freed. Never answered from CMA, HIGHATOMIC or
    /// isolated pageblocks.
    Unmovable = 0,
    /// The page can be reclaimed by a shrinker.
    Reclaimable = 1 << bindings::___GFP_RECLAIMABLE_BIT,
    /// The page can be migrated. May be answered from CMA.
    Movable = 1 << bindings::___GFP_MOVABLE_BIT,
}

/// The highest zone that a page may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Zone {
    /// Any zone with a permanent kernel mapping.
    Normal = 0,
    /// What the oldest devices can address.
    Dma = 1 << bindings::___GFP_DMA_BIT,
    /// What 32-bit devices can address.
    Dma32 = 1 << bindings::___GFP_DMA32_BIT,
    /// Any zone; [`NoLocksPage::address`] may have no answer for such a page.
    HighMem = 1 << bindings::___GFP_HIGHMEM_BIT,
}

/// Flags for [`alloc_page_nolocks`].
///
/// Flags that `__GFP_NO_LOCKS` forbids (reclaim, `__GFP_NOFAIL`, `__GFP_ACCOUNT`, `__GFP_HIGH`,
/// `__GFP_MEMALLOC`) have no name here, and pairs that contradict each other (two zones, two
/// mobilities) cannot be built.
///
/// # Invariants
///
/// The value holds only bits that may stand beside `__GFP_NO_LOCKS`, at most one mobility and at
/// most one zone modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLocksFlags(bindings::gfp_t);

impl NoLocksFlags {
    const MOBILITY: u32 = Mobility::Reclaimable as u32 | Mobility::Movable as u32;
    const ZONE: u32 = Zone::Dma as u32 | Zone::Dma32 as u32 | Zone::HighMem as u32;

    /// An unmovable page of any directly mapped zone, with undefined contents.
    // INVARIANT: No bit is set.
    pub const NONE: Self = Self(0);

    /// The page is filled with zeroes.
    pub const fn zeroed(self) -> Self {
        // INVARIANT: `__GFP_ZERO` is allowed.
        Self(self.0 | bindings::__GFP_ZERO)
    }

    /// A failure is not worth a word in the log.
    pub const fn nowarn(self) -> Self {
        // INVARIANT: `__GFP_NOWARN` is allowed.
        Self(self.0 | bindings::__GFP_NOWARN)
    }

    /// Compound page metadata, as far as order 0 has any.
    pub const fn compound(self) -> Self {
        // INVARIANT: `__GFP_COMP` is allowed.
        Self(self.0 | 1 << bindings::___GFP_COMP_BIT)
    }

    /// No other node than the current one is asked.
    pub const fn this_node(self) -> Self {
        // INVARIANT: `__GFP_THISNODE` is allowed.
        Self(self.0 | 1 << bindings::___GFP_THISNODE_BIT)
    }

    /// In a task, only the nodes of its cpuset are asked.
    pub const fn hardwall(self) -> Self {
        // INVARIANT: `__GFP_HARDWALL` is allowed.
        Self(self.0 | 1 << bindings::___GFP_HARDWALL_BIT)
    }

    /// The page is of the given mobility.
    pub const fn mobility(self, mobility: Mobility) -> Self {
        // INVARIANT: The old mobility is cleared first.
        Self(self.0 & !Self::MOBILITY | mobility as u32)
    }

    /// The page is of the given zone or of one below it.
    pub const fn zone(self, zone: Zone) -> Self {
        // INVARIANT: The old zone modifier is cleared first.
        Self(self.0 & !Self::ZONE | zone as u32)
    }

    const fn as_gfp(self) -> bindings::gfp_t {
        bindings::__GFP_NO_LOCKS | self.0
    }
}

/// Allocates one page without waiting for anything.
///
/// # Contexts
///
/// Every context: task, softirq, hard interrupt and NMI, under any lock (raw spinlocks,
/// `current->pi_lock` and runqueue locks included), with preemption or interrupts disabled, on
/// every preemption model.
///
/// # Errors
///
/// [`AllocError`] where no page can be had without waiting. The call neither reclaims nor wakes
/// anyone who does, so trying again at once is of little use: fall back to something that needs
/// no memory, or try again from a context that may sleep.
///
/// # Examples
///
/// ```ignore
/// let guard = table.lock(); // A `RawSpinLock`.
/// let page = alloc_page_nolocks(NoLocksFlags::NONE.zeroed().nowarn())?;
/// ```
pub fn alloc_page_nolocks(flags: NoLocksFlags) -> Result<NoLocksPage, AllocError> {
    // SAFETY: With `__GFP_NO_LOCKS` the allocator may be entered in every context, including one
    // that interrupted the allocator itself. By the invariant of `NoLocksFlags` no flag asks for
    // more than that.
    let page = unsafe { bindings::alloc_pages(flags.as_gfp(), 0) };

    // INVARIANT: The allocator has just given us this page, and its only reference.
    NonNull::new(page).map(NoLocksPage).ok_or(AllocError)
}

/// An order-0 page that may be dropped in every context.
///
/// The kernel crate's `Page` gives its page back with `__free_pages()`, which is illegal under a
/// raw spinlock. This one uses `free_pages_nolock()`.
///
/// # Invariants
///
/// The pointer is a valid `struct page` of order 0 that is not charged to a memory cgroup, and
/// this value holds the page's only reference.
#[must_use = "a page that is not kept is given back at once"]
#[repr(transparent)]
pub struct NoLocksPage(NonNull<bindings::page>);

// SAFETY: A page belongs to no task and no CPU, and may be given back on any.
unsafe impl Send for NoLocksPage {}

// SAFETY: A shared `NoLocksPage` gives out nothing but pointers, whose use is up to the unsafe code
// that dereferences them.
unsafe impl Sync for NoLocksPage {}

impl NoLocksPage {
    /// The page's descriptor.
    pub fn as_ptr(&self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    /// Where the page is mapped in the kernel, [`None`] for a page of high memory.
    ///
    /// The memory stays valid as long as `self`. It may hold anything, also uninitialised bytes,
    /// unless [`NoLocksFlags::zeroed`] was asked for.
    pub fn address(&self) -> Option<NonNull<[u8; PAGE_SIZE]>> {
        // SAFETY: By the type invariant the page is valid.
        NonNull::new(unsafe { nolocks_page_address(self.as_ptr()) }.cast())
    }
}

impl Drop for NoLocksPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the only reference to a page of order 0, and
        // nobody uses it after this. `free_pages_nolock()` may be called in every context.
        unsafe { bindings::free_pages_nolock(self.as_ptr(), 0) }
    }
}
