// SPDX-License-Identifier: GPL-2.0

//! The part of an object by which it can be queued when there is no memory for a block.

use core::cell::UnsafeCell;

use kernel::prelude::*;

use super::shard::Head;

/// A field by which an object can be queued when there is no memory for a block.
///
/// It belongs to the queue: who reads the object leaves it alone. All zeroes are a head too, so that
/// `#[derive(Zeroable)]` goes on working.
#[repr(transparent)]
pub struct BulkHead(UnsafeCell<Head>);

// SAFETY: Who reads the object leaves it alone, and of the queue only what owns the object uses it: the
// list that it is in, which is one task's or under a lock.
unsafe impl Send for BulkHead {}
// SAFETY: As above.
unsafe impl Sync for BulkHead {}
// SAFETY: In a head are an option of a pointer and one of an object, which is a pointer too: zeroes
// are none of both.
unsafe impl Zeroable for BulkHead {}

impl BulkHead {
    /// The head of an object that has not been pushed.
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Head::new()))
    }
}

impl Default for BulkHead {
    fn default() -> Self {
        Self::new()
    }
}

/// An object with a [`BulkHead`] in it. To be implemented with [`impl_has_bulk_head!`].
///
/// # Safety
///
/// `raw_head` must return the address of a field of the object, aligned as its type asks.
pub unsafe trait HasBulkHead {
    /// Where the head is.
    ///
    /// # Safety
    ///
    /// `object` must be valid.
    unsafe fn raw_head(object: *mut Self) -> *mut BulkHead;
}

/// Implements [`HasBulkHead`] for a type, of which it names the field.
///
/// # Examples
///
/// ```ignore
/// struct Entry { head: BulkHead, value: u64 }
///
/// impl_has_bulk_head! {
///     impl HasBulkHead for Entry { self.head }
/// }
///
/// struct Node<T: Copy, const N: usize> { head: BulkHead, values: [T; N] }
///
/// impl_has_bulk_head! {
///     impl{T: Copy, const N: usize} HasBulkHead for Node<T, N> { self.head }
/// }
/// ```
#[allow(unused_macros, reason = "not every module has objects with a head")]
macro_rules! impl_has_bulk_head {
    (impl$({$($generics:tt)*})? HasBulkHead for $type:ty { self.$field:ident }) => {
        // Refuses what ends the list of generics and begins something else that is unsafe.
        const _: () = {
            #[allow(dead_code)]
            fn generics$(<$($generics)*>)?() {}
        };
        // SAFETY: The address is that of a field, to which there could be a reference.
        unsafe impl$(<$($generics)*>)? $crate::queue::HasBulkHead for $type {
            #[inline]
            unsafe fn raw_head(object: *mut Self) -> *mut $crate::queue::BulkHead {
                // Refuses a field that is found by `Deref`, in another object.
                let _ = const { ::core::mem::offset_of!(Self, $field) };
                // Refuses one that a packed type does not align.
                // SAFETY: By the requirement on `object`.
                let _ = unsafe { &(*object).$field };
                // SAFETY: By the requirement on `object`.
                unsafe { &raw mut (*object).$field }
            }
        }
    };
}
#[allow(unused_imports, reason = "not every module has objects with a head")]
pub(crate) use impl_has_bulk_head;
