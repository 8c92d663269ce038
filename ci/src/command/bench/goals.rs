// SPDX-License-Identifier: GPL-2.0
//! What the series and the queue may cost, and what they aim at.

use super::counts::Counts;
use crate::base::exit::{Exit, fail};
use anyhow::{Result, ensure};

/// What an operation is to cost at most: a multiple of another's cost, and so much on top.
pub struct Goal {
    pub op: &'static str,
    pub factor: f64,
    pub of: &'static str,
    pub plus: f64,
    /// With interrupts disabled it is the slots that serve PREEMPT_RT, and the lists elsewhere.
    pub on_rt_only: bool,
}

pub const GOALS: &[Goal] = &[
    goal("no_locks_free_nolock", 0.75, "gfp_nowait"),
    Goal {
        plus: 2.0,
        ..goal("gfp_kernel_registered", 1.0, "gfp_kernel")
    },
    Goal {
        plus: 10.0,
        ..goal("no_locks_registered", 1.0, "no_locks_free_nolock")
    },
    Goal {
        on_rt_only: true,
        ..goal("no_locks_irqs_off", 0.35, "gfp_nowait")
    },
    goal("no_locks_failing", 1.0, "no_locks_free_nolock"),
    goal("no_locks_zero", 1.0, "alloc_pages_nolock"),
    goal("no_locks_zero_irqs_off", 1.0, "alloc_pages_nolock_irqs_off"),
    goal("no_locks_failing_in_task", 1.0, "no_locks_free_nolock"),
    goal("no_locks_failing_unregistered", 1.0, "no_locks_free_nolock"),
    goal("push", 0.5, "kfree_rcu"),
    goal("push_headless", 0.5, "kfree_rcu_mightsleep"),
    goal("push_mightsleep", 0.5, "kfree_rcu_mightsleep"),
    goal("drop_queue_push", 0.5, "kfree_rcu"),
    goal("try_push", 0.5, "kfree_rcu_nolock"),
    goal("push_vmalloc", 0.5, "kvfree_rcu_vmalloc"),
    goal("push_to_free", 0.8, "kfree_rcu_to_free"),
];

const fn goal(op: &'static str, factor: f64, of: &'static str) -> Goal {
    Goal {
        op,
        factor,
        of,
        plus: 0.0,
        on_rt_only: false,
    }
}

impl Goal {
    /// The most that it may be; nothing where either was not counted.
    pub fn most(&self, counts: &Counts, is_rt: bool) -> Option<f64> {
        let applies = counts.contains_key(self.op) && (is_rt || !self.on_rt_only);
        applies.then_some(self.factor * counts.get(self.of)? + self.plus)
    }
}

/// What the series may cost those who do not ask for it: a part of what an operation cost, and so many
/// instructions. The first that fits is an operation's.
const PRICES: &[(&str, f64, f64)] = &[
    // What the buddy allocator finds to split and merge differs from boot to boot.
    ("gfp_kernel_order_4_row", 0.03, 0.0),
    // It has no list, where others gain what the look at the flag costs: 8 more on x86_64 PREEMPT_RT.
    ("gfp_kernel_order_4", 0.01, 0.0),
    ("gfp_", 0.0, 2.0),
    // What sheaves and slabs have for a row differs from boot to boot.
    ("kmalloc_64_row", 0.02, 0.0),
    ("kmalloc_", 0.0, 2.0),
    // Mainline's own is 144, 186 or 335: whether its worker has filled the cache in time, or objects are linked.
    ("kfree_rcu_to_free", 1.0, 0.0),
    // For each of its blocks, of some 500 objects, a page leaves a slot and another is asked for: about 1000
    // instructions, where mainline's cache had the page, as long as it lasted.
    ("kfree_rcu", 0.03, 0.0),
    ("kvfree_rcu", 0.03, 0.0),
];

/// On PREEMPT_RT, where these come first.
const RT_PRICES: &[(&str, f64, f64)] = &[
    // Both try a lock of their CPU's, which the series has them do only where they could have slept: 11 instructions.
    ("kmalloc_", 0.0, 12.0),
];

/// What of mainline's own became dearer than that.
pub fn check_prices(before: &Counts, after: &Counts, is_rt: bool) -> Result<()> {
    let mut compared = 0;
    let mut dearer = Vec::new();
    for (op, n) in before {
        let rt_prices = RT_PRICES.iter().filter(|_| is_rt);
        let mut prices = rt_prices.chain(PRICES);
        let price = prices.find(|(kind, ..)| op.starts_with(kind));
        let Some((_, part, plus)) = price else {
            continue;
        };
        compared += 1;
        match after.get(op) {
            None => dearer.push(format!("{op} not counted with the series")),
            Some(after) if after - n > part * n + plus => {
                dearer.push(format!("{op} {n:.2} before, {after:.2} after"));
            }
            Some(_) => {}
        }
    }
    ensure!(compared != 0, "nothing was counted without the series");
    match dearer.is_empty() {
        true => Ok(()),
        false => Err(fail(Exit::Test, dearer.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_series_is_a_failure() {
        let counts = |pages: f64, objects: f64| {
            Counts::from([
                ("gfp_kernel".to_owned(), pages),
                ("kfree_rcu".to_owned(), objects),
                ("alloc_pages_nolock".to_owned(), 10.0 * pages),
            ])
        };
        let before = counts(738.0, 100.0);
        check_prices(&before, &counts(740.0, 103.0), false).unwrap();
        check_prices(&before, &counts(73.0, 11.0), false).unwrap();
        let why = |after| {
            check_prices(&before, &after, false)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            why(counts(740.5, 103.0)),
            "gfp_kernel 738.00 before, 740.50 after"
        );
        assert!(why(counts(738.0, 103.5)).starts_with("kfree_rcu 100.00"));
        assert!(why(Counts::new()).contains("not counted"));
        let order_4 = |n| Counts::from([("gfp_kernel_order_4_row".to_owned(), n)]);
        check_prices(&order_4(1200.0), &order_4(1236.0), false).unwrap();
        assert!(check_prices(&order_4(1200.0), &order_4(1237.0), false).is_err());
        let kmalloc = |n| Counts::from([("kmalloc_64".to_owned(), n)]);
        check_prices(&kmalloc(296.0), &kmalloc(307.0), true).unwrap();
        assert!(check_prices(&kmalloc(296.0), &kmalloc(307.0), false).is_err());
        assert!(check_prices(&Counts::new(), &Counts::new(), false).is_err());
    }

    #[test]
    fn a_goal_is_of_the_same_machine_and_of_preempt_rt_where_it_says_so() {
        let counts = Counts::from([
            ("gfp_nowait".to_owned(), 800.0),
            ("no_locks_irqs_off".to_owned(), 553.0),
        ]);
        let slots = GOALS.iter().find(|g| g.on_rt_only).unwrap();
        assert_eq!(slots.most(&counts, true), Some(0.35 * 800.0));
        assert_eq!(slots.most(&counts, false), None);
        assert_eq!(GOALS[0].most(&counts, true), None);
    }
}
