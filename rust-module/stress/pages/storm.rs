// SPDX-License-Identifier: GPL-2.0

//! NMIs until each part of the slots' code was hit often enough.

use core::ops::Range;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Acquire,
                Relaxed,
                Release, //
            },
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
    context::Context,
    env::{
        empty_slots,
        Desk,
        Env,
        Stat,
        DEPTH, //
    },
    ktap::Outcome,
    nested::Symbol,
    nmi::{
        kick_nmi,
        watch_nmis, //
    },
    nolocks::{
        page::NoLocksFlags,
        raw_spin_lock::{
            new_raw_spin_lock,
            RawSpinLock, //
        },
        slots::PageSlots, //
    },
    task::{
        breathe,
        wait_for,
        Pinned, //
    },
    threads,
    vm, //
};

/// Looks at what an NMI has interrupted, for each hit that is wanted, after which a part counts as out
/// of reach. Not NMIs: where they come by themselves, most may be over before the one who looks has run.
const MOST: u32 = 2000;
/// Pages that an NMI asks for. Few, as most of the time should be the victim's.
const BURST: usize = 1;

/// A part of the slots' code, and what counts as a hit inside it: an interrupted stack with one of
/// its functions anywhere, be it in a lock that lockdep checks on behalf of a function they call.
///
/// Where there is no stack there is the function that calls them, of which only the instructions of its own
/// count.
struct Part {
    name: &'static str,
    functions: &'static [&'static str],
    hosts: &'static [&'static str],
}

const POP: Part = Part {
    name: "pop",
    functions: &["page_slots_pop", "slot_take"],
    hosts: &[],
};
const PUSH: Part = Part {
    name: "push",
    functions: &["page_slots_push", "slots_push"],
    hosts: &[],
};
const REFILL: Part = Part {
    name: "refill",
    functions: &["fill_slots", "page_slots_rmqueue"],
    // Who else called it is not known without a stack; the victim does not.
    hosts: if cfg!(CONFIG_STACKTRACE) {
        &[]
    } else {
        &["rmqueue_bulk"]
    },
};

/// What is known of a function of the kernel.
struct Function {
    range: Range<usize>,
    /// The parts, as bits, that it makes a hit of anywhere on the stack, and as the interrupted one.
    anywhere: usize,
    interrupted: usize,
}

/// The functions that were met, as it takes long to ask for each frame's name.
struct Functions<'a> {
    parts: &'a [Part],
    known: KVVec<Function>,
}

impl Functions<'_> {
    /// The function that `ip` is in.
    fn at(&mut self, ip: usize) -> Result<&Function> {
        let found = self.known.iter().position(|f| f.range.contains(&ip));
        let index = match found {
            Some(index) => index,
            None => {
                let (symbol, range) = Symbol::with_range(ip);
                let bits = |of: fn(&Part) -> &'static [&'static str]| {
                    self.parts
                        .iter()
                        .enumerate()
                        .filter(|(_, part)| of(part).iter().any(|name| symbol.is(name)))
                        .fold(0, |bits, (nth, _)| bits | 1 << nth)
                };
                let function = Function {
                    range,
                    anywhere: bits(|part| part.functions),
                    interrupted: bits(|part| part.hosts),
                };
                self.known.push(function, GFP_KERNEL)?;
                self.known.len() - 1
            }
        };
        self.known.get(index).ok_or(EINVAL)
    }

    /// Whether such a stack is a hit inside the part.
    fn is_inside(&mut self, part: usize, stack: impl Iterator<Item = usize>) -> Result<bool> {
        for (nth, frame) in stack.enumerate() {
            // Where a call returns to may be the next function already.
            let function = self.at(frame - usize::from(nth != 0))?;
            let parts = match nth {
                0 => function.anywhere | function.interrupted,
                _ => function.anywhere,
            };
            if parts & 1 << part != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What an NMI has interrupted, for the one who names the functions to look at.
struct Record {
    /// The part that the victim was at, or [`NONE`] while there is nothing to look at.
    at: Atomic<usize>,
    length: Atomic<usize>,
    frames: [Atomic<usize>; Self::FRAMES],
}

impl Record {
    const FRAMES: usize = 32;

    fn new() -> Self {
        Self {
            at: Atomic::new(NONE),
            length: Atomic::new(0),
            frames: [const { Atomic::new(0) }; Self::FRAMES],
        }
    }

    /// To be called in the NMI, while there is nothing to look at.
    fn fill(&self, at: usize, frames: &[usize]) {
        for (slot, frame) in self.frames.iter().zip(frames) {
            slot.store(*frame, Relaxed);
        }
        self.length.store(frames.len(), Relaxed);
        self.at.store(at, Release);
    }

    /// Counts the look, if there is anything to look at, and the hit, if it is one.
    fn look<const N: usize>(
        &self,
        functions: &mut Functions<'_>,
        tallies: &mut [Tally; N],
    ) -> Result {
        let at = self.at.load(Acquire);

        if let Some(tally) = tallies.get_mut(at) {
            let length = self.length.load(Relaxed);
            let stack = self.frames.iter().take(length).map(|f| f.load(Relaxed));
            tally.looks += 1;
            tally.hits += u32::from(functions.is_inside(at, stack)?);
            self.at.store(NONE, Release);
        }
        Ok(())
    }
}

/// What the last NMIs have interrupted.
struct Records(KVec<Record>);

impl Records {
    /// As many as come, where they come by themselves, before the one who looks has run again.
    const NUMBER: usize = 64;

    fn new() -> Result<Self> {
        let mut records = KVec::with_capacity(Self::NUMBER, GFP_KERNEL)?;

        for _ in 0..Self::NUMBER {
            records.push(Record::new(), GFP_KERNEL)?;
        }
        Ok(Self(records))
    }

    /// To be called in the NMI. It is lost if none of the others was looked at meanwhile.
    fn fill(&self, at: usize, frames: &[usize]) {
        let mut records = self.0.iter();

        if let Some(record) = records.find(|record| record.at.load(Acquire) == NONE) {
            record.fill(at, frames);
        }
    }

    /// Counts all that there is to look at.
    fn look<const N: usize>(
        &self,
        functions: &mut Functions<'_>,
        tallies: &mut [Tally; N],
    ) -> Result {
        self.0
            .iter()
            .try_for_each(|record| record.look(functions, tallies))
    }
}

/// What NMIs have met while the victim was at one part.
#[derive(Clone, Copy)]
struct Tally {
    looks: u32,
    hits: u32,
}

impl Tally {
    /// Whether the part is short of hits and still within reach.
    fn lacks(&self, wanted: u32) -> bool {
        self.hits < wanted && self.looks / MOST < wanted
    }
}

/// At no part.
const NONE: usize = usize::MAX;

/// What the victim and the sender of the NMIs share.
#[pin_data]
struct Storm {
    /// The part that the victim is at, by number, or [`NONE`].
    doing: Atomic<usize>,
    over: Atomic<bool>,
    nmis: Atomic<u32>,
    records: Records,
    /// Pages for a third CPU to free: on the victim's own they would be back on its lists.
    #[pin]
    spent: RawSpinLock<Pile>,
}

impl Storm {
    /// More pages than the slots hold.
    const ROOM: usize = 8 * DEPTH;
    /// How often the third CPU looks for pages.
    const LOOK: Delta = Delta::from_millis(1);

    fn new() -> Result<Pin<KBox<Self>>> {
        let spent = Pile::new(Self::ROOM)?;
        let records = Records::new()?;

        KBox::pin_init(
            pin_init!(Self {
                doing: Atomic::new(NONE),
                over: Atomic::new(false),
                nmis: Atomic::new(0),
                records,
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
        // Attempts at the empty slots, and pages for the full ones.
        const BEYOND: usize = DEPTH;
        // How often they are emptied and filled by the same pages, before there are new ones: so that
        // most of the time goes into that, and not into getting them.
        const ROUNDS: u32 = 8;
        // Bursts until what has gathered on the lists is taken off again.
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
                let cpu = threads::cpu_of(0);
                let pile = &mut desk.pile;
                desk.site.run(Context::RawIrqsave, || {
                    for _ in 0..ROUNDS {
                        self.doing.store(0, Relaxed);
                        empty_slots(pile, cpu);
                        pile.obtain(Api::NoLocks, NoLocksFlags::NONE, BEYOND);
                        self.doing.store(1, Relaxed);
                        pile.free(Self::ROOM);
                    }
                    self.doing.store(NONE, Relaxed);
                    empty_slots(pile, cpu);
                });
                // Or the lists had more each time.
                core::mem::swap(&mut *self.spent.lock(), &mut desk.pile);
                desk.pile.free_as_usual();
                breathe();
                if self.is_over() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Empties the slots, fills them again, and does nothing else: the more of the time goes into that,
    /// the more NMIs hit it. A worker is at it too, on any CPU, and so at the same slots.
    fn empty_and_refill(&self, _env: &Env) -> Result {
        let mut desk = Desk::new(Self::ROOM)?;
        let _pinned = Pinned::new();

        vm::drain_pcp_lists();
        // All the time, as a stack says by itself whether it is a hit.
        self.doing.store(0, Relaxed);
        while !self.is_over() {
            let pile = &mut desk.pile;
            desk.site.run(Context::RawIrqsave, || {
                while pile.obtain(Api::NoLocks, NoLocksFlags::NONE, 1) == 1 {}
            });
            core::mem::swap(&mut *self.spent.lock(), &mut desk.pile);
            desk.pile.free_as_usual();
            drop(PageSlots::register(1)?);
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

    /// Has NMIs on `cpu` until each of `parts` has taken as many hits as wanted.
    fn send<const N: usize>(
        &self,
        cpu: u32,
        parts: &[Part; N],
        wanted: u32,
    ) -> Result<([Tally; N], Stat)> {
        let mut functions = Functions {
            parts,
            known: KVVec::new(),
        };
        let mut tallies = [Tally { looks: 0, hits: 0 }; N];
        let mut stat = Stat::default();
        let mut held = [const { None }; 2 * BURST];
        let mut on_nmi = |frames: &[usize]| {
            let at = self.doing.load(Relaxed);
            if at != NONE {
                self.records.fill(at, frames);
            }
            // Each page replaces, and so frees, one from the last NMI but one: the victim has
            // run while it was held, and would have left its mark in it.
            held.rotate_left(BURST);
            for slot in held.iter_mut().take(BURST) {
                *slot = Held::obtain(Api::NoLocks, NoLocksFlags::NONE);
            }
            stat.add(BURST, held.iter().take(BURST).flatten().count());
            self.nmis.add(1, Relaxed);
        };

        watch_nmis(cpu, &mut on_nmi, || {
            let nmis = || self.nmis.load(Relaxed);

            while !self.is_over() && tallies.iter().any(|tally| tally.lacks(wanted)) {
                // Where NMIs have to be sent it is done when they are of use.
                if tallies
                    .get(self.doing.load(Relaxed))
                    .is_some_and(|tally| tally.lacks(wanted))
                {
                    let before = nmis();
                    kick_nmi(cpu);
                    if !wait_for(|| nmis() != before) {
                        return Err(ETIMEDOUT);
                    }
                }
                self.records.look(&mut functions, &mut tallies)?;
                breathe();
            }
            Ok(())
        })?;
        for (part, Tally { looks, hits }) in parts.iter().zip(&tallies) {
            pr_info!(
                "# storm: nmis={} part={} looks={looks} hits={hits}\n",
                self.nmis.load(Relaxed),
                part.name
            );
        }
        Ok((tallies, stat))
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
            _ => storm.send(threads::cpu_of(0), &parts, wanted).map(|met| {
                seen.populate(met);
            }),
        };
        storm.over.store(true, Relaxed);
        result
    })?;

    let (tallies, stat) = seen.copy().ok_or(EINTR)?;
    let corrupt = CORRUPT.load(Relaxed) - corrupt;
    let mut outcome = Outcome::Passed;
    stat.print(name, Api::NoLocks);
    for (part, Tally { looks, hits }) in parts.iter().zip(tallies) {
        outcome = outcome.check(
            hits >= wanted,
            fmt!(
                "{hits} hits of {wanted} inside {} in {looks} looks",
                part.name
            ),
        );
    }
    Ok(outcome
        .check(
            2 * stat.obtained >= stat.attempts && stat.obtained != 0,
            fmt!(
                "the NMIs obtained {} pages of {}",
                stat.obtained,
                stat.attempts
            ),
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
