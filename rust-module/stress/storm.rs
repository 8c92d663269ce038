// SPDX-License-Identifier: GPL-2.0

//! NMIs until each part of the slots' code was hit often enough.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        SetOnce, //
    },
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

use crate::{
    api::{
        Api,
        Held,
        Pile,
        CORRUPT, //
    },
    cases::{
        Desk,
        Env,
        Stat,
        DEPTH, //
    },
    context::{
        breathe,
        send_nmi,
        Context,
        Nmis,
        Pinned, //
    },
    ktap::Outcome,
    nested::Symbol,
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        },
        slots::PageSlots, //
    },
    threads,
    vm, //
};

/// NMIs for each hit that is wanted after which a part counts as out of reach.
const MOST: u32 = 2000;
/// Pages that an NMI asks for. Few, as most of the time should be the victim's.
const BURST: usize = 1;

/// A part of the slots' code, as the functions that it may be in.
///
/// What the compiler inlines is part of another symbol, and a hit there counts: with interrupts
/// disabled and no page on the lists there is little else in `alloc_frozen_page_no_locks()`.
struct Part {
    name: &'static str,
    symbols: &'static [&'static str],
}

const POP: Part = Part {
    name: "pop",
    symbols: &[
        "pcp_slots_pop",
        "rmqueue_pcp_slots",
        "alloc_frozen_page_no_locks",
    ],
};
const PUSH: Part = Part {
    name: "push",
    symbols: &["pcp_slots_push", "free_to_pcp_slots"],
};
const REFILL: Part = Part {
    name: "refill",
    symbols: &["refill_pcp_slots", "page_slots_work_fn", "rmqueue_bulk"],
};

/// At no part.
const NONE: usize = usize::MAX;

/// What the victim and the sender of the NMIs share.
#[pin_data]
struct Storm {
    /// The part that the victim is at, by number, or [`NONE`].
    doing: Atomic<usize>,
    over: Atomic<bool>,
    /// Pages for a third CPU to free: on the victim's own they would be back on its lists.
    #[pin]
    spent: RawSpinLock<Pile>,
}

impl Storm {
    /// More pages than the slots of all zones hold.
    const ROOM: usize = 8 * DEPTH;
    /// How often the third CPU looks for pages.
    const LOOK: Delta = Delta::from_millis(1);

    fn new() -> Result<Pin<KBox<Self>>> {
        let spent = Pile::new(Self::ROOM)?;

        KBox::pin_init(
            pin_init!(Self {
                doing: Atomic::new(NONE),
                over: Atomic::new(false),
                spent <- new_raw_spin_lock!(spent, "nolocks_spent"),
            }),
            GFP_KERNEL,
        )
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Empties the slots and fills them again with interrupts disabled, each further than it goes:
    /// where none is left to find, and where no room is, a search is longest, and whatever an NMI
    /// puts in or takes out meanwhile has to be found by it.
    fn empty_and_fill(&self, env: &Env) -> Result {
        /// Attempts at the empty slots, and pages for the full ones.
        const BEYOND: usize = DEPTH;
        /// Bursts until what has gathered on the lists is taken off again.
        const BURSTS: u32 = 64;
        let mut desk = Desk::new(Self::ROOM)?;

        while !self.is_over() {
            let _pinned = Pinned::new();

            vm::drain_pcp_lists();
            env.fill_slots()?;
            for _ in 0..BURSTS {
                for _ in 0..BEYOND {
                    desk.pile.push(Held::obtain_as_usual(false).ok_or(ENOMEM)?);
                }
                let pile = &mut desk.pile;
                desk.site.run(Context::RawIrqsave, || {
                    self.doing.store(0, Relaxed);
                    pile.obtain(Api::NoLocks, NoLocksFlags::NONE, DEPTH + BEYOND);
                    self.doing.store(1, Relaxed);
                    pile.free(Self::ROOM);
                    self.doing.store(NONE, Relaxed);
                });
                breathe();
                if self.is_over() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Empties the slots and has the worker fill them again.
    fn empty_and_refill(&self, _env: &Env) -> Result {
        let mut desk = Desk::new(Self::ROOM)?;

        vm::drain_pcp_lists();
        while !self.is_over() {
            let _pinned = Pinned::new();
            let pile = &mut desk.pile;

            desk.site.run(Context::RawIrqsave, || {
                while pile.obtain(Api::NoLocks, NoLocksFlags::NONE, 1) == 1 {}
            });
            core::mem::swap(&mut *self.spent.lock(), &mut desk.pile);
            desk.pile.free_as_usual();

            self.doing.store(0, Relaxed);
            let claim = PageSlots::register(1)?;
            self.doing.store(NONE, Relaxed);
            drop(claim);
        }
        Ok(())
    }

    /// Frees what the victim has spent.
    fn clean_up(&self) -> Result {
        let mut spent = Pile::new(Self::ROOM)?;

        while !self.is_over() {
            fsleep(Self::LOOK);
            core::mem::swap(&mut *self.spent.lock(), &mut spent);
            spent.free_as_usual();
        }
        Ok(())
    }

    /// Sends NMIs to `cpu` until each of `parts` has taken as many hits as wanted.
    fn send<const N: usize>(
        &self,
        cpu: u32,
        parts: &[Part; N],
        wanted: u32,
    ) -> Result<([u32; N], Stat)> {
        let _nmis = Nmis::new(cpu);
        let mut hits = [0; N];
        let mut stat = Stat::default();
        let mut held = [const { None }; 2 * BURST];
        let mut sent = 0;

        while !self.is_over() && sent / MOST < wanted && hits.iter().any(|n| *n < wanted) {
            let at = self.doing.load(Relaxed);
            if hits.get(at).is_none_or(|n| *n >= wanted) {
                breathe();
                continue;
            }
            let mut hit = 0;
            let arrived = send_nmi(cpu, &mut |ip| {
                if self.doing.load(Relaxed) == at {
                    hit = ip;
                }
                // Each page replaces, and so frees, one from the last NMI but one: the victim has
                // run while it was held, and would have left its mark in it.
                held.rotate_left(BURST);
                for slot in held.iter_mut().take(BURST) {
                    *slot = Held::obtain(Api::NoLocks, NoLocksFlags::NONE);
                }
                stat.add(BURST, held.iter().take(BURST).flatten().count());
            });
            if !arrived {
                return Err(ETIMEDOUT);
            }
            sent += 1;
            let symbol = Symbol::of(hit);
            hits[at] += u32::from(parts[at].symbols.iter().any(|name| symbol.is(name)));
            breathe();
        }
        for (part, hits) in parts.iter().zip(&hits) {
            pr_info!("# storm: nmis={sent} part={} hits={hits}\n", part.name);
        }
        Ok((hits, stat))
    }
}

/// What an NMI hits, and what the victim does.
fn storm<const N: usize>(
    env: &Env,
    name: &str,
    parts: [Part; N],
    victim: fn(&Storm, &Env) -> Result,
) -> Result<Outcome> {
    if env.nmi.is_none() {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped(
            "one CPU cannot interrupt itself at any place",
        ));
    }

    let wanted = env.config.hits;
    let storm = Storm::new()?;
    let seen = SetOnce::new();
    let corrupt = CORRUPT.load(Relaxed);
    env.fill_slots()?;
    threads::run(3, &|nth| {
        let result = match nth {
            0 => victim(&storm, env),
            2 => storm.clean_up(),
            _ => storm.send(threads::cpu_of(0), &parts, wanted).map(|hits| {
                seen.populate(hits);
            }),
        };
        storm.over.store(true, Relaxed);
        result
    })?;

    let (hits, stat) = seen.copy().ok_or(EINTR)?;
    let corrupt = CORRUPT.load(Relaxed) - corrupt;
    let mut outcome = Outcome::Passed;
    stat.print(name, Api::NoLocks);
    for (part, hits) in parts.iter().zip(hits) {
        outcome = outcome.check(
            hits >= wanted,
            fmt!("{hits} hits of {wanted} inside {}", part.name),
        );
    }
    Ok(outcome
        .check(
            stat.obtained != 0,
            fmt!("the NMIs obtained {} pages", stat.obtained),
        )
        .check(
            corrupt == 0,
            fmt!("{corrupt} pages lost their owner's mark"),
        ))
}

/// Where pages leave the slots and come back.
pub(crate) fn slots(env: &Env) -> Result<Outcome> {
    storm(env, "nested_slots", [POP, PUSH], Storm::empty_and_fill)
}

/// Where the worker brings new ones.
pub(crate) fn refill(env: &Env) -> Result<Outcome> {
    storm(env, "nested_refill", [REFILL], Storm::empty_and_refill)
}
