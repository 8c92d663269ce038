// SPDX-License-Identifier: GPL-2.0
//! Who takes a page out of a slot, and the worker that brings another: `rmqueue_pcp_slots()` and
//! `page_slots_work_fn()` of mm/page_alloc.c, in every interleaving.
//!
//! As in model.rs, a full barrier is an acquire-release operation and a fence after it.

use loom::sync::atomic::{AtomicBool, Ordering::*, fence};
use loom::thread;
use std::io::{Write, stderr};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// The worker is asked before the page is taken out.
    AskFirst,
    /// The page is taken out by `xchg_relaxed()`.
    RelaxedPop,
    /// The worker takes the CPU off the mask when it has filled the slots.
    LateClear,
    /// It does so by `clear_bit()`, which orders nothing.
    RelaxedClear,
}

const SLOTS: usize = 2;

struct Cpu {
    bug: Bug,
    full: [AtomicBool; SLOTS],
    /// Its bit in `page_slots_short`.
    short: AtomicBool,
    /// `page_slots_work` is queued.
    pending: AtomicBool,
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
        if !self.short.load(Relaxed) {
            // The irq_work's part; cpumask_set_cpu() orders nothing, queue_work() does.
            self.short.swap(true, Relaxed);
            fence(SeqCst);
            swap(&self.pending, true, false);
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
        // set_work_pool_and_clear_pending() ends with a full barrier.
        if !swap(&self.pending, false, false) {
            return false;
        }
        let late = self.bug == Bug::LateClear;
        if late || swap(&self.short, false, self.bug == Bug::RelaxedClear) {
            for slot in &self.full {
                if !slot.load(Relaxed) {
                    slot.swap(true, AcqRel);
                }
            }
        }
        if late {
            swap(&self.short, false, false);
        }
        true
    }
}

/// Two pops, in a task and in an NMI or the other way round, while the worker comes for an earlier one.
fn explore(bug: Bug) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    loom::model(move || {
        let cpu = Arc::new(Cpu {
            bug,
            full: [const { true }; SLOTS].map(AtomicBool::new),
            short: AtomicBool::new(true),
            pending: AtomicBool::new(true),
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
        // A workqueue runs what is queued.
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
