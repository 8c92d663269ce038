// SPDX-License-Identifier: GPL-2.0

//! The shard's lock: a `raw_spinlock_t`, taken with interrupts saved.
//!
//! Cheaper than [`RawSpinLock`](crate::nolocks::raw_spin_lock::RawSpinLock), which counts how often
//! interrupts were disabled, and without a guard: who restores the interrupt state that he found must
//! be the last to have changed it, and a guard could be dropped at any time. Cheaper than
//! `raw_spin_lock_irqsave()` as well, where nothing debugs locks: see `helpers.c`.

use core::{
    cell::UnsafeCell,
    marker::PhantomPinned, //
};

use kernel::{
    bindings,
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

use super::shard;
use crate::nolocks::raw_spin_lock::{
    nolocks_raw_spin_lock_init,
    Held, //
};

extern "C" {
    fn nolocks_raw_spin_lock_irqsave(lock: *mut bindings::raw_spinlock_t) -> c_ulong;
    fn nolocks_raw_spin_trylock_irqsave(lock: *mut bindings::raw_spinlock_t) -> Tried;
    fn nolocks_raw_spin_unlock_irqrestore(lock: *mut bindings::raw_spinlock_t, flags: c_ulong);
}

/// What became of a trylock. As `struct nolocks_tried` in `helpers.h`.
#[repr(C)]
struct Tried {
    flags: c_ulong,
    is_taken: bool,
}

/// A raw spinlock for closures, which take it in every context but NMI, and try to in NMI too.
///
/// What runs under it must not take it again.
// In this order, so that one address serves for both.
#[repr(C)]
#[pin_data]
pub(super) struct IrqsaveLock<T> {
    #[pin]
    raw: Opaque<bindings::raw_spinlock_t>,
    held: Held,
    #[pin]
    _pin: PhantomPinned,
    data: UnsafeCell<T>,
}

// SAFETY: Under the lock one closure at a time has the data, which is what `Send` allows.
unsafe impl<T: Send> Sync for IrqsaveLock<T> {}

impl<T> IrqsaveLock<T> {
    /// Creates an initialiser, with a lock class of the caller's.
    pub(super) fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init::pin_init!(Self {
            // SAFETY: The slot is valid for writes, and both name and key are static.
            raw <- Opaque::ffi_init(|slot| unsafe {
                nolocks_raw_spin_lock_init(slot, name.as_char_ptr(), key.as_ptr())
            }),
            held: Held::new(),
            _pin: PhantomPinned,
            data: UnsafeCell::new(data),
        })
    }

    /// # Safety
    ///
    /// The lock was taken right before, with `flags` as they were before that.
    #[inline]
    unsafe fn run<R>(&self, flags: c_ulong, func: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: The lock was taken right before, so nobody else uses the data.
        let value = func(unsafe { &mut *self.data.get() });

        self.held.release();
        // SAFETY: The lock is still held, and `flags` are those from before it was taken.
        unsafe { nolocks_raw_spin_unlock_irqrestore(self.raw.get(), flags) };
        value
    }
}

impl<T> shard::Lock<T> for IrqsaveLock<T> {
    #[inline]
    fn with<R>(&self, func: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: Initialised in `new()`.
        let flags = unsafe { nolocks_raw_spin_lock_irqsave(self.raw.get()) };
        core::assert!(self.held.claim());
        // SAFETY: Taken right above.
        unsafe { self.run(flags, func) }
    }

    #[inline]
    fn try_with<R>(&self, func: impl FnOnce(&mut T) -> R) -> Option<R> {
        // SAFETY: Initialised in `new()`.
        let Tried { flags, is_taken } = unsafe { nolocks_raw_spin_trylock_irqsave(self.raw.get()) };

        if !is_taken {
            return None;
        }
        if !self.held.claim() {
            // SAFETY: The trylock above has just succeeded, with these flags.
            unsafe { nolocks_raw_spin_unlock_irqrestore(self.raw.get(), flags) };
            return None;
        }
        // SAFETY: Taken right above.
        Some(unsafe { self.run(flags, func) })
    }
}
