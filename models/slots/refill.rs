// SPDX-License-Identifier: GPL-2.0
//! Who takes a page out of a slot, and the two that bring another: `page_slots_pop()`, and
//! `fill_slots_of_asking()` of mm/page_slots.c as the thread and a timer call it, in every interleaving.
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
    /// Whoever found too little memory asks for the CPU again, and wakes nobody.
    SilentlyShort,
}

struct Cpu {
    bug: Bug,
    full: Vec<AtomicBool>,
    /// Its bit in `page_slots_asking`.
    asking: AtomicBool,
    /// The thread was woken since it last looked at that.
    woken: AtomicBool,
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

    /// `fill_slots_of_asking()`. Whether there was memory, if any was needed.
    fn fill(&self, memory: bool) -> bool {
        if self.bug != Bug::LateClear {
            // cpumask_test_and_clear_cpu() is a full barrier.
            if !swap(&self.asking, false, self.bug == Bug::RelaxedClear) {
                return true;
            }
        }
        let short = !memory && self.full.iter().any(|slot| !slot.load(Relaxed));
        if short {
            swap(&self.asking, true, false);
            return false;
        }
        for slot in &self.full {
            if !slot.load(Relaxed) {
                slot.swap(true, AcqRel);
            }
        }
        if self.bug == Bug::LateClear {
            swap(&self.asking, false, false);
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
            self.fill(true);
        }
    }

    /// `page_slots_late_fn()`.
    fn late(&self, memory: bool) {
        if !self.fill(memory) && self.bug != Bug::SilentlyShort {
            swap(&self.woken, true, false);
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
}

fn explore(bug: Bug, fillers: Fillers) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let mut model = loom::model::Builder::new();
    let slots = match fillers {
        Fillers::Thread => 2,
        Fillers::Both { .. } => 1,
    };
    // Of three at once all are 700,000, which takes half a minute and shows no more.
    model.preemption_bound = (fillers != Fillers::Thread).then_some(3);
    model.check(move || {
        let cpu = Arc::new(Cpu {
            bug,
            full: (0..slots).map(|_| AtomicBool::new(true)).collect(),
            asking: AtomicBool::new(true),
            woken: AtomicBool::new(true),
        });
        let thread = {
            let cpu = cpu.clone();
            thread::spawn(move || cpu.thread())
        };
        let late = match fillers {
            Fillers::Thread => None,
            Fillers::Both { memory } => {
                let cpu = cpu.clone();
                Some(thread::spawn(move || cpu.late(memory)))
            }
        };
        for slot in 0..slots {
            cpu.pop(slot);
        }
        thread.join().unwrap();
        late.map(|late| late.join().unwrap());
        if cpu.woken.load(Relaxed) {
            cpu.thread();
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
}

#[test]
fn every_bug_is_found() {
    for (bug, fillers) in [
        (Bug::AskFirst, Fillers::Thread),
        (Bug::RelaxedPop, Fillers::Thread),
        (Bug::LateClear, Fillers::Thread),
        (Bug::RelaxedClear, Fillers::Thread),
        (Bug::SilentlyShort, Fillers::Both { memory: false }),
    ] {
        let panic = std::panic::catch_unwind(|| explore(bug, fillers)).expect_err("not found");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        assert!(
            text.is_some_and(|text| text.contains("nobody fills a slot again")),
            "{bug:?}: {text:?}"
        );
    }
}
