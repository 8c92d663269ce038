// SPDX-License-Identifier: GPL-2.0

//! Rule 5: the modifiers that stand beside `__GFP_NO_LOCKS` mean what they always mean.

use kernel::prelude::*;

use crate::{
    api::{
        Api,
        Held, //
    },
    context::Context,
    env::{
        Desk,
        Env, //
    },
    ktap::Outcome,
    nolocks::page::{
        NoLocksFlags,
        Zone, //
    },
    task::Pinned,
    vm, //
};

/// Pages for each request. Few, as a small zone's slots are.
const WANTED: usize = 2;

pub(crate) fn flags(env: &Env) -> Result<Outcome> {
    let mut desk = Desk::new(WANTED)?;
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let _pinned = Pinned::new();
        let node = vm::this_node();
        let highest = vm::zones()[0].1;

        // That another node's page is refused, and one outside of the cpuset, KUnit's no_locks_this_node
        // says: here all pages at hand are of this node.
        for (name, flags) in [
            ("none", NoLocksFlags::NONE),
            ("this_node", NoLocksFlags::NONE.this_node()),
            ("hardwall", NoLocksFlags::NONE.hardwall()),
        ] {
            env.fill_slots()?;
            // The slots are full, also those of the highest zone: a limit that is none would show.
            outcome = check(
                &mut desk,
                ctx,
                name,
                flags,
                WANTED,
                outcome,
                |(nid, zone)| nid == node && Some(zone) == highest,
            );
        }
        for (limit, highest) in vm::zones() {
            let Some(highest) = highest else {
                continue;
            };
            let name = match limit {
                Zone::Dma => "dma",
                Zone::Dma32 => "dma32",
                _ => "normal",
            };
            let flags = NoLocksFlags::NONE.zone(limit);
            // The slots are of the highest zone; what the lists of others hold is no promise.
            let promised = match Some(highest) == vm::zones()[0].1 {
                true => WANTED,
                false => 0,
            };
            env.fill_slots()?;
            outcome = check(
                &mut desk,
                ctx,
                name,
                flags,
                promised,
                outcome,
                |(_, zone)| zone <= highest,
            );
        }
    }
    Ok(desk.check(outcome))
}

/// Pages come, and are where they should be.
fn check(
    desk: &mut Desk,
    ctx: Context,
    name: &str,
    flags: NoLocksFlags,
    promised: usize,
    outcome: Outcome,
    right: impl Fn((i32, u32)) -> bool,
) -> Outcome {
    let obtained = desk.obtain(ctx, Api::NoLocks, flags, WANTED);
    let (node, zone) = desk
        .pile
        .pages()
        .first()
        .map_or((-1, u32::MAX), vm::place_of);
    let wrong = desk
        .pile
        .pages()
        .iter()
        .filter(|held: &&Held| !right(vm::place_of(held)))
        .count();
    let ctx_name = ctx.name();

    pr_info!(
        "# flags: context={ctx_name} flags={name} obtained={obtained} node={node} zone={zone}\n"
    );
    desk.free(ctx);
    outcome
        .check(
            obtained >= promised,
            fmt!("{ctx_name}: {obtained} pages of {promised} with {name}"),
        )
        .check(
            wrong == 0,
            fmt!("{ctx_name}: {wrong} pages with {name} are in the wrong place, as zone {zone} of node {node}"),
        )
}
