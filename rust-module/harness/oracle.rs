// SPDX-License-Identifier: GPL-2.0

//! Counts the locks that one call takes, because lockdep says nothing about trylocks.
//!
//! With lockdep a probe on its `lock_acquire` tracepoint sees every acquisition, in NMI too, but no
//! trylock that fails. Without lockdep ftrace sees that as well: it counts the calls of the
//! functions that lock, which are known by their own names then and not by the lock's.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    api::Api,
    context::Context,
    ktap::Outcome,
    task::{
        level,
        preemptible, //
    }, //
};

extern "C" {
    fn nolocks_watch_locks(taken: extern "C" fn(*const c_char)) -> c_int;
    fn nolocks_unwatch_locks();
}

/// Whether it is the locks' own names that are counted.
pub(crate) const NAMED: bool = cfg!(CONFIG_LOCKDEP);

/// Calls to be counted undisturbed, and the visits that this may take.
pub(crate) const CALLS: usize = 32;
pub(crate) const VISITS: usize = 100 * CALLS;

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
    /// Whether the scheduler may get in between.
    preemptible: Atomic<bool>,
    taken: Atomic<usize>,
    names: [Atomic<*const c_char>; TAKEN],
}

const OFF: u32 = u32::MAX;

static RECORDER: Recorder = Recorder {
    cpu: Atomic::new(OFF),
    level: Atomic::new(0),
    task: Atomic::new(core::ptr::null_mut()),
    disturbed: Atomic::new(false),
    preemptible: Atomic::new(false),
    taken: Atomic::new(0),
    names: [const { Atomic::new(core::ptr::null()) }; TAKEN],
};

fn here() -> (u32, *mut bindings::task_struct) {
    // SAFETY: Both only read, and what they read stays the same for a pinned task.
    unsafe { (bindings::raw_smp_processor_id(), bindings::get_current()) }
}

/// The lock of a scheduler that was entered from an interrupt and chose the same task again, which
/// leaves no other trace. A call that takes one itself does so in all contexts, and is found in
/// those where nothing can get in between.
fn is_runqueue(name: *const c_char) -> bool {
    // SAFETY: Not null, and the name of a live lock class.
    let name = unsafe { CStr::from_char_ptr(name) };
    name.to_bytes() == b"&rq->__lock"
}

/// How often the current task has left its CPU. What a preemption takes for it looks like its own.
fn switches() -> c_ulong {
    let (_, task) = here();
    // SAFETY: The current task lives, and it alone writes to these when it leaves.
    unsafe { (*task).nvcsw.wrapping_add((*task).nivcsw) }
}

/// To be called with the static name of a lock, or null for what disturbs a count.
extern "C" fn note(name: *const c_char) {
    let (cpu, task) = here();

    if RECORDER.cpu.load(Relaxed) != cpu {
        return;
    }
    if name.is_null()
        || RECORDER.task.load(Relaxed) != task
        || RECORDER.level.load(Relaxed) != level()
        || RECORDER.preemptible.load(Relaxed) && is_runqueue(name)
    {
        RECORDER.disturbed.store(true, Relaxed);
        return;
    }
    let index = RECORDER.taken.fetch_add(1, Relaxed);
    if let Some(slot) = RECORDER.names.get(index) {
        slot.store(name, Relaxed);
    }
}

/// The right to count: the probe is registered.
pub(crate) struct Oracle(());

impl Oracle {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called by one case, which ends before it is called again, and once the last one is
        // dropped.
        kernel::error::to_result(unsafe { nolocks_watch_locks(note) })?;
        Ok(Self(()))
    }

    /// Calls `func`, and adds the locks that it took to `tally` unless it was disturbed.
    ///
    /// In any context, of a task that is pinned.
    pub(crate) fn count<T>(&self, tally: &mut Tally, func: impl FnOnce() -> T) -> T {
        self.count_if(tally, func, |_, alone| alone)
    }

    /// As [`Self::count()`], for a call that is `one` to be counted: by its result, and by whether
    /// nothing got in between. Of a call that was disturbed only locks that nobody else takes can be
    /// told.
    pub(crate) fn count_if<T>(
        &self,
        tally: &mut Tally,
        func: impl FnOnce() -> T,
        one: impl FnOnce(&T, bool) -> bool,
    ) -> T {
        let (cpu, task) = here();

        RECORDER.disturbed.store(false, Relaxed);
        RECORDER.taken.store(0, Relaxed);
        RECORDER.task.store(task, Relaxed);
        RECORDER.level.store(level(), Relaxed);
        RECORDER.preemptible.store(preemptible(), Relaxed);
        let before = switches();
        RECORDER.cpu.store(cpu, Relaxed);
        let value = func();
        RECORDER.cpu.store(OFF, Relaxed);

        let alone = !RECORDER.disturbed.load(Relaxed) && switches() == before;
        if one(&value, alone) {
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
/// The names are null or live as long as the kernel's locks and this module's.
pub(crate) struct Tally {
    pub(crate) calls: usize,
    names: [(*const c_char, usize); NAMES],
    lost: usize,
}

// SAFETY: By the invariant the names can be read from anywhere.
unsafe impl Send for Tally {}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            calls: 0,
            // INVARIANT: Null.
            names: [(core::ptr::null(), 0); NAMES],
            lost: 0,
        }
    }

    fn add(&mut self, name: *const c_char) {
        // SAFETY: By the invariant, and `name` was that of a lock that was just taken.
        let text = |name| unsafe { CStr::from_char_ptr(name) };

        // By text, as two objects may have the same. INVARIANT: The kernel's locks and this module's
        // are there for as long as it is.
        match self
            .names
            .iter_mut()
            .find(|(known, _)| known.is_null() || text(*known) == text(name))
        {
            Some(slot) => *slot = (name, slot.1 + 1),
            None => self.lost += 1,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CStr, usize)> {
        self.names
            .iter()
            .filter(|(name, _)| !name.is_null())
            // SAFETY: By the invariant the name is live.
            .map(|(name, n)| (unsafe { CStr::from_char_ptr(*name) }, *n))
    }

    /// Locks with a name that `wanted` says yes to; RCU's are no locks that anybody waits for.
    pub(crate) fn locks(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        self.named(wanted) + self.lost
    }

    /// As [`Self::locks()`], but only those that were noted by name.
    pub(crate) fn named(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        self.iter()
            .filter(|(name, _)| !is_rcu(name) && wanted(name.to_bytes()))
            .map(|(_, n)| n)
            .sum()
    }

    /// An allocation or a free takes pcp->lock once where it may, and nothing where it may not.
    pub(crate) fn check(&self, ctx: Context, op: &str, outcome: Outcome) -> Outcome {
        self.check_each(ctx, op, 1, outcome)
    }

    /// As [`Self::check()`], but where it may each call takes pcp->lock up to `most` times.
    pub(crate) fn check_each(
        &self,
        ctx: Context,
        op: &str,
        most: usize,
        outcome: Outcome,
    ) -> Outcome {
        let name = ctx.name();
        let (pcp, _, all) = self.kinds();
        let expected = self.calls.saturating_mul(allowed(ctx, most));

        self.print(ctx, Api::NoLocks, op);
        outcome
            .check(
                self.calls >= CALLS,
                fmt!(
                    "{name}: {op} was undisturbed {} times of {CALLS}",
                    self.calls
                ),
            )
            .check(
                self.is_right(ctx, most),
                fmt!(
                    "{name}: {op} tried pcp->lock {pcp} times of {expected}, and {all} locks in all"
                ),
            )
    }

    /// Whether counting again can change nothing: only that the lock was too seldom tried, where it may
    /// be, can be the doing of somebody else.
    pub(crate) fn is_final(&self, ctx: Context) -> bool {
        let (pcp, ..) = self.kinds();

        pcp >= self.calls * allowed(ctx, 1)
    }

    /// Whether these are the locks that [`Self::check_each()`] wants.
    fn is_right(&self, ctx: Context, most: usize) -> bool {
        let (pcp, inner, all) = self.kinds();
        let most = allowed(ctx, most);

        (self.calls * most.min(1)..=self.calls.saturating_mul(most)).contains(&pcp)
            // By the trylock and by the unlock of pcp->lock.
            && inner <= 2 * pcp
            && all == pcp + inner
    }

    /// Those of the lists, those inside such locks, and all but page_owner's.
    fn kinds(&self) -> (usize, usize, usize) {
        (
            self.locks(is_pcp_lock),
            self.locks(is_wait_lock),
            self.locks(|name| !is_stack_depot(name)),
        )
    }

    pub(crate) fn print(&self, ctx: Context, api: Api, op: &str) {
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

/// How often a call may take pcp->lock.
fn allowed(ctx: Context, most: usize) -> usize {
    if ctx.trylock_allowed() {
        most
    } else {
        0
    }
}

/// RCU's own locks, as that of an `rcu_node`, are locks like all others.
fn is_rcu(name: &CStr) -> bool {
    matches!(
        name.to_bytes(),
        b"rcu_read_lock" | b"rcu_read_lock_bh" | b"rcu_read_lock_sched" | b"rcu_callback"
    )
}

/// `pcp->lock`, or the function that tries it.
pub(crate) fn is_pcp_lock(name: &[u8]) -> bool {
    name == match (NAMED, cfg!(CONFIG_PREEMPT_RT)) {
        (true, _) => b"&pcp->lock".as_slice(),
        (false, true) => b"rt_spin_trylock",
        (false, false) => b"_raw_spin_trylock",
    }
}

/// The lock of the stacks that page_owner keeps of each allocation and free. A raw one, and tried only.
pub(crate) fn is_stack_depot(name: &[u8]) -> bool {
    cfg!(CONFIG_PAGE_OWNER) && NAMED && name == b"pool_lock"
}

/// The raw lock inside every lock of PREEMPT_RT. A macro that initialises it leaves it this name.
pub(crate) fn is_wait_lock(name: &[u8]) -> bool {
    cfg!(CONFIG_PREEMPT_RT) && (name == b"_T->lock" || name.ends_with(b"wait_lock"))
}
