// SPDX-License-Identifier: GPL-2.0

//! A steady load in hard interrupts, which the slots bear only as long as they are refilled.

use kernel::{
    impl_has_hr_timer,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
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
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    api::{
        Api,
        Pile, //
    },
    env::{
        Env,
        Stat, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    load::{
        Kind,
        Load, //
    },
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
    threads,
    vm::{
        Events,
        Limit, //
    }, //
};

/// Pages that a tick takes: a quarter of what is registered for.
const BURST: usize = 16;
/// How often the task frees what the ticks took.
const LOOK: Delta = Delta::from_micros(500);
/// Pages that ticks may have taken and the task not yet freed, 128 MB on each CPU. A tick that finds
/// no room for more takes nothing, which counts.
const ROOM: usize = 1 << 15;
/// Of the periods, how many may have no tick: an emulator on a busy host has no time for most of them,
/// but a CPU that is kept from its interrupts by what is tested has hardly any.
const LEFT_OUT_PERCENT: u64 = 90;

/// One CPU's timer.
#[pin_data]
struct Ticker {
    api: Api,
    period: Delta,
    wanted: u64,
    ticks: Atomic<u64>,
    /// Ticks that got nothing.
    empty: Atomic<u64>,
    /// Periods in which there was no tick, because the last one was still late.
    left_out: Atomic<u64>,
    /// By how much the latest tick was late, in ns.
    latest: Atomic<i64>,
    obtained: Atomic<u64>,
    #[pin]
    taken: RawSpinLock<Pile>,
    #[pin]
    timer: HrTimer<Self>,
}

impl Ticker {
    fn new(api: Api, period: Delta, wanted: u64) -> Result<Pin<KBox<Self>>> {
        let room = Pile::new(ROOM)?;

        KBox::pin_init(
            pin_init!(Self {
                api,
                period,
                wanted,
                ticks: Atomic::new(0),
                empty: Atomic::new(0),
                left_out: Atomic::new(0),
                latest: Atomic::new(0),
                obtained: Atomic::new(0),
                taken <- new_raw_spin_lock!(room, "nolocks_taken"),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    fn is_over(&self) -> bool {
        self.ticks.load(Relaxed) >= self.wanted
    }
}

impl HrTimerCallback for Ticker {
    type Pointer<'a> = Pin<&'a Self>;

    fn run(this: Pin<&Self>, mut ctx: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        if this.is_over() {
            return HrTimerRestart::NoRestart;
        }
        let late = Instant::<Monotonic>::now() - this.timer.expires();
        this.latest
            .store(this.latest.load(Relaxed).max(late.as_nanos()), Relaxed);
        this.left_out
            .add(ctx.forward_now(this.period).saturating_sub(1), Relaxed);

        let obtained = this
            .taken
            .lock()
            .obtain(this.api, NoLocksFlags::NONE, BURST);
        this.obtained.add(obtained as u64, Relaxed);
        this.empty.add(u64::from(obtained == 0), Relaxed);
        this.ticks.add(1, Relaxed);
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Ticker {
        mode: RelativePinnedHardMode<Monotonic>, field: self.timer
    }
}

/// 16 pages in a hard interrupt each 4 ms, on every CPU: all but one of a thousand are obtained. On a
/// machine that is slow, as an emulated one with lockdep is, each time that four times as many pages can
/// be put into the slots, so that the load is a quarter of what it bears.
///
/// The loop is open: a tick takes its pages whether or not the last one's have been freed, or the
/// slots filled again. What it takes a task frees with `__free_pages()`, which knows no slots, on
/// another CPU; the slots have what a worker brings from the buddy allocator. (Without `PREEMPT_RT`
/// the lists are asked before the slots, and hold what that task frees.)
///
/// Ticks are counted, not time. A timer that is late, as an emulated one is whose CPU the host has
/// stopped, has its ticks left out; how many, and how late the latest was, is printed.
///
/// An emulator that stops a CPU which holds `zone->lock` may spoil a round. A refill that is too slow
/// fails in all of them.
pub(crate) fn tick(env: &Env) -> Result<Outcome> {
    judge(env, "tick", None)
}

/// The same, beside shells that fork: processes of no priority are always runnable, and `zone->lock`
/// is always somebody's.
pub(crate) fn beside_forks(env: &Env) -> Result<Outcome> {
    judge(env, "tick_beside_forks", Some(Kind::Forks))
}

/// The same, beside readers of more files than there is memory: somebody always reclaims.
pub(crate) fn beside_readers(env: &Env) -> Result<Outcome> {
    judge(env, "tick_beside_readers", Some(Kind::Readers))
}

/// What is asked of each CPU, in thousandths. Beside a load an emulator has less time for the thread
/// that fills the slots, and its reclaim is slow.
fn wanted_permille(env: &Env, beside: Option<Kind>) -> u32 {
    env.config.tick_permille.saturating_sub(match beside {
        None => 0,
        Some(Kind::Forks) => 50,
        Some(Kind::Readers) => 200,
    })
}

/// `alloc_pages_nolock()` instead, beside the same shells: a scheduler's program was thrown out because it had
/// failed with 1.9 GB free, while forks held the locks that it tries.
///
/// First without slots, as mainline is, for a tenth of the time: nothing at all on `PREEMPT_RT`. Elsewhere
/// the trylocks succeed often enough without them.
pub(crate) fn nolock_beside_forks(env: &Env) -> Result<Outcome> {
    if !cfg!(CONFIG_PREEMPT_RT) {
        return Ok(Outcome::Skipped("the trylocks succeed without slots"));
    }
    let Some(limit) = Limit::open()? else {
        return Ok(Outcome::Skipped(Limit::MISSING));
    };
    let period = period(env)?;
    let Some(load) = Load::start(Kind::Forks, threads::online_cpus().get())? else {
        return Ok(Outcome::Skipped("no such load can be had here"));
    };
    let ask = Ask {
        api: Api::TryLock,
        period,
        ticks: ticks(env, period).div_ceil(10),
        beside: "forks_no_slots",
        permille: 0,
    };
    let without = limit.during(b"0", || round(&ask))?.stat;
    let ask = Ask {
        ticks: ticks(env, period),
        beside: load.kind().name(),
        permille: wanted_permille(env, Some(Kind::Forks)),
        ..ask
    };
    let with = filled_rounds(env, &ask)?;
    drop(load);

    without.print("nolock_without_slots", ask.api);
    with.stat.print("nolock_beside_forks", ask.api);
    Ok(with.check(Outcome::Passed, &ask).check(
        without.obtained == 0,
        fmt!("{} pages came from nowhere without slots", without.obtained),
    ))
}

fn judge(env: &Env, name: &str, beside: Option<Kind>) -> Result<Outcome> {
    let period = period(env)?;
    let load = match beside {
        None => None,
        Some(kind) => match Load::start(kind, threads::online_cpus().get())? {
            Some(load) => Some(load),
            None => return Ok(Outcome::Skipped("no such load can be had here")),
        },
    };
    let ask = Ask {
        api: Api::NoLocks,
        period,
        ticks: ticks(env, period),
        beside: beside.map_or("nothing", Kind::name),
        permille: wanted_permille(env, beside),
    };
    let before = load.as_ref().map_or(0, Load::done);
    let round = filled_rounds(env, &ask)?;
    let mut outcome = Outcome::Passed;
    if let Some(load) = &load {
        let (kind, unit, done) = (load.kind().name(), load.unit(), load.done() - before);
        pr_info!("# tick: beside={kind} {unit}={done}\n");
        // A program that has ended has none; one CPU has little time beside its ticks.
        outcome = outcome.check(
            done >= Load::FELT / 4,
            fmt!("{kind} were no load: {done} {unit}"),
        );
    }
    drop(load);

    round.stat.print(name, ask.api);
    Ok(round.check(outcome, &ask).check(
        !cfg!(CONFIG_PREEMPT_RT) || round.slots >= round.stat.obtained,
        fmt!(
            "{} pages came from the slots of {}",
            round.slots,
            round.stat.obtained
        ),
    ))
}

/// What each CPU's timer does, and what is asked of it.
struct Ask {
    api: Api,
    period: Delta,
    ticks: u64,
    /// For who reads it.
    beside: &'static str,
    permille: u32,
}

/// Each begins with full slots.
fn filled_rounds(env: &Env, ask: &Ask) -> Result<Round> {
    repeat(
        || {
            env.fill_slots()?;
            round(ask)
        },
        |round| round.short == 0 && round.slow == 0,
    )
}

struct Round {
    /// CPUs that had less than `tick_permille`.
    short: u32,
    /// CPUs whose timer was late too often for this to be the load that it says.
    slow: u32,
    stat: Stat,
    /// Pages out of the slots.
    slots: u64,
}

impl Round {
    fn check(&self, outcome: Outcome, ask: &Ask) -> Outcome {
        outcome
            .check(
                self.short == 0,
                fmt!(
                    "{} CPUs did not have {} of a thousand, {} of {} pages in all",
                    self.short,
                    ask.permille,
                    self.stat.obtained,
                    self.stat.attempts
                ),
            )
            .check(
                self.slow == 0,
                fmt!(
                    "{} CPUs had less than a tenth of the ticks in time",
                    self.slow
                ),
            )
    }
}

/// How long it takes to fill the slots of all CPUs, which hold four ticks' pages, but `tick_ms` at least.
fn period(env: &Env) -> Result<Delta> {
    const TRIES: u32 = 3;
    let mut shortest = i64::MAX;

    for _ in 0..TRIES {
        env.give_up_slots();
        let begin = Instant::<Monotonic>::now();
        env.fill_slots()?;
        shortest = shortest.min(begin.elapsed().as_nanos());
    }
    let shortest = Delta::from_millis((shortest as u64).div_ceil(1_000_000) as i64);
    Ok(shortest.max(Delta::from_millis(i64::from(env.config.tick_ms))))
}

fn ticks(env: &Env, period: Delta) -> u64 {
    // Not by a division that may panic: objtool does not know that panic_const_div_by_zero() never returns.
    let all = 1000 * i64::from(env.config.tick_seconds);
    all.checked_div(period.as_millis()).unwrap_or(0).max(1) as u64
}

fn round(ask: &Ask) -> Result<Round> {
    let Ask {
        api,
        period,
        ticks: wanted,
        beside,
        permille,
    } = *ask;
    let attempts = wanted * BURST as u64;
    let cpus = threads::online_cpus().get();
    let mut tickers = KVec::with_capacity(cpus as usize, GFP_KERNEL)?;

    for _ in 0..cpus {
        tickers.push(Ticker::new(api, period, wanted)?, GFP_KERNEL)?;
    }
    let before = Events::now();
    threads::run(cpus, &|nth| {
        let own = tickers.get(nth as usize).ok_or(EINVAL)?;
        let other = tickers
            .get((nth + 1) as usize % tickers.len())
            .ok_or(EINVAL)?;
        let mut pages = Pile::new(ROOM)?;

        own.as_ref().start_scoped(period, || {
            while !tickers.iter().all(|ticker| ticker.is_over()) {
                fsleep(LOOK);
                core::mem::swap(&mut *other.taken.lock(), &mut pages);
                pages.free_as_usual();
            }
        });
        Ok(())
    })?;
    let after = Events::now();

    let mut round = Round {
        short: 0,
        slow: 0,
        stat: Stat::default(),
        slots: after.taken_from_slots() - before.taken_from_slots(),
    };
    for (nth, ticker) in tickers.iter().enumerate() {
        let pages = ticker.obtained.load(Relaxed);
        let left_out = ticker.left_out.load(Relaxed);
        pr_info!(
            "# tick: beside={beside} cpu={} period_ms={} ticks={wanted} empty={} left_out={left_out} latest_us={} attempts={attempts} obtained={pages}\n",
            threads::cpu_of(nth as u32),
            period.as_millis(),
            ticker.empty.load(Relaxed),
            ticker.latest.load(Relaxed) / 1000
        );
        round.stat.add(attempts as usize, pages as usize);
        round.short += u32::from(1000 * pages < u64::from(permille) * attempts);
        round.slow += u32::from(100 * left_out > LEFT_OUT_PERCENT * (wanted + left_out));
    }
    pr_info!(
        "# tick: beside={beside} lists={} slots={} refilled={} drained={}\n",
        after.taken_from_lists() - before.taken_from_lists(),
        round.slots,
        after.refilled() - before.refilled(),
        after.drained() - before.drained()
    );
    Ok(round)
}
