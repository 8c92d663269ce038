// SPDX-License-Identifier: GPL-2.0

//! The cases, in the order of the bits of `mask`.

use core::mem::MaybeUninit;

use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    },
    types::ScopeGuard, //
};

use crate::{
    context::{
        breathe,
        level,
        send_nmi,
        Context,
        Nmi,
        Nmis,
        Pinned,
        Site, //
    },
    ktap::{
        Case,
        Outcome, //
    },
    locks,
    node::{
        Boxed,
        How,
        Origin,
        Watched,
        CORRUPT,
        FREED,
        PUSHED,
        RETURNED, //
    },
    nolocks::{
        page::NoLocksPage,
        slots::PageSlots, //
    },
    promises,
    queue::{
        platform,
        Accepts,
        BulkQueue,
        DropQueue,
        Hooks,
        Object,
        Policy,
        Queue,
        Retired,
        Stats,
        CAPACITY, //
    },
    readers,
    threads,
    warmer::Warmer,
    Config, //
};

extern "C" {
    fn nolocks_read_seq_file(path: *const c_char, buffer: *mut u8, length: usize) -> isize;
    fn nolocks_write_file(path: *const c_char, buffer: *const u8, length: usize) -> isize;
}

pub(crate) const NAME: &CStr = c"nolocks_queue_stress";

/// All cases, the first with bit 0.
pub(crate) const CASES: [Case<Env>; 29] = [
    ("task", |env| context(env, Context::Task)),
    ("raw_irqsave", |env| context(env, Context::RawIrqsave)),
    ("raw", |env| context(env, Context::Raw)),
    ("preempt_off", |env| context(env, Context::PreemptOff)),
    ("softirq", |env| context(env, Context::Softirq)),
    ("hardirq", |env| context(env, Context::Hardirq)),
    ("nmi", |env| context(env, Context::Nmi)),
    ("pi_lock", |env| context(env, Context::PiLock)),
    ("peak", peak),
    ("readers", readers_and_writers),
    ("nested_nmi", nested_nmi),
    ("boxes", boxes),
    ("destructors", destructors),
    ("mightsleep", mightsleep),
    ("no_memory", no_memory),
    ("full", drained_when_full),
    ("time", drained_by_time),
    ("shrinker", shrinker),
    ("barrier", barrier),
    ("drop_in_flight", drop_in_flight),
    ("cpu_offline", cpu_offline),
    ("locks", locks::locks),
    ("children", children),
    ("peak_atomic", peak_atomic),
    ("creation", creation),
    ("debugfs", debugfs),
    ("drop_caches", drop_caches),
    ("promises", promises::all),
    ("ledger", ledger),
];

/// What the cases share.
pub(crate) struct Env {
    pub(crate) config: Config,
    nmi: Option<Nmi>,
}

impl Env {
    pub(crate) fn new(config: Config) -> Result<Self> {
        Ok(Self {
            config,
            nmi: Nmi::if_any()?,
        })
    }

    /// The contexts that this machine can enter.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = Context> + Clone + '_ {
        Context::possible(&self.nmi)
    }

    /// Those where a push need not be a try.
    fn ordinary_contexts() -> impl Iterator<Item = Context> {
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
    fn push(&self, ctx: Context, queue: &Queue<Watched>, how: How, node: Boxed) -> Option<Boxed> {
        let mut node = Some(node);
        let _pinned = Pinned::new();

        self.site.run(ctx, || {
            node = node.take().and_then(|node| node.push(queue, how))
        });
        node
    }

    pub(crate) fn check(&self, outcome: Outcome) -> Outcome {
        let strays = self.site.strays();
        outcome.check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        )
    }
}

/// Now and then an object that `vfree()` has to free.
fn origin(nth: usize) -> Origin {
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
fn check_stats(outcome: Outcome, stats: Stats, queued: u64, returned: u64) -> Outcome {
    outcome.check(
        stats.pushed == queued
            && stats.freed == queued
            && stats.returned == returned
            && stats.twice == 0,
        fmt!("queued={queued} returned={returned}, but {stats:?}"),
    )
}

fn context(env: &Env, ctx: Context) -> Result<Outcome> {
    if !ctx.is_possible(&env.nmi) {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }

    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let mut desk = Desk::new(1)?;
    let mut outcome = Outcome::Passed;
    let (mut all_queued, mut all_returned) = (0, 0);
    let batch = ctx.chunk(64);
    let mut nodes = KVVec::with_capacity(batch, GFP_KERNEL)?;
    let mut back = KVVec::with_capacity(batch, GFP_KERNEL)?;

    for how in How::ALL.into_iter().filter(|how| how.is_legal(ctx)) {
        for origin in Origin::ALL {
            let share = if origin == Origin::Kmalloc { 1 } else { 16 };
            let (mut attempts, mut returned) = (0, 0);

            while attempts < (env.config.objects / share) as u64 {
                while nodes.len() < batch {
                    nodes.push_within_capacity(Boxed::new(origin)?)?;
                }
                let _pinned = Pinned::new();
                match ctx.trylock_allowed() {
                    true => desk.warm(1)?,
                    false => env.fill_slots()?,
                }
                desk.site.run(ctx, || {
                    while let Some(node) = nodes.pop() {
                        if let Some(node) = node.push(&queue, how) {
                            // There is room for all.
                            let _ = back.push_within_capacity(node);
                        }
                    }
                });
                attempts += batch as u64;
                returned += back.len() as u64;
                // Nobody has ever read them.
                back.clear();
                breathe();
            }
            let queued = attempts - returned;
            pr_info!(
                "# queue: context={} api={} origin={} attempts={attempts} queued={queued} returned={returned}\n",
                ctx.name(),
                how.name(),
                origin.name()
            );
            // What is tried may fail.
            let promised = how != How::Try && !env.config.fail;
            outcome = outcome
                .check(
                    returned == 0 || !promised,
                    fmt!("{returned} objects came back from {}", how.name()),
                )
                .check(
                    // Without SMP nothing can be tried where interrupts are disabled.
                    queued != 0 || env.config.fail || how == How::Try && !cfg!(CONFIG_SMP),
                    fmt!("{} never queued one", how.name()),
                );
            all_queued += queued;
            all_returned += returned;
        }
    }
    queue.barrier();
    outcome = check_stats(outcome, queue.stats(), all_queued, all_returned);
    outcome = ledger.close(outcome, all_queued);
    drop(queue);
    Ok(desk.check(ledger.close(outcome, all_queued)))
}

/// One of so many objects may find no block.
const RARE: u64 = 100_000;

/// All CPUs push as fast as they can, and nobody waits for the queue.
fn peak(env: &Env) -> Result<Outcome> {
    /// The bulk of a run.
    const SHARE: usize = 256;
    let cpus = threads::online_cpus().get();
    let each = env.config.objects * SHARE / cpus as usize;
    let queued = each as u64 * u64::from(cpus);
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let start = Instant::<Monotonic>::now();

    threads::run(cpus, &|_| {
        for _ in 0..each / CAPACITY {
            push_all(&queue, CAPACITY)?;
            breathe();
        }
        push_all(&queue, each % CAPACITY)
    })?;
    let ms = (Instant::now() - start).as_millis();
    queue.barrier();

    let stats = queue.stats();
    pr_info!(
        "# peak: cpus={cpus} pushed={} listed={} ms={ms}\n",
        stats.pushed,
        stats.listed
    );
    let outcome = check_stats(Outcome::Passed, stats, queued, 0).check(
        stats.listed <= queued / RARE || env.config.fail,
        fmt!("{} of {queued} objects found no block", stats.listed),
    );
    Ok(ledger.close(outcome, queued))
}

/// The same where no lock may be tried: what blocks come from are the slots and the spares.
fn peak_atomic(env: &Env) -> Result<Outcome> {
    const SHARE: usize = 64;
    const CONTEXT: Context = Context::RawIrqsave;
    /// Objects to push before interrupts are enabled again.
    const BATCH: usize = 64;
    let cpus = threads::online_cpus().get();
    let batches = (env.config.objects * SHARE / cpus as usize).div_ceil(BATCH);
    let attempts = (batches * BATCH) as u64 * u64::from(cpus);
    let strays = Atomic::new(0u64);
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let start = Instant::<Monotonic>::now();

    threads::run(cpus, &|_| {
        let desk = Desk::new(1)?;
        let mut nodes = KVVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut back = KVVec::with_capacity(BATCH, GFP_KERNEL)?;

        for nth in 0..batches {
            while nodes.len() < BATCH {
                nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
            }
            // What is tried may also find the lock taken, by a drain.
            let how = [How::Push, How::Headless][nth % 2];
            let _pinned = Pinned::new();
            desk.site.run(CONTEXT, || {
                while let Some(node) = nodes.pop() {
                    if let Some(node) = node.push(&queue, how) {
                        // There is room for all.
                        let _ = back.push_within_capacity(node);
                    }
                }
            });
            // Nobody has ever read them.
            back.clear();
            breathe();
        }
        strays.add(desk.site.strays(), Relaxed);
        Ok(())
    })?;
    let ms = (Instant::now() - start).as_millis();
    queue.barrier();

    let stats = queue.stats();
    let Stats {
        pushed,
        listed,
        returned,
        ..
    } = stats;
    pr_info!(
        "# peak_atomic: context={} cpus={cpus} pushed={pushed} listed={listed} returned={returned} ms={ms}\n",
        CONTEXT.name()
    );
    let strays = strays.load(Relaxed);
    let outcome = check_stats(Outcome::Passed, stats, attempts - returned, returned)
        .check(
            listed + returned <= attempts / RARE || env.config.fail,
            fmt!("{} of {attempts} objects found no block", listed + returned),
        )
        .check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        );
    Ok(ledger.close(outcome, attempts - returned))
}

fn readers_and_writers(env: &Env) -> Result<Outcome> {
    // The slow ones now and then.
    const ORIGINS: [Origin; 8] = {
        let mut origins = [Origin::Kmalloc; 8];
        origins[0] = Origin::Vmalloc;
        origins[1] = Origin::KVmalloc;
        origins
    };
    let mut contexts = KVec::new();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        contexts.push(ctx, GFP_KERNEL)?;
    }
    let choice = readers::Choice {
        contexts: &contexts,
        origins: &ORIGINS,
        seed: env.config.seed,
    };
    // Of blocks, and of lists.
    for memory in [true, false] {
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;

        Watched::fail((!memory).then_some(0), !memory);
        let tally = readers::run(&queue, &choice, env.config.objects)?;
        Watched::fail(None, false);
        queue.barrier();

        let stats = queue.stats();
        let (queued, returned) = (tally.queued.load(Relaxed), tally.returned.load(Relaxed));
        let (reads, stale) = (tally.reads.load(Relaxed), tally.stale.load(Relaxed));
        let strays = tally.strays.load(Relaxed);
        pr_info!("# readers: reads={reads} stale={stale} {stats:?}\n");
        outcome = ledger
            .close(check_stats(outcome, stats, queued, returned), queued)
            .check(
                stale == 0,
                fmt!("{stale} of {reads} reads met a freed object"),
            )
            .check(reads != 0 && queued != 0, fmt!("nothing was tested"))
            .check(
                strays == 0,
                fmt!("{strays} visits were not in the context asked for"),
            );
    }
    Ok(outcome)
}

/// NMIs push while what they interrupt pushes, and may hold the lock.
fn nested_nmi(env: &Env) -> Result<Outcome> {
    const BATCH: usize = 8;
    /// What the victim pushes before it allocates again.
    const BURST: usize = 64;
    /// NMIs that have to come in the midst of a push, and how many may be sent to that end.
    const HITS: u64 = 100;
    const MOST: usize = 100_000;
    if env.nmi.is_none() {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped("there is one CPU only"));
    }

    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let over = Atomic::new(false);
    // The task that is pushing.
    let pushing = Atomic::new(core::ptr::null_mut::<bindings::task_struct>());
    let hits = Atomic::new(0u64);
    let queued = Atomic::new(0u64);
    let returned = Atomic::new(0u64);

    threads::run(2, &|nth| {
        // Whoever ends, for whatever reason, has the other end too.
        let _over = ScopeGuard::new(|| over.store(true, Relaxed));
        if nth == 0 {
            // SAFETY: Only reads who we are.
            let this = unsafe { bindings::get_current() };
            let mut nodes = KVec::with_capacity(BURST, GFP_KERNEL)?;
            while !over.load(Relaxed) {
                while nodes.len() < BURST {
                    nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
                }
                while let Some(node) = nodes.pop() {
                    pushing.store(this, Relaxed);
                    // Cannot come back: it has a head.
                    let _ = node.push(&queue, How::Push);
                    pushing.store(core::ptr::null_mut(), Relaxed);
                    queued.add(1, Relaxed);
                }
                breathe();
            }
            return Ok(());
        }
        let mut nodes = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let mut back = KVec::with_capacity(BATCH, GFP_KERNEL)?;
        let cpu = threads::cpu_of(0);
        let _nmis = Nmis::new(cpu);
        for sent in 0..MOST {
            let is_enough = sent >= env.config.objects / BATCH && hits.load(Relaxed) >= HITS;
            if is_enough || over.load(Relaxed) {
                break;
            }
            while nodes.len() < BATCH {
                nodes.push_within_capacity(Boxed::new(Origin::Kmalloc)?)?;
            }
            let answered = send_nmi(cpu, &mut |_| {
                // SAFETY: Only reads whom we interrupted.
                if pushing.load(Relaxed) == unsafe { bindings::get_current() } {
                    hits.add(1, Relaxed);
                }
                while let Some(node) = nodes.pop() {
                    match node.push(&queue, How::Try) {
                        None => queued.add(1, Relaxed),
                        // There is room for all.
                        Some(node) => drop(back.push_within_capacity(node)),
                    }
                }
            });
            if !answered {
                return Err(ETIMEDOUT);
            }
            returned.add(back.len() as u64, Relaxed);
            back.clear();
            breathe();
        }
        Ok(())
    })?;
    queue.barrier();

    let (queued, returned) = (queued.load(Relaxed), returned.load(Relaxed));
    let hits = hits.load(Relaxed);
    pr_info!("# nested: hits={hits} queued={queued} returned={returned}\n");
    let outcome = check_stats(Outcome::Passed, queue.stats(), queued, returned).check(
        hits >= HITS,
        fmt!("{hits} NMIs of {HITS} came in the midst of a push"),
    );
    Ok(ledger.close(outcome, queued))
}

/// Gives up what came back. To be called where nobody has ever read it.
fn is_queued<O>(pushed: Result<(), Retired<O>>) -> bool {
    // SAFETY: By what the caller says.
    pushed
        .map_err(|object| drop(unsafe { object.assume_unread() }))
        .is_ok()
}

/// Every box there is, with memory of every sort.
fn boxes(env: &Env) -> Result<Outcome> {
    /// More than `kmalloc()` gives, so that a `KVBox` has to be elsewhere.
    type Huge = [MaybeUninit<u8>; bindings::KMALLOC_MAX_SIZE as usize + 1];
    /// More than a slab is for.
    type Large = [u64; 4 * PAGE_SIZE / size_of::<u64>()];
    const ROUNDS: u64 = 100;
    let queue = BulkQueue::new(NAME)?;
    let mut returned = 0;

    for n in 0..ROUNDS {
        // SAFETY: Any bytes will do.
        let huge = unsafe { KVBox::<Huge>::new_uninit(GFP_KERNEL)?.assume_init() };
        let large = KBox::<Large>::zeroed(GFP_KERNEL)?;

        for is_queued in [
            is_queued(queue.push_headless(KBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(KBox::pin(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(VBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(KVBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(large)),
            is_queued(queue.push_headless(huge)),
        ] {
            returned += u64::from(!is_queued);
        }
    }
    queue.barrier();
    let outcome = check_stats(
        Outcome::Passed,
        queue.stats(),
        6 * ROUNDS - returned,
        returned,
    );
    Ok(outcome.check(
        returned == 0 || env.config.fail,
        fmt!("{returned} objects came back in a task"),
    ))
}

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
fn destructors(env: &Env) -> Result<Outcome> {
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

static TIMED: Atomic<u64> = Atomic::new(0);
static TIMED_EARLY: Atomic<u64> = Atomic::new(0);

/// Knows how long it has to live.
struct Timed(bindings::rcu_gp_seq);

impl Drop for Timed {
    fn drop(&mut self) {
        TIMED.add(1, Relaxed);
        if !platform::elapsed(self.0) {
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
        // SAFETY: By the safety requirements, and as nothing else is accepted.
        unsafe { object.cast::<Timed>().drop_in_place() }
    }
}

// SAFETY: `destroy()` takes one.
unsafe impl Accepts<Timed> for Pageless {}

/// Without memory for a block, a task waits for a grace period.
fn mightsleep(_env: &Env) -> Result<Outcome> {
    const OBJECTS: u64 = 20;
    let queue = Queue::<Pageless>::new(NAME)?;
    let (freed, early) = (TIMED.load(Relaxed), TIMED_EARLY.load(Relaxed));

    for _ in 0..OBJECTS {
        queue.push_mightsleep(KBox::new(Timed(platform::snapshot()), GFP_KERNEL)?);
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
fn no_memory(env: &Env) -> Result<Outcome> {
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

/// Waits for the queue to come by itself. One that never does is a hang, and reported as such.
fn wait_until_freed(queue: &Queue<Watched>, objects: u64) -> Stats {
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

/// A full block is drained although nobody asks and nothing is old.
fn drained_when_full(env: &Env) -> Result<Outcome> {
    /// A slow machine, or a long grace period, may spoil some.
    const ROUNDS: usize = 50;
    let ledger = Ledger::open();
    let mut queued = 0;
    let mut seen = None;

    for _ in 0..ROUNDS {
        let queue = Queue::<Watched>::new(NAME)?;
        let (stats, is_young) = in_time(|| {
            // All in one shard.
            let pinned = Pinned::new();
            push_all(&queue, CAPACITY)?;
            drop(pinned);
            Ok(wait_until_freed(&queue, CAPACITY as u64))
        })?;
        queued += CAPACITY as u64;
        if is_young {
            seen = Some(stats);
            break;
        }
    }
    let outcome = Outcome::Passed.check(
        seen.is_some_and(|stats| stats.full == 1 && stats.aged == 0) || env.config.fail,
        fmt!("of a full block and {ROUNDS} rounds at most, this was seen in time: {seen:?}"),
    );
    Ok(ledger.close(outcome, queued))
}

/// A block with one object is drained when that is old.
fn drained_by_time(env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;

    push_all(&queue, 1)?;
    let stats = wait_until_freed(&queue, 1);
    let outcome = Outcome::Passed.check(
        stats.full == 0 && stats.aged == 1 || env.config.fail,
        fmt!("one object was old, but {stats:?}"),
    );
    Ok(ledger.close(outcome, 1))
}

/// What the kernel calls when memory is short.
fn shrinker(env: &Env) -> Result<Outcome> {
    const OBJECTS: usize = 10;
    let ledger = Ledger::open();
    let mut queued = 0;

    loop {
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
        if !is_young {
            continue;
        }
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

/// After a barrier nothing is left of what was pushed before, whoever else pushes.
fn barrier(env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 20;
    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let cpus = threads::online_cpus().get();
    let objects = env.config.objects / ROUNDS / 8;
    let left = Atomic::new(0u64);

    for memory in [true, false] {
        Watched::fail((!memory).then_some(0), !memory);
        threads::run(cpus, &|_| {
            for _ in 0..ROUNDS {
                push_all(&queue, objects)?;
                let pushed = queue.stats().pushed;
                queue.barrier();
                left.add(pushed.saturating_sub(queue.stats().freed), Relaxed);
            }
            Ok(())
        })?;
        Watched::fail(None, false);
    }
    let left = left.load(Relaxed);
    let outcome = Outcome::Passed.check(left == 0, fmt!("{left} objects were left by a barrier"));
    Ok(ledger.close(outcome, (2 * cpus as usize * ROUNDS * objects) as u64))
}

/// A queue that is dropped with objects in every shard, in blocks or lists, frees them all.
fn drop_in_flight(_env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 10;
    let mut outcome = Outcome::Passed;

    for round in 0..ROUNDS {
        let memory = round % 2 == 0;
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;
        let queued = Atomic::new(0u64);

        Watched::fail((!memory).then_some(0), !memory);
        threads::run(threads::online_cpus().get(), &|_| {
            let desk = Desk::new(1)?;
            for ctx in Env::ordinary_contexts() {
                for n in 0..CAPACITY / 4 {
                    // Cannot come back: it has a head.
                    let _ = desk.push(ctx, &queue, How::Push, Boxed::new(origin(n))?);
                    queued.add(1, Relaxed);
                }
                breathe();
            }
            Ok(())
        })?;
        drop(queue);
        Watched::fail(None, false);
        outcome = ledger.close(outcome, queued.load(Relaxed));
    }
    Ok(outcome)
}

#[cfg(not(CONFIG_HOTPLUG_CPU))]
fn cpu_offline(_env: &Env) -> Result<Outcome> {
    Ok(Outcome::Skipped("no CPU can go offline here"))
}

/// The objects of a CPU that goes offline are freed all the same.
#[cfg(CONFIG_HOTPLUG_CPU)]
fn cpu_offline(env: &Env) -> Result<Outcome> {
    const OBJECTS: usize = 100;
    let cpus = threads::online_cpus().get();
    let (nth, cpu) = (cpus - 1, threads::cpu_of(cpus - 1));
    let mut outcome = Outcome::Passed;

    if cpus < 2 {
        return Ok(Outcome::Skipped("one CPU cannot go offline"));
    }
    // Freed by a barrier, by the timer, which was that CPU's, and by the drop, which finds a list.
    for round in 0..3 {
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;

        let held = Watched::hold();
        Watched::fail((round == 2).then_some(0), round == 2);
        threads::run(cpus, &|n| {
            push_all(&queue, if n == nth { OBJECTS } else { 0 })
        })?;
        Watched::fail(None, false);
        // SAFETY: This is a task that may sleep, and not bound to that CPU.
        let offline = unsafe { bindings::remove_cpu(cpu) };
        let early = queue.stats().freed;
        drop(held);
        match round {
            0 => queue.barrier(),
            1 => drop(wait_until_freed(&queue, OBJECTS as u64)),
            _ => (),
        }
        drop(queue);
        // SAFETY: As above.
        let online = unsafe { bindings::add_cpu(cpu) };
        outcome = ledger.close(outcome, OBJECTS as u64).check(
            offline == 0 && online == 0,
            fmt!("CPU {cpu} went offline with {offline} and online with {online}"),
        );
        outcome = outcome.check(
            early == 0,
            fmt!("{early} objects were freed before the CPU was offline"),
        );
    }
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }
    Ok(outcome)
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
fn children(_env: &Env) -> Result<Outcome> {
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

/// Each step of creating a queue fails once, and leaves nothing behind that keeps the next from
/// being created.
fn creation(_env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let mut outcome = Outcome::Passed;
    let (mut failed, mut queued) = (0, 0);

    for nth in 0.. {
        Watched::fail_step(Some(nth));
        let queue = Queue::<Watched>::new(NAME);
        let steps = Watched::steps();
        Watched::fail_step(None);
        match queue {
            Ok(queue) => {
                push_all(&queue, 1)?;
                queued += 1;
                drop(queue);
            }
            Err(err) => {
                failed += 1;
                outcome = outcome.check(err == ENOMEM, fmt!("step {nth} failed with {err:?}"));
            }
        }
        if steps <= nth {
            pr_info!("# creation: steps={steps} failed={failed}\n");
            outcome = outcome.check(
                // A queue does without slots.
                failed + 1 == steps && queued == 2,
                fmt!("of {steps} steps that failed, {failed} were missed"),
            );
            break;
        }
    }
    Ok(ledger.close(outcome, queued))
}

/// What debugfs shows is what the queue says.
fn debugfs(_env: &Env) -> Result<Outcome> {
    const LENGTH: usize = 512;
    let queue = Queue::<Watched>::new(NAME)?;
    let mut text = [0; LENGTH];

    push_all(&queue, CAPACITY + 1)?;
    queue.barrier();
    // SAFETY: The path is a string, and the buffer as long as we say. This is a task of userspace.
    let read = unsafe {
        nolocks_read_seq_file(
            c"/sys/kernel/debug/nolocks_queue_stress/stats".as_char_ptr(),
            text.as_mut_ptr(),
            LENGTH,
        )
    };
    if read == -(bindings::ENOENT as isize) {
        return Ok(Outcome::Skipped("there is no debugfs"));
    }
    kernel::error::to_result(read as c_int)?;
    let stats = queue.stats();
    let should = [
        ("pushed", stats.pushed),
        ("freed", stats.freed),
        ("returned", stats.returned),
        ("backlog", stats.backlog()),
        ("twice", stats.twice),
        ("listed", stats.listed),
        ("blocks_full", stats.full),
        ("blocks_aged", stats.aged),
        ("lists", stats.lists),
        ("blockless", stats.blockless),
        ("drains", stats.drains),
    ];
    let text = core::str::from_utf8(&text[..read as usize]).map_err(|_| EINVAL)?;
    let is_same = text.lines().count() == should.len()
        && text.lines().zip(should).all(|(line, (name, value))| {
            line.split_once(' ')
                .is_some_and(|(key, number)| key == name && number.parse() == Ok(value))
        });
    Ok(Outcome::Passed
        .check(
            stats.pushed == CAPACITY as u64 + 1 && stats.freed == stats.pushed,
            fmt!("nothing was to be seen: {stats:?}"),
        )
        .check(is_same, fmt!("{stats:?}, but debugfs says {text:?}")))
}

/// The kernel finds the queue when it looks for what can be freed.
fn drop_caches(env: &Env) -> Result<Outcome> {
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

/// Over all queues that there were.
fn ledger(_env: &Env) -> Result<Outcome> {
    let (freed, corrupt) = (FREED.load(Relaxed), CORRUPT.load(Relaxed));

    let (pushed, returned) = (PUSHED.load(Relaxed), RETURNED.load(Relaxed));

    pr_info!("# objects: freed={freed} corrupt={corrupt}\n");
    pr_info!("# balance: pushed={pushed} freed={freed} returned={returned}\n");
    Ok(Outcome::Passed
        .check(corrupt == 0, fmt!("{corrupt} objects were freed twice"))
        .check(
            pushed == freed + returned,
            fmt!("{pushed} were pushed, {freed} freed and {returned} returned"),
        ))
}
