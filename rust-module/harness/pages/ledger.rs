// SPDX-License-Identifier: GPL-2.0

//! What was obtained has come back, by the kernel's books as well as by our own.

use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use crate::{
    api::{
        BY_FLAG,
        BY_TRYLOCK,
        CORRUPT,
        FREED,
        OBTAINED, //
    },
    ktap::Outcome,
    task::wait_for,
    vm::{
        self,
        Events, //
    }, //
};

/// The kernel's counters from when the module was loaded, when our own were 0.
pub(crate) struct Ledger {
    events: Events,
    in_slots: usize,
}

impl Ledger {
    /// To be opened before the first page. May sleep.
    pub(crate) fn open() -> Self {
        Self {
            events: Events::now(),
            in_slots: vm::in_all_slots(),
        }
    }

    /// To be closed when all pages should be freed and nobody is registered for the slots who was not
    /// when it was opened.
    ///
    /// A page that was obtained is then neither in a slot nor left to the worker. What we obtained
    /// with the flag is what the kernel gave away with it, and what `alloc_pages_nolock()` had from
    /// the slots: a page that is in our books alone, or in the kernel's, is one that was lost. May
    /// sleep.
    pub(crate) fn close(&self) -> Outcome {
        let since = |get: fn(&Events) -> u64| get(&Events::now()) - get(&self.events);
        let (obtained, freed) = (OBTAINED.load(Relaxed), FREED.load(Relaxed));
        let (by_flag, corrupt) = (BY_FLAG.load(Relaxed), CORRUPT.load(Relaxed));
        let by_trylock = BY_TRYLOCK.load(Relaxed);
        // kvfree_rcu() has blocks of two kinds on each of at most eight CPUs, and may open them meanwhile.
        let others = 16;

        // Workers have to be waited for, and a push that has met a new limit.
        let empty = wait_for(|| vm::in_all_slots() == self.in_slots && !vm::is_deferring());
        let in_slots = vm::in_all_slots();
        let (lists, slots) = (
            since(Events::taken_from_lists),
            since(Events::taken_from_slots),
        );
        let (refilled, drained) = (since(Events::refilled), since(Events::drained));

        pr_info!("# ledger: obtained={obtained} freed={freed}\n");
        pr_info!(
            "# books: by_flag={by_flag} by_trylock={by_trylock} lists={lists} slots={slots} refilled={refilled} drained={drained} in_slots={in_slots}\n"
        );
        Outcome::Passed
            .check(
                empty,
                fmt!(
                    "{in_slots} pages are in slots, or others left to a worker: {}",
                    vm::is_deferring()
                ),
            )
            .check(
                obtained == freed
                    && (by_flag..=by_flag + by_trylock + others).contains(&(lists + slots))
                    && self.in_slots as u64 + refilled == slots + drained + in_slots as u64,
                fmt!("the ledger does not balance"),
            )
            .check(
                corrupt == 0,
                fmt!("{corrupt} pages lost their owner's mark"),
            )
    }
}
