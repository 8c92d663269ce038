// SPDX-License-Identifier: GPL-2.0

//! A kernel `raw_spinlock_t`, taken with interrupts saved.
//!
//! The lock spins on every preemption model, so it may be taken in hard interrupt context and
//! inside other raw spinlocks. The price is that nothing may be called under it that takes a
//! `spinlock_t`, which is a sleeping lock on `PREEMPT_RT`: no allocator but
//! [`alloc_page_nolocks`] will do.
//!
//! [`alloc_page_nolocks`]: super::page::alloc_page_nolocks

use kernel::{
    bindings,
    prelude::*,
    sync::lock::{
        Backend,
        Lock, //
    },
};

#[allow(
    improper_ctypes,
    reason = "a lock class is empty without lockdep; only pointers cross"
)]
extern "C" {
    fn nolocks_raw_spin_lock_init(
        lock: *mut bindings::raw_spinlock_t,
        name: *const c_char,
        key: *mut bindings::lock_class_key,
    );
    #[cfg(any(not(CONFIG_SMP), CONFIG_INLINE_SPIN_LOCK_IRQSAVE))]
    fn nolocks_raw_spin_lock_irqsave(lock: *mut bindings::raw_spinlock_t) -> c_ulong;
    fn nolocks_raw_spin_trylock_irqsave(
        lock: *mut bindings::raw_spinlock_t,
        flags: *mut c_ulong,
    ) -> bool;
    #[cfg(any(not(CONFIG_SMP), CONFIG_INLINE_SPIN_UNLOCK_IRQRESTORE))]
    fn nolocks_raw_spin_unlock_irqrestore(lock: *mut bindings::raw_spinlock_t, flags: c_ulong);
    fn nolocks_raw_spin_assert_held(lock: *mut bindings::raw_spinlock_t);
}

// A helper costs as much as a third of the lock, and is needed only where these are no functions.
#[cfg(all(CONFIG_SMP, not(CONFIG_INLINE_SPIN_LOCK_IRQSAVE)))]
use bindings::_raw_spin_lock_irqsave as nolocks_raw_spin_lock_irqsave;
#[cfg(all(CONFIG_SMP, not(CONFIG_INLINE_SPIN_UNLOCK_IRQRESTORE)))]
use bindings::_raw_spin_unlock_irqrestore as nolocks_raw_spin_unlock_irqrestore;

/// Creates a [`RawSpinLock`] initialiser with the given name and a lock class of its own.
macro_rules! new_raw_spin_lock {
    ($inner:expr, $name:literal $(,)?) => {
        $crate::nolocks::raw_spin_lock::RawSpinLock::new(
            $inner,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
pub(crate) use new_raw_spin_lock;

/// A spinlock that spins on `PREEMPT_RT` too, and keeps local interrupts disabled while held.
///
/// # Contexts
///
/// May be taken in task, softirq and hard interrupt context and under any other raw spinlock. Not
/// in NMI, where only [`try_lock()`](Lock::try_lock) is safe: the lock may be held by what the NMI
/// interrupted. Without SMP that says no wherever interrupts are disabled.
///
/// Each guard restores the interrupt state that it found, so nested guards must be dropped in
/// reverse order of locking; otherwise interrupts come back on while a lock is still held.
pub type RawSpinLock<T> = Lock<T, RawSpinLockBackend>;

/// A `raw_spinlock_t` lock backend that saves and disables local interrupts.
pub struct RawSpinLockBackend;

// SAFETY: `raw_spinlock_t` gives mutual exclusion between CPUs, and the disabled interrupts keep
// this CPU from entering twice. Without SMP they alone do, and two things are left to the user, who
// would see a deadlock with SMP: not to lock what is locked already, as with the kernel crate's own
// spinlocks, and to drop nested guards in order. `relock` is the default one, which locks the same
// way.
unsafe impl Backend for RawSpinLockBackend {
    type State = bindings::raw_spinlock_t;
    /// The interrupt state to restore.
    type GuardState = c_ulong;

    #[inline]
    unsafe fn init(ptr: *mut Self::State, name: *const c_char, key: *mut bindings::lock_class_key) {
        // SAFETY: By the safety requirements `ptr` is valid for writes, and `name` and `key` are
        // valid for reads for as long as lockdep may look at them.
        unsafe { nolocks_raw_spin_lock_init(ptr, name, key) }
    }

    #[inline]
    unsafe fn lock(ptr: *mut Self::State) -> Self::GuardState {
        // SAFETY: By the safety requirements `ptr` points to an initialised lock.
        unsafe { nolocks_raw_spin_lock_irqsave(ptr) }
    }

    #[inline]
    unsafe fn try_lock(ptr: *mut Self::State) -> Option<Self::GuardState> {
        let mut flags = 0;

        // SAFETY: By the safety requirements `ptr` points to an initialised lock; `flags` is a
        // local that outlives the call.
        unsafe { nolocks_raw_spin_trylock_irqsave(ptr, &mut flags) }.then_some(flags)
    }

    #[inline]
    unsafe fn unlock(ptr: *mut Self::State, guard_state: &Self::GuardState) {
        // SAFETY: By the safety requirements the caller owns the lock, and `guard_state` is what
        // `lock` or `try_lock` returned for this acquisition.
        unsafe { nolocks_raw_spin_unlock_irqrestore(ptr, *guard_state) }
    }

    #[inline]
    unsafe fn assert_is_held(ptr: *mut Self::State) {
        // The kernel crate asks at each lock.
        if cfg!(CONFIG_LOCKDEP) {
            // SAFETY: By the safety requirements `ptr` points to an initialised lock.
            unsafe { nolocks_raw_spin_assert_held(ptr) }
        }
    }
}
