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

// Cargo goes by a file's time: another checkout's older one would count as compiled.
const _: Option<&str> = option_env!("NOLOCKS_CHECKOUT");

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// The worker is asked before the page is taken out.
    AskFirst,
    /// The page is taken out by `xchg_relaxed()`.
    RelaxedPop,
    /// The work is pending until it has filled the slots.
    LateClear,
    /// The workqueue orders nothing when it takes the work.
    RelaxedClear,
}

const SLOTS: usize = 2;

struct Cpu {
    bug: Bug,
    full: [AtomicBool; SLOTS],
    /// Its work is queued.
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
        // The irq_work only comes between the two.
        if !self.pending.load(Relaxed) {
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
        if !self.pending.load(Relaxed) {
            return false;
        }
        if self.bug != Bug::LateClear {
            // set_work_pool_and_clear_pending() ends with a full barrier.
            swap(&self.pending, false, self.bug == Bug::RelaxedClear);
        }
        for slot in &self.full {
            if !slot.load(Relaxed) {
                slot.swap(true, AcqRel);
            }
        }
        if self.bug == Bug::LateClear {
            swap(&self.pending, false, false);
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
