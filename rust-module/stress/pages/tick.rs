// SPDX-License-Identifier: GPL-2.0

//! A steady load in hard interrupts, which the slots bear only as long as they are refilled.

use kernel::{
    bindings,
    impl_has_hr_timer,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    time::{
        delay::fsleep,
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerRestart,
            RelativePinnedHardMode,
            ScopedHrTimerPointer, //
        },
        Delta,
        Monotonic, //
    }, //
};

use crate::{
    api::{
        Api,
        Pile, //
    },
    cases::{
        Env,
        Stat,
        DEPTH, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
    threads,
    vm::Events, //
};

extern "C" {
    fn nolocks_wait_for_a_work();
}

/// Pages that a tick takes.
const BURST: usize = DEPTH / 2;
const PERIOD: Delta = Delta::from_millis(4);
const TICKS_A_SECOND: u64 = 250;
/// How often the task looks for what a tick took.
const LOOK: Delta = Delta::from_micros(500);

/// One CPU's timer.
#[pin_data]
struct Ticker {
    wanted: u64,
    ticks: Atomic<u64>,
    late: Atomic<u64>,
    obtained: Atomic<u64>,
    /// Whether the last tick's pages are not freed yet.
    waiting: Atomic<bool>,
    #[pin]
    taken: RawSpinLock<Pile>,
    #[pin]
    timer: HrTimer<Self>,
}

impl Ticker {
    fn new(wanted: u64) -> Result<Pin<KBox<Self>>> {
        let room = Pile::new(BURST)?;

        KBox::pin_init(
            pin_init!(Self {
                wanted,
                ticks: Atomic::new(0),
                late: Atomic::new(0),
                obtained: Atomic::new(0),
                waiting: Atomic::new(false),
                taken <- new_raw_spin_lock!(room, "nolocks_taken"),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn is_over(&self) -> bool {
        self.ticks.load(Relaxed) >= self.wanted
    }

    /// Frees what the ticks took until there have been enough of them.
    fn collect(&self) -> Result {
        let mut pages = Pile::new(BURST)?;

        while !self.is_over() {
            fsleep(LOOK);
            if self.waiting.load(Acquire) {
                core::mem::swap(&mut *self.taken.lock(), &mut pages);
                pages.free_as_usual();
                // SAFETY: This is a task that may sleep.
                unsafe { nolocks_wait_for_a_work() };
                visit_buddy();
                self.waiting.store(false, Release);
            }
        }
        Ok(())
    }
}

/// Takes `zone->lock`, which the worker needs too.
fn visit_buddy() {
    /// More than the lists are for.
    const ORDER: c_uint = 4;
    // SAFETY: This is a task that may sleep.
    let pages = unsafe { bindings::alloc_pages(bindings::GFP_KERNEL, ORDER) };

    if !pages.is_null() {
        // SAFETY: Obtained above, and freed once.
        unsafe { bindings::__free_pages(pages, ORDER) };
    }
}

impl HrTimerCallback for Ticker {
    type Pointer<'a> = Pin<&'a Self>;

    fn run(this: Pin<&Self>, mut ctx: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        if this.is_over() {
            return HrTimerRestart::NoRestart;
        }
        ctx.forward_now(PERIOD);
        if this.waiting.load(Acquire) {
            this.late.add(1, Relaxed);
            return HrTimerRestart::Restart;
        }
        let obtained = this
            .taken
            .lock()
            .obtain(Api::NoLocks, NoLocksFlags::NONE, BURST);
        this.obtained.add(obtained as u64, Relaxed);
        this.waiting.store(true, Release);
        this.ticks.add(1, Relaxed);
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Ticker {
        mode: RelativePinnedHardMode<Monotonic>, field: self.timer
    }
}

/// At least `tick_percent` of half the slots' depth on each CPU by itself, every 4 ms.
///
/// A tick that gave its pages back itself would have them again in the next one, as
/// `free_pages_nolock()` puts them into the slots: any reserve bears that forever. So a task frees
/// them with `__free_pages()`, which knows no slots, and what a tick takes the worker has to bring
/// from the buddy allocator before the next but one. (Without `PREEMPT_RT` the lists are asked
/// before the slots, and that is where a page freed that way is.)
///
/// Ticks are counted, not time. One by whose time the task has not freed the last one's pages is
/// left out: the machine is not getting to its tasks, as an emulated one of whose CPUs the host has
/// stopped one that holds `zone->lock`. The task waits for a work that was queued behind the refill's
/// and takes that lock too, and is no better off than the worker. How many were left out is printed,
/// and says what load it was.
///
/// Even so a second worker may get to that work while the first was stopped on its way to the refill,
/// and spoil a round. A refill that is too slow fails in all of them.
pub(crate) fn tick(env: &Env) -> Result<Outcome> {
    let percent = env.config.tick_percent;
    let Round { short, stat, slots } = repeat(|| round(env), |round| round.short == 0)?;

    stat.print("tick", Api::NoLocks);
    Ok(Outcome::Passed
        .check(
            short == 0,
            fmt!(
                "{short} CPUs did not have {percent} %, {} of {} pages in all",
                stat.obtained,
                stat.attempts
            ),
        )
        .check(
            !cfg!(CONFIG_PREEMPT_RT) || slots >= stat.obtained,
            fmt!("{slots} pages came from the slots of {}", stat.obtained),
        ))
}

struct Round {
    /// CPUs that had less than `tick_percent`.
    short: u32,
    stat: Stat,
    /// Pages out of the slots.
    slots: u64,
}

fn round(env: &Env) -> Result<Round> {
    let wanted = TICKS_A_SECOND * u64::from(env.config.tick_seconds);
    let percent = u64::from(env.config.tick_percent);
    let attempts = wanted * BURST as u64;
    let cpus = threads::online_cpus().get();
    let obtained = Atomic::new(0);
    let short = Atomic::new(0);

    env.fill_slots()?;
    let before = Events::now();
    threads::run(cpus, &|nth| {
        let ticker = Ticker::new(wanted)?;
        ticker.as_ref().start_scoped(PERIOD, || ticker.collect())?;

        let pages = ticker.obtained.load(Relaxed);
        let late = ticker.late.load(Relaxed);
        pr_info!(
            "# tick: cpu={} ticks={wanted} late={late} attempts={attempts} obtained={pages}\n",
            threads::cpu_of(nth)
        );
        obtained.add(pages, Relaxed);
        short.add(u32::from(100 * pages < percent * attempts), Relaxed);
        Ok(())
    })?;
    let after = Events::now();

    let stat = Stat {
        attempts: u64::from(cpus) * attempts,
        obtained: obtained.load(Relaxed),
    };
    let slots = after.taken_from_slots() - before.taken_from_slots();
    pr_info!(
        "# tick: lists={} slots={slots} refilled={}\n",
        after.taken_from_lists() - before.taken_from_lists(),
        after.refilled() - before.refilled()
    );
    Ok(Round {
        short: short.load(Relaxed),
        stat,
        slots,
    })
}
