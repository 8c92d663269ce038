// SPDX-License-Identifier: GPL-2.0

//! A kernel `raw_spinlock_t` that keeps local interrupts disabled while it is held.
//!
//! The lock spins on every preemption model, so it may be taken in hard interrupt context and
//! inside other raw spinlocks. The price is that nothing may be called under it that takes a
//! `spinlock_t`, which is a sleeping lock on `PREEMPT_RT`: no allocator but
//! [`alloc_page_nolocks`] will do.
//!
//! The kernel crate's [`SpinLockIrq`] is the same for a `spinlock_t`, and a
//! [`Backend`](kernel::sync::lock::Backend) of its [`Lock`](kernel::sync::lock::Lock) would be less
//! code. But any guard of that type can be given to [`CondVar::wait()`], which takes the waitqueue's
//! `spinlock_t` before it gives up ours.
//!
//! [`alloc_page_nolocks`]: super::page::alloc_page_nolocks
//! [`CondVar::wait()`]: kernel::sync::CondVar::wait
//! [`SpinLockIrq`]: kernel::sync::SpinLockIrq

use core::{
    cell::UnsafeCell,
    convert::Infallible,
    marker::PhantomPinned,
    ops::{
        Deref,
        DerefMut, //
    }, //
};

#[cfg(not(CONFIG_SMP))]
use kernel::sync::atomic::{
    ordering::{
        Acquire,
        Release, //
    },
    Atomic, //
};
use kernel::{
    bindings,
    interrupt::LocalInterruptDisabled,
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

#[allow(
    improper_ctypes,
    reason = "a lock class is empty without lockdep; only pointers cross"
)]
extern "C" {
    pub(crate) fn nolocks_raw_spin_lock_init(
        lock: *mut bindings::raw_spinlock_t,
        name: *const c_char,
        key: *mut bindings::lock_class_key,
    );
    fn nolocks_raw_spin_lock(lock: *mut bindings::raw_spinlock_t);
    fn nolocks_raw_spin_trylock(lock: *mut bindings::raw_spinlock_t) -> bool;
    fn nolocks_raw_spin_unlock(lock: *mut bindings::raw_spinlock_t);
    fn nolocks_raw_spin_lock_irq_disable(lock: *mut bindings::raw_spinlock_t);
    fn nolocks_raw_spin_trylock_irq_disable(lock: *mut bindings::raw_spinlock_t) -> bool;
    fn nolocks_raw_spin_unlock_irq_enable(lock: *mut bindings::raw_spinlock_t);
}

/// Creates a [`RawSpinLock`] initialiser with the given name and a lock class of its own.
#[allow(unused_macros, reason = "not every module has a lock of its own")]
macro_rules! new_raw_spin_lock {
    ($inner:expr, $name:literal $(,)?) => {
        $crate::nolocks::raw_spin_lock::RawSpinLock::new(
            $inner,
            ::kernel::c_str!($name),
            ::kernel::static_lock_class!(),
        )
    };
}
#[allow(unused_imports, reason = "not every module has a lock of its own")]
pub(crate) use new_raw_spin_lock;

/// Whether a lock is held, in a kernel whose `raw_spinlock_t` does not know: without SMP it is the
/// disabled interrupts and nothing else.
///
/// With SMP this is nothing, and agrees to everything.
pub(crate) struct Held(#[cfg(not(CONFIG_SMP))] Atomic<bool>);

impl Held {
    pub(crate) const fn new() -> Self {
        Self(
            #[cfg(not(CONFIG_SMP))]
            Atomic::new(false),
        )
    }

    /// Notes that the lock is held from now on, or says no because it was already. To be called with
    /// interrupts disabled, so that only an NMI comes in between, which leaves all as it was.
    #[inline]
    pub(crate) fn claim(&self) -> bool {
        #[cfg(not(CONFIG_SMP))]
        return !self.0.xchg(true, Acquire);
        #[cfg(CONFIG_SMP)]
        true
    }

    /// To be called by who [claimed](Self::claim) it, before interrupts are enabled again.
    #[inline]
    pub(crate) fn release(&self) {
        #[cfg(not(CONFIG_SMP))]
        self.0.store(false, Release);
    }
}

/// A spinlock that spins on `PREEMPT_RT` too, and keeps local interrupts disabled while held.
///
/// How often interrupts are disabled is counted, so guards may be dropped in any order: interrupts
/// stay disabled until the last one is gone.
///
/// # Contexts
///
/// May be taken in task, softirq and hard interrupt context and under any other raw spinlock. In NMI
/// only [`try_lock()`](Self::try_lock) is safe: the lock may be held by what the NMI interrupted.
///
/// # Examples
///
/// ```ignore
/// let lock = KBox::pin_init(new_raw_spin_lock!(0u32, "example"), GFP_KERNEL)?;
/// *lock.lock() += 1;
/// // Where interrupts are known to be disabled they need not be disabled again.
/// let token = local_interrupt_disable();
/// *lock.lock_with(&token) += 1;
/// assert_eq!(*lock.lock_with(&token), 2);
/// ```
#[pin_data]
pub struct RawSpinLock<T: ?Sized> {
    #[pin]
    raw: Opaque<bindings::raw_spinlock_t>,
    held: Held,
    // As the kernel crate's locks: whether a raw spinlock may move is the architecture's business.
    #[pin]
    _pin: PhantomPinned,
    #[pin]
    data: UnsafeCell<T>,
}

// SAFETY: With the lock goes its data, which may go where it is `Send`.
unsafe impl<T: ?Sized + Send> Send for RawSpinLock<T> {}
// SAFETY: One guard exists at a time, so that sharing the lock lends the data to one after the other,
// which is what `Send` allows.
unsafe impl<T: ?Sized + Send> Sync for RawSpinLock<T> {}

impl<T> RawSpinLock<T> {
    /// Creates an initialiser. To be called by [`new_raw_spin_lock!`].
    pub fn new(
        data: impl PinInit<T>,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        // Not `pin_init!`: it calls a `Self::__pin_data()`, of which the crate could have another.
        let init = move |slot: *mut Self| {
            // SAFETY: The slot, and so each field, is valid for writes and stays where it is. Both name
            // and key are static.
            unsafe {
                nolocks_raw_spin_lock_init(
                    Opaque::cast_into(&raw const (*slot).raw),
                    name.as_char_ptr(),
                    key.as_ptr(),
                );
                (&raw mut (*slot).held).write(Held::new());
                pin_init::raw_init(UnsafeCell::raw_get(&raw const (*slot).data), data);
            }
            Ok(())
        };
        // SAFETY: Every field that has a size was initialised, the data where it stays pinned.
        unsafe { pin_init::pin_init_from_closure::<_, Infallible>(init) }
    }
}

/// Without this two guards would exist, and two exclusive references.
#[cold]
fn locked_twice() -> ! {
    core::panic!("a raw spinlock is taken by who holds it")
}

impl<T: ?Sized> RawSpinLock<T> {
    /// Takes the lock, and disables interrupts on this CPU for as long as the guard lives.
    ///
    /// Who holds the lock already waits for ever, or without SMP panics.
    #[inline]
    pub fn lock(&self) -> RawSpinLockGuard<'_, T> {
        // SAFETY: Every `RawSpinLock` was initialised by `new()`.
        unsafe { nolocks_raw_spin_lock_irq_disable(self.raw.get()) };
        if !self.held.claim() {
            locked_twice();
        }
        // SAFETY: Taken right above, by `lock()`.
        unsafe { RawSpinLockGuard::new(self) }
    }

    /// Takes the lock if nobody holds it. May be called in NMI too.
    #[must_use = "if unused, the lock is given up at once"]
    #[inline]
    pub fn try_lock(&self) -> Option<RawSpinLockGuard<'_, T>> {
        // SAFETY: Every `RawSpinLock` was initialised by `new()`.
        if !unsafe { nolocks_raw_spin_trylock_irq_disable(self.raw.get()) } {
            return None;
        }
        if !self.held.claim() {
            // SAFETY: The trylock above has just succeeded.
            unsafe { nolocks_raw_spin_unlock_irq_enable(self.raw.get()) };
            return None;
        }
        // SAFETY: Taken right above, by `try_lock()`.
        Some(unsafe { RawSpinLockGuard::new(self) })
    }

    /// Takes the lock where interrupts are known to be disabled, and leaves them alone.
    ///
    /// In a kernel without preemption the token promises nothing, and this is [`lock()`](Self::lock).
    #[inline]
    pub fn lock_with<'a>(
        &'a self,
        _disabled: &'a LocalInterruptDisabled,
    ) -> RawSpinLockGuard<'a, T, false> {
        if core::cfg!(CONFIG_PREEMPTION) {
            // SAFETY: Every `RawSpinLock` was initialised by `new()`.
            unsafe { nolocks_raw_spin_lock(self.raw.get()) };
        } else {
            // SAFETY: As above.
            unsafe { nolocks_raw_spin_lock_irq_disable(self.raw.get()) };
        }
        if !self.held.claim() {
            locked_twice();
        }
        // SAFETY: Taken right above, by `lock_with()`; the token lives as long as the guard.
        unsafe { RawSpinLockGuard::new(self) }
    }

    /// As [`lock_with()`](Self::lock_with), if nobody holds the lock.
    #[must_use = "if unused, the lock is given up at once"]
    #[inline]
    pub fn try_lock_with<'a>(
        &'a self,
        _disabled: &'a LocalInterruptDisabled,
    ) -> Option<RawSpinLockGuard<'a, T, false>> {
        let taken = if core::cfg!(CONFIG_PREEMPTION) {
            // SAFETY: Every `RawSpinLock` was initialised by `new()`.
            unsafe { nolocks_raw_spin_trylock(self.raw.get()) }
        } else {
            // SAFETY: As above.
            unsafe { nolocks_raw_spin_trylock_irq_disable(self.raw.get()) }
        };
        if !taken {
            return None;
        }
        if !self.held.claim() {
            // SAFETY: The trylock above has just succeeded.
            unsafe { unlock::<false>(self.raw.get()) };
            return None;
        }
        // SAFETY: Taken right above, by `try_lock_with()`; the token lives as long as the guard.
        Some(unsafe { RawSpinLockGuard::new(self) })
    }
}

/// # Safety
///
/// The caller owns the lock, which it took by `lock()` or `try_lock()` if `COUNTED`, else by
/// `lock_with()` or `try_lock_with()`.
#[inline]
unsafe fn unlock<const COUNTED: bool>(raw: *mut bindings::raw_spinlock_t) {
    if COUNTED || !core::cfg!(CONFIG_PREEMPTION) {
        // SAFETY: By the requirement on the owner, interrupts were disabled with the lock.
        unsafe { nolocks_raw_spin_unlock_irq_enable(raw) }
    } else {
        // SAFETY: By the requirement on the owner, they were not.
        unsafe { nolocks_raw_spin_unlock(raw) }
    }
}

/// The right to use what a [`RawSpinLock`] protects.
///
/// # Invariants
///
/// - This CPU holds the lock, which it took by `lock()` or `try_lock()` if `COUNTED`, else by `lock_with()`
///   or `try_lock_with()`, and no other guard was made of that.
/// - Interrupts are disabled: by a count of this guard's own if `COUNTED`, or without preemption; else by
///   somebody whose token lives as long. In NMI they are anyway.
#[must_use = "the lock is given up at once when the guard is unused"]
pub struct RawSpinLockGuard<'a, T: ?Sized, const COUNTED: bool = true> {
    lock: &'a RawSpinLock<T>,
    // The CPU that took the lock has to give it up.
    _not_send: NotThreadSafe,
}

// SAFETY: A shared guard gives out shared references to the data only.
unsafe impl<T: ?Sized + Sync, const COUNTED: bool> Sync for RawSpinLockGuard<'_, T, COUNTED> {}

impl<'a, T: ?Sized, const COUNTED: bool> RawSpinLockGuard<'a, T, COUNTED> {
    /// # Safety
    ///
    /// The caller has just taken the lock, and interrupts are disabled, as the type invariant says.
    #[inline]
    unsafe fn new(lock: &'a RawSpinLock<T>) -> Self {
        // INVARIANT: The lock was taken, and interrupts are disabled, by the requirement on the caller.
        Self {
            lock,
            _not_send: NotThreadSafe,
        }
    }

    /// A pinned reference to the data, for types that must not move. Others have [`DerefMut`].
    pub fn as_mut(&mut self) -> Pin<&mut T> {
        // SAFETY: The data is pinned with the lock, and by the type invariant ours alone.
        unsafe { Pin::new_unchecked(&mut *self.lock.data.get()) }
    }
}

impl<T: ?Sized, const COUNTED: bool> Deref for RawSpinLockGuard<'_, T, COUNTED> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant nobody else has a reference.
        unsafe { &*self.lock.data.get() }
    }
}

impl<T: ?Sized + Unpin, const COUNTED: bool> DerefMut for RawSpinLockGuard<'_, T, COUNTED> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant nobody else has a reference.
        unsafe { &mut *self.lock.data.get() }
    }
}

impl<T: ?Sized, const COUNTED: bool> Drop for RawSpinLockGuard<'_, T, COUNTED> {
    #[inline]
    fn drop(&mut self) {
        self.lock.held.release();
        // SAFETY: By the type invariant this CPU took the lock as `COUNTED` says, and holds it.
        unsafe { unlock::<COUNTED>(self.lock.raw.get()) }
    }
}
