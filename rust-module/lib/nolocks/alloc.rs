// SPDX-License-Identifier: GPL-2.0

//! Boxes and vectors that can be made and dropped in any context.

use core::{
    alloc::Layout,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ptr::NonNull, //
};

use kernel::{
    alloc::{
        AllocError,
        Allocator,
        Flags,
        NumaNode, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

use super::page::{
    alloc_page_nolocks,
    NoLocksFlags,
    NoLocksPage, //
};

/// An allocator that gives each object a page of its own, without waiting for anything.
///
/// That is a lot for a small object, and what there is: a slab can be reached without its locks no
/// more than a page list can, and it has no reserve. So it is for what is about as large as a page, or
/// needed where nothing else can be had.
///
/// # Contexts
///
/// As [`alloc_page_nolocks`]: a [`NoLocksBox`] may be made and dropped in every context, NMI included,
/// if the value's own destructor may run there.
///
/// # Flags
///
/// Of the flags `__GFP_ZERO` means what it says, and `__GFP_NOWARN` what happens anyway; one that asks
/// for memory to be charged (`__GFP_ACCOUNT`) is refused. What a flag allows, such as to sleep, is not
/// made use of. The node is that of the CPU where it has any page.
///
/// # Errors
///
/// Beside [`alloc_page_nolocks`]'s: [`AllocError`] for what is larger than a page, or has a larger
/// alignment. A vector never moves, and grows by doubling its room as long as that is in a page: ask for
/// the room at the start.
///
/// # Examples
///
/// ```ignore
/// let guard = table.lock(); // A `RawSpinLock`.
/// let record = NoLocksBox::new(Record { .. }, __GFP_NOWARN)?;
/// let page = NoLocksBox::<[u8; PAGE_SIZE]>::zeroed(__GFP_NOWARN)?;
/// let mut list = NoLocksVec::<u32>::new();
/// list.push(1, __GFP_NOWARN)?;
/// ```
pub struct NoLocks;

/// A [`Box`] in a page of its own, to be had in every context.
pub type NoLocksBox<T> = Box<T, NoLocks>;

/// A [`Vec`] of up to a page, to be had in every context.
pub type NoLocksVec<T> = Vec<T, NoLocks>;

/// A page of which nothing is known, as a box.
type PageBox = NoLocksBox<MaybeUninit<[u8; PAGE_SIZE]>>;

/// The page of an allocation.
///
/// # Safety
///
/// `ptr` must be an allocation of [`NoLocks`], of some size, which is not used afterwards.
unsafe fn page_of(ptr: NonNull<u8>) -> NoLocksPage {
    // SAFETY: Each allocation of some size is the beginning of a page that was forgotten.
    unsafe { NoLocksPage::from_address(ptr.cast()) }
}

// SAFETY:
// - An allocation is a page that nobody frees until it is passed to `realloc()` with size 0.
// - `realloc()` needs nothing but the address to find the page.
// - `realloc()` abides by the guarantees, as said where it does.
unsafe impl Allocator for NoLocks {
    const MIN_ALIGN: usize = PAGE_SIZE;

    unsafe fn realloc(
        ptr: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        _nid: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        let zero = flags.contains(__GFP_ZERO);
        // What had no size has no page.
        let old = ptr.filter(|_| old_layout.size() != 0);

        let ptr = if layout.size() == 0 {
            if let Some(old) = old {
                // SAFETY: By the requirement on `ptr` it is an allocation of ours. GUARANTEE: From
                // here on it is not valid any more.
                drop(unsafe { page_of(old) });
            }
            // GUARANTEE: Aligned, to `MIN_ALIGN` too, and valid for no bytes at all.
            let address = layout.align().max(<Self as Allocator>::MIN_ALIGN);
            NonNull::new(core::ptr::without_provenance_mut(address)).ok_or(AllocError)?
        } else if layout.size() > PAGE_SIZE
            || layout.align() > PAGE_SIZE
            || flags.contains(GFP_KERNEL_ACCOUNT & !GFP_KERNEL)
        {
            // GUARANTEE: `ptr` was not touched.
            return Err(AllocError);
        } else if let Some(old) = old {
            if zero && layout.size() > old_layout.size() {
                // SAFETY: By the requirement on `ptr` the page is the caller's, and both sizes are at
                // most that of a page.
                unsafe {
                    old.add(old_layout.size())
                        .write_bytes(0, layout.size() - old_layout.size())
                };
            }
            // GUARANTEE: The same page, with what is in it.
            old
        } else {
            let wanted = match zero {
                true => NoLocksFlags::NONE.zeroed(),
                false => NoLocksFlags::NONE,
            };
            // GUARANTEE: A page is large enough and as aligned as can be asked for above; it is valid
            // until it is freed, as it is forgotten here.
            ManuallyDrop::new(alloc_page_nolocks(wanted)?)
                .address()
                .cast()
        };
        Ok(NonNull::slice_from_raw_parts(ptr, layout.size()))
    }
}

impl From<NoLocksPage> for PageBox {
    fn from(page: NoLocksPage) -> Self {
        let address = ManuallyDrop::new(page).address();

        // SAFETY: A page that is forgotten is an allocation of `NoLocks`, large enough and aligned,
        // and any bytes are good enough.
        unsafe { Self::from_raw(address.cast().as_ptr()) }
    }
}

impl From<PageBox> for NoLocksPage {
    fn from(page: PageBox) -> Self {
        // SAFETY: It is an allocation of `NoLocks` of a page's size; nothing in it has to be dropped.
        unsafe { page_of(NonNull::new_unchecked(Box::into_raw(page)).cast()) }
    }
}
