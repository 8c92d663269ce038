// SPDX-License-Identifier: GPL-2.0
//! The page slots of a CPU: what pushes, pops and drains do to one another, on other CPUs and in NMIs.

use crate::model::{Cpu, FAITHFUL, Op, Op::*, Slots, UNUSABLE, expect};
use loom::thread;
use std::io::{Write, stderr};
use std::iter::zip;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

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
    fn explore_at(&self, bug: &'static str, steps: &[usize]) -> (usize, usize) {
        let most = Arc::new(AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = (self.remote.len() > 1).then_some(3);
        let (scene, steps, came) = (self.clone(), steps.to_vec(), most.clone());
        builder.check(move || {
            let usable = vec![true; scene.full.len()];
            let slots = Arc::new(Slots::new(bug, scene.full, &usable, scene.pages));
            let others: Vec<_> = scene
                .remote
                .iter()
                .map(|&op| {
                    let cpu = Cpu::new(&slots, Vec::new());
                    thread::spawn(move || cpu.run(op))
                })
                .collect();
            let interrupts = zip(steps.clone(), scene.interrupts.clone()).collect();
            Cpu::new(&slots, interrupts).run(scene.local);
            for other in others {
                other.join().unwrap();
            }
            slots.settle();
            came.fetch_max(slots.interrupted.load(SeqCst), SeqCst);
            counted.fetch_add(1, SeqCst);
        });
        (most.load(SeqCst), count.load(SeqCst))
    }

    /// With each interrupt at every step of what is then running, and never.
    fn explore(&self, bug: &'static str) {
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
        self.explore(FAITHFUL);
    }

    /// What `message` is about must be the reason why the bug is found, and there is no other.
    fn find(&self, bug: &'static str, message: &str) {
        self.hold();
        expect(bug, &[message], || self.explore(bug));
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
                // Who drains has interrupts disabled, and is no NMI.
                if matches!((local, first), (Lower(_) | Drain, Drain)) {
                    continue;
                }
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
    .find("relaxed_take_back", "Causality violation");
}

#[test]
fn a_push_without_a_second_look_is_found() {
    push_and_disable().find("no_second_look", "a page is left in a slot");
}

#[test]
fn a_second_look_that_is_too_early_is_found() {
    push_and_disable().find("early_second_look", "a page is left in a slot");
}

fn push_and_move() -> Scene {
    Scene {
        local: Push(1),
        remote: &[Move],
        ..EMPTY
    }
}

#[test]
fn a_push_against_another_zone() {
    for op in NMI {
        push_and_move().interrupted(&[op]).hold();
    }
}

#[test]
fn a_push_that_does_not_look_at_the_zone_again_is_found() {
    push_and_move().find("no_zone_in_second_look", "a page is left in a slot");
}

#[test]
fn a_page_of_another_zone_is_not_had() {
    Scene {
        local: Move,
        remote: &[Pop],
        ..FULL
    }
    .find(
        "zone_of_the_page_not_asked",
        "a page of another zone is had",
    );
}

#[test]
fn a_page_that_was_isolated_is_neither_had_nor_lost() {
    let scene = Scene {
        pages: UNUSABLE,
        local: Push(UNUSABLE),
        remote: &[Pop],
        ..EMPTY
    };
    scene.find("usable_not_asked", "a page that is isolated is had");
    scene.find("unusable_page_lost", "a page is lost");
}

#[test]
fn a_drain_before_it_is_known_what_is_not_usable_is_found() {
    push_and_disable().find("drained_before_it_is_known", "a page is left in a slot");
    push_and_move().find("drained_before_it_is_known", "a page is left in a slot");
}

#[test]
fn pages_that_another_zone_leaves_are_found() {
    Scene {
        local: Move,
        ..FULL
    }
    .find("another_zones_pages_left", "a page is left in a slot");
}

#[test]
fn a_drain_without_a_barrier_is_found() {
    push_and_disable().find("drain_without_barrier", "a page is left in a slot");
}

#[test]
fn a_take_in_two_steps_is_found() {
    pop_and_pop().find("take_in_two_steps", "a page is had by two");
}

#[test]
fn a_slot_that_is_free_too_early_is_found() {
    Scene {
        local: Push(3),
        remote: &[Reuse],
        ..FULL
    }
    .hold();
    let early = Scene {
        local: Pop,
        full: &[true],
        remote: &[],
        ..FULL
    };
    early
        .interrupted(&[Reuse])
        .find("early_null", "a page is lost");
}

#[test]
fn a_page_that_is_not_published_is_found() {
    Scene {
        local: Push(1),
        remote: &[Pop],
        ..EMPTY
    }
    .find("page_not_published", "a page is lost");
}

#[test]
fn a_take_back_that_does_not_ask_is_found() {
    push_and_disable().find("blind_take_back", "a page is had by two");
}

/// A push finds a slot if a usable one is free, and a pop a page if there is one.
#[test]
fn nothing_is_hidden() {
    for case in 0..16 * 16 {
        let full: [bool; 4] = std::array::from_fn(|slot| case >> slot & 1 == 1);
        let usable: [bool; 4] = std::array::from_fn(|slot| case >> (4 + slot) & 1 == 1);
        loom::model(move || {
            let slots = || Arc::new(Slots::new(FAITHFUL, &full, &usable, 5));
            let run = |slots, op| Cpu::new(slots, Vec::new()).run(op);
            let had = full.iter().filter(|full| **full).count();

            let pushed = slots();
            let room = zip(full, usable).any(|(full, usable)| usable && !full);
            assert_eq!(run(&pushed, Push(5)), room);
            let popped = slots();
            // With none usable what is still there is being drained.
            let poppable = had > 0 && usable.contains(&true);
            assert_eq!(run(&popped, Pop), poppable);
            assert_eq!(popped.count(), had - usize::from(poppable));
        });
    }
}
