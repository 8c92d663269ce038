// SPDX-License-Identifier: GPL-2.0

//! What the allocator says about itself, and what it can be told.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

extern "C" {
    fn nolocks_in_slots(cpu: c_uint) -> c_uint;
}

/// How many pages are in the slots of a CPU, in all zones.
pub(crate) fn in_slots(cpu: u32) -> usize {
    // SAFETY: Only reads, from any possible CPU.
    unsafe { nolocks_in_slots(cpu) as usize }
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

    /// Pages put into slots.
    pub(crate) fn refilled(&self) -> u64 {
        self.get(bindings::vm_event_item_PAGE_SLOTS_REFILL)
    }

    /// Pages taken out of slots to be given back to the buddy allocator.
    pub(crate) fn drained(&self) -> u64 {
        self.get(bindings::vm_event_item_PAGE_SLOTS_DRAIN)
    }

    /// Pages whose free was left to a worker.
    pub(crate) fn deferred(&self) -> u64 {
        self.get(bindings::vm_event_item_PGFREE_DEFERRED)
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
