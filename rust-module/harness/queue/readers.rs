// SPDX-License-Identifier: GPL-2.0

//! Readers of a table whose entries are replaced, and pushed, from every context.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        rcu, //
    },
    types::ScopeGuard, //
};

use crate::{
    context::{
        Context,
        Site, //
    },
    node::{
        Boxed,
        How,
        Node,
        Origin, //
    },
    queue::{
        Accepts,
        Queue,
        RcuPointer,
        Retired,
        CAPACITY, //
    },
    rng::Rng,
    task::{
        breathe,
        Pinned, //
    },
    threads, //
};

/// Nodes that a writer replaces in one visit to a context.
const BATCH: usize = 16;
/// Nodes that a writer keeps when they come back, to wait for one grace period for all.
const RETURNED: usize = 1024;

/// What readers and writers did.
pub(crate) struct Tally {
    pub(crate) queued: Atomic<u64>,
    pub(crate) returned: Atomic<u64>,
    pub(crate) reads: Atomic<u64>,
    /// Reads of a node that was freed, or had become another one, under the reader.
    pub(crate) stale: Atomic<u64>,
    pub(crate) strays: Atomic<u64>,
}

/// Places for nodes of each origin.
const PLACES: usize = 24;

struct Table {
    kmalloc: [RcuPointer<KBox<Node>>; PLACES],
    vmalloc: [RcuPointer<VBox<Node>>; PLACES],
    kvmalloc: [RcuPointer<KVBox<Node>>; PLACES],
}

impl Table {
    fn new() -> Self {
        Self {
            kmalloc: [const { RcuPointer::none() }; PLACES],
            vmalloc: [const { RcuPointer::none() }; PLACES],
            kvmalloc: [const { RcuPointer::none() }; PLACES],
        }
    }

    /// Publishes a node in place of another.
    fn replace(&self, index: usize, node: Boxed) -> Option<Boxed> {
        fn owner<O>(old: Retired<O>) -> O {
            // SAFETY: Readers do not mind the box, which is pushed, or dropped after a grace period.
            unsafe { old.assume_unread() }
        }
        let place = index % PLACES;

        Some(match node {
            Boxed::Kmalloc(node) => Boxed::Kmalloc(owner(self.kmalloc[place].replace(node)?)),
            Boxed::Vmalloc(node) => Boxed::Vmalloc(owner(self.vmalloc[place].replace(node)?)),
            Boxed::KVmalloc(node) => Boxed::KVmalloc(owner(self.kvmalloc[place].replace(node)?)),
        })
    }

    fn get<'a>(&'a self, at: (Origin, usize), reader: &'a rcu::Guard) -> Option<&'a Node> {
        let place = at.1 % PLACES;

        match at.0 {
            Origin::Kmalloc => self.kmalloc[place].get(reader),
            Origin::Vmalloc => self.vmalloc[place].get(reader),
            Origin::KVmalloc => self.kvmalloc[place].get(reader),
        }
    }

    /// Looks at a node, for as long as `again` says, which is told whether it was replaced, and
    /// says whether it stayed what it was.
    fn read(&self, at: (Origin, usize), mut again: impl FnMut(bool) -> bool) -> bool {
        let reader = rcu::read_lock();
        let Some(node) = self.get(at, &reader) else {
            return true;
        };
        let mark = node.mark();
        let is_there = || {
            self.get(at, &reader)
                .is_some_and(|now| core::ptr::eq(now, node))
        };

        while again(!is_there()) && node.mark() == mark {
            kernel::processor::cpu_relax();
        }
        mark.is_some() && node.mark() == mark
    }
}

/// What writers and readers choose from at random.
pub(crate) struct Choice<'a> {
    pub(crate) contexts: &'a [Context],
    pub(crate) origins: &'a [Origin],
    pub(crate) seed: u64,
    /// Turns of a long reader's loop, if not as much is queued before: when a writer waits for it,
    /// nothing moves any more. Once all are done, it waits only if its own node was queued.
    pub(crate) patience: u64,
}

/// Replaces `writes` nodes for each writer, beside as many readers.
pub(crate) fn run<R: Accepts<Node>>(
    queue: &Queue<R>,
    choice: &Choice<'_>,
    writes: usize,
) -> Result<Tally> {
    let cpus = threads::online_cpus().get();
    let scene = Scene {
        queue,
        choice,
        writing: Atomic::new(cpus),
        table: Table::new(),
        tally: Tally {
            queued: Atomic::new(0),
            returned: Atomic::new(0),
            reads: Atomic::new(0),
            stale: Atomic::new(0),
            strays: Atomic::new(0),
        },
    };

    let result = threads::run(2 * cpus, &|nth| {
        // One that could not begin is done too, or the readers would wait for it.
        let done = || {
            scene.writing.fetch_sub(1, Relaxed);
        };
        let done = (nth < cpus).then(|| ScopeGuard::new(done));
        let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
        let mut rng = Rng::new(choice.seed, nth.into());
        let result = if nth < cpus {
            let mut returned = KVec::with_capacity(RETURNED, GFP_KERNEL)?;
            let result = scene.write(&site, &mut rng, writes, &mut returned);
            drop(done);
            // What came back may still be read.
            rcu::synchronize_rcu();
            result
        } else {
            // Once at least, however fast the writers are.
            loop {
                scene.read(&site, &mut rng);
                if scene.writing.load(Relaxed) == 0 {
                    break Ok(());
                }
            }
        };
        scene.tally.strays.add(site.strays(), Relaxed);
        result
    });

    result.map(|()| scene.tally)
}

/// What writers and readers share.
struct Scene<'a, R: Accepts<Node>> {
    queue: &'a Queue<R>,
    choice: &'a Choice<'a>,
    /// Writers that may replace more nodes.
    writing: Atomic<u32>,
    table: Table,
    tally: Tally,
}

impl<R: Accepts<Node>> Scene<'_, R> {
    fn write(
        &self,
        site: &Site,
        rng: &mut Rng,
        writes: usize,
        returned: &mut KVec<Boxed>,
    ) -> Result {
        let mut fresh = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut done = 0;

        while done < writes {
            let origin = *rng.pick(self.choice.origins.iter()).ok_or(EINVAL)?;
            while fresh.len() < BATCH {
                fresh.push_within_capacity(Boxed::new(origin)?)?;
            }
            let ctx = *rng.pick(self.choice.contexts.iter()).ok_or(EINVAL)?;
            let how = match rng.below(4) {
                _ if ctx == Context::Nmi => How::Try,
                0 => How::Headless,
                1 => How::Try,
                _ => How::Push,
            };
            let _pinned = Pinned::new();
            site.run(ctx, || {
                while let Some(node) = fresh.pop() {
                    let Some(old) = self.table.replace(rng.below(usize::MAX), node) else {
                        continue;
                    };
                    match old.push(self.queue, how) {
                        None => self.tally.queued.add(1, Relaxed),
                        Some(old) => {
                            self.tally.returned.add(1, Relaxed);
                            // There is room for a batch.
                            let _ = returned.push_within_capacity(old);
                        }
                    }
                }
            });
            if returned.len() > RETURNED - BATCH {
                rcu::synchronize_rcu();
                returned.clear();
            }
            done += BATCH;
            breathe();
        }
        Ok(())
    }

    fn read(&self, site: &Site, rng: &mut Rng) {
        const READS: u64 = 64;
        let tally = &self.tally;
        let anywhere = |rng: &mut Rng| {
            let origin = rng.pick(self.choice.origins.iter());
            (*origin.unwrap_or(&Origin::Kmalloc), rng.below(usize::MAX))
        };
        let mut stale = 0;

        // One that lasts until every CPU has filled blocks, for which somebody then comes: what is
        // freed too early is freed under this reader.
        let blocks = 3 * u64::from(threads::online_cpus().get());
        let end = tally.queued.load(Relaxed) + blocks * CAPACITY as u64;
        let mut left = self.choice.patience;
        stale += u64::from(!self.table.read(anywhere(rng), |replaced| {
            left -= 1;
            left != 0
                && tally.queued.load(Relaxed) < end
                && (replaced || self.writing.load(Relaxed) != 0)
        }));
        if let Some(ctx) = rng.pick(self.choice.contexts.iter()) {
            let _pinned = Pinned::new();
            site.run(*ctx, || {
                for _ in 1..READS {
                    stale += u64::from(!self.table.read(anywhere(rng), |_| false));
                }
            });
        }
        tally.reads.add(READS, Relaxed);
        tally.stale.add(stale, Relaxed);
        breathe();
    }
}
