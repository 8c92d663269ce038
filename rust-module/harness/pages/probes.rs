// SPDX-License-Identifier: GPL-2.0

//! What can be seen of workers and of interrupts that a CPU sends to itself, a way to run on a CPU
//! that is going offline, and one to move who fills the slots.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed,
            Release, //
        },
        Atomic, //
    }, //
};

use crate::api::Pile;

extern "C" {
    fn nolocks_blocked_kworkers() -> c_uint;
    fn nolocks_kworkers() -> c_uint;
    fn nolocks_move_filler(cpu: c_int) -> c_int;
    fn nolocks_filler_is_woken_on(cpu: c_uint) -> bool;
    fn nolocks_watch_dying(on_dying: extern "C" fn()) -> c_int;
    fn nolocks_unwatch_dying();
    fn nolocks_watch_irq_works(ran: extern "C" fn()) -> c_int;
    fn nolocks_unwatch_irq_works();
}

/// Kworkers that wait for something in the middle of a work.
pub(crate) fn blocked_kworkers() -> u32 {
    // SAFETY: Only reads.
    unsafe { nolocks_blocked_kworkers() }
}

/// All kworkers.
pub(crate) fn kworkers() -> u32 {
    // SAFETY: Only reads.
    unsafe { nolocks_kworkers() }
}

/// Keeps the thread that fills the slots on one CPU.
pub(crate) struct Filler(());

impl Filler {
    /// One at a time. May sleep.
    pub(crate) fn keep_on(cpu: u32) -> Result<Self> {
        // SAFETY: A task that may sleep. Undone by the drop.
        kernel::error::to_result(unsafe { nolocks_move_filler(cpu as c_int) })?;
        Ok(Self(()))
    }

    /// Whether the thread was woken on `cpu`, and is still there.
    pub(crate) fn is_woken_on(cpu: u32) -> bool {
        // SAFETY: Only reads, from a task that may sleep.
        unsafe { nolocks_filler_is_woken_on(cpu) }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // SAFETY: Pairs with the one in `keep_on()`. It is there, as it never ends.
        unsafe { nolocks_move_filler(-1) };
    }
}

/// Pages that the next CPU to go offline frees on its way.
///
/// # Invariants
///
/// Null, or the `Pile` of a live [`Dying`], which leaves it to who takes the pointer out.
static LAST_WILL: Atomic<*mut Pile> = Atomic::new(core::ptr::null_mut());

/// Has pages freed by a CPU that is going offline, when it has run its irq_works for the last time.
pub(crate) struct Dying {
    _pages: KBox<Pile>,
}

impl Dying {
    /// There is at most one at a time. May sleep.
    pub(crate) fn new(pages: Pile) -> Result<Self> {
        let mut pages = KBox::new(pages, GFP_KERNEL)?;

        // SAFETY: Undone by the drop.
        kernel::error::to_result(unsafe { nolocks_watch_dying(on_dying) })?;
        // INVARIANT: The box stays where it is, and nobody uses it before the drop has taken the
        // pointer back.
        LAST_WILL.store(&mut *pages, Release);
        Ok(Self { _pages: pages })
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        LAST_WILL.store(core::ptr::null_mut(), Relaxed);
        // SAFETY: Pairs with the one in `new()`. Waits for a callback that still runs, as no CPU can
        // be on its way meanwhile.
        unsafe { nolocks_unwatch_dying() };
    }
}

extern "C" fn on_dying() {
    let pages = LAST_WILL.xchg(core::ptr::null_mut(), Full);

    if !pages.is_null() {
        // SAFETY: By the invariant of `LAST_WILL`, and taken out just now. One CPU is on its way at
        // a time, and whoever made it go waits for it before the drop.
        unsafe { (*pages).free(usize::MAX) };
    }
}

static IRQ_WORKS: [Atomic<u64>; bindings::NR_CPUS as usize] =
    [const { Atomic::new(0) }; bindings::NR_CPUS as usize];

/// Counts the interrupts that run irq_works.
pub(crate) struct IrqWorks(());

impl IrqWorks {
    /// An error where they cannot be seen. May sleep.
    pub(crate) fn watch() -> Result<Self> {
        // SAFETY: Undone by the drop.
        kernel::error::to_result(unsafe { nolocks_watch_irq_works(irq_work_ran) })?;
        Ok(Self(()))
    }

    /// How many this CPU has had. To be called pinned.
    pub(crate) fn of_this_cpu(&self) -> u64 {
        // SAFETY: Only reads a number.
        let cpu = unsafe { bindings::raw_smp_processor_id() } as usize;
        IRQ_WORKS.get(cpu).map_or(0, |count| count.load(Relaxed))
    }
}

impl Drop for IrqWorks {
    fn drop(&mut self) {
        // SAFETY: Pairs with the one in `watch()`. Waits for probes that still run.
        unsafe { nolocks_unwatch_irq_works() }
    }
}

extern "C" fn irq_work_ran() {
    // SAFETY: A tracepoint's probe stays on its CPU.
    let cpu = unsafe { bindings::raw_smp_processor_id() } as usize;
    if let Some(count) = IRQ_WORKS.get(cpu) {
        count.add(1, Relaxed);
    }
}
