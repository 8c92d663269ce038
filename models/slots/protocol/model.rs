// SPDX-License-Identifier: GPL-2.0
//! `pcp_slots_push()`, `pcp_slots_pop()` and `drain_pcp_slots()` of mm/page_alloc.c, step by step.
//!
//! `xchg()` and a `cmpxchg()` that succeeds are full barriers. Here they are an acquire-release
//! operation and a fence after it, and one that fails orders nothing: no more than the kernel has.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering::*, fence};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize as Counter};

/// No page. The pages count from 1.
const NULL: usize = 0;

const USED: u32 = 0;
const PREPARED: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bug {
    None,
    /// `pcp_slots_push()` does not look at the limit again.
    NoRecheck,
    /// It has `cmpxchg_release()`, so that it may look too early.
    EarlyRecheck,
    /// `drain_pcp_slots()` has no `smp_mb()`.
    NoFence,
    /// `pcp_slots_pop()` has a load and a store for `xchg()`.
    TornPop,
    /// `cmpxchg_relaxed()` and `xchg_relaxed()`.
    Relaxed,
    /// `pcp_slots_push()` stores NULL to take its page back.
    BlindTakeBack,
    /// It has `cmpxchg_relaxed()` for that.
    RelaxedTakeBack,
}

#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Free a page.
    Push(usize),
    /// Allocate a page.
    Pop,
    /// Allocate a page, use it and free it.
    Reuse,
    /// Lower the limit and drain what is above it.
    Lower(usize),
    /// Drain as `drain_all_pages()` does, at any limit.
    Drain,
}

struct Page {
    content: UnsafeCell<u32>,
    /// Not for the model to order: loom runs one thread at a time.
    held: AtomicBool,
}

pub struct Pcp {
    bug: Bug,
    slots: Vec<AtomicUsize>,
    hint: AtomicUsize,
    limit: AtomicUsize,
    pages: Vec<Page>,
    pub interrupted: Counter,
}

// SAFETY: Loom reports an access to a page's content that is not ordered.
unsafe impl Sync for Pcp {}
// SAFETY: As above.
unsafe impl Send for Pcp {}

impl Pcp {
    /// Page n+1 is in slot n if `full` says so; the other pages are with who pushes them.
    pub fn new(bug: Bug, full: &[bool], hint: usize, limit: usize, pages: usize) -> Self {
        let is_full = |n: usize| full.get(n) == Some(&true);
        Self {
            bug,
            slots: (0..full.len())
                .map(|n| AtomicUsize::new(if is_full(n) { n + 1 } else { NULL }))
                .collect(),
            hint: AtomicUsize::new(hint),
            limit: AtomicUsize::new(limit),
            pages: (0..pages)
                .map(|n| Page {
                    content: UnsafeCell::new(if is_full(n) { PREPARED } else { USED }),
                    held: AtomicBool::new(!is_full(n)),
                })
                .collect(),
            interrupted: Counter::new(0),
        }
    }

    /// When everybody is done: each page is in one slot or with one owner.
    pub fn settle(&self) {
        let limit = self.limit.load(Relaxed);
        let mut resting = vec![0; self.pages.len()];
        for (slot, page) in self.slots.iter().enumerate() {
            let page = page.load(Relaxed);
            if page != NULL {
                assert!(slot < limit, "a page is left in a slot");
                resting[page - 1] += 1;
            }
        }
        for (page, resting) in self.pages.iter().zip(resting) {
            let held = usize::from(page.held.load(SeqCst));
            assert!(held + resting <= 1, "a page is had by two");
            assert_eq!(held + resting, 1, "a page is lost");
        }
    }

    pub fn count(&self) -> usize {
        let full = |slot: &&AtomicUsize| slot.load(Relaxed) != NULL;
        self.slots.iter().filter(full).count()
    }
}

/// What runs on one CPU, and what interrupts it.
pub struct Cpu {
    pcp: Arc<Pcp>,
    /// The last one is next, so many steps from now, in whatever is then running.
    interrupts: RefCell<Vec<(usize, Op)>>,
}

impl Cpu {
    pub fn new(pcp: &Arc<Pcp>, interrupts: Vec<(usize, Op)>) -> Self {
        Self {
            pcp: pcp.clone(),
            interrupts: RefCell::new(interrupts),
        }
    }

    /// Between two instructions that others can tell apart.
    fn step(&self) {
        let due = {
            let mut interrupts = self.interrupts.borrow_mut();
            match interrupts.last_mut() {
                Some((0, _)) => interrupts.pop(),
                Some((steps, _)) => {
                    *steps -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, op)) = due {
            self.pcp.interrupted.fetch_add(1, SeqCst);
            self.run(op);
        }
    }

    fn read(&self, of: &AtomicUsize) -> usize {
        self.step();
        of.load(Relaxed)
    }

    fn write(&self, to: &AtomicUsize, value: usize) {
        self.step();
        to.store(value, Relaxed);
    }

    fn xchg(&self, slot: &AtomicUsize, page: usize) -> usize {
        self.step();
        if self.pcp.bug == Bug::Relaxed {
            return slot.swap(page, Relaxed);
        }
        let old = slot.swap(page, AcqRel);
        fence(SeqCst);
        old
    }

    fn cmpxchg(&self, slot: &AtomicUsize, old: usize, new: usize) -> usize {
        self.step();
        let order = match self.pcp.bug {
            Bug::Relaxed => Relaxed,
            Bug::RelaxedTakeBack if new == NULL => Relaxed,
            Bug::EarlyRecheck => Release,
            _ => AcqRel,
        };
        match slot.compare_exchange(old, new, order, Relaxed) {
            Ok(old) => {
                if order == AcqRel {
                    fence(SeqCst);
                }
                old
            }
            Err(other) => other,
        }
    }

    fn push(&self, page: usize) -> bool {
        let pcp = &*self.pcp;
        let limit = self.read(&pcp.limit);
        let mut slot = self.read(&pcp.hint);

        for _ in 0..limit {
            if slot >= limit {
                slot = 0;
            }
            if self.read(&pcp.slots[slot]) != NULL
                || self.cmpxchg(&pcp.slots[slot], NULL, page) != NULL
            {
                slot += 1;
                continue;
            }

            self.write(&pcp.hint, slot + 1);
            if pcp.bug == Bug::NoRecheck || slot < self.read(&pcp.limit) {
                return true;
            }
            if pcp.bug == Bug::BlindTakeBack {
                self.write(&pcp.slots[slot], NULL);
                return false;
            }
            return self.cmpxchg(&pcp.slots[slot], page, NULL) != page;
        }
        false
    }

    fn pop(&self) -> Option<usize> {
        let pcp = &*self.pcp;
        let mut slot = self.read(&pcp.hint);

        for _ in 0..pcp.slots.len() {
            slot = slot.wrapping_sub(1) % pcp.slots.len();
            let seen = self.read(&pcp.slots[slot]);
            if seen == NULL {
                continue;
            }
            let page = if pcp.bug == Bug::TornPop {
                self.write(&pcp.slots[slot], NULL);
                seen
            } else {
                self.xchg(&pcp.slots[slot], NULL)
            };
            if page == NULL {
                continue;
            }

            self.write(&pcp.hint, slot);
            return Some(page);
        }
        None
    }

    fn drain(&self, first: usize) {
        let pcp = &*self.pcp;

        self.step();
        if pcp.bug != Bug::NoFence {
            fence(SeqCst);
        }
        for slot in &pcp.slots[first..] {
            if self.read(slot) == NULL {
                continue;
            }
            let page = self.xchg(slot, NULL);
            if page != NULL {
                self.take(page);
            }
        }
    }

    /// Prepares an own page for free and tries to part with it.
    fn free(&self, page: usize) -> bool {
        let state = &self.pcp.pages[page - 1];
        assert!(state.held.swap(false, SeqCst), "a page is freed twice");
        // SAFETY: The page is this one's, or loom reports it.
        state.content.with_mut(|content| unsafe {
            assert_eq!(*content, USED);
            *content = PREPARED;
        });
        let pushed = self.push(page);
        if !pushed {
            self.take(page);
        }
        pushed
    }

    /// Makes a page that is out of its slot this one's.
    fn take(&self, page: usize) {
        self.step();
        let state = &self.pcp.pages[page - 1];
        assert!(!state.held.swap(true, SeqCst), "a page is had by two");
        // SAFETY: As above.
        state.content.with_mut(|content| unsafe {
            assert_eq!(*content, PREPARED, "a page is not prepared");
            *content = USED;
        });
    }

    /// Whether it got, or got rid of, a page.
    pub fn run(&self, op: Op) -> bool {
        match op {
            Op::Push(page) => self.free(page),
            Op::Pop => self.pop().map(|page| self.take(page)).is_some(),
            Op::Reuse => self.pop().is_some_and(|page| {
                self.take(page);
                self.free(page)
            }),
            Op::Lower(limit) => {
                self.write(&self.pcp.limit, limit);
                self.drain(limit);
                true
            }
            Op::Drain => {
                self.drain(0);
                true
            }
        }
    }
}
