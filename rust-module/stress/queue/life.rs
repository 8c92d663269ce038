// SPDX-License-Identifier: GPL-2.0

//! Queues that come and go, and CPUs.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    }, //
};

use crate::{
    env::{
        origin,
        push_all,
        Desk,
        Env,
        Ledger,
        NAME, //
    },
    ktap::Outcome,
    node::{
        Boxed,
        How,
        Watched, //
    },
    queue::{
        Queue,
        CAPACITY, //
    },
    task::breathe,
    threads, //
};

/// A queue that is dropped with objects in every shard, in blocks or lists, frees them all.
pub(crate) fn drop_in_flight(_env: &Env) -> Result<Outcome> {
    const ROUNDS: usize = 10;
    let mut outcome = Outcome::Passed;

    for round in 0..ROUNDS {
        let memory = round % 2 == 0;
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;
        let queued = Atomic::new(0u64);

        Watched::fail((!memory).then_some(0), !memory);
        threads::run(threads::online_cpus().get(), &|_| {
            let desk = Desk::new(1)?;
            for ctx in Env::ordinary_contexts() {
                for n in 0..CAPACITY / 4 {
                    // Cannot come back: it has a head.
                    let _ = desk.push(ctx, &queue, How::Push, Boxed::new(origin(n))?);
                    queued.add(1, Relaxed);
                }
                breathe();
            }
            Ok(())
        })?;
        drop(queue);
        Watched::fail(None, false);
        outcome = ledger.close(outcome, queued.load(Relaxed));
    }
    Ok(outcome)
}

#[cfg(not(CONFIG_HOTPLUG_CPU))]
pub(crate) fn cpu_offline(_env: &Env) -> Result<Outcome> {
    Ok(Outcome::Skipped("no CPU can go offline here"))
}

/// The objects of a CPU that goes offline are freed all the same.
#[cfg(CONFIG_HOTPLUG_CPU)]
pub(crate) fn cpu_offline(env: &Env) -> Result<Outcome> {
    const OBJECTS: usize = 100;
    let cpus = threads::online_cpus().get();
    let (nth, cpu) = (cpus - 1, threads::cpu_of(cpus - 1));
    let mut outcome = Outcome::Passed;

    if cpus < 2 {
        return Ok(Outcome::Skipped("one CPU cannot go offline"));
    }
    // Freed by a barrier, by the timer, which was that CPU's, and by the drop, which finds a list.
    for round in 0..3 {
        let ledger = Ledger::open();
        let queue = Queue::<Watched>::new(NAME)?;

        let held = Watched::hold();
        Watched::fail((round == 2).then_some(0), round == 2);
        threads::run(cpus, &|n| {
            push_all(&queue, if n == nth { OBJECTS } else { 0 })
        })?;
        Watched::fail(None, false);
        // SAFETY: This is a task that may sleep, and not bound to that CPU.
        let offline = unsafe { kernel::bindings::remove_cpu(cpu) };
        let early = queue.stats().freed;
        drop(held);
        match round {
            0 => queue.barrier(),
            1 => drop(crate::env::wait_until_freed(&queue, OBJECTS as u64)),
            _ => (),
        }
        drop(queue);
        // SAFETY: As above.
        let online = unsafe { kernel::bindings::add_cpu(cpu) };
        outcome = ledger.close(outcome, OBJECTS as u64).check(
            offline == 0 && online == 0,
            fmt!("CPU {cpu} went offline with {offline} and online with {online}"),
        );
        outcome = outcome.check(
            early == 0,
            fmt!("{early} objects were freed before the CPU was offline"),
        );
    }
    if let Some(nmi) = &env.nmi {
        nmi.renew()?;
    }
    Ok(outcome)
}

/// Each step of creating a queue fails once, and leaves nothing behind that keeps the next from
/// being created.
pub(crate) fn creation(_env: &Env) -> Result<Outcome> {
    let ledger = Ledger::open();
    let mut outcome = Outcome::Passed;
    let (mut failed, mut queued) = (0, 0);

    for nth in 0.. {
        Watched::fail_step(Some(nth));
        let queue = Queue::<Watched>::new(NAME);
        let steps = Watched::steps();
        Watched::fail_step(None);
        match queue {
            Ok(queue) => {
                push_all(&queue, 1)?;
                queued += 1;
                drop(queue);
            }
            Err(err) => {
                failed += 1;
                outcome = outcome.check(err == ENOMEM, fmt!("step {nth} failed with {err:?}"));
            }
        }
        if steps <= nth {
            pr_info!("# creation: steps={steps} failed={failed}\n");
            outcome = outcome.check(
                // A queue does without slots.
                failed + 1 == steps && queued == 2,
                fmt!("of {steps} steps that failed, {failed} were missed"),
            );
            break;
        }
    }
    Ok(ledger.close(outcome, queued))
}
