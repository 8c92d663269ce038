// SPDX-License-Identifier: GPL-2.0

//! What a queue takes over: boxes, vectors and pages, and what becomes of their memory.

use core::{
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

use kernel::{
    alloc::{
        allocator::{
            KVmalloc,
            Kmalloc,
            Vmalloc, //
        },
        Allocator, //
    },
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

use super::shard::{
    Kind,
    Object, //
};
use crate::nolocks::{
    alloc::NoLocks,
    page::NoLocksPage, //
};

/// Set in an [`Object`] that is a page of its own, and 0 in the address of any object.
const PAGE: usize = 1;

/// Where an object is.
pub(super) fn address_of(object: Object) -> NonNull<c_void> {
    object.map_addr(|addr| {
        // SAFETY: There are other bits, as no object is at the address 0.
        unsafe { core::num::NonZero::new_unchecked(addr.get() & !PAGE) }
    })
}

/// Whether the object is in memory that slab or `vmalloc()` know of.
pub(super) fn is_page(object: Object) -> bool {
    object.addr().get() & PAGE != 0
}

/// Frees the memory of an object of any kind.
///
/// # Safety
///
/// The caller owns the object, which [`Owned::object()`] gave, and nobody uses its memory after this.
/// May sleep.
pub(super) unsafe fn free(object: Object) {
    if is_page(object) {
        // SAFETY: With this mark it was a page, which was forgotten when it was pushed.
        drop(unsafe { NoLocksPage::from_address(address_of(object)) });
    } else {
        // SAFETY: Without it comes what `kvfree()` can free, says `Owned`.
        unsafe { bindings::kvfree(object.as_ptr()) };
    }
}

/// An allocator whose memory a queue can free.
///
/// # Safety
///
/// What `object()` returns of an allocation must be such that the private function `free()` beside this
/// trait frees the memory, and `kfree()` as well if the kind is `Slab`: an object that is queued by its
/// head is of no kind.
pub unsafe trait Reclaimable: Allocator {
    /// How memory of this allocator is queued.
    #[doc(hidden)]
    fn object(address: NonNull<c_void>) -> (Object, Kind);
}

// SAFETY: `kfree()` is for what `kmalloc()` allocates, and so is `kvfree()`; it is aligned, and without a mark.
unsafe impl Reclaimable for Kmalloc {
    #[inline]
    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        (address, Kind::Slab)
    }
}

// SAFETY: Page-aligned, so without a mark, and `kvfree()` calls `vfree()`.
unsafe impl Reclaimable for Vmalloc {
    #[inline]
    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        (address, Kind::Single)
    }
}

// SAFETY: As the two above, and told apart as `kvfree()` does.
unsafe impl Reclaimable for KVmalloc {
    #[inline]
    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        // SAFETY: Only looks at the address.
        match unsafe { bindings::is_vmalloc_addr(address.as_ptr()) } {
            true => (address, Kind::Single),
            false => (address, Kind::Slab),
        }
    }
}

// SAFETY: Each allocation is the beginning of a page that was forgotten, and is marked as that.
unsafe impl Reclaimable for NoLocks {
    #[inline]
    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        (address.map_addr(|addr| addr | PAGE), Kind::Single)
    }
}

/// The owner of an object that a queue can free: a box, pinned or not, of a value or of a slice, a
/// vector, or a page.
///
/// An `Arc` is none: its memory is shared with other owners, and two of them may be pushed at once. What
/// readers should find as an `Arc` can be put in a box of its own and pushed to a
/// [`DropQueue<Arc<T>>`](super::DropQueue), which drops that reference after the grace period.
///
/// # Safety
///
/// - If `address()` returns one, the owner owns memory there in which its `Value` is, and which can be
///   freed as `object()` says: see [`Reclaimable`].
/// - If it returns none, there is no memory, and no value that would have to be dropped.
/// - What dropping the owner does is to drop the value and to free that memory, no more.
/// - To have the owner means nothing to who has a shared reference to the value: as long as the owner
///   is not used, both may exist, even if the owner comes from `ForeignOwnable::from_foreign()` when a
///   `borrow()` is still in use.
pub unsafe trait Owned: Sized {
    /// What is owned.
    type Value: ?Sized;

    /// Where the value is, if there is any memory.
    #[doc(hidden)]
    fn address(&self) -> Option<NonNull<c_void>>;

    /// How what is at that address is queued.
    #[doc(hidden)]
    fn object(address: NonNull<c_void>) -> (Object, Kind);
}

macro_rules! impl_owned_by_boxes {
    ($($owner:ty, of $value:ty: $address:ident;)*) => {$(
        // SAFETY: A box, pinned or not, owns memory of its allocator unless the value has no size. It carries
        // no promise that the value is not aliased, as the kernel crate's says.
        unsafe impl<T, A: Reclaimable> Owned for $owner {
            type Value = $value;

            #[inline]
            fn address(&self) -> Option<NonNull<c_void>> {
                // SAFETY: `Box` is transparent, and so is `Pin`. No reference is made, which readers would mind.
                $address(unsafe { core::ptr::from_ref(self).cast::<NonNull<$value>>().read() })
            }

            #[inline]
            fn object(address: NonNull<c_void>) -> (Object, Kind) {
                A::object(address)
            }
        }
    )*};
}

impl_owned_by_boxes! {
    Box<T, A>, of T: value_address;
    Pin<Box<T, A>>, of T: value_address;
    Box<[T], A>, of [T]: slice_address;
    Pin<Box<[T], A>>, of [T]: slice_address;
}

#[inline]
fn value_address<T>(value: NonNull<T>) -> Option<NonNull<c_void>> {
    const {
        core::assert!(
            size_of::<T>() != 0,
            "an object of no size has no memory to free"
        )
    };
    Some(value.cast())
}

fn slice_address<T>(slice: NonNull<[T]>) -> Option<NonNull<c_void>> {
    (size_of::<T>() != 0 && !slice.is_empty()).then(|| slice.cast())
}

// SAFETY: A vector owns memory of its allocator, unless it has room for nothing or its elements have
// no size, and all that is in it are its elements.
unsafe impl<T, A: Reclaimable> Owned for Vec<T, A> {
    type Value = [T];

    fn address(&self) -> Option<NonNull<c_void>> {
        let has_memory = size_of::<T>() != 0 && self.capacity() != 0;
        NonNull::new(self.as_ptr().cast_mut().cast()).filter(|_| has_memory)
    }

    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        A::object(address)
    }
}

// SAFETY: As a box in a page.
unsafe impl Owned for NoLocksPage {
    type Value = [MaybeUninit<u8>; PAGE_SIZE];

    fn address(&self) -> Option<NonNull<c_void>> {
        Some(NoLocksPage::address(self).cast())
    }

    fn object(address: NonNull<c_void>) -> (Object, Kind) {
        <NoLocks as Reclaimable>::object(address)
    }
}

/// An object that new readers cannot find, while those who found it earlier may still read it.
///
/// It is what an [`RcuPointer`](super::RcuPointer) gives when it is replaced, and what a queue gives
/// back when it has no room. There is no way to the object itself before a grace period has passed: it
/// can be pushed, which any owner can be as well, or [waited for](Self::wait).
///
/// Dropped, it is leaked, with a warning: to free it would be to free what readers read.
#[must_use = "readers may still be reading it: push it to a queue, or wait() for them"]
pub struct Retired<O>(ManuallyDrop<O>);

impl<O> Retired<O> {
    /// Says that an object has been unpublished.
    ///
    /// # Safety
    ///
    /// Nobody uses the object but readers in an RCU read-side critical section that has begun before
    /// this call, and these do not change what is not meant to be shared.
    pub unsafe fn new(object: O) -> Self {
        Self(ManuallyDrop::new(object))
    }

    /// Waits for a grace period, and gives the object back.
    ///
    /// # Contexts
    ///
    /// A task that may sleep, and is no RCU reader.
    pub fn wait(self) -> O {
        kernel::task::might_sleep();
        kernel::sync::rcu::synchronize_rcu();
        // SAFETY: That was one.
        unsafe { self.assume_unread() }
    }

    /// Gives the object back at once.
    ///
    /// # Safety
    ///
    /// A grace period has begun and ended since the object was unpublished, or nobody ever read it.
    pub unsafe fn assume_unread(self) -> O {
        ManuallyDrop::into_inner(self.into_owner())
    }

    /// The owner, which is only good for being pushed.
    #[inline]
    pub(super) fn into_owner(self) -> ManuallyDrop<O> {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so that there is one owner afterwards too.
        unsafe { core::ptr::read(&this.0) }
    }

    /// Undoes [`into_owner()`](Self::into_owner).
    #[inline]
    pub(super) fn from_owner(owner: ManuallyDrop<O>) -> Self {
        Self(owner)
    }
}

/// Any object can be taken for one that somebody reads.
impl<O: Owned> From<O> for Retired<O> {
    #[inline]
    fn from(object: O) -> Self {
        Self(ManuallyDrop::new(object))
    }
}

impl<O> Drop for Retired<O> {
    #[cold]
    fn drop(&mut self) {
        let leaked_for_its_readers = true;
        kernel::warn_on!(leaked_for_its_readers);
    }
}
