// SPDX-License-Identifier: GPL-2.0

//! What the flag was proposed for: `kvfree_rcu()` has a block wherever it is called.

use core::{
    mem::ManuallyDrop,
    num::NonZero,
    ptr::NonNull, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        rcu::synchronize_rcu, //
    }, //
};

use crate::{
    context::{
        Context,
        Site, //
    },
    env::Env,
    ktap::Outcome,
    task::{
        breathe,
        Pinned, //
    },
    threads,
    vm::{
        Events,
        Limit, //
    }, //
};

/// Objects that link each other.
#[repr(C)]
struct Chain {
    _opaque: [u8; 0],
}

extern "C" {
    fn nolocks_objects_begin() -> c_int;
    fn nolocks_objects_end();
    fn nolocks_objects_alloc(nr: c_uint) -> *mut Chain;
    fn nolocks_objects_kvfree_rcu(chain: *mut Chain);
    fn nolocks_objects_kvfree_rcu_mightsleep(chain: *mut Chain);
}

/// Where objects come from. There is one at a time.
struct Cache(());

impl Cache {
    fn new() -> Result<Self> {
        // SAFETY: A task that may sleep, and the case is run once.
        to_result(unsafe { nolocks_objects_begin() })?;
        Ok(Self(()))
    }
}

impl Drop for Cache {
    /// Waits until all objects are free.
    fn drop(&mut self) {
        // SAFETY: Begun in `new()`; a task that may sleep.
        unsafe { nolocks_objects_end() };
    }
}

struct Objects(NonNull<Chain>);

// SAFETY: Any task may free them.
unsafe impl Send for Objects {}

impl Objects {
    fn new(nr: u32) -> Result<Self> {
        // SAFETY: Called by tasks that may sleep, while there is a cache.
        NonNull::new(unsafe { nolocks_objects_alloc(nr) })
            .map(Self)
            .ok_or(ENOMEM)
    }

    /// As callers whose objects have no head.
    fn free_mightsleep(self) {
        // SAFETY: Nobody else has them, nor does the drop free them.
        unsafe { nolocks_objects_kvfree_rcu_mightsleep(ManuallyDrop::new(self).0.as_ptr()) };
    }
}

impl Drop for Objects {
    /// In any context but NMI.
    fn drop(&mut self) {
        // SAFETY: Nobody else has them.
        unsafe { nolocks_objects_kvfree_rcu(self.0.as_ptr()) };
    }
}

fn taken(events: &Events) -> u64 {
    events.taken_from_lists() + events.taken_from_slots()
}

/// A flood from hard interrupts on all CPUs, which takes blocks out of slots that have to be filled again.
pub(crate) fn rcu(env: &Env) -> Result<Outcome> {
    // Fewer pages than a CPU needs: with as many as that nobody would have to fill a slot.
    env.fill_slots()?;
    match Limit::open()? {
        Some(limit) => limit.during(b"2", || flood(env)),
        None => flood(env),
    }
}

/// What finds no block is linked by itself, and then freed one by one.
fn flood(env: &Env) -> Result<Outcome> {
    const CONTEXT: Context = Context::Hardirq;
    /// Objects that one interrupt frees, of some 500 in a block.
    const BATCH: u32 = 16;
    /// Batches between two grace periods.
    const WAITING: u64 = 256;
    /// Of so many objects one at most may ask for a block and get none; of fewer, none.
    const RARE: u64 = 100_000;
    let cpus = threads::online_cpus();
    // A quarter, as each of them has four lives: SLUB's, kvfree_rcu()'s, RCU's and debugobjects'.
    let batches = env.config.pages / (4 * u64::from(BATCH)) / NonZero::<u64>::from(cpus) + 1;
    let objects = batches * u64::from(BATCH * cpus.get());
    let strays = Atomic::new(0u64);

    let cache = Cache::new()?;
    let before = Events::now();
    threads::run(cpus.get(), &|_| {
        let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;

        for nth in 1..=batches {
            let mut objects = Some(Objects::new(BATCH)?);
            let pinned = Pinned::new();
            site.run(CONTEXT, || drop(objects.take()));
            drop(pinned);
            match nth % WAITING {
                0 => synchronize_rcu(),
                _ => breathe(),
            }
        }
        strays.add(site.strays(), Relaxed);
        Ok(())
    })?;
    drop(cache);
    let after = Events::now();
    let (blocks, refused) = (
        taken(&after) - taken(&before),
        after.refused() - before.refused(),
    );
    let strays = strays.load(Relaxed);

    pr_info!(
        "# kvfree_rcu: context={} objects={objects} blocks={blocks} refused={refused}\n",
        CONTEXT.name()
    );
    Ok(Outcome::Passed
        .check(
            refused * RARE <= objects,
            fmt!("{refused} blocks were refused, for {objects} objects"),
        )
        .check(
            blocks != 0 || !cfg!(CONFIG_KVFREE_RCU_BATCHED),
            fmt!("nobody asked for a block"),
        )
        .check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        ))
}

/// Who may sleep takes no page that somebody who may not could need.
pub(crate) fn rcu_mightsleep(env: &Env) -> Result<Outcome> {
    /// Of some 500 in a block, so that it takes sixteen.
    const OBJECTS: u32 = 8_000;
    /// What others of this CPU's may ask for meanwhile.
    const NOISE: u64 = 4;

    env.fill_slots()?;
    let cache = Cache::new()?;
    let objects = Objects::new(OBJECTS)?;
    let before = taken(&Events::now());
    objects.free_mightsleep();
    let taken = taken(&Events::now()) - before;
    drop(cache);

    pr_info!("# kvfree_rcu: context=task how=mightsleep objects={OBJECTS} no_locks={taken}\n");
    Ok(Outcome::Passed.check(
        taken <= NOISE,
        fmt!("a task that may sleep took {taken} pages with __GFP_NO_LOCKS"),
    ))
}
