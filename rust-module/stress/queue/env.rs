// SPDX-License-Identifier: GPL-2.0

//! What the cases share.

use kernel::{
    prelude::*,
    sync::atomic::ordering::Relaxed,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    config::Config,
    context::{
        Context,
        Site, //
    },
    ktap::Outcome,
    nmi::Nmi,
    node::{
        Boxed,
        How,
        Origin,
        Watched,
        CORRUPT,
        FREED, //
    },
    nolocks::slots::PageSlots,
    queue::{
        Queue,
        Stats, //
    },
    task::Pinned,
    warmer::Warmer, //
};

pub(crate) const NAME: &CStr = c"nolocks_queue_stress";

/// What the cases share.
pub(crate) struct Env {
    pub(crate) config: Config,
    pub(crate) nmi: Option<Nmi>,
    /// How many references to this module there are.
    pub(crate) references: fn() -> c_int,
}

impl Env {
    pub(crate) fn new(config: Config, references: fn() -> c_int) -> Result<Self> {
        Ok(Self {
            config,
            nmi: Nmi::if_any()?,
            references,
        })
    }

    /// The contexts that this machine can enter.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = Context> + Clone + '_ {
        Context::possible(&self.nmi)
    }

    /// Those where a push need not be a try.
    pub(crate) fn ordinary_contexts() -> impl Iterator<Item = Context> {
        Context::ALL.into_iter().filter(|ctx| *ctx != Context::Nmi)
    }

    /// Fills the slots of all CPUs again.
    pub(crate) fn fill_slots(&self) -> Result {
        PageSlots::register(1).map(drop)
    }
}

/// One task's means to push everywhere.
pub(crate) struct Desk {
    pub(crate) site: Pin<KBox<Site>>,
    warmer: Warmer,
}

impl Desk {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self {
            site: KBox::pin_init(Site::new(), GFP_KERNEL)?,
            warmer: Warmer::new(2 * room)?,
        })
    }

    /// Leaves pages on this CPU's lists, twice as many as needed. To be called [`Pinned`].
    pub(crate) fn warm(&mut self, n: usize) -> Result {
        self.warmer.warm(2 * n)
    }

    /// Pushes a node in `ctx`, and returns it if it came back.
    pub(crate) fn push(
        &self,
        ctx: Context,
        queue: &Queue<Watched>,
        how: How,
        node: Boxed,
    ) -> Option<Boxed> {
        let mut node = Some(node);
        let _pinned = Pinned::new();

        self.site.run(ctx, || {
            node = node.take().and_then(|node| node.push(queue, how))
        });
        node
    }

    pub(crate) fn check(&self, outcome: Outcome) -> Outcome {
        self.site.check(outcome)
    }
}

/// Now and then an object that `vfree()` has to free.
pub(crate) fn origin(nth: usize) -> Origin {
    match nth % 32 {
        0 => Origin::Vmalloc,
        _ => Origin::Kmalloc,
    }
}

/// Pushes objects with a head, which cannot come back, in the context of the caller.
pub(crate) fn push_all(queue: &Queue<Watched>, objects: usize) -> Result {
    for _ in 0..objects {
        let _ = Boxed::new(Origin::Kmalloc)?.push(queue, How::Push);
    }
    Ok(())
}

/// Of all that was pushed, every object was freed, once.
pub(crate) struct Ledger {
    freed: u64,
    corrupt: u64,
}

impl Ledger {
    pub(crate) fn open() -> Self {
        Self {
            freed: FREED.load(Relaxed),
            corrupt: CORRUPT.load(Relaxed),
        }
    }

    pub(crate) fn close(&self, outcome: Outcome, queued: u64) -> Outcome {
        let freed = FREED.load(Relaxed) - self.freed;
        let corrupt = CORRUPT.load(Relaxed) - self.corrupt;

        outcome
            .check(freed == queued, fmt!("{freed} freed of {queued} queued"))
            .check(corrupt == 0, fmt!("{corrupt} objects were freed twice"))
    }
}

/// The queue's own books agree with ours.
pub(crate) fn check_stats(outcome: Outcome, stats: Stats, queued: u64, returned: u64) -> Outcome {
    outcome.check(
        stats.pushed == queued
            && stats.freed == queued
            && stats.returned == returned
            && stats.twice == 0,
        fmt!("queued={queued} returned={returned}, but {stats:?}"),
    )
}

/// Waits for the queue to come by itself. One that never does is a hang, and reported as such.
pub(crate) fn wait_until_freed(queue: &Queue<Watched>, objects: u64) -> Stats {
    loop {
        let stats = queue.stats();
        if stats.freed >= objects {
            return stats;
        }
        fsleep(Delta::from_millis(10));
    }
}

/// Less than an object may stay in an open block, which is a second.
const SOON: Delta = Delta::from_millis(900);

/// Whether `func` is done before anything that it has queued could have become old.
pub(crate) fn in_time<T>(func: impl FnOnce() -> Result<T>) -> Result<(T, bool)> {
    let start = Instant::<Monotonic>::now();

    Ok((func()?, start.elapsed() < SOON))
}
