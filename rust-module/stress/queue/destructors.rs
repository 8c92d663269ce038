// SPDX-License-Identifier: GPL-2.0

//! Objects that own others.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    context::Context,
    env::{
        check_stats,
        Desk,
        Env,
        NAME, //
    },
    ktap::Outcome,
    queue::DropQueue,
    task::{
        breathe,
        level,
        Pinned, //
    },
    threads, //
};

static DESTROYED: Atomic<u64> = Atomic::new(0);
static DESTROYED_ELSEWHERE: Atomic<u64> = Atomic::new(0);

/// Owns memory that only its destructor frees.
struct Owner(KBox<u64>);

impl Owner {
    fn new() -> Result<Self> {
        Ok(Self(KBox::new(1, GFP_KERNEL)?))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        DESTROYED.add(*self.0, Relaxed);
        if level() != 0 {
            DESTROYED_ELSEWHERE.add(1, Relaxed);
        }
        kernel::task::might_sleep();
    }
}

/// Objects that own others, whose destructors run in a task whatever the context of the push.
pub(crate) fn destructors(env: &Env) -> Result<Outcome> {
    let queue = DropQueue::<Owner>::new(NAME)?;
    let desk = Desk::new(1)?;
    let before = DESTROYED.load(Relaxed);
    let mut made = 2;

    for ctx in env.contexts() {
        for _ in 0..env.config.objects / 16 {
            let mut owner = Some(KBox::new(Owner::new()?, GFP_KERNEL)?);
            let _pinned = Pinned::new();
            desk.site.run(ctx, || {
                let back = owner.take().and_then(|owner| match ctx {
                    Context::Nmi => queue.try_push(owner).err(),
                    _ => queue.push_headless(owner).err(),
                });
                // SAFETY: Nobody has ever read it.
                owner = back.map(|owner| unsafe { owner.assume_unread() });
            });
            made += 1;
            // What came back is destroyed here.
            breathe();
        }
    }
    queue.push_mightsleep(KBox::pin(Owner::new()?, GFP_KERNEL)?);
    queue.push_mightsleep(VBox::new(Owner::new()?, GFP_KERNEL)?);
    queue.barrier();

    let destroyed = DESTROYED.load(Relaxed) - before;
    let elsewhere = DESTROYED_ELSEWHERE.load(Relaxed);
    let stats = queue.stats();
    pr_info!("# destructors: made={made} run={destroyed} {stats:?}\n");
    let outcome = check_stats(
        desk.check(Outcome::Passed),
        stats,
        made - stats.returned,
        stats.returned,
    );
    Ok(outcome
        .check(
            destroyed == made,
            fmt!("{destroyed} destructors were run for {made} objects"),
        )
        .check(elsewhere == 0, fmt!("{elsewhere} of them not in a task")))
}

static BURIED: Atomic<u64> = Atomic::new(0);

/// Pushes its child when it is destroyed.
struct Parent {
    queue: *const DropQueue<Self>,
    child: Option<KBox<Parent>>,
}

// SAFETY: The queue may be used from anywhere.
unsafe impl Send for Parent {}

impl Drop for Parent {
    fn drop(&mut self) {
        BURIED.add(1, Relaxed);
        if let Some(child) = self.child.take() {
            // SAFETY: The queue outlives the objects in it, of which we are one.
            unsafe { &*self.queue }.push_mightsleep(child);
        }
    }
}

/// Destructors push to whichever CPU they run on, while the queue is dropped, until there are no
/// more children.
pub(crate) fn children(_env: &Env) -> Result<Outcome> {
    const ROUNDS: u64 = 10;
    const PARENTS: u64 = 10;
    const GENERATIONS: u64 = 4;
    let cpus = threads::online_cpus().get();
    let before = BURIED.load(Relaxed);

    for _ in 0..ROUNDS {
        let queue = KBox::new(DropQueue::<Parent>::new(NAME)?, GFP_KERNEL)?;
        threads::run(cpus, &|_| {
            for _ in 0..PARENTS {
                let mut family = None;
                for _ in 0..GENERATIONS {
                    let parent = Parent {
                        queue: &*queue,
                        child: family.take(),
                    };
                    family = Some(KBox::new(parent, GFP_KERNEL)?);
                }
                if let Some(family) = family {
                    queue.push_mightsleep(family);
                }
            }
            Ok(())
        })?;
        drop(queue);
    }
    let made = ROUNDS * u64::from(cpus) * PARENTS * GENERATIONS;
    let buried = BURIED.load(Relaxed) - before;
    pr_info!("# children: made={made} destroyed={buried}\n");
    Ok(Outcome::Passed.check(
        buried == made,
        fmt!("{buried} objects were destroyed of {made}"),
    ))
}
