// SPDX-License-Identifier: GPL-2.0
//! The slots of a pcp: what pushes, pops and drains do to one another, on other CPUs and in NMIs.

#[path = "protocol/model.rs"]
mod model;

use loom::thread;
use model::{Bug, Cpu, Op, Op::*, Pcp};
use std::io::{Write, stderr};
use std::iter::zip;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

// Cargo goes by a file's time: another checkout's older one would count as compiled.
const _: Option<&str> = option_env!("NOLOCKS_CHECKOUT");

#[derive(Clone)]
struct Scene {
    full: &'static [bool],
    pages: usize,
    /// What a CPU does that is interrupted.
    local: Op,
    /// What interrupts it, the last one first.
    interrupts: Vec<Op>,
    /// What other CPUs do.
    remote: &'static [Op],
}

const EMPTY: Scene = Scene {
    full: &[false, false],
    pages: 3,
    local: Drain,
    interrupts: Vec::new(),
    remote: &[],
};

const FULL: Scene = {
    let mut scene = EMPTY;
    scene.full = &[true, true];
    scene
};

impl Scene {
    /// With each interrupt so many steps after the one before. How many came at most, and in how
    /// many interleavings.
    fn explore_at(&self, bug: Bug, steps: &[usize]) -> (usize, usize) {
        let most = Arc::new(AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = (self.remote.len() > 1).then_some(3);
        let (scene, steps, came) = (self.clone(), steps.to_vec(), most.clone());
        builder.check(move || {
            let limit = scene.full.len();
            let pcp = Arc::new(Pcp::new(bug, scene.full, 0, limit, scene.pages));
            let others: Vec<_> = scene
                .remote
                .iter()
                .map(|&op| {
                    let cpu = Cpu::new(&pcp, Vec::new());
                    thread::spawn(move || cpu.run(op))
                })
                .collect();
            let interrupts = zip(steps.clone(), scene.interrupts.clone()).collect();
            Cpu::new(&pcp, interrupts).run(scene.local);
            for other in others {
                other.join().unwrap();
            }
            pcp.settle();
            came.fetch_max(pcp.interrupted.load(SeqCst), SeqCst);
            counted.fetch_add(1, SeqCst);
        });
        (most.load(SeqCst), count.load(SeqCst))
    }

    /// With each interrupt at every step of what is then running, and never.
    fn explore(&self, bug: Bug) {
        let mut steps = vec![0; self.interrupts.len()];
        let mut count = 0;
        loop {
            let (came, explored) = self.explore_at(bug, &steps);
            let missed = steps.len() - came;
            count += explored;
            // The first that did not come would not come later either: on with the one before.
            let Some(last) = steps.get_mut(missed) else {
                // The harness would keep what print!() says of a test that passes, and `make check`
                // shows it.
                let line = format!("explored {count} interleavings of the slots\n");
                stderr().write_all(line.as_bytes()).unwrap();
                return;
            };
            *last += 1;
            steps[..missed].fill(0);
        }
    }

    fn hold(&self) {
        self.explore(Bug::None);
    }

    /// What `message` is about must be the reason why the bug is found, and there is no other.
    fn find(&self, bug: Bug, message: &str) {
        self.hold();
        let panic = std::panic::catch_unwind(|| self.explore(bug)).expect_err("not found");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        assert!(text.is_some_and(|text| text.contains(message)), "{text:?}");
    }

    fn interrupted(&self, ops: &[Op]) -> Self {
        Self {
            interrupts: ops.to_vec(),
            ..self.clone()
        }
    }
}

/// What an NMI may do to the slots.
const NMI: [Op; 3] = [Push(3), Pop, Reuse];

fn push_and_disable() -> Scene {
    Scene {
        local: Push(1),
        remote: &[Lower(0)],
        ..EMPTY
    }
}

fn pop_and_pop() -> Scene {
    Scene {
        local: Pop,
        remote: &[Pop],
        ..FULL
    }
}

/// All of this on one CPU: what another interrupts, in an interrupt of whatever it is.
#[test]
fn one_cpu_interrupted_twice() {
    for start in [EMPTY, FULL] {
        for local in [Push(3), Pop, Reuse, Lower(0), Lower(1), Drain] {
            for first in [Push(4), Pop, Reuse, Drain] {
                for second in [Push(5), Pop, Reuse] {
                    Scene {
                        pages: 5,
                        local,
                        interrupts: vec![second, first],
                        ..start.clone()
                    }
                    .hold();
                }
            }
        }
    }
}

#[test]
fn a_push_against_a_disable() {
    for op in NMI {
        push_and_disable().interrupted(&[op]).hold();
    }
}

#[test]
fn a_push_against_a_smaller_limit() {
    for op in NMI {
        Scene {
            local: Push(2),
            remote: &[Lower(1)],
            full: &[true, false],
            ..EMPTY
        }
        .interrupted(&[op])
        .hold();
    }
}

#[test]
fn a_disable_that_is_interrupted_against_a_push() {
    for op in NMI {
        Scene {
            local: Lower(0),
            remote: &[Push(1)],
            ..EMPTY
        }
        .interrupted(&[op])
        .hold();
    }
}

#[test]
fn a_pop_against_a_disable() {
    for op in NMI {
        Scene {
            local: Pop,
            remote: &[Lower(0)],
            ..FULL
        }
        .interrupted(&[op])
        .hold();
    }
}

#[test]
fn a_push_against_a_pop() {
    for op in NMI {
        Scene {
            local: Push(1),
            remote: &[Pop],
            ..EMPTY
        }
        .interrupted(&[op])
        .hold();
    }
}

#[test]
fn three_cpus() {
    for remote in [&[Pop, Lower(0)], &[Push(2), Lower(0)], &[Pop, Pop]] {
        Scene {
            local: Push(1),
            remote,
            ..EMPTY
        }
        .hold();
    }
}

#[test]
fn a_page_that_is_taken_back_from_somebody_elses_push_is_seen_as_that_left_it() {
    Scene {
        local: Push(1),
        remote: &[Reuse, Lower(0)],
        ..EMPTY
    }
    .find(Bug::RelaxedTakeBack, "Causality violation");
}

#[test]
fn a_push_without_a_second_look_is_found() {
    push_and_disable().find(Bug::NoRecheck, "a page is left in a slot");
}

#[test]
fn a_second_look_that_is_too_early_is_found() {
    push_and_disable().find(Bug::EarlyRecheck, "a page is left in a slot");
}

#[test]
fn a_drain_without_a_barrier_is_found() {
    push_and_disable().find(Bug::NoFence, "a page is left in a slot");
}

#[test]
fn a_pop_in_two_steps_is_found() {
    pop_and_pop().find(Bug::TornPop, "a page is had by two");
    let alone = Scene {
        remote: &[],
        ..pop_and_pop()
    };
    alone
        .interrupted(&[Pop])
        .find(Bug::TornPop, "a page is had by two");
}

#[test]
fn a_page_that_is_not_published_is_found() {
    Scene {
        local: Push(1),
        remote: &[Pop],
        ..EMPTY
    }
    .find(Bug::Relaxed, "Causality violation");
}

#[test]
fn a_take_back_by_a_store_is_found() {
    push_and_disable().find(Bug::BlindTakeBack, "a page is had by two");
}

/// Whatever the hint says, a push finds a slot and a pop finds a page if there is one.
#[test]
fn a_stale_hint_hides_nothing() {
    for case in 0..16 * 5 * 5 {
        let (full, hint, limit) = (case % 16, case / 16 % 5, case / 80);
        let full: [bool; 4] = std::array::from_fn(|slot| full >> slot & 1 == 1);
        loom::model(move || {
            let pcp = || Arc::new(Pcp::new(Bug::None, &full, hint, limit, 5));
            let run = |pcp, op| Cpu::new(pcp, Vec::new()).run(op);
            let had = full.iter().filter(|full| **full).count();

            let pushed = pcp();
            assert_eq!(run(&pushed, Push(5)), full[..limit].contains(&false));
            let popped = pcp();
            assert_eq!(run(&popped, Pop), had > 0);
            assert_eq!(popped.count(), had.saturating_sub(1));
        });
    }
}
