// SPDX-License-Identifier: GPL-2.0
//! Who takes a page out of a slot, and the two that bring another: `page_slots_pop()`,
//! `page_slots_thread()` and `page_slots_late_fn()` of mm/page_slots.c, in every interleaving.
//!
//! As in model.rs, a full barrier is an acquire-release operation and a fence after it.

use loom::sync::atomic::{AtomicBool, Ordering::*, fence};
use loom::thread;
use std::io::{Write, stderr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

// Cargo goes by a file's time: another checkout's older one would count as compiled.
const _: Option<&str> = option_env!("NOLOCKS_CHECKOUT");

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// The thread is asked before the page is taken out.
    AskFirst,
    /// The page is taken out by an operation that orders nothing.
    RelaxedPop,
    /// The CPU counts as asking until its slots are filled.
    LateClear,
    /// The thread clears the bit by an operation that orders nothing.
    RelaxedClear,
    /// The CPU counts as asking until the timer has filled its slots.
    TimerLateClear,
    /// The timer is not armed again where it found too little memory.
    NotArmedAgain,
}

struct Cpu {
    bug: Bug,
    full: Vec<AtomicBool>,
    /// Its bit in `page_slots_asking`.
    asking: AtomicBool,
    /// The thread was woken since it last looked at that.
    woken: AtomicBool,
    /// The thread is at work.
    filling: AtomicBool,
    /// Its timer will expire.
    armed: AtomicBool,
}

fn swap(flag: &AtomicBool, value: bool, relaxed: bool) -> bool {
    if relaxed {
        return flag.swap(value, Relaxed);
    }
    let old = flag.swap(value, AcqRel);
    fence(SeqCst);
    old
}

impl Cpu {
    fn ask(&self) {
        // The irq_work only comes between the two.
        if !self.asking.load(Relaxed) && !swap(&self.asking, true, false) {
            swap(&self.woken, true, false);
            swap(&self.armed, true, false);
        }
    }

    fn pop(&self, slot: usize) {
        if self.bug == Bug::AskFirst {
            self.ask();
        }
        swap(&self.full[slot], false, self.bug == Bug::RelaxedPop);
        if self.bug != Bug::AskFirst {
            self.ask();
        }
    }

    /// Whether the bit was set.
    fn clear_asking(&self) -> bool {
        // cpumask_test_and_clear_cpu() is a full barrier.
        swap(&self.asking, false, self.bug == Bug::RelaxedClear)
    }

    /// `fill_slots()`. Whether they are full.
    fn fill(&self, memory: bool) -> bool {
        for slot in &self.full {
            if !slot.load(Relaxed) {
                if !memory {
                    return false;
                }
                slot.swap(true, AcqRel);
            }
        }
        true
    }

    /// `page_slots_thread()` until it sleeps.
    fn thread(&self) {
        loop {
            // set_current_state() is a full barrier. Who wakes it before loses nothing.
            swap(&self.woken, false, false);
            if !self.asking.load(Relaxed) {
                return;
            }
            self.filling.store(true, Relaxed);
            if self.bug != Bug::LateClear {
                self.clear_asking();
            }
            self.fill(true);
            if self.bug == Bug::LateClear {
                self.clear_asking();
            }
            self.filling.store(false, Relaxed);
        }
    }

    /// `page_slots_late_fn()`.
    fn late(&self, memory: bool) {
        if self.bug == Bug::TimerLateClear {
            self.fill(memory);
            self.clear_asking();
            return;
        }
        if !self.filling.load(Relaxed) && self.clear_asking() && !self.fill(memory) {
            swap(&self.asking, true, false);
        }
        if self.asking.load(Relaxed) && self.bug != Bug::NotArmedAgain {
            swap(&self.armed, true, false);
        }
    }
}

/// Who comes for what was asked for before.
#[derive(Clone, Copy, PartialEq)]
enum Fillers {
    /// The thread, while two pops follow, in a task and in an NMI or the other way round.
    Thread,
    /// The timer as well, while one follows, and while there is memory or none.
    Both { memory: bool },
    /// The timer alone, as the thread was woken where it cannot run.
    Timer,
}

fn explore(bug: Bug, fillers: Fillers) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let mut model = loom::model::Builder::new();
    let slots = match fillers {
        Fillers::Thread => 2,
        Fillers::Both { .. } | Fillers::Timer => 1,
    };
    // Of three at once all are 700,000, which takes half a minute and shows no more.
    model.preemption_bound = matches!(fillers, Fillers::Both { .. }).then_some(3);
    model.check(move || {
        let cpu = Arc::new(Cpu {
            bug,
            full: (0..slots).map(|_| AtomicBool::new(true)).collect(),
            asking: AtomicBool::new(true),
            woken: AtomicBool::new(true),
            filling: AtomicBool::new(false),
            // By who set the bit, and expires beside the pops.
            armed: AtomicBool::new(false),
        });
        let beside = |filler: fn(&Cpu, bool), memory| {
            let cpu = cpu.clone();
            thread::spawn(move || filler(&cpu, memory))
        };
        let mut beside_pops = Vec::new();
        if fillers != Fillers::Timer {
            beside_pops.push(beside(|cpu, _| cpu.thread(), true));
        }
        match fillers {
            Fillers::Thread => {}
            Fillers::Both { memory } => beside_pops.push(beside(Cpu::late, memory)),
            Fillers::Timer => beside_pops.push(beside(Cpu::late, true)),
        }
        for slot in 0..slots {
            cpu.pop(slot);
        }
        for filler in beside_pops {
            filler.join().unwrap();
        }
        if fillers != Fillers::Timer && cpu.woken.load(Relaxed) {
            cpu.thread();
        }
        while fillers != Fillers::Thread && cpu.armed.swap(false, AcqRel) {
            cpu.late(true);
        }
        let full = cpu.full.iter().filter(|slot| slot.load(Relaxed)).count();
        assert_eq!(full, slots, "nobody fills a slot again");
        counted.fetch_add(1, SeqCst);
    });
    // Where `make check` shows it, as the harness would keep what print!() says.
    let line = format!(
        "explored {} interleavings of the refill\n",
        count.load(SeqCst)
    );
    stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn what_was_taken_out_comes_back() {
    explore(Bug::None, Fillers::Thread);
    explore(Bug::None, Fillers::Both { memory: true });
    explore(Bug::None, Fillers::Both { memory: false });
    explore(Bug::None, Fillers::Timer);
}

#[test]
fn every_bug_is_found() {
    for (bug, fillers) in [
        (Bug::AskFirst, Fillers::Thread),
        (Bug::RelaxedPop, Fillers::Thread),
        (Bug::LateClear, Fillers::Thread),
        (Bug::RelaxedClear, Fillers::Thread),
        (Bug::TimerLateClear, Fillers::Timer),
        (Bug::NotArmedAgain, Fillers::Both { memory: false }),
    ] {
        let panic = std::panic::catch_unwind(|| explore(bug, fillers)).expect_err("not found");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        assert!(
            text.is_some_and(|text| text.contains("nobody fills a slot again")),
            "{bug:?}: {text:?}"
        );
    }
}
