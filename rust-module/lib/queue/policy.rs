// SPDX-License-Identifier: GPL-2.0

//! What a queue takes, and whether it runs destructors.

use core::{
    marker::PhantomData,
    mem::needs_drop,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    prelude::*, //
};

use super::{
    memory,
    rcu, //
};
use crate::nolocks::page::{
    alloc_page_nolocks,
    NoLocksFlags,
    NoLocksPage, //
};

/// What a queue does to an object before it frees the memory. [`Plain`] and [`Destroy`] are the two that
/// there are; others are for tests.
///
/// # Safety
///
/// - `destroy` must leave the memory of the object to be freed.
/// - `DESTROYS` must be false unless `destroy` does to an object that the policy [accepts](Accepts) all
///   that dropping its value would do.
pub unsafe trait Policy: Hooks {
    /// Whether destructors are run. If not, what has one cannot be pushed.
    const DESTROYS: bool;

    /// Whether an object may own other memory, so that kmemleak has to look for pointers in it.
    const OWNS_MEMORY: bool;

    /// Runs the destructor of an object, if it has one, in a task that may sleep.
    ///
    /// # Safety
    ///
    /// - The policy [accepts](Accepts) the type of the value at `address`.
    /// - The caller owns the value, which nobody else uses any more, and nobody uses after this.
    unsafe fn destroy(_address: NonNull<c_void>) {}
}

/// Says that a queue with this policy may be handed objects of type `T`.
///
/// # Safety
///
/// [`Policy::destroy()`] may be called with the address of a `T`, in any task and at any later time.
pub unsafe trait Accepts<T: ?Sized>: Policy {}

/// Where a test can put in faults. The defaults are what the kernel does.
///
/// # Safety
///
/// `elapsed` must not say yes while a reader may still read what was unpublished before the snapshot.
#[doc(hidden)]
pub unsafe trait Hooks: 'static {
    /// Called before each step of [`Queue::new()`](super::Queue::new) that can fail.
    fn step() -> Result {
        Ok(())
    }

    /// A page for a block, in any context.
    fn page() -> Option<NoLocksPage> {
        alloc_page_nolocks(NoLocksFlags::NONE).ok()
    }

    /// A page for a block, in a task that may sleep.
    fn page_mightsleep() -> Option<NoLocksPage> {
        memory::page_mightsleep()
    }

    /// Whether the grace period is over.
    fn elapsed(snapshot: bindings::rcu_gp_seq) -> bool {
        rcu::elapsed(snapshot)
    }
}

/// Objects without a destructor, of any type.
pub struct Plain(());

// SAFETY: The default asks RCU.
unsafe impl Hooks for Plain {}

// SAFETY: The default does nothing, and nothing is said to be destroyed.
unsafe impl Policy for Plain {
    const DESTROYS: bool = false;
    const OWNS_MEMORY: bool = false;
}

// SAFETY: The default does nothing.
unsafe impl<T: ?Sized> Accepts<T> for Plain {}

/// Objects of type `T`, whose destructors are run: of exactly that type, hence invariant.
pub struct Destroy<T>(PhantomData<fn(T) -> T>);

// SAFETY: The default asks RCU.
unsafe impl<T: 'static> Hooks for Destroy<T> {}

// SAFETY: A destructor does not free the memory that its value is in. Accepted are values of type `T`
// only, which are dropped.
//
// That `T` is `Send` is asked for by who pushes one, and not here: a `T` that has an `Arc` to its own
// queue could not be found to be `Send` without finding out whether the queue is, and so for ever.
unsafe impl<T: 'static> Policy for Destroy<T> {
    const DESTROYS: bool = true;
    const OWNS_MEMORY: bool = needs_drop::<T>();

    unsafe fn destroy(address: NonNull<c_void>) {
        // SAFETY: The caller's value is a `T`, as nothing else is accepted, and not used after this.
        // As it is `Send`, it may be dropped in this task.
        unsafe { address.cast::<T>().drop_in_place() }
    }
}

// SAFETY: `destroy()` takes the address of a `T`, which may be dropped by any task, as it is `Send`, and
// at any time, as it borrows nothing.
unsafe impl<T: Send + 'static> Accepts<T> for Destroy<T> {}
