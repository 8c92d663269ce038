// SPDX-License-Identifier: GPL-2.0

//! Where this task is, and how it waits.

use kernel::{
    prelude::*,
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    types::NotThreadSafe, //
};

extern "C" {
    fn nolocks_where() -> c_uint;
    fn nolocks_migrate_disable();
    fn nolocks_migrate_enable();
    fn nolocks_cond_resched();
    fn nolocks_alarm_begin(ms: c_uint);
    fn nolocks_alarm_end() -> bool;
}

pub(crate) const IN_NMI: u32 = 1 << 0;
pub(crate) const IN_HARDIRQ: u32 = 1 << 1;
pub(crate) const IN_SOFTIRQ: u32 = 1 << 2;
pub(crate) const IRQS_OFF: u32 = 1 << 3;
pub(crate) const PREEMPT_OFF: u32 = 1 << 4;

/// Bits of what interrupts and locks say of this CPU and this task.
pub(crate) fn state() -> u32 {
    // SAFETY: Only reads this CPU's and this task's state.
    unsafe { nolocks_where() }
}

/// The kind of interrupt that we are in, if any.
pub(crate) fn level() -> u32 {
    state() & (IN_NMI | IN_HARDIRQ | IN_SOFTIRQ)
}

/// Whether another task may run here at any time.
pub(crate) fn preemptible() -> bool {
    state() == 0
}

/// Lets others run, where the caller may sleep.
pub(crate) fn breathe() {
    // SAFETY: Called from task context with nothing held.
    unsafe { nolocks_cond_resched() }
}

/// When something counts as lost: long, because an emulated CPU may stand still for a while.
pub(crate) const PATIENCE: Delta = Delta::from_secs(60);

/// Waits until `done` says so, where the caller may sleep. False when it never did.
pub(crate) fn wait_for(done: impl Fn() -> bool) -> bool {
    let start = Instant::<Monotonic>::now();

    while !done() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        breathe();
    }
    true
}

/// Calls `func`, and has it interrupted by a signal after so many milliseconds. With whether it was.
///
/// One at a time. May sleep.
pub(crate) fn interrupted_after<T>(ms: u32, func: impl FnOnce() -> T) -> (T, bool) {
    // SAFETY: Ended below, in the same task.
    unsafe { nolocks_alarm_begin(ms) };
    let value = func();
    // SAFETY: Begun above.
    (value, unsafe { nolocks_alarm_end() })
}

/// Keeps the task on its CPU, and so on its pcp lists, but preemptible.
pub(crate) struct Pinned(NotThreadSafe);

impl Pinned {
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by the drop, which the type keeps on this task.
        unsafe { nolocks_migrate_disable() };
        Self(NotThreadSafe::default())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: Pairs with the one in `new()`.
        unsafe { nolocks_migrate_enable() }
    }
}
