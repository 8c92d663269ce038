// SPDX-License-Identifier: GPL-2.0
//! `slots_push()`, `slot_take()` and `drain_slots()` of mm/page_slots.c, step by step.
//!
//! A `test_and_clear_bit()` and a `cmpxchg()` that succeeds are full barriers. Here they are an
//! acquire-release operation and a fence after it; one that fails, and `set_bit()`, order nothing: no
//! more than the kernel has.

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
    /// `slots_push()` does not look at the usable slots again.
    NoRecheck,
    /// It has no `smp_mb__after_atomic()`, so that it may look too early.
    EarlyRecheck,
    /// `drain_slots()` has no `smp_mb()`.
    NoFence,
    /// `slot_take()` has `test_bit()` and `clear_bit()`.
    TornTake,
    /// `slot_take()` stores NULL before the slot is its own.
    EarlyNull,
    /// `cmpxchg_relaxed()`, and no barrier before the bit is set.
    Unpublished,
    /// `slots_push()` takes its page back without asking whether it is still there.
    BlindTakeBack,
    /// It does so by an operation that orders nothing.
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
    /// Make only so many slots usable and drain the others.
    Lower(usize),
    /// Drain as `page_slots_drain()` does, whatever is usable.
    Drain,
}

struct Page {
    content: UnsafeCell<u32>,
    /// Not for the model to order: loom runs one thread at a time.
    held: AtomicBool,
}

pub struct Slots {
    bug: Bug,
    /// A bit for each slot that is full.
    full: AtomicUsize,
    /// A bit for each slot that a page may be put into.
    usable: AtomicUsize,
    slots: Vec<AtomicUsize>,
    pages: Vec<Page>,
    pub interrupted: Counter,
}

// SAFETY: Loom reports an access to a page's content that is not ordered.
unsafe impl Sync for Slots {}
// SAFETY: As above.
unsafe impl Send for Slots {}

fn bits(slots: &[bool]) -> usize {
    slots
        .iter()
        .rev()
        .fold(0, |bits, full| bits << 1 | usize::from(*full))
}

impl Slots {
    /// Page n+1 is in slot n if `full` says so; the other pages are with who pushes them.
    pub fn new(bug: Bug, full: &[bool], usable: &[bool], pages: usize) -> Self {
        let is_full = |n: usize| full.get(n) == Some(&true);
        Self {
            bug,
            full: AtomicUsize::new(bits(full)),
            usable: AtomicUsize::new(bits(usable)),
            slots: (0..full.len())
                .map(|n| AtomicUsize::new(if is_full(n) { n + 1 } else { NULL }))
                .collect(),
            pages: (0..pages)
                .map(|n| Page {
                    content: UnsafeCell::new(if is_full(n) { PREPARED } else { USED }),
                    held: AtomicBool::new(!is_full(n)),
                })
                .collect(),
            interrupted: Counter::new(0),
        }
    }

    /// When everybody is done: no slot is busy, and each page is in one slot or with one owner.
    pub fn settle(&self) {
        let (full, usable) = (self.full.load(Relaxed), self.usable.load(Relaxed));
        let mut resting = vec![0; self.pages.len()];
        for (slot, page) in self.slots.iter().enumerate() {
            let page = page.load(Relaxed);
            if full & 1 << slot != 0 {
                assert!(usable & 1 << slot != 0, "a page is left in a slot");
                assert_ne!(page, NULL, "a slot that is full has no page");
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
        self.full.load(Relaxed).count_ones() as usize
    }
}

#[derive(Clone, Copy)]
enum Order {
    Full,
    None,
}

/// What runs on one CPU, and what interrupts it.
pub struct Cpu {
    slots: Arc<Slots>,
    /// The last one is next, so many steps from now, in whatever is then running.
    interrupts: RefCell<Vec<(usize, Op)>>,
}

impl Cpu {
    pub fn new(slots: &Arc<Slots>, interrupts: Vec<(usize, Op)>) -> Self {
        Self {
            slots: slots.clone(),
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
            self.slots.interrupted.fetch_add(1, SeqCst);
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

    fn test_and_clear_bit(&self, slot: usize, order: Order) -> bool {
        self.step();
        let old = match order {
            Order::Full => {
                let old = self.slots.full.fetch_and(!(1 << slot), AcqRel);
                fence(SeqCst);
                old
            }
            Order::None => self.slots.full.fetch_and(!(1 << slot), Relaxed),
        };
        old & 1 << slot != 0
    }

    fn cmpxchg(&self, slot: &AtomicUsize, old: usize, new: usize) -> usize {
        self.step();
        if self.slots.bug == Bug::Unpublished {
            return slot
                .compare_exchange(old, new, Relaxed, Relaxed)
                .unwrap_or_else(|other| other);
        }
        match slot.compare_exchange(old, new, AcqRel, Relaxed) {
            Ok(old) => {
                fence(SeqCst);
                old
            }
            Err(other) => other,
        }
    }

    fn slot_take(&self, slot: usize, order: Order) -> Option<usize> {
        let slots = &*self.slots;

        if slots.bug == Bug::EarlyNull {
            let page = self.read(&slots.slots[slot]);
            self.write(&slots.slots[slot], NULL);
            let taken = self.test_and_clear_bit(slot, order);
            assert!(!taken || page != NULL, "a slot that is full has no page");
            return taken.then_some(page);
        }
        if slots.bug == Bug::TornTake {
            if self.read(&slots.full) & 1 << slot == 0 {
                return None;
            }
            self.test_and_clear_bit(slot, order);
        } else if !self.test_and_clear_bit(slot, order) {
            return None;
        }
        let page = self.read(&slots.slots[slot]);
        assert_ne!(page, NULL, "a slot that is full has no page");
        self.write(&slots.slots[slot], NULL);
        Some(page)
    }

    /// None if the page is in a slot, or else a page that is left to this one.
    fn push(&self, page: usize) -> Option<usize> {
        let slots = &*self.slots;
        let candidates = self.read(&slots.usable) & !self.read(&slots.full);

        for slot in (0..slots.slots.len()).filter(|slot| candidates & 1 << slot != 0) {
            if self.read(&slots.slots[slot]) != NULL
                || self.cmpxchg(&slots.slots[slot], NULL, page) != NULL
            {
                continue;
            }

            self.step();
            slots.full.fetch_or(1 << slot, Relaxed);
            if !matches!(slots.bug, Bug::EarlyRecheck | Bug::Unpublished) {
                fence(SeqCst);
            }
            if slots.bug == Bug::NoRecheck || self.read(&slots.usable) & 1 << slot != 0 {
                return None;
            }
            return match slots.bug {
                Bug::BlindTakeBack => {
                    self.test_and_clear_bit(slot, Order::Full);
                    self.write(&slots.slots[slot], NULL);
                    Some(page)
                }
                Bug::RelaxedTakeBack => self.slot_take(slot, Order::None),
                _ => self.slot_take(slot, Order::Full),
            };
        }
        Some(page)
    }

    /// One pass over what was full when it began.
    fn pop(&self) -> Option<usize> {
        let full = self.read(&self.slots.full);

        (0..self.slots.slots.len())
            .filter(|slot| full & 1 << slot != 0)
            .find_map(|slot| self.slot_take(slot, Order::Full))
    }

    fn drain(&self, which: usize) {
        self.step();
        if self.slots.bug != Bug::NoFence {
            fence(SeqCst);
        }
        let which = which & self.read(&self.slots.full);
        for slot in (0..self.slots.slots.len()).filter(|slot| which & 1 << slot != 0) {
            if let Some(page) = self.slot_take(slot, Order::Full) {
                self.take(page);
            }
        }
    }

    /// Prepares an own page for free and tries to part with it.
    fn free(&self, page: usize) -> bool {
        let state = &self.slots.pages[page - 1];
        assert!(state.held.swap(false, SeqCst), "a page is freed twice");
        // SAFETY: The page is this one's, or loom reports it.
        state.content.with_mut(|content| unsafe {
            assert_eq!(*content, USED);
            *content = PREPARED;
        });
        match self.push(page) {
            Some(left) => self.take(left),
            None => return true,
        }
        false
    }

    /// Makes a page that is out of its slot this one's.
    fn take(&self, page: usize) {
        self.step();
        let state = &self.slots.pages[page - 1];
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
                let usable = (1 << limit) - 1;
                self.write(&self.slots.usable, usable);
                self.drain(!usable);
                true
            }
            Op::Drain => {
                self.drain(!0);
                true
            }
        }
    }
}
