// SPDX-License-Identifier: GPL-2.0
//! Who takes a page out of a slot, and the two that bring another: `page_slots_pop()`,
//! `page_slots_thread()` and `page_slots_late_fn()`, in every interleaving.

use crate::model::{Cpu, FAITHFUL, Op, Op::*, Slots, expect};
use loom::sync::atomic::Ordering::{AcqRel, Relaxed};
use loom::thread;
use std::io::{Write, stderr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Who comes for what was asked for before.
#[derive(Clone, Copy, PartialEq)]
enum Fillers {
    /// The thread, while two pops follow, in a task and in an NMI or the other way round.
    Thread,
    /// The thread while there is no memory, and one pop follows.
    Short,
    /// The timer as well, while one follows, and while there is memory or none.
    Both { memory: bool },
    /// The timer alone, as the thread was woken where it cannot run.
    Timer,
    /// Nobody, as it was another CPU that emptied the slots and woke it there.
    Stuck,
}

fn explore(bug: &'static str, fillers: Fillers) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let mut model = loom::model::Builder::new();
    let pops = if fillers == Fillers::Thread { 2 } else { 1 };
    // More are hundreds of thousands of interleavings, which show no more.
    model.preemption_bound = Some(if matches!(fillers, Fillers::Both { .. }) {
        3
    } else {
        5
    });
    model.check(move || {
        let usable = vec![true; pops];
        let full = vec![fillers != Fillers::Stuck; pops];
        let slots = Arc::new(Slots::new(bug, &full, &usable, 4 * pops));
        let is_stuck = matches!(fillers, Fillers::Timer | Fillers::Stuck);
        slots.woken.store(true, Relaxed);
        let run = |op: Op| Cpu::new(&slots, Vec::new()).run(op);
        let beside = |op: Op| {
            let cpu = Cpu::new(&slots, Vec::new());
            thread::spawn(move || cpu.run(op))
        };
        let mut fill = Vec::new();
        if !is_stuck {
            let memory = fillers != Fillers::Short;
            fill.push(beside(Thread { memory }));
        }
        match fillers {
            Fillers::Thread | Fillers::Short | Fillers::Stuck => {}
            Fillers::Both { memory } => fill.push(beside(Late { memory })),
            Fillers::Timer => fill.push(beside(Late { memory: true })),
        }
        for _ in 0..pops {
            run(Pop);
        }
        for filler in fill {
            filler.join().unwrap();
        }
        while !is_stuck && slots.woken.load(Relaxed) {
            run(Thread { memory: true });
        }
        let timer = is_stuck || matches!(fillers, Fillers::Both { .. });
        while timer && slots.armed.swap(false, AcqRel) {
            run(Late { memory: true });
        }
        assert_eq!(slots.count(), pops, "nobody fills a slot again");
        slots.settle();
        counted.fetch_add(1, Relaxed);
    });
    // Where `make check` shows it, as the harness would keep what print!() says.
    let line = format!(
        "explored {} interleavings of the refill\n",
        count.load(Relaxed)
    );
    stderr().write_all(line.as_bytes()).unwrap();
}

/// Who needs just these pages, beside somebody who has some in hand.
fn need(bug: &'static str, need: Op, other: Op) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(5);
    model.check(move || {
        let slots = Arc::new(Slots::new(bug, &[true, false], &[true, true], 3));
        let cpu = Cpu::new(&slots, Vec::new());
        let other = thread::spawn(move || cpu.run(other));
        Cpu::new(&slots, Vec::new()).run(need);
        other.join().unwrap();
        slots.settle();
    });
}

#[test]
fn who_needs_a_page_waits_for_who_has_it_in_hand() {
    const FILLERS: [Op; 2] = [Thread { memory: true }, Late { memory: true }];
    for op in [NeedAll, Disable] {
        for other in [FILLERS[0], FILLERS[1], Drain] {
            need(FAITHFUL, op, other);
            expect("drained_without_the_lock", IN_HAND, || {
                need("drained_without_the_lock", op, other);
            });
        }
        for filler in FILLERS {
            expect("filled_without_the_lock", IN_HAND, || {
                need("filled_without_the_lock", op, filler);
            });
        }
    }
    for filler in FILLERS {
        expect("counted_before_the_lock", IN_HAND, || {
            need("counted_before_the_lock", Disable, filler);
        });
    }
}

/// By the model, or by loom.
const IN_HAND: &[&str] = &["somebody has a page in hand", "Causality violation"];

#[test]
fn what_was_taken_out_comes_back() {
    explore(FAITHFUL, Fillers::Thread);
    explore(FAITHFUL, Fillers::Short);
    explore(FAITHFUL, Fillers::Both { memory: true });
    explore(FAITHFUL, Fillers::Both { memory: false });
    explore(FAITHFUL, Fillers::Timer);
    explore(FAITHFUL, Fillers::Stuck);
}

#[test]
fn every_bug_is_found() {
    for (bug, fillers) in [
        ("ask_first", Fillers::Thread),
        ("relaxed_pop", Fillers::Thread),
        ("late_clear", Fillers::Thread),
        ("relaxed_clear", Fillers::Thread),
        ("no_second_try", Fillers::Short),
        ("timer_late_clear", Fillers::Timer),
        ("asked_by_others", Fillers::Stuck),
        ("timer_not_armed_again", Fillers::Both { memory: false }),
    ] {
        expect(bug, &["nobody fills a slot again"], || {
            explore(bug, fillers)
        });
    }
}
