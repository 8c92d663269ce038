// SPDX-License-Identifier: GPL-2.0

//! Counts the locks that one call takes, because lockdep says nothing about trylocks.
//!
//! A probe on the `lock_acquire` tracepoint sees every acquisition, in NMI too. It does not see a
//! trylock that fails.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    api::{
        Api,
        Held, //
    },
    cases::{
        Desk,
        Env, //
    },
    context::{
        breathe,
        level,
        Context,
        Pinned, //
    },
    ktap::Outcome,
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
};

extern "C" {
    fn nolocks_watch_locks() -> c_int;
    fn nolocks_unwatch_locks();
    fn nolocks_drain_pcp_lists() -> bool;
}

/// Locks to note by name. A call under test takes one or three; of others the count is enough.
const TAKEN: usize = 128;
/// How many of them are different.
const NAMES: usize = 8;

/// Where the probe notes what it sees of the one call that is being counted.
struct Recorder {
    /// The CPU to listen to, or [`OFF`].
    cpu: Atomic<u32>,
    level: Atomic<u32>,
    task: Atomic<*mut bindings::task_struct>,
    /// Whether an interrupt or another task got in between. On their way in and out they take locks
    /// that look like those of the call, which is why it has to be repeated.
    disturbed: Atomic<bool>,
    taken: Atomic<usize>,
    names: [Atomic<*const c_char>; TAKEN],
}

const OFF: u32 = u32::MAX;

static RECORDER: Recorder = Recorder {
    cpu: Atomic::new(OFF),
    level: Atomic::new(0),
    task: Atomic::new(core::ptr::null_mut()),
    disturbed: Atomic::new(false),
    taken: Atomic::new(0),
    names: [const { Atomic::new(core::ptr::null()) }; TAKEN],
};

fn here() -> (u32, *mut bindings::task_struct) {
    // SAFETY: Both only read, and what they read stays the same for a pinned task.
    unsafe { (bindings::raw_smp_processor_id(), bindings::get_current()) }
}

#[no_mangle]
extern "C" fn nolocks_lock_taken(name: *const c_char) {
    let (cpu, task) = here();

    if RECORDER.cpu.load(Relaxed) != cpu {
        return;
    }
    if RECORDER.task.load(Relaxed) != task || RECORDER.level.load(Relaxed) != level() {
        RECORDER.disturbed.store(true, Relaxed);
        return;
    }
    let index = RECORDER.taken.fetch_add(1, Relaxed);
    if let Some(slot) = RECORDER.names.get(index) {
        slot.store(name, Relaxed);
    }
}

/// The right to count: the probe is registered.
struct Oracle(());

impl Oracle {
    fn new() -> Result<Self> {
        // SAFETY: Called by one case, which ends before it is called again.
        kernel::error::to_result(unsafe { nolocks_watch_locks() })?;
        Ok(Self(()))
    }

    /// Calls `func`, and adds the locks that it took to `tally` unless it was disturbed.
    ///
    /// In any context, of a task that is pinned.
    fn count<T>(&self, tally: &mut Tally, func: impl FnOnce() -> T) -> T {
        let (cpu, task) = here();

        RECORDER.disturbed.store(false, Relaxed);
        RECORDER.taken.store(0, Relaxed);
        RECORDER.task.store(task, Relaxed);
        RECORDER.level.store(level(), Relaxed);
        RECORDER.cpu.store(cpu, Relaxed);
        let value = func();
        RECORDER.cpu.store(OFF, Relaxed);

        if !RECORDER.disturbed.load(Relaxed) {
            let taken = RECORDER.taken.load(Relaxed);
            tally.calls += 1;
            tally.lost += taken.saturating_sub(TAKEN);
            for name in RECORDER.names.iter().take(taken) {
                tally.add(name.load(Relaxed));
            }
        }
        value
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // SAFETY: Registered in `new()`. Waits for probes that still run.
        unsafe { nolocks_unwatch_locks() }
    }
}

/// Locks by name.
///
/// # Invariants
///
/// The names are null or those of live lock classes.
struct Tally {
    calls: usize,
    names: [(*const c_char, usize); NAMES],
    lost: usize,
}

// SAFETY: By the invariant the names can be read from anywhere.
unsafe impl Send for Tally {}

impl Tally {
    fn new() -> Self {
        Self {
            calls: 0,
            // INVARIANT: Null.
            names: [(core::ptr::null(), 0); NAMES],
            lost: 0,
        }
    }

    fn add(&mut self, name: *const c_char) {
        // INVARIANT: The kernel's locks and this module's are there for as long as it is.
        match self
            .names
            .iter_mut()
            .find(|(known, _)| known.is_null() || *known == name)
        {
            Some(slot) => *slot = (name, slot.1 + 1),
            None => self.lost += 1,
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&CStr, usize)> {
        self.names
            .iter()
            .filter(|(name, _)| !name.is_null())
            // SAFETY: By the invariant the name is that of a live lock class.
            .map(|(name, n)| (unsafe { CStr::from_char_ptr(*name) }, *n))
    }

    /// Locks with a name that `wanted` says yes to; RCU's are no locks that anybody waits for.
    fn locks(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        self.iter()
            .filter(|(name, _)| !is_rcu(name) && wanted(name.to_bytes()))
            .map(|(_, n)| n)
            .sum::<usize>()
            + self.lost
    }

    fn print(&self, ctx: Context, api: Api, op: &str) {
        let rcu: usize = self
            .iter()
            .filter(|(name, _)| is_rcu(name))
            .map(|(_, n)| n)
            .sum();

        pr_info!(
            "# locks: context={} api={} op={op} calls={} locks={} rcu={rcu}\n",
            ctx.name(),
            api.name(),
            self.calls,
            self.locks(|_| true)
        );
        for (name, n) in self.iter().filter(|(name, _)| !is_rcu(name)) {
            pr_info!("# lock: {n} of {name}\n");
        }
    }
}

fn is_rcu(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"rcu_")
}

/// The raw lock inside every lock of PREEMPT_RT. A macro that initialises it leaves it this name.
fn is_wait_lock(name: &[u8]) -> bool {
    cfg!(CONFIG_PREEMPT_RT) && (name == b"_T->lock" || name.ends_with(b"wait_lock"))
}

/// An allocation and a free take pcp->lock once where they may, and nothing where they may not.
pub(crate) fn locks(env: &Env) -> Result<Outcome> {
    let oracle = match Oracle::new() {
        Err(err) if err == EOPNOTSUPP => {
            return Ok(Outcome::Skipped("nobody counts without CONFIG_LOCKDEP"));
        }
        oracle => oracle?,
    };
    let mut desk = Desk::new(WARM)?;
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        outcome = calibrate(&oracle, &mut desk, ctx, outcome)?;
        outcome = measure(&oracle, &mut desk, ctx, outcome)?;
        breathe();
    }
    Ok(desk.check(outcome))
}

/// Calls to be counted undisturbed, and the visits that this may take.
const CALLS: usize = 32;
const VISITS: usize = 100 * CALLS;
/// Of mainline's refills, which are long enough to be disturbed often.
const REFILLS: usize = 2;
const WARM: usize = 4;

/// The oracle must see one lock as one lock, and mainline's refill as more than one.
fn calibrate(oracle: &Oracle, desk: &mut Desk, ctx: Context, outcome: Outcome) -> Result<Outcome> {
    let known: Pin<KBox<RawSpinLock<()>>> =
        KBox::pin_init(new_raw_spin_lock!((), "nolocks_known"), GFP_KERNEL)?;
    let name = ctx.name();
    let mut one = Tally::new();
    let mut refill = Tally::new();
    let mut obtained = 0;

    for _ in 0..VISITS {
        let _pinned = Pinned::new();
        desk.site
            .run(ctx, || oracle.count(&mut one, || drop(known.try_lock())));
        if one.calls >= CALLS {
            break;
        }
    }
    for _ in 0..VISITS {
        if refill.calls >= REFILLS || !Api::TryLock.is_legal(ctx) {
            break;
        }
        let _pinned = Pinned::new();
        // SAFETY: This is a task that may sleep.
        unsafe { nolocks_drain_pcp_lists() };
        desk.site.run(ctx, || {
            let page = oracle.count(&mut refill, || {
                Held::obtain_unmarked(Api::TryLock, NoLocksFlags::NONE)
            });
            obtained += usize::from(page.is_some());
        });
    }
    refill.print(ctx, Api::TryLock, "refill");

    let (ones, all) = (
        one.locks(|name| name == b"nolocks_known"),
        one.locks(|_| true),
    );
    Ok(outcome
        .check(
            one.calls >= CALLS && ones == one.calls && all == one.calls,
            fmt!(
                "{name}: {} known locks were counted as {ones} of {all}",
                one.calls
            ),
        )
        .check(
            obtained == 0 || refill.locks(|_| true) > refill.calls,
            fmt!("{name}: mainline's refill was seen to take no more than one lock"),
        ))
}

fn measure(oracle: &Oracle, desk: &mut Desk, ctx: Context, outcome: Outcome) -> Result<Outcome> {
    let mut outcome = outcome;
    let mut alloc = Tally::new();
    let mut free = Tally::new();

    for _ in 0..VISITS {
        if alloc.calls >= CALLS && free.calls >= CALLS {
            break;
        }
        let _pinned = Pinned::new();
        desk.warm(WARM)?;
        let mut held = None;
        let mut get = || {
            oracle.count(&mut alloc, || {
                Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE)
            })
        };
        if ctx.trylock_allowed() {
            desk.site.run(ctx, || held = get());
        } else {
            desk.site.run(ctx, || drop(get()));
            // There has to be something to free.
            held = Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE);
        }
        if held.is_some() {
            desk.site
                .run(ctx, || oracle.count(&mut free, || drop(held.take())));
        }
    }

    for (op, tally) in [("alloc", &alloc), ("free", &free)] {
        tally.print(ctx, Api::NoLocks, op);

        let expected = if ctx.trylock_allowed() {
            tally.calls
        } else {
            0
        };
        let pcp = tally.locks(|name| name == b"&pcp->lock");
        let inner = tally.locks(|name| ctx.trylock_allowed() && is_wait_lock(name));
        let all = tally.locks(|_| true);
        outcome = outcome
            .check(
                tally.calls >= CALLS,
                fmt!(
                    "{}: {op} was undisturbed {} times of {CALLS}",
                    ctx.name(),
                    tally.calls
                ),
            )
            .check(
                pcp == expected && all == pcp + inner,
                fmt!(
                    "{}: {op} took pcp->lock {pcp} times of {expected}, and {all} locks in all",
                    ctx.name()
                ),
            );
    }
    Ok(outcome)
}
