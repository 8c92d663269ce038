// SPDX-License-Identifier: GPL-2.0

//! Rule 8: a page charged to a memory cgroup is not left behind, wherever it is freed.

use kernel::prelude::*;

use crate::{
    api::Held,
    context::Context,
    env::{
        Desk,
        Env, //
    },
    ktap::Outcome,
    task::{
        wait_for,
        Pinned, //
    },
    vm::Events, //
};

extern "C" {
    fn nolocks_charged_pages() -> c_long;
    fn nolocks_charge_slack() -> c_long;
}

/// Uncharging takes locks, so the worker has to do it unless the caller is preemptible, where it
/// may.
pub(crate) fn is_deferred(ctx: Context) -> bool {
    !matches!(
        (ctx, cfg!(CONFIG_PREEMPT_RT)),
        (Context::Task, _) | (Context::Softirq, true)
    )
}

/// Pages charged to this task's memory cgroup; none where that is the root, which is not charged.
pub(crate) fn charge() -> Option<c_long> {
    // SAFETY: Only reads this task's cgroup and its counter.
    let charge = unsafe { nolocks_charged_pages() };
    (charge >= 0).then_some(charge)
}

pub(crate) fn charged(env: &Env) -> Result<Outcome> {
    // SAFETY: Only reads a number.
    let slack = unsafe { nolocks_charge_slack() };
    // More than the slack, or a charge that never comes back would not be seen.
    let pages = 2 * slack as usize;
    let mut desk = Desk::new(pages)?;
    let mut outcome = Outcome::Passed;
    let Some(first) = charge() else {
        return Ok(Outcome::Skipped("the root's memory cgroup is not charged"));
    };
    let more = || charge().unwrap_or(first) - first;

    for ctx in env.contexts() {
        let _pinned = Pinned::new();
        let name = ctx.name();

        for _ in 0..pages {
            desk.pile.push(Held::obtain_as_usual(true).ok_or(ENOMEM)?);
        }
        let charged = more();
        let before = Events::now().deferred();
        desk.free(ctx);
        let deferred = Events::now().deferred() - before;

        let returned = wait_for(|| more() <= slack);
        pr_info!(
            "# charged: context={name} pages={pages} charged={charged} deferred={deferred} left={}\n",
            more()
        );
        outcome = outcome
            .check(
                charged >= pages as c_long - slack,
                fmt!("{name}: {charged} pages of {pages} were charged"),
            )
            .check(
                !is_deferred(ctx) || deferred >= pages as u64,
                fmt!("{name}: {deferred} pages of {pages} were left to the worker"),
            )
            .check(
                returned,
                fmt!("{name}: {} pages are still charged, {slack} may be", more()),
            );
    }
    Ok(desk.check(outcome))
}
