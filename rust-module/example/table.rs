// SPDX-License-Identifier: GPL-2.0

//! A small table that is read under RCU and written under a raw spinlock.

use kernel::{
    prelude::*,
    sync::rcu, //
};

use crate::{
    nolocks::raw_spin_lock::{
        new_raw_spin_lock,
        RawSpinLock, //
    },
    queue::{
        impl_has_bulk_head,
        BulkHead,
        BulkQueue,
        RcuPointer, //
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

/// A table with `N` places, changed under `stock` only.
#[pin_data]
pub(crate) struct Table<const N: usize> {
    places: [RcuPointer<KBox<Entry>>; N],
    /// Entries for the writer, who cannot allocate. Also the writers' lock.
    #[pin]
    stock: RawSpinLock<KVec<KBox<Entry>>>,
    /// Dropped with the table, and then waits until all that was pushed is freed.
    queue: BulkQueue,
}

impl<const N: usize> Table<N> {
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            places: [const { RcuPointer::none() }; N],
            stock <- new_raw_spin_lock!(KVec::new(), "nolocks_example_stock"),
            queue: BulkQueue::new(c"nolocks_example")?,
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

        // Those who read the old one are what the queue waits for.
        if let Some(old) = place.replace(entry) {
            self.queue.push(old);
        }
        Some(())
    }

    /// Finds an entry, which stays valid as long as the reader.
    pub(crate) fn get<'a>(&'a self, place: usize, reader: &'a rcu::Guard) -> Option<&'a Entry> {
        self.places.get(place)?.get(reader)
    }

    /// What the value of an entry has to be.
    pub(crate) fn value_of(generation: u64) -> u64 {
        generation.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
