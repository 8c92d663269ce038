// SPDX-License-Identifier: GPL-2.0

//! The cases, in the order of the bits of `mask`.

use core::num::NonZero;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        new_mutex,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    api::{
        Api,
        Held,
        Pile,
        CORRUPT, //
    },
    charged,
    cma,
    context::{
        breathe,
        Context,
        Nmi,
        Pinned,
        Site, //
    },
    deferred,
    flags,
    hotplug,
    irq_works,
    ktap::{
        repeat,
        Case,
        Outcome, //
    },
    ledger::Ledger,
    locks,
    nested,
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        },
        slots::PageSlots, //
    },
    rng::Rng,
    storm,
    sysctl,
    threads,
    tick,
    vm,
    warmer::Warmer,
    Config, //
};

extern "C" {
    fn nolocks_overwritten_anyway() -> bool;
}

/// The burst that the contract promises where the trylock is allowed and the lists are warm.
const PROMISED: usize = 32;
/// What the slots are asked to hold: the burst that is promised in every context. The default of
/// the `vm.page_slots` sysctl.
pub(crate) const DEPTH: usize = 64;
pub(crate) const LARGEST_BURST: usize = 4096;

/// All cases, the first with bit 0.
pub(crate) const CASES: [Case<Env>; 35] = [
    ("unregistered", unregistered),
    ("task", |env| context(env, Context::Task)),
    ("raw_irqsave", |env| context(env, Context::RawIrqsave)),
    ("raw", |env| context(env, Context::Raw)),
    ("preempt_off", |env| context(env, Context::PreemptOff)),
    ("softirq", |env| context(env, Context::Softirq)),
    ("hardirq", |env| context(env, Context::Hardirq)),
    ("nmi", |env| context(env, Context::Nmi)),
    ("pi_lock", |env| context(env, Context::PiLock)),
    ("all_cpus", all_cpus),
    ("nested_nmi", nested::in_nmi),
    ("nested_hardirq", nested::in_hardirq),
    ("free_elsewhere", free_elsewhere),
    ("bursts", bursts),
    ("handed_out_once", handed_out_once),
    ("zero", zero),
    ("cma", cma::never_unmovable),
    ("tick", tick::tick),
    ("tick_beside_forks", tick::beside_forks),
    ("tick_beside_readers", tick::beside_readers),
    ("nested_slots", storm::slots),
    ("nested_refill", storm::refill),
    ("charged", charged::charged),
    ("pcp_high", deferred::pcp_high),
    ("deferred_irqs_off", deferred::irqs_off),
    ("deferred_dying", deferred::dying),
    ("irq_works", irq_works::irq_works),
    ("sysctl", sysctl::page_slots),
    ("cpu_hotplug", hotplug::cpu),
    ("hotplug_kworkers", hotplug::kworkers),
    ("memory_hotplug", hotplug::memory),
    ("pressure", hotplug::pressure),
    ("locks", locks::locks),
    ("flags", flags::flags),
    ("ledger", ledger),
];

/// What the cases share.
pub(crate) struct Env {
    pub(crate) config: Config,
    slots: Pin<KBox<Mutex<Option<PageSlots>>>>,
    ledger: Ledger,
    pub(crate) nmi: Option<Nmi>,
}

impl Env {
    pub(crate) fn new(config: Config) -> Result<Self> {
        Ok(Self {
            config,
            slots: KBox::pin_init(new_mutex!(None), GFP_KERNEL)?,
            ledger: Ledger::open(),
            nmi: Nmi::if_any()?,
        })
    }

    /// The contexts that this machine can enter.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = Context> + Clone + '_ {
        Context::possible(&self.nmi)
    }

    /// Gives the slots up, until they are filled again.
    pub(crate) fn give_up_slots(&self) {
        drop(self.slots.lock().take());
    }

    /// Fills the slots of all CPUs, for the first time or again.
    pub(crate) fn fill_slots(&self) -> Result {
        let mut slots = self.slots.lock();
        let pages = match *slots {
            None => DEPTH as u32,
            // Any registration fills them, and is then taken back.
            Some(_) => 1,
        };
        let claim = PageSlots::register(pages)?;
        slots.get_or_insert(claim);
        Ok(())
    }
}

/// Counts for one line of the report.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stat {
    pub(crate) attempts: u64,
    pub(crate) obtained: u64,
}

impl Stat {
    pub(crate) fn add(&mut self, attempts: usize, obtained: usize) {
        self.attempts += attempts as u64;
        self.obtained += obtained as u64;
    }

    pub(crate) fn print(&self, context: &str, api: Api) {
        pr_info!(
            "# stat: context={} api={} attempts={} obtained={}\n",
            context,
            api.name(),
            self.attempts,
            self.obtained
        );
    }
}

/// One task's means to allocate everywhere.
pub(crate) struct Desk {
    pub(crate) site: Pin<KBox<Site>>,
    pub(crate) pile: Pile,
    pub(crate) warmer: Warmer,
}

impl Desk {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self {
            site: KBox::pin_init(Site::new(), GFP_KERNEL)?,
            pile: Pile::new(room)?,
            // Twice, so that what others take meanwhile does not matter.
            warmer: Warmer::new(2 * room)?,
        })
    }

    pub(crate) fn warm(&mut self, n: usize) -> Result {
        self.warmer.warm(2 * n)
    }

    /// Attempts `n` pages in `ctx` and returns how many came.
    pub(crate) fn obtain(
        &mut self,
        ctx: Context,
        api: Api,
        flags: NoLocksFlags,
        n: usize,
    ) -> usize {
        let mut obtained = 0;
        let mut left = n;

        while left != 0 {
            let chunk = ctx.chunk(left);
            let pile = &mut self.pile;
            self.site
                .run(ctx, || obtained += pile.obtain(api, flags, chunk));
            left -= chunk;
        }
        obtained
    }

    /// Frees all pages in `ctx`.
    pub(crate) fn free(&mut self, ctx: Context) {
        let pile = &mut self.pile;
        let mut more = true;

        while more {
            self.site
                .run(ctx, || more = pile.free(ctx.chunk(LARGEST_BURST)));
        }
    }

    /// Obtains and frees in one visit to `ctx`.
    pub(crate) fn visit(&mut self, ctx: Context, api: Api, n: usize) -> usize {
        let pile = &mut self.pile;
        let mut obtained = 0;

        self.site.run(ctx, || {
            obtained = pile.obtain(api, NoLocksFlags::NONE, n);
            pile.free(n);
        });
        obtained
    }

    /// Frees pages filled with `dirt` in `ctx`, and obtains as many with `flags` in the same visit.
    fn reuse(
        &mut self,
        env: &Env,
        ctx: Context,
        flags: NoLocksFlags,
        dirt: u64,
    ) -> Result<&[Held]> {
        let _pinned = Pinned::new();
        env.fill_slots()?;
        let pile = &mut self.pile;
        self.site.run(ctx, || {
            pile.obtain(Api::NoLocks, NoLocksFlags::NONE, PROMISED);
            pile.pages().iter_mut().for_each(|held| held.fill(dirt));
            pile.free(PROMISED);
            for _ in 0..PROMISED {
                if let Some(held) = Held::obtain_unmarked(Api::NoLocks, flags) {
                    pile.push(held);
                }
            }
        });
        Ok(self.pile.pages())
    }

    pub(crate) fn check(&self, outcome: Outcome) -> Outcome {
        let strays = self.site.strays();
        outcome.check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        )
    }
}

/// With nobody registered no slot holds a page, and where no lock may be tried NULL is right.
fn unregistered(env: &Env) -> Result<Outcome> {
    const ROUNDS: u32 = 10;
    let mut desk = Desk::new(PROMISED)?;
    let before = vm::in_all_slots();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let promised = if ctx.trylock_allowed() { PROMISED } else { 0 };
        let mut stat = Stat::default();
        let mut wrong = 0;

        for _ in 0..ROUNDS {
            // Somebody else of this CPU may have been preempted at pcp->lock.
            let visit = || {
                let _pinned = Pinned::new();
                desk.warm(PROMISED)?;
                Ok(desk.visit(ctx, Api::NoLocks, PROMISED))
            };
            let obtained = repeat(visit, |obtained| promised == 0 || *obtained == promised)?;
            stat.add(PROMISED, obtained);
            wrong += u32::from(obtained != promised);
        }
        let name = ctx.name();
        outcome = outcome.check(
            wrong == 0,
            fmt!("{name}: {wrong} of {ROUNDS} bursts from warm lists were not {promised}"),
        );
        pr_info!(
            "# unregistered: context={name} attempts={} obtained={}\n",
            stat.attempts,
            stat.obtained
        );
    }
    let after = vm::in_all_slots();
    Ok(desk.check(outcome).check(
        before == 0 && after == 0,
        fmt!("{before} pages were in slots before, and {after} after"),
    ))
}

/// Gives the slots up and draws the line.
fn ledger(env: &Env) -> Result<Outcome> {
    env.give_up_slots();
    Ok(env.ledger.close())
}

fn context(env: &Env, ctx: Context) -> Result<Outcome> {
    const ROUNDS: u32 = 100;

    if !ctx.is_possible(&env.nmi) {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }

    let mut desk = Desk::new(DEPTH)?;
    let mut outcome = Outcome::Passed;
    let mut stat = Stat::default();
    let mut short = 0;

    for _ in 0..ROUNDS {
        let _pinned = Pinned::new();
        env.fill_slots()?;
        let obtained = desk.visit(ctx, Api::NoLocks, DEPTH);
        stat.add(DEPTH, obtained);
        short += u32::from(obtained != DEPTH);
    }
    outcome = outcome.check(
        short == 0,
        fmt!("{short} of {ROUNDS} bursts of {DEPTH} were not complete"),
    );
    outcome = outcome.check(
        volume(&mut desk, ctx, Api::NoLocks, env.config.pages, &mut stat)?,
        fmt!("lists and slots stayed empty after {} pages", stat.obtained),
    );
    stat.print(ctx.name(), Api::NoLocks);

    for api in [Api::TryLock, Api::GfpNowait] {
        if api.is_legal(ctx) {
            let mut stat = Stat::default();
            // Where mainline has less than all here, that is no failure of ours.
            let _ = volume(&mut desk, ctx, api, env.config.pages / 20, &mut stat)?;
            stat.print(ctx.name(), api);
        }
    }
    Ok(desk.check(outcome))
}

/// Obtains `pages` pages in `ctx`. Gives up, with false, when warm lists have nothing.
fn volume(desk: &mut Desk, ctx: Context, api: Api, pages: u64, stat: &mut Stat) -> Result<bool> {
    const PATIENCE: u32 = 100;
    let burst = ctx.chunk(2 * PROMISED);
    let mut empty = 0;
    let mut obtained = burst;

    while stat.obtained < pages {
        let _pinned = Pinned::new();
        if obtained < burst {
            desk.warm(burst)?;
        }
        obtained = desk.visit(ctx, api, burst);
        stat.add(burst, obtained);
        empty = if obtained == 0 { empty + 1 } else { 0 };
        if empty == PATIENCE {
            return Ok(false);
        }
        breathe();
    }
    Ok(true)
}

fn all_cpus(env: &Env) -> Result<Outcome> {
    // As many as in all contexts one by one: here all CPUs are busy.
    const SHARE: u64 = 8;
    let mut outcome = Outcome::Passed;

    for (api, pages, seconds) in [
        (
            Api::NoLocks,
            SHARE * env.config.pages,
            env.config.seconds.into(),
        ),
        (Api::TryLock, env.config.pages, 0),
    ] {
        let attempts = Atomic::new(0);
        let obtained = Atomic::new(0);
        let strays = Atomic::new(0);
        let exchange = KBox::pin_init(
            new_raw_spin_lock!(Pile::new(LARGEST_BURST)?, "nolocks_exchange"),
            GFP_KERNEL,
        )?;
        let end = match seconds {
            0 => End::Pages(pages / NonZero::<u64>::from(env.config.threads) + 1),
            _ => End::Time(Instant::now() + Delta::from_secs(seconds)),
        };

        threads::run(env.config.threads.get(), &|nth| {
            let mut desk = Desk::new(2 * PROMISED)?;
            let stat = worker(env, &mut desk, api, nth, end, &exchange)?;
            attempts.add(stat.attempts, Relaxed);
            obtained.add(stat.obtained, Relaxed);
            strays.add(desk.site.strays(), Relaxed);
            Ok(())
        })?;

        let stat = Stat {
            attempts: attempts.load(Relaxed),
            obtained: obtained.load(Relaxed),
        };
        let wanted = match (api, seconds) {
            (Api::NoLocks, 0) => pages,
            (Api::NoLocks, _) => 1,
            // Mainline's share is for the report.
            _ => 0,
        };
        stat.print("all_cpus", api);
        outcome = outcome
            .check(
                strays.load(Relaxed) == 0,
                fmt!("visits were not in the context asked for"),
            )
            .check(
                stat.obtained >= wanted,
                fmt!("{} pages of {wanted}", stat.obtained),
            );
    }
    Ok(outcome)
}

/// When a worker is through.
#[derive(Clone, Copy)]
enum End<'a> {
    Pages(u64),
    Time(Instant<Monotonic>),
    Told(&'a Atomic<bool>),
}

/// Calls `func` on the first of `cpus` CPUs while the others allocate as in [`all_cpus()`], and
/// returns what they obtained.
pub(crate) fn beside(env: &Env, cpus: u32, func: &(dyn Fn() -> Result + Sync)) -> Result<Stat> {
    let (attempts, obtained, strays) = (Atomic::new(0), Atomic::new(0), Atomic::new(0));
    let over = Atomic::new(false);
    let ready = Atomic::new(0);
    let exchange = KBox::pin_init(
        new_raw_spin_lock!(Pile::new(LARGEST_BURST)?, "nolocks_beside"),
        GFP_KERNEL,
    )?;

    threads::run(cpus, &|nth| {
        if nth == 0 {
            // What they need before is not to be had while all memory is used.
            while ready.load(Relaxed) != cpus - 1 {
                fsleep(Delta::from_millis(1));
            }
            let result = func();
            over.store(true, Relaxed);
            return result;
        }
        let desk = Desk::new(2 * PROMISED);
        ready.add(1, Relaxed);
        let mut desk = desk?;
        let end = End::Told(&over);
        let stat = worker(env, &mut desk, Api::NoLocks, nth, end, &exchange)?;
        attempts.add(stat.attempts, Relaxed);
        obtained.add(stat.obtained, Relaxed);
        strays.add(desk.site.strays(), Relaxed);
        Ok(())
    })?;
    if strays.load(Relaxed) != 0 {
        pr_info!("# note: visits were not in the context asked for\n");
        return Err(EINVAL);
    }
    Ok(Stat {
        attempts: attempts.load(Relaxed),
        obtained: obtained.load(Relaxed),
    })
}

/// One CPU's part of [`all_cpus()`]: bursts of any size, from any context, freed in any other, some
/// of them on another CPU.
fn worker(
    env: &Env,
    desk: &mut Desk,
    api: Api,
    nth: u32,
    end: End<'_>,
    exchange: &RawSpinLock<Pile>,
) -> Result<Stat> {
    const SWAPPED: usize = 16;
    let mut rng = Rng::new(env.config.seed, nth.into());
    let legal = env.contexts().filter(|ctx| api.is_legal(*ctx));
    // On PREEMPT_RT a page that is obtained or freed without the lock takes a detour through a
    // worker: most visits are to where it may be tried.
    let direct = legal.clone().filter(|ctx| ctx.trylock_allowed());
    let mut stat = Stat::default();

    loop {
        let over = match end {
            End::Pages(pages) => stat.obtained >= pages || stat.attempts > 8 * pages + 100_000,
            End::Told(over) => over.load(Relaxed),
            End::Time(end) => (end - Instant::now()).is_negative(),
        };
        if over {
            return Ok(stat);
        }

        let _pinned = Pinned::new();
        let mut any = || {
            let ctx = match rng.below(4) {
                0 => rng.pick(legal.clone()),
                _ => rng.pick(direct.clone()),
            };
            ctx.unwrap_or(Context::Task)
        };
        let (ctx, elsewhere) = (any(), any());
        let n = ctx.chunk(1 + rng.below(2 * PROMISED));
        let obtained = desk.obtain(ctx, api, NoLocksFlags::NONE, n);
        stat.add(n, obtained);

        if rng.below(4) == 0 {
            let mut shared = exchange.lock();
            for _ in 0..SWAPPED {
                if let Some(held) = desk.pile.pop() {
                    shared.push(held);
                }
            }
            // Until the exchange has filled up, there may be less to take out than went in.
            if shared.pages().len() > LARGEST_BURST / 2 {
                for _ in 0..SWAPPED {
                    if let Some(held) = shared.pop() {
                        desk.pile.push(held);
                    }
                }
            }
        }
        desk.free(elsewhere);
        // Not where memory may be short on purpose.
        if obtained < n && ctx.trylock_allowed() && !matches!(end, End::Told(_)) {
            desk.warm(2 * PROMISED)?;
        }
        breathe();
    }
}

/// Pages obtained in one context are freed in another, for every pair.
fn free_elsewhere(env: &Env) -> Result<Outcome> {
    const ROUNDS: u32 = 4;
    let mut desk = Desk::new(PROMISED)?;
    let mut stat = Stat::default();

    for _ in 0..ROUNDS {
        for from in env.contexts() {
            for to in env.contexts() {
                let _pinned = Pinned::new();
                env.fill_slots()?;
                let obtained = desk.obtain(from, Api::NoLocks, NoLocksFlags::NONE, PROMISED);
                stat.add(PROMISED, obtained);
                desk.free(to);
                breathe();
            }
        }
    }
    stat.print("free_elsewhere", Api::NoLocks);
    Ok(desk.check(Outcome::Passed).check(
        stat.obtained == stat.attempts,
        fmt!("{} of {} pages", stat.obtained, stat.attempts),
    ))
}

/// Bursts from empty lists and full slots.
fn bursts(env: &Env) -> Result<Outcome> {
    let mut desk = Desk::new(LARGEST_BURST)?;
    let mut outcome = Outcome::Passed;
    let mut undrained = 0;

    for ctx in env.contexts() {
        for api in Api::ALL.into_iter().filter(|api| api.is_legal(ctx)) {
            for exponent in 0..=LARGEST_BURST.ilog2() {
                let size = 1 << exponent;
                let _pinned = Pinned::new();
                undrained += u32::from(!vm::drain_pcp_lists());
                env.fill_slots()?;
                let obtained = desk.obtain(ctx, api, NoLocksFlags::NONE, size);
                desk.free(ctx);

                let name = ctx.name();
                pr_info!(
                    "# burst: context={name} api={} size={size} obtained={obtained}\n",
                    api.name()
                );
                if api == Api::NoLocks && size <= DEPTH {
                    outcome = outcome.check(
                        obtained == size,
                        fmt!("{name}: {obtained} pages in a burst of {size}"),
                    );
                }
                breathe();
            }
        }
    }
    if undrained != 0 {
        pr_info!("# note: {undrained} bursts from lists that could not be drained before\n");
    }
    Ok(desk.check(outcome))
}

/// Pages from all contexts, held at the same time, are all different.
fn handed_out_once(env: &Env) -> Result<Outcome> {
    let corrupt = CORRUPT.load(Relaxed);
    let mut desk = Desk::new(LARGEST_BURST)?;
    let mut addresses = KVVec::with_capacity(LARGEST_BURST, GFP_KERNEL)?;
    let mut stat = Stat::default();
    let mut contexts = env.contexts().cycle();

    while stat.attempts < LARGEST_BURST as u64 {
        let _pinned = Pinned::new();
        let Some(ctx) = contexts.next() else {
            return Ok(Outcome::Skipped("no context may try a lock here"));
        };
        env.fill_slots()?;
        let obtained = desk.obtain(ctx, Api::NoLocks, NoLocksFlags::NONE, PROMISED);
        stat.add(PROMISED, obtained);
    }
    for held in desk.pile.pages() {
        addresses.push_within_capacity(held.page() as usize)?;
    }
    addresses.as_mut_slice().sort_unstable();
    let twice = addresses
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .count();
    desk.free(Context::Task);
    stat.print("handed_out_once", Api::NoLocks);

    let corrupt = CORRUPT.load(Relaxed) - corrupt;
    Ok(desk
        .check(Outcome::Passed)
        .check(twice == 0, fmt!("{twice} pages were handed out twice"))
        .check(
            corrupt == 0,
            fmt!("{corrupt} pages lost their owner's mark"),
        )
        .check(
            stat.obtained == stat.attempts,
            fmt!("{} of {} pages", stat.obtained, stat.attempts),
        ))
}

/// A page is zeroed when asked, and only then.
fn zero(env: &Env) -> Result<Outcome> {
    const DIRT: u64 = 0xd1d1_d1d1_d1d1_d1d1;
    // A worker on another CPU may put clean pages into the slots between our free and our request;
    // it does so when asked, which is once a round at most.
    const ROUNDS: usize = 16;
    let mut desk = Desk::new(PROMISED)?;
    let mut stat = Stat::default();
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let mut dirty = false;
        for _ in 0..ROUNDS {
            let pages = desk.reuse(env, ctx, NoLocksFlags::NONE, DIRT)?;
            stat.add(PROMISED, pages.len());
            dirty = pages.iter().any(|held| held.has(DIRT));
            desk.free(ctx);
            if dirty {
                break;
            }
        }
        // SAFETY: Only reads static keys.
        let wiped = unsafe { nolocks_overwritten_anyway() };
        let name = ctx.name();
        outcome = outcome.check(
            dirty != wiped,
            fmt!("{name}: dirty={dirty} without __GFP_ZERO, wiped anyway={wiped}"),
        );

        let pages = desk.reuse(env, ctx, NoLocksFlags::NONE.zeroed(), DIRT)?;
        let got = pages.len();
        let zeroed = pages.iter().filter(|held| held.is_filled_with(0)).count();
        stat.add(PROMISED, got);
        desk.free(ctx);
        outcome = outcome.check(
            zeroed == got,
            fmt!("{name}: {zeroed} of {got} pages zeroed with __GFP_ZERO"),
        );
    }
    stat.print("zero", Api::NoLocks);
    Ok(desk.check(outcome).check(
        stat.obtained == stat.attempts,
        fmt!("{} of {} pages", stat.obtained, stat.attempts),
    ))
}
