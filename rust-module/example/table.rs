// SPDX-License-Identifier: GPL-2.0

//! A small table that is read under RCU and written under a raw spinlock.

use core::marker::PhantomData;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        rcu, //
    }, //
};

use crate::{
    nolocks::raw_spin_lock::{
        new_raw_spin_lock,
        RawSpinLock, //
    },
    queue::{
        impl_has_bulk_head,
        BulkHead,
        BulkQueue, //
    },
};

/// What the table is about. Readers see one that never changes, or another one.
pub(crate) struct Entry {
    /// Has the queue take the entry even where no page is to be had.
    head: BulkHead,
    pub(crate) generation: u64,
    pub(crate) value: u64,
}

impl_has_bulk_head! {
    impl HasBulkHead for Entry { self.head }
}

/// A table with `N` places.
///
/// # Invariants
///
/// Each place is null or an entry out of a [`KBox`] that nobody else owns. It is changed under
/// `stock` only, and an entry that was in it stays valid until the readers of that moment are done.
#[pin_data(PinnedDrop)]
pub(crate) struct Table<const N: usize> {
    places: [Atomic<*mut Entry>; N],
    /// Entries for the writer, who cannot allocate. Also the writers' lock.
    #[pin]
    stock: RawSpinLock<KVec<KBox<Entry>>>,
    queue: BulkQueue,
    _entries: PhantomData<KBox<Entry>>,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Null.
            places: [const { Atomic::new(core::ptr::null_mut()) }; N],
            stock <- new_raw_spin_lock!(KVec::new(), "nolocks_example_stock"),
            queue: BulkQueue::new(c"nolocks_example")?,
            _entries: PhantomData,
        }? Error)
    }

    /// Allocates entries for the writer, where that is allowed.
    pub(crate) fn provide(&self, count: usize) -> Result {
        let mut fresh = KVec::with_capacity(count, GFP_KERNEL)?;

        for _ in 0..count {
            let entry = Entry {
                head: BulkHead::new(),
                generation: 0,
                value: 0,
            };
            fresh.push(KBox::new(entry, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        // What was left is dropped without the lock.
        let _left = core::mem::replace(&mut *self.stock.lock(), fresh);
        Ok(())
    }

    /// Replaces an entry, or says that there is none left to replace it with.
    ///
    /// # Contexts
    ///
    /// Any but NMI, under any lock.
    pub(crate) fn update(&self, place: usize, generation: u64) -> Option<()> {
        let place = self.places.get(place)?;
        let mut stock = self.stock.lock();
        let mut entry = stock.pop()?;

        entry.generation = generation;
        entry.value = Self::value_of(generation);

        let old = place.load(Relaxed);
        // Release, so that who finds the entry finds what is in it. INVARIANT: It is out of a box.
        place.store(KBox::into_raw(entry), Release);
        if !old.is_null() {
            // SAFETY: By the invariant it was in a box, and no new reader finds it. Those who have it
            // are what the queue waits for; all that is done with this box is to push it.
            self.queue.push(unsafe { KBox::from_raw(old) });
        }
        Some(())
    }

    /// Finds an entry, which stays valid as long as the reader.
    pub(crate) fn get<'a>(&'a self, place: usize, _reader: &'a rcu::Guard) -> Option<&'a Entry> {
        let entry = self.places.get(place)?.load(Acquire);

        // SAFETY: By the invariant it is null or valid until this reader is done.
        unsafe { entry.as_ref() }
    }

    /// What the value of an entry has to be.
    pub(crate) fn value_of(generation: u64) -> u64 {
        generation.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[pinned_drop]
impl<const N: usize> PinnedDrop for Table<N> {
    fn drop(self: Pin<&mut Self>) {
        for place in &self.places {
            let entry = place.load(Relaxed);
            if !entry.is_null() {
                // SAFETY: By the invariant; with the table the last reader is gone.
                drop(unsafe { KBox::from_raw(entry) });
            }
        }
        // The queue is dropped after this, and waits until all that was pushed is freed.
    }
}
