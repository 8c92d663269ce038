// SPDX-License-Identifier: GPL-2.0

//! Every context, and every box.

use core::mem::MaybeUninit;

use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::rcu, //
};

use crate::{
    context::Context,
    env::{
        check_stats,
        Desk,
        Env,
        Ledger,
        NAME, //
    },
    ktap::Outcome,
    node::{
        Boxed,
        How,
        Origin,
        Watched, //
    },
    nolocks::alloc::NoLocksBox,
    queue::{
        memory,
        BulkQueue,
        Queue,
        RcuPointer,
        Retired, //
    },
    task::{
        breathe,
        Pinned, //
    }, //
};

pub(crate) fn context(env: &Env, ctx: Context) -> Result<Outcome> {
    if !ctx.is_possible(&env.nmi) {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }

    let ledger = Ledger::open();
    let queue = Queue::<Watched>::new(NAME)?;
    let mut desk = Desk::new(1)?;
    let mut outcome = Outcome::Passed;
    let (mut all_queued, mut all_returned) = (0, 0);
    let batch = ctx.chunk(64);
    let mut nodes = KVVec::with_capacity(batch, GFP_KERNEL)?;
    let mut back = KVVec::with_capacity(batch, GFP_KERNEL)?;

    for how in How::ALL.into_iter().filter(|how| how.is_legal(ctx)) {
        for origin in Origin::ALL {
            let share = if origin == Origin::Kmalloc { 1 } else { 16 };
            let (mut attempts, mut returned) = (0, 0);

            while attempts < (env.config.objects / share) as u64 {
                while nodes.len() < batch {
                    nodes.push_within_capacity(Boxed::new(origin)?)?;
                }
                let _pinned = Pinned::new();
                match ctx.trylock_allowed() {
                    true => desk.warm(1)?,
                    false => env.fill_slots()?,
                }
                desk.site.run(ctx, || {
                    while let Some(node) = nodes.pop() {
                        if let Some(node) = node.push(&queue, how) {
                            // There is room for all.
                            let _ = back.push_within_capacity(node);
                        }
                    }
                });
                attempts += batch as u64;
                returned += back.len() as u64;
                // Nobody has ever read them.
                back.clear();
                breathe();
            }
            let queued = attempts - returned;
            pr_info!(
                "# queue: context={} api={} origin={} attempts={attempts} queued={queued} returned={returned}\n",
                ctx.name(),
                how.name(),
                origin.name()
            );
            // What is tried may fail.
            let promised = how != How::Try && !env.config.fail;
            outcome = outcome
                .check(
                    returned == 0 || !promised,
                    fmt!("{returned} objects came back from {}", how.name()),
                )
                .check(
                    // Without SMP nothing can be tried where interrupts are disabled.
                    queued != 0 || env.config.fail || how == How::Try && !cfg!(CONFIG_SMP),
                    fmt!("{} never queued one", how.name()),
                );
            all_queued += queued;
            all_returned += returned;
        }
    }
    queue.barrier();
    outcome = check_stats(outcome, queue.stats(), all_queued, all_returned);
    outcome = ledger.close(outcome, all_queued);
    drop(queue);
    Ok(desk.check(ledger.close(outcome, all_queued)))
}

/// Gives up what came back. To be called where nobody has ever read it.
fn is_queued<O>(pushed: Result<(), Retired<O>>) -> bool {
    // SAFETY: By what the caller says.
    pushed
        .map_err(|object| drop(unsafe { object.assume_unread() }))
        .is_ok()
}

/// Every box there is, with memory of every sort.
pub(crate) fn boxes(env: &Env) -> Result<Outcome> {
    /// More than `kmalloc()` gives, so that a `KVBox` has to be elsewhere.
    type Huge = [MaybeUninit<u8>; bindings::KMALLOC_MAX_SIZE as usize + 1];
    /// More than a slab is for.
    type Large = [u64; 4 * PAGE_SIZE / size_of::<u64>()];
    /// More than a page.
    type TwoPages = MaybeUninit<[u8; 2 * PAGE_SIZE]>;
    const ROUNDS: u64 = 100;
    /// Of which there is something to be freed.
    const SORTS: u64 = 11;
    let queue = BulkQueue::new(NAME)?;
    let place = RcuPointer::new(KBox::new(0u64, GFP_KERNEL)?);
    let page = || memory::page_mightsleep().ok_or(ENOMEM);
    let (mut returned, mut replaced, mut empty, mut dirty) = (0, 0, 0, 0);

    for n in 0..ROUNDS {
        // SAFETY: Any bytes will do.
        let huge = unsafe { KVBox::<Huge>::new_uninit(GFP_KERNEL)?.assume_init() };
        let large = KBox::<Large>::zeroed(GFP_KERNEL)?;

        for is_queued in [
            is_queued(queue.push_headless(KBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(KBox::pin(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(VBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(KVBox::new(n, GFP_KERNEL)?)),
            is_queued(queue.push_headless(large)),
            is_queued(queue.push_headless(huge)),
            is_queued(queue.push_headless(page()?)),
            // A page as a box.
            is_queued(queue.push_headless(NoLocksBox::from(page()?))),
            is_queued(queue.push_headless(KVec::from_elem(n, 3, GFP_KERNEL)?)),
            is_queued(queue.push_headless(KVVec::from_elem(n, 3, GFP_KERNEL)?)),
            match place.replace(KBox::new(n, GFP_KERNEL)?) {
                Some(old) => {
                    replaced += 1;
                    is_queued(queue.push_headless(old))
                }
                None => false,
            },
        ] {
            returned += u64::from(!is_queued);
        }
        // Nothing is queued for what has no memory.
        empty += u64::from(is_queued(queue.push_headless(KVec::<u64>::new())));
        // A page that is free again is found first, with what was in it.
        let mut page = page()?;
        page.bytes_mut().fill(MaybeUninit::new(0xff));
        drop(page);
        // Where there is one.
        if let Ok(zeroed) = NoLocksBox::<[u8; PAGE_SIZE]>::zeroed(__GFP_NOWARN) {
            dirty += u64::from(zeroed.iter().any(|byte| *byte != 0));
        }
    }
    queue.barrier();
    let outcome = check_stats(
        Outcome::Passed,
        queue.stats(),
        SORTS * ROUNDS - returned,
        returned,
    );
    let is_too_large = NoLocksBox::<TwoPages>::new_uninit(__GFP_NOWARN).is_err();
    Ok(outcome
        .check(
            returned == 0 || env.config.fail,
            fmt!("{returned} objects came back in a task"),
        )
        .check(
            replaced == ROUNDS && place.get(&rcu::read_lock()) == Some(&(ROUNDS - 1)),
            fmt!("of {ROUNDS} objects that were replaced {replaced} were given back"),
        )
        .check(
            empty == ROUNDS,
            fmt!("{empty} of {ROUNDS} empty vectors were taken"),
        )
        .check(
            dirty == 0,
            fmt!("{dirty} boxes of zeroes had others in them"),
        )
        .check(is_too_large, fmt!("a page has become a box of two")))
}
