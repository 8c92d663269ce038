// SPDX-License-Identifier: GPL-2.0

//! A pointer that is read under RCU.

use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::null_mut, //
};

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Full, //
            },
            Atomic, //
        },
        rcu, //
    },
    types::ForeignOwnable, //
};

use super::object::{
    Owned,
    Retired, //
};

/// The owner of an object, if any, that readers find under RCU and that can be replaced under them.
///
/// What is replaced comes back as a [`Retired`], to be pushed to a queue. `kernel::sync::poll` and
/// binder do the same by hand; a type for that is under discussion upstream (`Rcu`, `RcuBox`).
///
/// # Contexts
///
/// [`get()`](Self::get), [`replace()`](Self::replace) and [`take()`](Self::take) take no lock, and may
/// be called in every context in which RCU is watching. To drop the pointer drops what it owns, where
/// that may be dropped: nobody reads it any more, as readers borrow the pointer too.
///
/// # Examples
///
/// ```ignore
/// let place = RcuPointer::new(KBox::new(1u64, GFP_KERNEL)?);
/// assert_eq!(place.get(&rcu::read_lock()), Some(&1));
/// if let Some(old) = place.replace(KBox::new(2, GFP_KERNEL)?) {
///     queue.push_mightsleep(old);
/// }
/// ```
///
/// # Invariants
///
/// The pointer is null or what `O::into_foreign()` returned, of an owner that is this one's. What it
/// was stays valid, and is not changed but by its readers, until those of that time are done.
///
/// As a cell, it is invariant: whatever it is taken for, what is stored in it is an `O`.
pub struct RcuPointer<O: Owned + ForeignOwnable>(Atomic<*mut c_void>, PhantomData<UnsafeCell<O>>);

// SAFETY: It owns an `O` and nothing else.
unsafe impl<O: Owned + ForeignOwnable + Send> Send for RcuPointer<O> {}
// SAFETY: What can be had of a shared one is what a shared `O` gives, which is what `Sync` allows, and
// by `replace()` an `O`, which is what `Send` allows.
unsafe impl<O: Owned + ForeignOwnable + Send + Sync> Sync for RcuPointer<O> {}

impl<O: Owned + ForeignOwnable> RcuPointer<O> {
    /// A pointer to nothing.
    pub const fn none() -> Self {
        // INVARIANT: Null.
        Self(Atomic::new(null_mut()), PhantomData)
    }

    /// A pointer to `object`.
    pub fn new(object: O) -> Self {
        // INVARIANT: As returned.
        Self(Atomic::new(object.into_foreign()), PhantomData)
    }

    /// Finds the object, which stays what it is as long as the reader.
    pub fn get<'a>(&'a self, _reader: &'a rcu::Guard) -> Option<O::Borrowed<'a>> {
        // Acquire, so that who finds the object finds what is in it.
        let object = self.0.load(Acquire);

        // SAFETY: By the type invariant, `object` is null or valid until this reader is done, and that
        // is no earlier than `'a`. `from_foreign()` may be called before that, says `Owned`.
        (!object.is_null()).then(|| unsafe { O::borrow(object) })
    }

    /// Finds the object where there can be no reader.
    pub fn get_mut(&mut self) -> Option<O::BorrowedMut<'_>> {
        let object = *self.0.get_mut();

        // SAFETY: By the type invariant; readers borrow the pointer, which is ours alone.
        (!object.is_null()).then(|| unsafe { O::borrow_mut(object) })
    }

    /// Publishes an object, and gives back the one that it replaces.
    #[must_use = "readers may still be reading it: push it to a queue, or wait() for them"]
    pub fn replace(&self, object: O) -> Option<Retired<O>> {
        self.exchange(object.into_foreign())
    }

    /// Leaves nothing for new readers to find, and gives back what there was.
    #[must_use = "readers may still be reading it: push it to a queue, or wait() for them"]
    pub fn take(&self) -> Option<Retired<O>> {
        self.exchange(null_mut())
    }

    fn exchange(&self, object: *mut c_void) -> Option<Retired<O>> {
        // Releases what was written to the new one, and acquires what another writer did to the old.
        // INVARIANT: As in `new()` or `none()`; the old one is handed out as retired.
        let old = self.0.xchg(object, Full);

        // SAFETY: By the type invariant, and as the exchange gives it to nobody else. Those who read it
        // found it before; `Owned` allows the owner beside them.
        (!old.is_null()).then(|| unsafe { Retired::new(O::from_foreign(old)) })
    }

    /// The object, where there can be no reader.
    pub fn into_inner(mut self) -> Option<O> {
        let object = core::mem::replace(self.0.get_mut(), null_mut());

        // SAFETY: By the type invariant, which null is true to.
        unsafe { O::try_from_foreign(object) }
    }
}

impl<O: Owned + ForeignOwnable> Default for RcuPointer<O> {
    fn default() -> Self {
        Self::none()
    }
}

impl<O: Owned + ForeignOwnable> Drop for RcuPointer<O> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, and it is not used after this. Readers borrow the pointer, so
        // there are none.
        drop(unsafe { O::try_from_foreign(*self.0.get_mut()) });
    }
}
