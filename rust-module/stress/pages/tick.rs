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
    vm::Events, //
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
    fn new(period: Delta, wanted: u64) -> Result<Pin<KBox<Self>>> {
        let room = Pile::new(ROOM)?;

        KBox::pin_init(
            pin_init!(Self {
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
            .obtain(Api::NoLocks, NoLocksFlags::NONE, BURST);
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

fn judge(env: &Env, name: &str, beside: Option<Kind>) -> Result<Outcome> {
    let permille = wanted_permille(env, beside);
    let period = period(env)?;
    let load = match beside {
        None => None,
        Some(kind) => match Load::start(kind, threads::online_cpus().get())? {
            Some(load) => Some(load),
            None => return Ok(Outcome::Skipped("no such load can be had here")),
        },
    };
    let mut tries = 0;
    let Round {
        short,
        slow,
        stat,
        slots,
    } = repeat(
        || {
            tries += 1;
            round(env, period, beside.map_or("nothing", Kind::name), permille)
        },
        |round| round.short == 0 && round.slow == 0,
    )?;
    if tries > 1 {
        pr_info!("# tries: {tries}\n");
    }
    if let Some(load) = &load {
        pr_info!(
            "# tick: beside={} {}={}\n",
            load.kind().name(),
            load.unit(),
            load.done()
        );
    }
    drop(load);

    stat.print(name, Api::NoLocks);
    Ok(Outcome::Passed
        .check(
            short == 0,
            fmt!(
                "{short} CPUs did not have {permille} of a thousand, {} of {} pages in all",
                stat.obtained,
                stat.attempts
            ),
        )
        .check(
            slow == 0,
            fmt!("{slow} CPUs had less than a tenth of the ticks in time"),
        )
        .check(
            !cfg!(CONFIG_PREEMPT_RT) || slots >= stat.obtained,
            fmt!("{slots} pages came from the slots of {}", stat.obtained),
        ))
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

fn round(env: &Env, period: Delta, beside: &str, permille: u32) -> Result<Round> {
    let wanted = (1000 * i64::from(env.config.tick_seconds) / period.as_millis()).max(1) as u64;
    let permille = u64::from(permille);
    let attempts = wanted * BURST as u64;
    let cpus = threads::online_cpus().get();
    let mut tickers = KVec::with_capacity(cpus as usize, GFP_KERNEL)?;

    for _ in 0..cpus {
        tickers.push(Ticker::new(period, wanted)?, GFP_KERNEL)?;
    }
    env.fill_slots()?;
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
        round.short += u32::from(1000 * pages < permille * attempts);
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
