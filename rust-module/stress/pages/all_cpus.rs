// SPDX-License-Identifier: GPL-2.0

//! All CPUs allocate at once.

use core::num::NonZero;

use kernel::{
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
    }, //
};

use crate::{
    api::{
        Api,
        Pile, //
    },
    context::Context,
    env::{
        Desk,
        Env,
        Stat,
        LARGEST_BURST,
        PROMISED, //
    },
    ktap::Outcome,
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        }, //
    },
    rng::Rng,
    task::{
        breathe,
        Pinned, //
    },
    threads, //
};

pub(crate) fn all_cpus(env: &Env) -> Result<Outcome> {
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
            End::Pages(pages) => stat.obtained >= pages || stat.attempts > 2 * pages + 10_000,
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
            // Until the exchange has filled up, there may be less to take out than went in. Any of
            // them, so that none stays: memory that goes offline waits for a page that had just been
            // taken when its block was isolated, and this load waits for that to end. The lists and
            // the slots of that zone give nothing meanwhile, so that it does not fill up then.
            let is_filled = shared.pages().len() > LARGEST_BURST / 2;
            for _ in 0..SWAPPED {
                let len = shared.pages().len();
                if len == 0 || !is_filled && obtained != 0 {
                    break;
                }
                shared.pages().swap(rng.below(len), len - 1);
                if let Some(held) = shared.pop() {
                    desk.pile.push(held);
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
