// SPDX-License-Identifier: GPL-2.0

//! What safe code does with a page and with a vector in one.

use core::mem::MaybeUninit;

use kernel::{
    alloc::flags::__GFP_NOWARN,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    context::Site,
    env::Env,
    ktap::Outcome,
    nolocks::{
        alloc::NoLocksVec,
        page::{
            alloc_page_nolocks,
            NoLocksFlags,
            NoLocksPage, //
        }, //
    },
    task::Pinned,
    vm, //
};

/// A page is written, read, described, given away as a pointer and taken back.
pub(crate) fn page(env: &Env) -> Result<Outcome> {
    const END: usize = PAGE_SIZE - 2;
    let _pinned = Pinned::new();

    env.fill_slots()?;
    let mut page = alloc_page_nolocks(NoLocksFlags::NONE.zeroed().this_node())?;
    let other = alloc_page_nolocks(NoLocksFlags::NONE)?;
    let refused = [(END + 1, 2), (PAGE_SIZE, 1), (usize::MAX, 2)]
        .into_iter()
        .all(|(offset, len)| page.write(offset, &[1; 2][..len]) == Err(EINVAL));
    page.write(END, &[5, 7])?;
    let (phys, nid) = (page.phys(), page.nid());

    // SAFETY: It has just been taken out.
    let page = unsafe { NoLocksPage::from_raw(page.into_raw()) };
    // SAFETY: All of the page was zeroed, and its end written.
    let read = |byte: &MaybeUninit<u8>| unsafe { byte.assume_init() };
    let (start, end) = page.bytes().split_at(END);
    let end = end.iter().map(read);
    let zeroes = start.iter().map(read).all(|byte| byte == 0);
    Ok(Outcome::Passed
        .check(refused, fmt!("bytes beyond the page were written"))
        .check(
            zeroes && end.eq([5, 7]),
            fmt!("the page does not hold what was written, and else zeroes"),
        )
        .check(
            page.phys() == phys && phys != other.phys() && phys as usize % PAGE_SIZE == 0,
            fmt!("two pages at {phys:#x} and {:#x}", other.phys()),
        )
        .check(
            nid == vm::this_node(),
            fmt!("a page of node {nid} and not of this one's"),
        ))
}

/// A vector grows within its page, in each context, and not beyond it.
pub(crate) fn vector(env: &Env) -> Result<Outcome> {
    const ROOM: usize = PAGE_SIZE / size_of::<u32>();
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let _pinned = Pinned::new();
        let (mut pushed, mut wrong) = (0, 0);

        env.fill_slots()?;
        site.run(ctx, || {
            let mut vector = NoLocksVec::<u32>::new();
            while pushed <= ROOM && vector.push(pushed as u32, __GFP_NOWARN).is_ok() {
                pushed += 1;
            }
            wrong = (0u32..).zip(&vector).filter(|(n, at)| n != *at).count();
        });
        let name = ctx.name();
        outcome = outcome.check(
            pushed == ROOM && wrong == 0,
            fmt!("{name}: {pushed} of {ROOM} in a page, {wrong} of them wrong"),
        );
    }
    Ok(site.check(outcome))
}
