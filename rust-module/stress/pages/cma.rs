// SPDX-License-Identifier: GPL-2.0

//! Rule 4: a page from a CMA pageblock never goes to a request that is not movable.

use kernel::{
    bindings,
    prelude::*, //
};

use crate::{
    api::{
        Api,
        Held,
        Pile, //
    },
    context::Context,
    env::{
        Env,
        Stat, //
    },
    ktap::Outcome,
    nolocks::page::{
        Mobility,
        NoLocksFlags, //
    },
    task::Pinned,
    vm::Limit, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_cma_alloc() -> *mut bindings::page;
    fn nolocks_cma_release(page: *mut bindings::page);
    fn nolocks_page_is_cma(page: *mut bindings::page) -> bool;
    fn nolocks_pcp_cma_pages(page: *mut bindings::page) -> c_uint;
}

fn is_cma(held: &Held) -> bool {
    // SAFETY: The page is valid for as long as it is held.
    unsafe { nolocks_page_is_cma(held.page()) }
}

pub(crate) fn never_unmovable(_env: &Env) -> Result<Outcome> {
    // Slots that are filled meanwhile would have no end.
    match Limit::open()? {
        Some(limit) => limit.during(b"0", never_off_the_lists),
        None => never_off_the_lists(),
    }
}

fn never_off_the_lists() -> Result<Outcome> {
    const WANTED: usize = 32;
    /// More than the lists hold at their fullest.
    const ROOM: usize = 1 << 16;

    if !cfg!(CONFIG_DMA_CMA) {
        return Ok(Outcome::Skipped("the kernel has no CMA (CONFIG_DMA_CMA)"));
    }
    if !Context::Task.trylock_allowed() {
        return Ok(Outcome::Skipped("no context may try a lock here"));
    }

    let mut pages = KVec::with_capacity(WANTED, GFP_KERNEL)?;
    let (mut pile, mut movable) = (Pile::new(ROOM)?, Pile::new(ROOM)?);
    for _ in 0..WANTED {
        // SAFETY: This is a task that may sleep.
        let page = unsafe { nolocks_cma_alloc() };
        if page.is_null() {
            break;
        }
        pages.push(page, GFP_KERNEL)?;
    }
    let Some(&first) = pages.first() else {
        return Ok(Outcome::Skipped("no page of a CMA area: boot with cma=64M"));
    };

    let _pinned = Pinned::new();
    // SAFETY: What `nolocks_cma_alloc()` returned has a valid `struct page`, then as now.
    let listed = || unsafe { nolocks_pcp_cma_pages(first) };
    for page in pages {
        // SAFETY: Obtained above, released once.
        unsafe { nolocks_cma_release(page) };
    }
    let before = listed();

    let mut outcome = Outcome::Passed;
    let mut stat = Stat::default();
    for mobility in [Mobility::Unmovable, Mobility::Reclaimable] {
        let flags = NoLocksFlags::NONE.mobility(mobility);

        // To the end: it is when nothing else is left that a CMA page is tempting.
        while let Some(held) = Held::obtain(Api::NoLocks, flags) {
            stat.add(1, 1);
            pile.push(held).ok_or(ENOSPC)?;
        }
        stat.add(1, 0);
    }
    let wrong = pile.pages().iter().filter(|held| is_cma(held)).count();
    let after = listed();

    // The same pages are there for the asking, or the above would prove nothing: not first, where
    // the zone above theirs has got pages again in the meantime.
    let mut reachable = false;
    while let Some(held) =
        Held::obtain(Api::NoLocks, NoLocksFlags::NONE.mobility(Mobility::Movable))
    {
        stat.add(1, 1);
        reachable = is_cma(&held);
        if reachable || movable.push(held).is_none() {
            break;
        }
    }

    pr_info!(
        "# cma: on the pcp list before={before} after={after}, to unmovable requests={wrong}\n"
    );
    stat.print("cma", Api::NoLocks);
    outcome = outcome
        .check(before != 0, fmt!("no CMA page is on the pcp list"))
        .check(
            wrong == 0,
            fmt!("{wrong} CMA pages went to unmovable requests"),
        )
        .check(after != 0, fmt!("the CMA pages left the pcp list"))
        .check(reachable, fmt!("a movable request got no CMA page"));
    Ok(outcome)
}
