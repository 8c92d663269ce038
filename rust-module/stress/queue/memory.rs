// SPDX-License-Identifier: GPL-2.0

//! Blocks that cannot be had, and memory that is wanted back.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    env::{
        check_stats,
        in_time,
        origin,
        push_all,
        wait_until_freed,
        Desk,
        Env,
        Ledger,
        NAME, //
    },
    ktap::{
        tell_tries,
        Outcome, //
    },
    node::{
        Boxed,
        How,
        Node,
        Watched,
        FREED,
        PUSHED,
        RETURNED, //
    },
    nolocks::page::NoLocksPage,
    promises::{
        wait_until,
        without_memory, //
    },
    queue::{
        rcu,
        Accepts,
        Hooks,
        Object,
        Policy,
        Queue,
        Retired,
        CAPACITY, //
    },
    task::breathe, //
};

extern "C" {
    fn nolocks_write_file(path: *const c_char, buffer: *const u8, length: usize) -> isize;
}

static TIMED: Atomic<u64> = Atomic::new(0);
static TIMED_EARLY: Atomic<u64> = Atomic::new(0);

/// Knows how long it has to live.
struct Timed(bindings::rcu_gp_seq);

impl Drop for Timed {
    fn drop(&mut self) {
        TIMED.add(1, Relaxed);
        if !rcu::elapsed(self.0) {
            TIMED_EARLY.add(1, Relaxed);
        }
    }
}

/// Finds no memory for blocks.
struct Pageless(());

// SAFETY: The default asks RCU.
unsafe impl Hooks for Pageless {
    fn page() -> Option<NoLocksPage> {
        None
    }

    fn page_mightsleep() -> Option<NoLocksPage> {
        None
    }
}

// SAFETY: A destructor does not free the memory that its object is in, and it is one of a `Timed`.
unsafe impl Policy for Pageless {
    const DESTROYS: bool = true;
    const OWNS_MEMORY: bool = false;

    unsafe fn destroy(object: Object) {
        // SAFETY: It is the caller's, a `Timed`, as nothing else is accepted, and not used again.
        unsafe { object.cast::<Timed>().drop_in_place() }
    }
}

// SAFETY: `destroy()` takes one.
unsafe impl Accepts<Timed> for Pageless {}

/// Without memory for a block, a task waits for a grace period.
pub(crate) fn mightsleep(_env: &Env) -> Result<Outcome> {
    const OBJECTS: u64 = 20;
    let queue = Queue::<Pageless>::new(NAME)?;
    let (freed, early) = (TIMED.load(Relaxed), TIMED_EARLY.load(Relaxed));

    for _ in 0..OBJECTS {
        queue.push_mightsleep(KBox::new(Timed(rcu::snapshot()), GFP_KERNEL)?);
    }
    let (freed, early) = (
        TIMED.load(Relaxed) - freed,
        TIMED_EARLY.load(Relaxed) - early,
    );
    Ok(check_stats(Outcome::Passed, queue.stats(), 0, OBJECTS)
        .check(freed == OBJECTS, fmt!("{freed} were freed of {OBJECTS}"))
        .check(
            early == 0,
            fmt!("{early} were freed before a grace period was over"),
        ))
}

/// None of the blocks can be had; and then, run by run, all but one.
pub(crate) fn no_memory(env: &Env) -> Result<Outcome> {
    /// More than there are blocks.
    const RUNS: u64 = 64;
    let desk = Desk::new(1)?;
    let mut outcome = Outcome::Passed;
    let mut is_through = false;

    for run in 0..RUNS {
        Watched::fail(Some(run.saturating_sub(1)), run == 0);
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;
        let (mut queued, mut returned, mut headed) = (0, 0, 0);

        for ctx in Env::ordinary_contexts() {
            for n in 0..CAPACITY / 2 {
                let how = [How::Push, How::Headless][n % 2];
                let back = desk.push(ctx, &queue, how, Boxed::new(origin(n))?);
                returned += u64::from(back.is_some());
                queued += u64::from(back.is_none());
                headed += u64::from(how == How::Push);
                breathe();
            }
        }
        let asked = Watched::asked();
        Watched::fail(None, false);
        queue.barrier();
        let stats = queue.stats();
        outcome = check_stats(ledger.close(outcome, queued), stats, queued, returned);
        if run == 0 {
            pr_info!("# no memory: {stats:?}\n");
            outcome = outcome.check(
                queued == headed && stats.listed == headed,
                fmt!("{headed} objects with a head, but {stats:?}"),
            );
        } else if asked <= run {
            // There is no other one that could fail.
            pr_info!("# no memory: {run} blocks, of which one failed in each run\n");
            is_through = true;
            break;
        }
    }
    Ok(desk.check(outcome).check(
        // With others failing too, each push may ask for a block.
        is_through || env.config.fail,
        fmt!("{RUNS} runs did not reach the last block"),
    ))
}

/// What found no block comes back for as long as there is none, and is queued once there is one: freed
/// once then, and after a grace period.
pub(crate) fn retry(_env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let node = KBox::new(Node::new(), GFP_KERNEL)?;
    let before = FREED.load(Relaxed);
    let mut returned = 0;
    let mut count = |result: Result<(), Retired<_>>| {
        let back = result.err();
        returned += u64::from(back.is_some());
        back
    };

    PUSHED.add(1, Relaxed);
    let mut back = without_memory(|| {
        let back = count(queue.push_headless(node));
        Ok(back.and_then(|node| count(node.retry(&queue))))
    })?;
    let came_back = back.is_some();
    let held = Watched::hold();
    // With others failing too, not at once.
    let queued = wait_until(|| {
        back = back.take().and_then(|node| count(node.retry(&queue)));
        back.is_none()
    });
    queue.barrier();
    let early = FREED.load(Relaxed) - before;
    drop(held);
    queue.barrier();
    if let Some(node) = back {
        RETURNED.add(1, Relaxed);
        drop(node.wait());
    }
    let outcome = check_stats(Outcome::Passed, queue.stats(), 1, returned)
        .check(
            came_back && queued,
            fmt!("came back without memory: {came_back}; queued with it: {queued}"),
        )
        .check(early == 0, fmt!("freed before a grace period was over"));
    Ok(ledger.close(outcome, 1))
}

/// What the kernel calls when memory is short.
pub(crate) fn shrinker(env: &Env) -> Result<Outcome> {
    const OBJECTS: usize = 10;
    /// A slow machine may spoil some.
    const MOST: u32 = 50;
    let ledger = Ledger::open();
    let mut queued = 0;
    let mut tries = 0;

    loop {
        tries += 1;
        let queue = Queue::<Watched>::new(NAME)?;
        // Or a block that they free comes back as a spare.
        let held = Watched::hold();
        let (shrunk, is_young) = in_time(|| {
            push_all(&queue, OBJECTS)?;
            Ok((queue.shrink(), queue.shrink()))
        })?;
        drop(held);
        wait_until_freed(&queue, OBJECTS as u64);
        queued += OBJECTS as u64;
        // The drain that freed them gives the block back as its last act.
        queue.barrier();
        let spares = (queue.shrink(), queue.shrink());
        if !is_young && tries < MOST {
            continue;
        }
        tell_tries(tries);
        let outcome = Outcome::Passed
            .check(
                shrunk.0 >= OBJECTS && shrunk.1 == 0 || env.config.fail,
                fmt!("of {OBJECTS} objects and the blocks {shrunk:?} could be hurried"),
            )
            .check(
                spares.0 != 0 && spares.1 == 0 || env.config.fail,
                fmt!("{spares:?} blocks were given back"),
            );
        return Ok(ledger.close(outcome, queued));
    }
}

/// The kernel finds the queue when it looks for what can be freed.
pub(crate) fn drop_caches(env: &Env) -> Result<Outcome> {
    const OBJECTS: u64 = 10;
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let drop_slab = || {
        // SAFETY: Both are as long as we say. This is a task of userspace.
        unsafe { nolocks_write_file(c"/proc/sys/vm/drop_caches".as_char_ptr(), b"2".as_ptr(), 1) }
    };

    push_all(&queue, OBJECTS as usize)?;
    queue.barrier();
    // Spare blocks, which nobody else takes away; and nothing is left that could become one.
    let before = queue.shrinkable();
    let written = drop_slab();
    if written == -(bindings::ENOENT as isize) {
        return Ok(Outcome::Skipped("there is no /proc"));
    }
    kernel::error::to_result(written as c_int)?;
    let after = queue.shrinkable();

    // And with objects in it, which no grace period frees before they were hurried.
    let held = Watched::hold();
    push_all(&queue, OBJECTS as usize)?;
    kernel::error::to_result(drop_slab() as c_int)?;
    let open = queue.shrinkable();
    drop(held);
    wait_until_freed(&queue, 2 * OBJECTS);
    pr_info!("# drop_caches: before={before} after={after} open={open}\n");
    let outcome = Outcome::Passed.check(
        before != 0 && after == 0 && open == 0 || env.config.fail,
        fmt!("{before} spare blocks before, {after} after the caches were dropped, and {open} objects"),
    );
    Ok(ledger.close(outcome, 2 * OBJECTS))
}
