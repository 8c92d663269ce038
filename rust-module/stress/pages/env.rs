// SPDX-License-Identifier: GPL-2.0

//! What the cases share.

use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    }, //
};

use crate::{
    api::{
        Api,
        Held,
        Pile, //
    },
    config::Config,
    context::{
        Context,
        Site, //
    },
    ktap::Outcome,
    ledger::Ledger,
    nmi::Nmi,
    nolocks::{
        page::NoLocksFlags,
        slots::PageSlots, //
    },
    task::Pinned,
    vm,
    warmer::Warmer, //
};

/// The burst that the contract promises where the trylock is allowed and the lists are warm.
pub(crate) const PROMISED: usize = 32;
/// What the slots are asked to hold: the burst that is promised in every context. The default of
/// the `vm.page_slots` sysctl.
pub(crate) const DEPTH: usize = 64;
pub(crate) const LARGEST_BURST: usize = 4096;

/// Obtains pages, off the lists as well where they come first, until the slots of this CPU are empty.
/// Whether they are: in one visit, or they would be filled meanwhile.
pub(crate) fn empty_slots(pile: &mut Pile, cpu: u32) -> bool {
    while vm::in_slots(cpu) != 0 {
        if pile.obtain(Api::NoLocks, NoLocksFlags::NONE, 1) == 0 {
            return false;
        }
    }
    true
}

/// What the cases share.
pub(crate) struct Env {
    pub(crate) config: Config,
    slots: Pin<KBox<Mutex<Option<PageSlots>>>>,
    ledger: Ledger,
    pub(crate) nmi: Option<Nmi>,
}

impl Env {
    pub(crate) fn new(config: Config) -> Result<Self> {
        Ok(Self {
            config,
            slots: KBox::pin_init(new_mutex!(None), GFP_KERNEL)?,
            ledger: Ledger::open(),
            nmi: Nmi::if_any()?,
        })
    }

    /// The contexts that this machine can enter.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = Context> + Clone + '_ {
        Context::possible(&self.nmi)
    }

    /// Gives the slots up, until they are filled again.
    pub(crate) fn give_up_slots(&self) {
        drop(self.slots.lock().take());
    }

    /// Fills the slots of all CPUs, for the first time or again.
    pub(crate) fn fill_slots(&self) -> Result {
        let mut slots = self.slots.lock();
        let pages = match *slots {
            None => DEPTH as u32,
            // Any registration fills them, and is then taken back.
            Some(_) => 1,
        };
        let claim = PageSlots::register(pages)?;
        slots.get_or_insert(claim);
        Ok(())
    }

    /// Gives the slots up and draws the line.
    pub(crate) fn close(&self) -> Outcome {
        self.give_up_slots();
        self.ledger.close()
    }
}

/// Counts for one line of the report.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stat {
    pub(crate) attempts: u64,
    pub(crate) obtained: u64,
}

impl Stat {
    pub(crate) fn add(&mut self, attempts: usize, obtained: usize) {
        self.attempts += attempts as u64;
        self.obtained += obtained as u64;
    }

    pub(crate) fn print(&self, context: &str, api: Api) {
        pr_info!(
            "# stat: context={} api={} attempts={} obtained={}\n",
            context,
            api.name(),
            self.attempts,
            self.obtained
        );
    }
}

/// One task's means to allocate everywhere.
pub(crate) struct Desk {
    pub(crate) site: Pin<KBox<Site>>,
    pub(crate) pile: Pile,
    pub(crate) warmer: Warmer,
}

impl Desk {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self {
            site: KBox::pin_init(Site::new(), GFP_KERNEL)?,
            pile: Pile::new(room)?,
            // Twice, so that what others take meanwhile does not matter.
            warmer: Warmer::new(2 * room)?,
        })
    }

    pub(crate) fn warm(&mut self, n: usize) -> Result {
        self.warmer.warm(2 * n)
    }

    /// Attempts `n` pages in `ctx` and returns how many came.
    pub(crate) fn obtain(
        &mut self,
        ctx: Context,
        api: Api,
        flags: NoLocksFlags,
        n: usize,
    ) -> usize {
        let mut obtained = 0;
        let mut left = n;

        while left != 0 {
            let chunk = ctx.chunk(left);
            let pile = &mut self.pile;
            self.site
                .run(ctx, || obtained += pile.obtain(api, flags, chunk));
            left -= chunk;
        }
        obtained
    }

    /// Frees all pages in `ctx`.
    pub(crate) fn free(&mut self, ctx: Context) {
        let pile = &mut self.pile;
        let mut more = true;

        while more {
            self.site
                .run(ctx, || more = pile.free(ctx.chunk(LARGEST_BURST)));
        }
    }

    /// Obtains and frees in one visit to `ctx`.
    pub(crate) fn visit(&mut self, ctx: Context, api: Api, n: usize) -> usize {
        let pile = &mut self.pile;
        let mut obtained = 0;

        self.site.run(ctx, || {
            obtained = pile.obtain(api, NoLocksFlags::NONE, n);
            pile.free(n);
        });
        obtained
    }

    /// Frees pages filled with `dirt` in `ctx`, and obtains as many with `flags` in the same visit.
    pub(crate) fn reuse(
        &mut self,
        env: &Env,
        ctx: Context,
        flags: NoLocksFlags,
        dirt: u64,
    ) -> Result<&[Held]> {
        let _pinned = Pinned::new();
        env.fill_slots()?;
        let pile = &mut self.pile;
        self.site.run(ctx, || {
            pile.obtain(Api::NoLocks, NoLocksFlags::NONE, PROMISED);
            pile.pages().iter_mut().for_each(|held| held.fill(dirt));
            pile.free(PROMISED);
            for _ in 0..PROMISED {
                if let Some(held) = Held::obtain_unmarked(Api::NoLocks, flags) {
                    pile.push(held);
                }
            }
        });
        Ok(self.pile.pages())
    }

    pub(crate) fn check(&self, outcome: Outcome) -> Outcome {
        self.site.check(outcome)
    }
}
