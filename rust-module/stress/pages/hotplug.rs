// SPDX-License-Identifier: GPL-2.0

//! CPUs and memory that go and come back while the others allocate.

use kernel::{
    bindings,
    prelude::*,
    str::CString,
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
    all_cpus::beside,
    api::{
        Api,
        CORRUPT, //
    },
    env::{
        Desk,
        Env,
        Stat,
        DEPTH, //
    },
    ktap::{
        repeat,
        Outcome, //
    },
    probes,
    task::{
        breathe,
        interrupted_after,
        Pinned, //
    },
    threads,
    vm::{
        self,
        Setting, //
    }, //
};

/// Takes a CPU offline, or brings it back. By a task that may sleep, on another CPU.
#[cfg(CONFIG_HOTPLUG_CPU)]
pub(crate) fn set_cpu(cpu: u32, online: bool) -> Result {
    // SAFETY: Both take any number and check it.
    kernel::error::to_result(unsafe {
        if online {
            bindings::add_cpu(cpu)
        } else {
            bindings::remove_cpu(cpu)
        }
    })
}

#[cfg(not(CONFIG_HOTPLUG_CPU))]
pub(crate) fn set_cpu(_cpu: u32, _online: bool) -> Result {
    Err(EOPNOTSUPP)
}

/// Uses all memory that can be had without reclaiming it, for a moment, and says how many pages
/// that were. By a task that may sleep.
fn use_memory() -> Result<u64> {
    const GFP: bindings::gfp_t = bindings::GFP_NOWAIT | bindings::__GFP_NOWARN;
    /// Blocks at most, which is more than there are as long as memory is not all in pieces.
    const ROOM: usize = 1 << 17;
    // Not a list in the blocks: what nobody writes to costs a guest's host no memory.
    let mut blocks = KVVec::with_capacity(ROOM, GFP_KERNEL)?;
    let mut used = 0;

    for order in (0..=bindings::MAX_PAGE_ORDER).rev() {
        while blocks.len() < ROOM {
            // SAFETY: This is a task.
            let page = unsafe { bindings::alloc_pages(GFP, order) };
            if page.is_null() {
                break;
            }
            blocks.push_within_capacity((page, order))?;
            used += 1 << order;
            breathe();
        }
    }
    for (page, order) in blocks.iter().rev() {
        // SAFETY: Obtained above with this order, and freed once.
        unsafe { bindings::__free_pages(*page, *order) };
        breathe();
    }
    Ok(used)
}

/// What a CPU left in its slots, and what it has when it is back.
#[derive(Clone, Copy)]
struct Seen {
    before: usize,
    offline: usize,
    back: usize,
}

/// A CPU that goes offline leaves no page in its slots, and has them full when it is back.
pub(crate) fn cpu(env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 3;
    let cpus = threads::online_cpus().get();
    let victim = threads::cpu_of(cpus - 1);
    let seen = [const { SetOnce::new() }; ROUNDS];
    let refused = Atomic::new(false);
    let corrupt = CORRUPT.load(Relaxed);

    if cpus < 2 {
        return Ok(Outcome::Skipped("one CPU has to stay"));
    }
    let stat = beside(env, cpus - 1, &|| {
        for round in &seen {
            env.fill_slots()?;
            let before = vm::in_slots(victim);
            if set_cpu(victim, false).is_err() {
                refused.store(true, Relaxed);
                return Ok(());
            }
            let offline = vm::in_slots(victim);
            set_cpu(victim, true)?;
            env.fill_slots()?;
            round.populate(Seen {
                before,
                offline,
                back: vm::in_slots(victim),
            });
        }
        Ok(())
    })?;
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }

    if refused.load(Relaxed) {
        return Ok(Outcome::Skipped("the kernel takes no CPU offline here"));
    }
    let mut outcome = Outcome::Passed;
    for seen in &seen {
        let Seen {
            before,
            offline,
            back,
        } = seen.copy().ok_or(EINTR)?;
        pr_info!("# cpu_hotplug: cpu={victim} before={before} offline={offline} back={back}\n");
        outcome = outcome
            .check(
                before >= DEPTH && back >= DEPTH,
                fmt!("{before} pages were in the slots before and {back} after"),
            )
            .check(
                offline == 0,
                fmt!("{offline} pages are in the slots of a CPU that is offline"),
            );
    }
    Ok(check(outcome, "cpu_hotplug", stat, corrupt, cpus - 1))
}

/// CPUs that go and come back leave no more kworkers waiting with a user registered than without one.
///
/// Counted are those that wait in the middle of a work while a CPU is on its way, not how many there
/// are: others before may have left enough idle ones.
pub(crate) fn kworkers(env: &Env) -> Result<Outcome> {
    /// In which it has come once more: a second, or two as it is rounded.
    const SHEPHERD: Delta = Delta::from_millis(2500);

    if threads::online_cpus().get() < 3 {
        return Ok(Outcome::Skipped("two CPUs have to stay"));
    }
    // vmstat_shepherd() waits for each CPU that is on its way: not while this lasts.
    Setting::open(c"/proc/sys/vm/stat_interval")?.during(b"30", || {
        fsleep(SHEPHERD);
        blocked_kworkers(env)
    })
}

fn blocked_kworkers(env: &Env) -> Result<Outcome> {
    let all = probes::kworkers();
    // Others have works that wait as well, now and then: each try asks both.
    let pair = || -> Result<(u32, Option<u32>)> {
        env.give_up_slots();
        let before = blocked_beside_hotplug()?;
        env.fill_slots()?;
        let Some(before) = before else {
            return Ok((0, None));
        };
        Ok((before, blocked_beside_hotplug()?))
    };
    let (without, with) = repeat(pair, |(without, with)| {
        with.is_none_or(|with| with <= *without)
    })?;
    let Some(with) = with else {
        return Ok(Outcome::Skipped("the kernel takes no CPU offline here"));
    };
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }
    pr_info!(
        "# hotplug_kworkers: blocked_without={without} blocked_with={with} before={all} after={}\n",
        probes::kworkers()
    );
    Ok(Outcome::Passed.check(
        with <= without,
        fmt!("{with} kworkers waited with a user registered, {without} without"),
    ))
}

/// The most kworkers that waited at a time while all CPUs but two went off and on, one by one. `None`
/// where none can.
fn blocked_beside_hotplug() -> Result<Option<u32>> {
    const ROUNDS: u32 = 3;
    const LOOK: Delta = Delta::from_micros(100);
    let cpus = threads::online_cpus().get();
    let (over, refused) = (Atomic::new(false), Atomic::new(false));
    let most = Atomic::new(0);
    let rounds = || {
        for _ in 0..ROUNDS {
            for victim in (2..cpus).rev() {
                let victim = threads::cpu_of(victim);
                if set_cpu(victim, false).is_err() {
                    refused.store(true, Relaxed);
                    return Ok(());
                }
                set_cpu(victim, true)?;
            }
        }
        Ok(())
    };

    // Each on a CPU that stays.
    threads::run(2, &|nth| {
        if nth == 1 {
            let result = rounds();
            over.store(true, Relaxed);
            return result;
        }
        while !over.load(Relaxed) {
            most.store(most.load(Relaxed).max(probes::blocked_kworkers()), Relaxed);
            fsleep(LOOK);
        }
        Ok(())
    })?;
    Ok((!refused.load(Relaxed)).then_some(most.load(Relaxed)))
}

/// What the others have seen, of whom there is none with one CPU.
fn check(outcome: Outcome, name: &str, stat: Stat, corrupt: u64, cpus: u32) -> Outcome {
    let corrupt = CORRUPT.load(Relaxed) - corrupt;

    stat.print(name, Api::NoLocks);
    outcome
        .check(
            stat.obtained != 0 || cpus < 2,
            fmt!("the others obtained {} pages", stat.obtained),
        )
        .check(
            corrupt == 0,
            fmt!("{corrupt} pages lost their owner's mark"),
        )
}

/// Blocks of memory go offline, which needs every page of theirs back, from the slots too.
pub(crate) fn memory(env: &Env) -> Result<Outcome> {
    /// How many have to go and come back.
    const WANTED: u32 = 2;
    /// More than these machines have.
    const BLOCKS: u32 = 64;
    const ROUNDS: u32 = 3;
    /// Mainline waits without end for a slab page: frozen, it has no reference and counts as movable.
    const PATIENCE_MS: u32 = 5_000;
    let corrupt = CORRUPT.load(Relaxed);
    let cpus = threads::online_cpus().get();
    let mut blocks = KVVec::new();
    let [tried, gone, lost, late] = [const { Atomic::new(0u32) }; 4];

    // From the end, where the kernel's own pages are few.
    for block in (0..BLOCKS).rev() {
        let path = CString::try_from_fmt(fmt!("/sys/devices/system/memory/memory{block}/state"))?;
        match Setting::open(&path) {
            Ok(state) => blocks.push(state, GFP_KERNEL)?,
            Err(err) if err == ENOENT => (),
            Err(err) => return Err(err),
        }
    }
    if blocks.is_empty() || cfg!(CONFIG_ARM64) {
        return Ok(Outcome::Skipped(
            "no memory can go offline here, as none of what an arm64 was booted with",
        ));
    }
    let stat = beside(env, cpus, &|| {
        for _ in 0..ROUNDS {
            for block in &blocks {
                if gone.load(Relaxed) >= WANTED {
                    return Ok(());
                }
                tried.add(1, Relaxed);
                env.fill_slots()?;
                // Refused where a page is somebody's who cannot do without, as the others' are.
                let offline = || block.write(b"offline").is_ok();
                let (is_gone, is_late) = interrupted_after(PATIENCE_MS, offline);
                late.add(u32::from(is_late), Relaxed);
                if is_gone {
                    gone.add(1, Relaxed);
                    if block.write(b"online").is_err() {
                        lost.add(1, Relaxed);
                    }
                }
            }
        }
        Ok(())
    })?;
    let [tried, gone, lost, late] = [tried, gone, lost, late].map(|n| n.load(Relaxed));
    pr_info!("# memory_hotplug: tried={tried} offline={gone} interrupted={late} lost={lost}\n");
    let outcome = Outcome::Passed
        .check(
            gone >= WANTED,
            fmt!("{gone} blocks of {WANTED} went offline, in {tried} attempts"),
        )
        .check(lost == 0, fmt!("{lost} blocks did not come back"));
    Ok(check(outcome, "memory_hotplug", stat, corrupt, cpus))
}

/// With memory used up to the last watermark there may be NULL, and nothing worse; afterwards every
/// context has its burst again.
pub(crate) fn pressure(env: &Env) -> Result<Outcome> {
    const ROUNDS: u32 = 2;
    let corrupt = CORRUPT.load(Relaxed);
    let cpus = threads::online_cpus().get();
    let used = Atomic::new(0u64);

    let stat = beside(env, cpus, &|| {
        for _ in 0..ROUNDS {
            used.store(use_memory()?, Relaxed);
        }
        Ok(())
    })?;
    pr_info!("# pressure: used={} pages\n", used.load(Relaxed));

    let mut desk = Desk::new(DEPTH)?;
    let mut outcome = Outcome::Passed;
    for ctx in env.contexts() {
        // Somebody may still be reclaiming, and drain the slots in between.
        let visit = || {
            let _pinned = Pinned::new();
            env.fill_slots()?;
            Ok(desk.visit(ctx, Api::NoLocks, DEPTH))
        };
        let obtained = repeat(visit, |obtained| *obtained == DEPTH)?;
        outcome = outcome.check(
            obtained == DEPTH,
            fmt!(
                "{}: {obtained} pages in a burst of {DEPTH} afterwards",
                ctx.name()
            ),
        );
    }
    let outcome = desk
        .check(outcome)
        .check(used.load(Relaxed) != 0, fmt!("no memory was used"));
    Ok(check(outcome, "pressure", stat, corrupt, cpus))
}
