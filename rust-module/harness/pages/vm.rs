// SPDX-License-Identifier: GPL-2.0

//! What the allocator says about itself, and what it can be told.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

use crate::{
    api::Held,
    nolocks::page::Zone, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_unused_pages() -> c_ulong;
    fn nolocks_zone_is_locked() -> bool;
    fn nolocks_reclaimed_pages() -> c_ulong;
    fn nolocks_pcp_excess() -> c_int;
    fn nolocks_this_node() -> c_int;
    fn nolocks_in_slots(cpu: c_uint) -> c_uint;
    fn nolocks_zones(nid: c_int) -> c_uint;
    fn nolocks_page_zone(page: *mut bindings::page) -> c_uint;
    #[cfg(CONFIG_CONTIG_ALLOC)]
    fn nolocks_page_block() -> c_ulong;
    #[cfg(CONFIG_CONTIG_ALLOC)]
    fn nolocks_page_pfn(page: *mut bindings::page) -> c_ulong;
}

const NORMAL: u32 = bindings::zone_type_ZONE_NORMAL;
#[cfg(CONFIG_ZONE_DMA32)]
const DMA32: u32 = bindings::zone_type_ZONE_DMA32;
#[cfg(not(CONFIG_ZONE_DMA32))]
const DMA32: u32 = NORMAL;
#[cfg(CONFIG_ZONE_DMA)]
const DMA: u32 = bindings::zone_type_ZONE_DMA;
#[cfg(not(CONFIG_ZONE_DMA))]
const DMA: u32 = NORMAL;

/// This CPU's node. To be called pinned.
pub(crate) fn this_node() -> i32 {
    // SAFETY: Only reads a number.
    unsafe { nolocks_this_node() }
}

/// The node and the zone that a page is of.
pub(crate) fn place_of(held: &Held) -> (i32, u32) {
    // SAFETY: The page is valid for as long as it is held.
    unsafe {
        (
            bindings::page_to_nid(held.page()),
            nolocks_page_zone(held.page()),
        )
    }
}

/// What a page of this CPU's node can be limited to, with the number of the highest zone that has
/// memory and is within the limit, if any. To be called pinned.
pub(crate) fn zones() -> [(Zone, Option<u32>); 3] {
    // SAFETY: Only reads; the node of a CPU is online.
    let zones = unsafe { nolocks_zones(this_node()) };

    [
        (Zone::Normal, NORMAL),
        (Zone::Dma32, DMA32),
        (Zone::Dma, DMA),
    ]
    .map(|(zone, limit)| (zone, (zones & ((2 << limit) - 1)).checked_ilog2()))
}

/// Empties the pcp lists and the slots of this CPU's node, on all CPUs. False if that could not be
/// done in every zone. To be called pinned, by a task that may sleep.
///
/// `drain_all_pages()` is not exported, but who isolates a pageblock calls it, for that zone alone.
#[cfg(CONFIG_CONTIG_ALLOC)]
pub(crate) fn drain_pcp_lists() -> bool {
    let mut last = None;
    let mut drained = true;
    // SAFETY: Only reads a number.
    let block = unsafe { nolocks_page_block() };

    for (zone, highest) in zones() {
        if highest.is_none() || highest == last {
            continue;
        }
        last = highest;
        // SAFETY: This is a task that may sleep, and without a mask all nodes will do.
        let page = unsafe {
            bindings::alloc_contig_pages_noprof(
                block,
                bindings::GFP_KERNEL | zone as u32,
                this_node(),
                core::ptr::null_mut(),
            )
        };
        if page.is_null() {
            drained = false;
        } else {
            // SAFETY: Obtained above with that many pages, and freed once.
            unsafe { bindings::free_contig_range(nolocks_page_pfn(page), block) };
        }
    }
    drained
}

#[cfg(not(CONFIG_CONTIG_ALLOC))]
pub(crate) fn drain_pcp_lists() -> bool {
    false
}

/// How many pages are in the slots of a possible CPU.
pub(crate) fn in_slots(cpu: u32) -> usize {
    // SAFETY: Only reads, from any possible CPU.
    unsafe { nolocks_in_slots(cpu) as usize }
}

/// How many pages are in the slots of all CPUs, those that are offline included.
pub(crate) fn in_all_slots() -> usize {
    let possible = kernel::cpu::nr_cpu_ids();
    (0..possible).map(in_slots).sum()
}

/// How many pages wait to be freed that `free_pages_nolock()` could not free. May sleep.
pub(crate) fn deferring() -> u64 {
    let events = Events::now();
    events.deferred().abs_diff(events.undeferred())
}

/// Whether one does. May sleep.
pub(crate) fn is_deferring() -> bool {
    deferring() != 0
}

/// How many pages are free or on the pcp lists of any CPU: a free that is left to a worker is not.
pub(crate) fn unused_pages() -> usize {
    // SAFETY: Only reads.
    unsafe { nolocks_unused_pages() as usize }
}

/// Whether somebody has the `zone->lock` of any zone.
pub(crate) fn is_zone_locked() -> bool {
    // SAFETY: Only reads.
    unsafe { nolocks_zone_is_locked() }
}

/// How many pages were taken back from a page cache, or from whoever had them, since boot.
pub(crate) fn reclaimed_pages() -> u64 {
    // SAFETY: Only reads.
    unsafe { nolocks_reclaimed_pages() as u64 }
}

/// By how many pages the fullest of this CPU's pcp lists exceeds its `high` and a batch, not above 0
/// as a rule. In any context that stays on its CPU.
pub(crate) fn pcp_excess() -> i32 {
    // SAFETY: Only reads.
    unsafe { nolocks_pcp_excess() }
}

/// The event counters of `/proc/vmstat`.
pub(crate) struct Events([c_ulong; bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize]);

impl Events {
    /// May sleep.
    pub(crate) fn now() -> Self {
        let mut events = Self([0; bindings::vm_event_item_NR_VM_EVENT_ITEMS as usize]);

        // SAFETY: The array has an element for each event.
        unsafe { bindings::all_vm_events(events.0.as_mut_ptr()) };
        events
    }

    fn get(&self, item: bindings::vm_event_item) -> u64 {
        self.0.get(item as usize).copied().unwrap_or(0) as u64
    }

    /// Pages that `__GFP_NO_LOCKS` had from the lists.
    pub(crate) fn taken_from_lists(&self) -> u64 {
        self.get(bindings::vm_event_item_PGALLOC_NO_LOCKS_LISTS)
    }

    /// Pages that `__GFP_NO_LOCKS` had from the slots.
    pub(crate) fn taken_from_slots(&self) -> u64 {
        self.get(bindings::vm_event_item_PGALLOC_NO_LOCKS_SLOTS)
    }

    /// Requests with `__GFP_NO_LOCKS` that had no page.
    pub(crate) fn refused(&self) -> u64 {
        self.get(bindings::vm_event_item_PGALLOC_NO_LOCKS_FAIL)
    }

    /// Pages put into slots.
    pub(crate) fn refilled(&self) -> u64 {
        self.get(bindings::vm_event_item_PAGE_SLOTS_REFILL)
    }

    /// Pages taken out of slots to be given back to the buddy allocator.
    pub(crate) fn drained(&self) -> u64 {
        self.get(bindings::vm_event_item_PAGE_SLOTS_DRAIN)
    }

    /// Page faults.
    pub(crate) fn faults(&self) -> u64 {
        self.get(bindings::vm_event_item_PGFAULT)
    }

    /// Pages that `free_pages_nolock()` left for later.
    pub(crate) fn deferred(&self) -> u64 {
        self.get(bindings::vm_event_item_PGFREE_DEFERRED)
    }

    /// Those of them that are free by now, or are about to be.
    pub(crate) fn undeferred(&self) -> u64 {
        self.get(bindings::vm_event_item_PGFREE_UNDEFERRED)
    }
}

/// A file below `/proc` or `/sys` that holds one value.
///
/// # Invariants
///
/// The pointer is an open file that only this closes.
pub(crate) struct Setting(NonNull<bindings::file>);

// SAFETY: A file may be used by any task.
unsafe impl Send for Setting {}

// SAFETY: A file may be used by many tasks.
unsafe impl Sync for Setting {}

impl Setting {
    /// Longer than any value that is read here.
    const LENGTH: usize = 32;

    /// To be called by a task of userspace: a kernel thread need not see its mounts.
    pub(crate) fn open(path: &CStr) -> Result<Self> {
        // SAFETY: The path is a string. `insmod` is a task whose files are set up.
        let file = from_err_ptr(unsafe {
            bindings::filp_open(path.as_char_ptr(), bindings::O_RDWR as c_int, 0)
        })?;
        // INVARIANT: Opened just now.
        NonNull::new(file).map(Self).ok_or(ENOENT)
    }

    pub(crate) fn write(&self, value: &[u8]) -> Result {
        let mut pos = 0;

        // SAFETY: By the invariant the file is open, and the value is as long as we say.
        let written = unsafe {
            bindings::kernel_write(
                self.0.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                &mut pos,
            )
        };
        kernel::error::to_result(written as c_int)
    }

    /// Does something while it is `value`. Afterwards it is what it was, also if that fails.
    pub(crate) fn during<T>(&self, value: &[u8], work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (old, length) = self.read()?;
        let result = self.write(value).and_then(|()| work());
        let restored = self.write(&old[..length]);
        let result = result?;
        restored.map(|()| result)
    }

    /// What is in the file, and how much that is.
    pub(crate) fn read(&self) -> Result<([u8; Self::LENGTH], usize)> {
        let mut value = [0; Self::LENGTH];
        let mut pos = 0;

        // SAFETY: By the invariant the file is open, and the buffer is as long as we say.
        let read = unsafe {
            bindings::kernel_read(
                self.0.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
                &mut pos,
            )
        };
        kernel::error::to_result(read as c_int)?;
        Ok((value, read as usize))
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // SAFETY: By the invariant the file is open, and nobody uses it after this.
        unsafe { bindings::fput(self.0.as_ptr()) }
    }
}

/// `vm.page_slots`.
pub(crate) struct Limit(Setting);

impl Limit {
    /// Why a case is skipped that has none.
    pub(crate) const MISSING: &str = "there is no vm.page_slots, or no /proc";

    pub(crate) fn open() -> Result<Option<Self>> {
        match Setting::open(c"/proc/sys/vm/page_slots") {
            Err(err) if err == ENOENT => Ok(None),
            setting => Ok(Some(Self(setting?))),
        }
    }

    /// As [`Setting::during()`].
    pub(crate) fn during<T>(&self, value: &[u8], work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.0.during(value, work)
    }

    /// That `value` is refused, and changes nothing.
    pub(crate) fn refuses(&self, value: &[u8]) -> Result<bool> {
        let old = self.0.read()?;
        Ok(self.0.write(value) == Err(EINVAL) && self.0.read()? == old)
    }
}
