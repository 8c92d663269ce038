// SPDX-License-Identifier: GPL-2.0

//! How long objects wait from the push until they are freed, as a distribution.

use core::ptr::NonNull;

use kernel::{
    bindings,
    fmt,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        rcu, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    env::{
        Env,
        NAME, //
    },
    ktap::Outcome,
    nolocks::page::{
        alloc_page_nolocks,
        NoLocksFlags,
        NoLocksPage, //
    },
    promises::wait_until,
    queue::{
        impl_has_bulk_head,
        memory,
        Accepts,
        BulkHead,
        Hooks,
        Object,
        Policy,
        Queue,
        CAPACITY, //
    },
    task::Pinned,
    threads, //
};

/// Bucket `n` counts what took 2^n microseconds or more, but less than twice that; the last one, of 16
/// seconds, what took longer too.
const BUCKETS: usize = 25;

/// One CPU's counts. CPUs so far apart that they share one only have to share its cache line.
#[repr(align(64))]
struct Row {
    buckets: [Atomic<u64>; BUCKETS],
    /// That of the first object of a block or list, in microseconds, if there is any. Of two that come at
    /// once one may be lost.
    least: Atomic<u64>,
}

const ROWS: usize = 16;

static COUNTS: [Row; ROWS] = [const {
    Row {
        buckets: [const { Atomic::new(0) }; BUCKETS],
        least: Atomic::new(u64::MAX),
    }
}; ROWS];

fn count(waited: Delta, is_first: bool) {
    // SAFETY: Only reads a number, which may be out of date at once.
    let cpu = unsafe { bindings::raw_smp_processor_id() } as usize;
    let row = &COUNTS[cpu % ROWS];
    let us = (waited.as_nanos() / 1_000).max(1) as u64;

    row.buckets[(us.ilog2() as usize).min(BUCKETS - 1)].add(1, Relaxed);
    if is_first && us < row.least.load(Relaxed) {
        row.least.store(us, Relaxed);
    }
}

/// The least that any first object has waited since the last time.
fn least() -> u64 {
    let all = COUNTS.iter().map(|row| row.least.load(Relaxed));

    all.min().unwrap_or(u64::MAX)
}

/// What was counted since the last time.
fn take() -> Counts {
    let mut counts = Counts {
        buckets: [0; BUCKETS],
        least: least(),
    };

    for row in &COUNTS {
        for (bucket, sum) in row.buckets.iter().zip(&mut counts.buckets) {
            *sum += bucket.load(Relaxed);
            bucket.store(0, Relaxed);
        }
        row.least.store(u64::MAX, Relaxed);
    }
    counts
}

struct Counts {
    buckets: [u64; BUCKETS],
    least: u64,
}

impl Counts {
    fn print(&self, what: &str) {
        let objects: u64 = self.buckets.iter().sum();

        pr_info!(
            "# latency: what={what} count={objects} least_us={} log2_us={}\n",
            self.least,
            Filled(&self.buckets)
        );
    }
}

/// The buckets that are not empty.
struct Filled<'a>(&'a [u64; BUCKETS]);

impl fmt::Display for Filled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";

        for (bucket, objects) in self.0.iter().enumerate().filter(|(_, n)| **n != 0) {
            write!(f, "{comma}{bucket}:{objects}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// Knows when it was pushed.
struct Stamped {
    head: BulkHead,
    pushed: Instant<Monotonic>,
    /// Into its block or list. The others came later, and wait less.
    is_first: bool,
}

impl_has_bulk_head! {
    impl HasBulkHead for Stamped { self.head }
}

static BLOCKLESS: Atomic<bool> = Atomic::new(false);

/// Counts how long each object has waited, in blocks or in lists.
struct Measured(());

// SAFETY: The default asks RCU.
unsafe impl Hooks for Measured {
    fn page() -> Option<NoLocksPage> {
        match BLOCKLESS.load(Relaxed) {
            true => None,
            false => alloc_page_nolocks(NoLocksFlags::NONE).ok(),
        }
    }

    fn page_mightsleep() -> Option<NoLocksPage> {
        match BLOCKLESS.load(Relaxed) {
            true => None,
            false => memory::page_mightsleep(),
        }
    }
}

// SAFETY: It frees nothing, and dropping a `Stamped` does nothing.
unsafe impl Policy for Measured {
    const DESTROYS: bool = true;
    const OWNS_MEMORY: bool = false;

    unsafe fn destroy(object: Object) {
        let object: NonNull<Stamped> = object.cast();
        // SAFETY: The caller owns the value, which is a `Stamped`, as nothing else is accepted.
        let object = unsafe { object.as_ref() };

        count(object.pushed.elapsed(), object.is_first);
    }
}

// SAFETY: `destroy()` takes one.
unsafe impl Accepts<Stamped> for Measured {}

/// Each CPU pushes `objects` at once, for which somebody comes unasked.
fn round(objects: usize) -> Result<bool> {
    let queue = Queue::<Measured>::new(NAME)?;
    let cpus = threads::online_cpus().get();
    let all = objects as u64 * u64::from(cpus);

    threads::run(cpus, &|_| {
        // All in one shard.
        let _pinned = Pinned::new();
        for nth in 0..objects {
            let stamped = Stamped {
                head: BulkHead::new(),
                pushed: Instant::now(),
                is_first: nth == 0,
            };
            queue.push(KBox::new(stamped, GFP_KERNEL)?);
        }
        Ok(())
    })?;
    Ok(wait_until(|| queue.stats().freed >= all))
}

/// What is full waits for no timer, as what is not does for a second. How long a grace period takes beside
/// that has no limit, and so nothing else has: it is printed.
pub(crate) fn latency(env: &Env) -> Result<Outcome> {
    const HALF: (usize, u32) = (CAPACITY / 2, 3);
    const FULL: (usize, u32) = (CAPACITY, 8);
    /// A slow machine, or a long grace period, may spoil some.
    const MOST: u32 = 50;
    /// Of the second. The rest is for the time that it takes to fill a block.
    const SOONER_US: u64 = 100_000;
    let mut outcome = Outcome::Passed;

    let _before = take();
    for _ in 0..FULL.1 {
        let start = Instant::<Monotonic>::now();
        rcu::synchronize_rcu();
        count(start.elapsed(), true);
    }
    take().print("grace_period");
    for (blockless, half, full) in [
        (false, "half_block", "full_block"),
        (true, "half_list", "full_list"),
    ] {
        let mut all = true;
        let mut tries = 0;

        BLOCKLESS.store(blockless, Relaxed);
        for _ in 0..HALF.1 {
            all &= round(HALF.0)?;
        }
        let of_half = take();
        let is_sooner = || least().saturating_add(SOONER_US) < of_half.least;
        while all && (tries < FULL.1 || tries < MOST && !is_sooner()) {
            all &= round(FULL.0)?;
            tries += 1;
        }
        BLOCKLESS.store(false, Relaxed);
        if tries > FULL.1 {
            pr_info!("# tries: {tries}\n");
        }
        let is_sooner = is_sooner();
        let of_full = take();
        of_full.print(full);
        of_half.print(half);
        outcome = outcome
            .check(all, fmt!("{full}, {half}: some were never freed"))
            .check(
                is_sooner || env.config.fail,
                fmt!(
                    "{full} waited for {} us at least, {half} for {}",
                    of_full.least,
                    of_half.least
                ),
            );
    }
    Ok(outcome)
}
