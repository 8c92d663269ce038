// SPDX-License-Identifier: GPL-2.0

//! Pages that can be obtained and given back in any context.
//!
//! Built on `__GFP_NO_LOCKS`: the allocator takes no lock that it would have to wait for, and
//! where even a trylock is illegal it touches none. See `docs/contract.md`.
//!
//! Mainline's `alloc_pages_nolock()` is another function, whose name differs in where the *s* is. It
//! zeroes, may charge the page to a memory cgroup and goes on to `zone->lock` by trylock; on
//! `PREEMPT_RT` it has no page in hard interrupts and NMI. Both give their pages back by
//! `free_pages_nolock()`.

use core::{
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

use kernel::{
    alloc::AllocError,
    bindings,
    io::PhysAddr,
    page::PAGE_SIZE,
    prelude::*, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_page_address(page: *mut bindings::page) -> *mut c_void;
    fn nolocks_page_to_phys(page: *mut bindings::page) -> PhysAddr;
    fn nolocks_virt_to_page(address: *mut c_void) -> *mut bindings::page;
}

/// What kind of pageblock a page should come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mobility {
    /// Never from CMA, HIGHATOMIC or isolated pageblocks.
    Unmovable = 0,
    /// From a block of pages that shrinkers can have back, for what a shrinker of the caller's frees.
    Reclaimable = 1 << bindings::___GFP_RECLAIMABLE_BIT,
    /// From a block of movable pages, CMA included, which others hope to clear. Nothing can migrate a
    /// [`NoLocksPage`], so as long as one of these is kept it stands in their way: for pages that go
    /// back at once.
    Movable = 1 << bindings::___GFP_MOVABLE_BIT,
}

/// The highest zone that a page may come from. High memory, which has no address, is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Zone {
    /// Any zone with a permanent kernel mapping.
    Normal = 0,
    /// What the oldest devices can address.
    Dma = 1 << bindings::___GFP_DMA_BIT,
    /// What 32-bit devices can address.
    Dma32 = 1 << bindings::___GFP_DMA32_BIT,
}

/// Flags for [`alloc_page_nolocks`].
///
/// Flags that `__GFP_NO_LOCKS` forbids (reclaim, `__GFP_NOFAIL`, `__GFP_ACCOUNT`, `__GFP_HIGH`,
/// `__GFP_MEMALLOC`) have no name here, nor have those that change nothing (`__GFP_NOWARN`: a failure
/// is never reported; `__GFP_COMP`: order 0 is no compound), and pairs that contradict each other (two
/// zones, two mobilities) cannot be built.
///
/// # Invariants
///
/// The value holds only bits that may stand beside `__GFP_NO_LOCKS`, at most one mobility, at most
/// one zone modifier, and not that for high memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLocksFlags(bindings::gfp_t);

impl NoLocksFlags {
    const MOBILITY: u32 = Mobility::Reclaimable as u32 | Mobility::Movable as u32;
    const ZONE: u32 = Zone::Dma as u32 | Zone::Dma32 as u32;

    /// An unmovable page of any directly mapped zone, with undefined contents.
    // INVARIANT: No bit is set.
    pub const NONE: Self = Self(0);

    /// The page is filled with zeroes.
    pub const fn zeroed(self) -> Self {
        // INVARIANT: `__GFP_ZERO` is allowed.
        Self(self.0 | bindings::__GFP_ZERO)
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
/// Not to be confused with mainline's `alloc_pages_nolock()`: see [the module](self).
///
/// # Contexts
///
/// Every context in which RCU is watching: task, softirq, hard interrupt and NMI, under any lock (raw
/// spinlocks, `current->pi_lock` and runqueue locks included), with preemption or interrupts
/// disabled, on every preemption model. RCU does not watch in the idle loop and early in entry code,
/// where no Rust code runs.
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
/// let mut page = alloc_page_nolocks(NoLocksFlags::NONE)?;
/// page.write(0, b"as much as fits")?;
/// ```
pub fn alloc_page_nolocks(flags: NoLocksFlags) -> Result<NoLocksPage, AllocError> {
    // SAFETY: With `__GFP_NO_LOCKS` the allocator may be entered in every context, including one
    // that interrupted the allocator itself. By the invariant of `NoLocksFlags` no flag asks for
    // more than that.
    let page = unsafe { bindings::alloc_pages(flags.as_gfp(), 0) };

    // INVARIANT: The allocator has just given us this page, and its only reference. By the invariant
    // of `NoLocksFlags` it is not of high memory, and not charged.
    NonNull::new(page).map(NoLocksPage).ok_or(AllocError)
}

/// An order-0 page that may be dropped in every context.
///
/// The kernel crate's `Page` gives its page back with `__free_pages()`, which is illegal under a
/// raw spinlock. This one uses `free_pages_nolock()`.
///
/// A page of which a type is to be made is a [`NoLocksBox`](super::alloc::NoLocksBox), into which this
/// turns and which turns into this. One that RCU readers may still be looking at can be pushed to a
/// queue, as a box can.
///
/// # Invariants
///
/// The pointer is a valid `struct page` of order 0, of directly mapped memory, that is not charged to
/// a memory cgroup, and this value holds the page's only reference.
#[must_use = "a page that is not kept is given back at once"]
#[repr(transparent)]
pub struct NoLocksPage(NonNull<bindings::page>);

// SAFETY: A page belongs to no task and no CPU, and may be given back on any.
unsafe impl Send for NoLocksPage {}

// SAFETY: A shared `NoLocksPage` gives out shared references to bytes, and pointers, whose use is up
// to the unsafe code that dereferences them.
unsafe impl Sync for NoLocksPage {}

impl NoLocksPage {
    /// The page's descriptor.
    pub fn as_ptr(&self) -> *mut bindings::page {
        self.0.as_ptr()
    }

    /// The page's descriptor, which has to be freed with `free_pages_nolock()`, or come back by
    /// [`from_raw()`](Self::from_raw).
    pub fn into_raw(self) -> NonNull<bindings::page> {
        ManuallyDrop::new(self).0
    }

    /// Takes a page over.
    ///
    /// # Safety
    ///
    /// `page` must be as the type invariant says, and nobody else may use it: one that
    /// [`into_raw()`](Self::into_raw) returned, or that `alloc_pages_nolock()` did.
    pub unsafe fn from_raw(page: NonNull<bindings::page>) -> Self {
        // INVARIANT: `page` is as the type invariant says, and nobody else uses it.
        Self(page)
    }

    /// Where the page is mapped in the kernel.
    ///
    /// The memory stays valid as long as `self`. It may hold anything, also uninitialised bytes,
    /// unless [`NoLocksFlags::zeroed`] was asked for.
    pub fn address(&self) -> NonNull<[u8; PAGE_SIZE]> {
        // SAFETY: By the type invariant the page is valid and directly mapped, and the direct mapping
        // does not begin at 0.
        unsafe { NonNull::new_unchecked(nolocks_page_address(self.as_ptr()).cast()) }
    }

    /// Where a device finds the page.
    pub fn phys(&self) -> PhysAddr {
        // SAFETY: By the type invariant the page is valid.
        unsafe { nolocks_page_to_phys(self.as_ptr()) }
    }

    /// The node that the page is of.
    pub fn nid(&self) -> i32 {
        // SAFETY: By the type invariant the page is valid.
        unsafe { bindings::page_to_nid(self.as_ptr()) }
    }

    /// What is in the page, be it initialised or not.
    pub fn bytes(&self) -> &[MaybeUninit<u8>; PAGE_SIZE] {
        // SAFETY: By the type invariant the page is ours, and as long as it is borrowed nobody writes
        // to it.
        unsafe { self.address().cast().as_ref() }
    }

    /// What is in the page, be it initialised or not.
    pub fn bytes_mut(&mut self) -> &mut [MaybeUninit<u8>; PAGE_SIZE] {
        // SAFETY: By the type invariant the page is ours, and here it is borrowed exclusively.
        unsafe { self.address().cast().as_mut() }
    }

    /// Copies `bytes` into the page, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if they do not fit, and then the page is as it was.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result {
        let end = offset.checked_add(bytes.len()).ok_or(EINVAL)?;
        let room = self.bytes_mut().get_mut(offset..end).ok_or(EINVAL)?;

        for (to, from) in room.iter_mut().zip(bytes) {
            to.write(*from);
        }
        Ok(())
    }

    /// The page that `address` is the beginning of.
    ///
    /// # Safety
    ///
    /// [`address()`](Self::address) returned it, of a page that was forgotten since then. Nobody
    /// else uses the page.
    pub(crate) unsafe fn from_address(address: NonNull<c_void>) -> Self {
        // SAFETY: `address()` returned it, so it is in the direct mapping, where each page has a
        // descriptor.
        let page = unsafe { NonNull::new_unchecked(nolocks_virt_to_page(address.as_ptr())) };
        // SAFETY: This was a `NoLocksPage` that was forgotten, and nobody else uses it.
        unsafe { Self::from_raw(page) }
    }
}

impl Drop for NoLocksPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this is the only reference to a page of order 0, and
        // nobody uses it after this. `free_pages_nolock()` may be called in every context.
        unsafe { bindings::free_pages_nolock(self.as_ptr(), 0) }
    }
}
