// SPDX-License-Identifier: GPL-2.0

//! What a queue promises, one promise a case: each fails if the line that keeps it is taken out.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        Arc, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    env::{
        in_time,
        push_all,
        wait_until_freed,
        Env,
        Ledger,
        NAME, //
    },
    ktap::{
        tell_tries,
        Case,
        Outcome, //
    },
    node::{
        Boxed,
        How,
        Origin,
        Watched,
        FREED, //
    },
    queue::{
        BulkQueue,
        DropQueue,
        Queue,
        CAPACITY, //
    },
    task::Pinned,
    threads, //
};

extern "C" {
    fn nolocks_flush_ordinary_work();
    fn nolocks_reclaim_begin() -> c_uint;
    fn nolocks_reclaim_end(flags: c_uint);
}

/// More than anything here takes on a slow machine. What has not come then never will.
const PATIENCE: Delta = Delta::from_secs(60);

/// Looks until `is_done`, and says whether it ever was.
pub(crate) fn wait_until(mut is_done: impl FnMut() -> bool) -> bool {
    let start = Instant::<Monotonic>::now();

    while !is_done() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        fsleep(Delta::from_millis(10));
    }
    true
}

fn push_of(queue: &Queue<Watched>, origin: Origin, objects: usize) -> Result {
    for _ in 0..objects {
        // Cannot come back: it has a head.
        let _ = Boxed::new(origin)?.push(queue, How::Push);
    }
    Ok(())
}

/// No block can be had for as long as `func` takes.
pub(crate) fn without_memory<T>(func: impl FnOnce() -> Result<T>) -> Result<T> {
    Watched::fail(Some(0), true);
    let result = func();
    Watched::fail(None, false);
    result
}

/// All of them.
pub(crate) fn all(env: &Env) -> Result<Outcome> {
    const PROMISES: [Case<Env>; 10] = [
        ("timer", timer),
        ("flush", flush),
        ("shards", shards),
        ("grace_period", grace_period),
        ("long_list", long_list),
        ("blocks_by_drain", blocks_by_drain),
        ("own_queue", own_queue),
        ("until_empty", until_empty),
        ("beside_destructor", beside_destructor),
        ("beside_reclaim", beside_reclaim),
    ];
    let mut outcome = Outcome::Passed;

    for (name, promise) in PROMISES {
        match promise(env)? {
            Outcome::Failed => outcome = outcome.check(false, fmt!("{name}")),
            Outcome::Passed => (),
            Outcome::Skipped(why) => pr_info!("# {name}: {why}\n"),
        }
    }
    Ok(outcome)
}

/// One object in a block, and then a full block of the other kind: the drain that comes for this one
/// has the timer armed again for the first.
fn timer(_env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let objects = CAPACITY as u64 + 1;

    // All in one shard.
    let pinned = Pinned::new();
    push_of(&queue, Origin::Kmalloc, 1)?;
    push_of(&queue, Origin::Vmalloc, CAPACITY)?;
    drop(pinned);
    let all = wait_until(|| queue.stats().freed >= objects);
    let outcome = Outcome::Passed.check(all, fmt!("stranded: {:?}", queue.stats()));
    drop(queue);
    Ok(ledger.close(outcome, objects))
}

/// What every CPU has pushed is freed when somebody asks, and before it could have become old.
fn flush(_env: &Env) -> Result<Outcome> {
    /// A slow machine, or a long grace period, may spoil some.
    const ROUNDS: u32 = 50;
    let ledger = Ledger::open();
    let cpus = threads::online_cpus().get();
    let mut queued = 0;
    let mut was_young = false;

    for round in 1..=ROUNDS {
        let queue = Queue::<Watched>::new(NAME)?;
        let ((), is_young) = in_time(|| {
            threads::run(cpus, &|_| push_all(&queue, 1))?;
            queue.flush();
            wait_until_freed(&queue, cpus.into());
            Ok(())
        })?;
        queued += u64::from(cpus);
        if is_young {
            was_young = true;
            tell_tries(round);
            break;
        }
    }
    let outcome = Outcome::Passed.check(
        was_young,
        fmt!("of {ROUNDS} flushes none had the objects of {cpus} CPUs freed in time"),
    );
    Ok(ledger.close(outcome, queued))
}

/// A CPU pushes to a shard of its own, and a try that fails there goes to the neighbour's.
fn shards(env: &Env) -> Result<Outcome> {
    /// A slow machine may spoil some.
    const ROUNDS: u32 = 50;

    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is one CPU only"));
    }
    let ledger = Ledger::open();
    let mut queued = 0;
    let mut seen = None;

    for round in 1..=ROUNDS {
        let queue = Queue::<Watched>::new(NAME)?;
        let held = Watched::hold();
        let (came_back, is_young) = in_time(|| {
            let (headless, tried) = (Atomic::new(false), Atomic::new(false));

            // One CPU opens a block.
            threads::run(2, &|nth| push_all(&queue, if nth == 1 { 1 } else { 0 }))?;
            // And the other finds none in its own shard.
            without_memory(|| {
                threads::run(2, &|nth| {
                    if nth == 0 {
                        let push = |how| -> Result<bool> {
                            Ok(Boxed::new(Origin::Kmalloc)?.push(&queue, how).is_some())
                        };
                        headless.store(push(How::Headless)?, Relaxed);
                        tried.store(push(How::Try)?, Relaxed);
                    }
                    Ok(())
                })
            })?;
            Ok((headless.load(Relaxed), tried.load(Relaxed)))
        })?;
        drop(held);
        queued += queue.stats().pushed;
        drop(queue);
        // Unless it was no longer open.
        if is_young {
            seen = Some(came_back);
            tell_tries(round);
            break;
        }
    }
    let is_neighbour = threads::cpu_of(0) ^ 1 == threads::cpu_of(1);
    let outcome = Outcome::Passed.check(
        seen.is_some_and(|(headless, tried)| headless && !(tried && is_neighbour))
            || env.config.fail,
        fmt!(
            "of a push to a shard without a block, and a try there, this came back in time: {seen:?}"
        ),
    );
    Ok(ledger.close(outcome, queued))
}

/// Nothing is freed before its grace period is over, be it in a block or in a list.
fn grace_period(_env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let mut outcome = Outcome::Passed;
    let mut queued = 0;

    for memory in [true, false] {
        for objects in [CAPACITY / 2, CAPACITY] {
            let queue = Queue::<Watched>::new(NAME)?;
            let before = FREED.load(Relaxed);
            let push = || push_all(&queue, objects);
            let held = Watched::hold();

            if memory {
                push()?;
            } else {
                without_memory(push)?;
            }
            // Asks for everything, and finds that nothing has elapsed.
            queue.barrier();
            let early = FREED.load(Relaxed) - before;
            drop(held);
            queue.barrier();
            let late = FREED.load(Relaxed) - before;
            queued += objects as u64;
            outcome = outcome.check(
                early == 0 && late == objects as u64,
                fmt!("memory={memory}: of {objects} {early} were freed too early, {late} in all"),
            );
        }
    }
    Ok(ledger.close(outcome, queued))
}

/// A list as long as a block is freed as a block is, and what waits for blocks does not have somebody
/// come for nothing.
fn long_list(_env: &Env) -> Result<Outcome> {
    const LISTS: usize = 8;
    const OBJECTS: u64 = (LISTS * CAPACITY) as u64;
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let start = Instant::<Monotonic>::now();

    let all = without_memory(|| {
        let pinned = Pinned::new();
        push_all(&queue, LISTS * CAPACITY)?;
        drop(pinned);
        Ok(wait_until(|| queue.stats().freed >= OBJECTS))
    })?;
    let (stats, ms) = (queue.stats(), start.elapsed().as_millis());
    pr_info!("# long list: ms={ms} {stats:?}\n");
    // At most one for each list that is full, for each that is to be freed, and every 20 ms.
    let most = 2 * LISTS as u64 + ms as u64 / 20 + 1;
    let outcome = Outcome::Passed.check(
        all && stats.drains <= most,
        fmt!("{OBJECTS} objects in lists, and at most {most} drains: {stats:?}"),
    );
    drop(queue);
    Ok(ledger.close(outcome, OBJECTS))
}

/// A drain, which may sleep, gets blocks where a push cannot.
fn blocks_by_drain(env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let push = || -> Result<bool> {
        let _pinned = Pinned::new();
        Ok(Boxed::new(Origin::Kmalloc)?
            .push(&queue, How::Headless)
            .is_none())
    };

    Watched::fail_pushes(true);
    let pinned = Pinned::new();
    let first = push();
    let stocked = wait_until(|| queue.shrinkable() != 0);
    let second = push();
    drop(pinned);
    Watched::fail_pushes(false);
    let (first, second) = (first?, second?);
    queue.barrier();
    let outcome = Outcome::Passed.check(
        !first && stocked && second || env.config.fail,
        fmt!("first queued: {first}, blocks came: {stocked}, second queued: {second}"),
    );
    Ok(ledger.close(outcome, u64::from(first) + u64::from(second)))
}

static ENDED: Atomic<u64> = Atomic::new(0);

/// Has a reference to the queue that it waits in.
struct Member(Arc<DropQueue<Member>>);

impl Drop for Member {
    fn drop(&mut self) {
        // What a destructor may do: it is in the midst of its own queue, and holds no lock.
        let _stats = self.0.stats();
        self.0.flush();
        kernel::sync::rcu::synchronize_rcu();
        // SAFETY: A task that may sleep.
        unsafe { nolocks_flush_ordinary_work() };
        ENDED.add(1, Relaxed);
    }
}

/// The destructor of an object has the last reference to its queue.
fn own_queue(env: &Env) -> Result<Outcome> {
    const ROUNDS: u64 = 10;
    let references = env.references;
    let before = (ENDED.load(Relaxed), references());
    let mut all = true;

    for round in 1..=ROUNDS {
        let queue = Arc::new(DropQueue::<Member>::new(NAME)?, GFP_KERNEL)?;
        queue.push_mightsleep(KBox::new(Member(queue.clone()), GFP_KERNEL)?);
        queue.flush();
        drop(queue);
        // The module is kept until the queue has ended; the next one may have its name then.
        all &= wait_until(|| ENDED.load(Relaxed) - before.0 == round && references() == before.1);
    }
    let ended = ENDED.load(Relaxed) - before.0;
    Ok(Outcome::Passed.check(
        all,
        fmt!(
            "{ended} destructors were run of {ROUNDS}, and {} queues are left",
            references() - before.1
        ),
    ))
}

/// Pushes another one in its destructor, until none is left to be pushed.
struct Successor(Arc<DropQueue<Successor>>, u64);

impl Drop for Successor {
    fn drop(&mut self) {
        if self.1 != 0 {
            if let Ok(next) = KBox::new(Self(self.0.clone(), self.1 - 1), GFP_KERNEL) {
                self.0.push_mightsleep(next);
            }
        }
        ENDED.add(1, Relaxed);
    }
}

/// Who waits until a queue is empty waits for what destructors push, and has the last reference to it.
fn until_empty(_env: &Env) -> Result<Outcome> {
    const OBJECTS: u64 = 5;
    let before = ENDED.load(Relaxed);
    let queue = Arc::new(DropQueue::<Successor>::new(NAME)?, GFP_KERNEL)?;

    queue.push_mightsleep(KBox::new(
        Successor(queue.clone(), OBJECTS - 1),
        GFP_KERNEL,
    )?);
    queue.wait_until_empty();
    let ended = ENDED.load(Relaxed) - before;
    let is_last = Arc::into_unique_or_drop(queue).is_some();
    Ok(Outcome::Passed
        .check(
            ended == OBJECTS,
            fmt!("{ended} destructors were run of {OBJECTS}"),
        )
        .check(is_last, fmt!("there is another reference to the queue")))
}

/// Whether a destructor runs, and how many saw a drain meanwhile.
static RUNNING: Atomic<u64> = Atomic::new(0);
static WAITED: Atomic<u64> = Atomic::new(0);

/// Waits in its destructor until its queue was drained again.
struct Waiter(Arc<DropQueue<Waiter>>, bool);

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.1 {
            let before = self.0.stats().drains;
            RUNNING.store(1, Relaxed);
            WAITED.add(
                u64::from(wait_until(|| self.0.stats().drains > before)),
                Relaxed,
            );
        }
    }
}

/// While a destructor runs, others can drain its shard.
fn beside_destructor(_env: &Env) -> Result<Outcome> {
    let queue = Arc::new(DropQueue::<Waiter>::new(NAME)?, GFP_KERNEL)?;
    let waited = WAITED.load(Relaxed);
    let pinned = Pinned::new();

    RUNNING.store(0, Relaxed);
    queue.push_mightsleep(KBox::new(Waiter(queue.clone(), true), GFP_KERNEL)?);
    queue.flush();
    let is_running = wait_until(|| RUNNING.load(Relaxed) != 0);
    // To the same shard, for which somebody comes.
    queue.push_mightsleep(KBox::new(Waiter(queue.clone(), false), GFP_KERNEL)?);
    queue.flush();
    drop(pinned);
    queue.barrier();
    let waited = WAITED.load(Relaxed) - waited;
    Ok(Outcome::Passed.check(
        is_running && waited == 1,
        fmt!("a destructor ran: {is_running}; drained meanwhile: {waited}"),
    ))
}

/// Memory reclaim may wait for what has no destructors: the kernel warns if it flushes a work on a workqueue
/// that has no rescuer.
fn beside_reclaim(env: &Env) -> Result<Outcome> {
    /// The barrier has to come while the work is queued.
    const ROUNDS: usize = 20;
    let queue = BulkQueue::new(NAME)?;
    let mut returned = 0;

    for _ in 0..ROUNDS {
        for n in 0..CAPACITY {
            if let Err(object) = queue.push_headless(KBox::new(n, GFP_KERNEL)?) {
                drop(object.wait());
                returned += 1;
            }
        }
        // SAFETY: Ended below, by the same task.
        let flags = unsafe { nolocks_reclaim_begin() };
        queue.barrier();
        // SAFETY: Begun above.
        unsafe { nolocks_reclaim_end(flags) };
    }
    Ok(Outcome::Passed.check(
        returned == 0 || env.config.fail,
        fmt!("{returned} objects came back in a task"),
    ))
}
