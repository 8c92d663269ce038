// SPDX-License-Identifier: GPL-2.0
//! Who takes a page out of a slot, and the thread that brings another: `page_slots_pop()` and
//! `page_slots_thread()` of mm/page_slots.c, in every interleaving.
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
}

const SLOTS: usize = 2;

struct Cpu {
    bug: Bug,
    full: [AtomicBool; SLOTS],
    /// Its bit in `page_slots_asking`.
    asking: AtomicBool,
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
        if !self.asking.load(Relaxed) {
            swap(&self.asking, true, false);
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

    /// Whether there was anything to do.
    fn work(&self) -> bool {
        if !self.asking.load(Relaxed) {
            return false;
        }
        if self.bug != Bug::LateClear {
            // cpumask_test_and_clear_cpu() is a full barrier.
            swap(&self.asking, false, self.bug == Bug::RelaxedClear);
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
}

/// Two pops, in a task and in an NMI or the other way round, while the thread comes for an earlier one.
fn explore(bug: Bug) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    loom::model(move || {
        let cpu = Arc::new(Cpu {
            bug,
            full: [const { true }; SLOTS].map(AtomicBool::new),
            asking: AtomicBool::new(true),
        });
        let worker = {
            let cpu = cpu.clone();
            thread::spawn(move || {
                cpu.work();
            })
        };
        for slot in 0..SLOTS {
            cpu.pop(slot);
        }
        worker.join().unwrap();
        // The irq_work wakes it as long as a bit is set.
        while cpu.work() {}
        let full = cpu.full.iter().filter(|slot| slot.load(Relaxed)).count();
        assert_eq!(full, SLOTS, "nobody fills a slot again");
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
    explore(Bug::None);
}

#[test]
fn every_bug_is_found() {
    for bug in [
        Bug::AskFirst,
        Bug::RelaxedPop,
        Bug::LateClear,
        Bug::RelaxedClear,
    ] {
        let panic = std::panic::catch_unwind(|| explore(bug)).expect_err("not found");
        let text = panic.downcast_ref::<String>().map(String::as_str);
        assert!(
            text.is_some_and(|text| text.contains("nobody fills a slot again")),
            "{bug:?}: {text:?}"
        );
    }
}
