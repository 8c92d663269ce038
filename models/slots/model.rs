// SPDX-License-Identifier: GPL-2.0
//! The slots of one CPU, and the kernel around the functions of mm/page_slots.c that move pages: they
//! are compiled as they are, see build.rs, and whatever two CPUs can tell apart comes here.
//!
//! A `test_and_clear_bit()` and a `cmpxchg()` that succeeds are full barriers. Here they are an
//! acquire-release operation and a fence after it; one that fails, and `set_bit()`, order nothing: no
//! more than the kernel has.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use loom::sync::{Mutex, MutexGuard};
use std::cell::{Cell, RefCell};
use std::mem::transmute;
use std::panic::{UnwindSafe, catch_unwind, resume_unwind};
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool as Flag, AtomicUsize as Counter};

/// `struct code` of kernel.h. A page and a zone are their numbers.
#[repr(C)]
struct Code {
    push: unsafe extern "C-unwind" fn(*const Cpu, usize, usize) -> usize,
    pop: unsafe extern "C-unwind" fn(usize, i32) -> usize,
    drain: unsafe extern "C-unwind" fn(*const Cpu, usize) -> u32,
    update: unsafe extern "C-unwind" fn(u32),
    drain_zone: unsafe extern "C-unwind" fn(usize),
    thread: unsafe extern "C-unwind" fn(*const ()) -> i32,
    late: unsafe extern "C-unwind" fn(*const ()),
}

include!(concat!(env!("OUT_DIR"), "/code.rs"));

pub const FAITHFUL: &str = "faithful";

/// No page. The pages count from 1.
const NULL: usize = 0;
/// Of all pages, and of the slots at first.
const ZONE: usize = 1;
const OTHER_ZONE: usize = 2;
/// A page that was isolated while it was in a slot.
pub const UNUSABLE: usize = 6;

/// The words of `struct cpu` of kernel.h.
const FULL: usize = 0;
const USABLE: usize = 1;
const ZONE_WORD: usize = 2;
const PAGES: usize = 3;
pub const MAX_SLOTS: usize = 4;
const ASKING: usize = PAGES + MAX_SLOTS;
const TASK: usize = ASKING + 2;
const WORDS: usize = TASK + 1;

const USED: u32 = 0;
const PREPARED: u32 = 1;

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
    /// Have the slots be another zone's.
    Move,
    /// Drain what is in the slots, whatever is usable.
    Drain,
    /// Need all pages, which are isolated by now, as a contiguous range does.
    NeedAll,
    /// Need them as who has disabled the zone's lists does.
    Disable,
    /// Fill the slots until nobody asks, while there is memory or none.
    Thread { memory: bool },
    /// The timer's function, while there is memory or none.
    Late { memory: bool },
}

struct Page {
    content: UnsafeCell<u32>,
    /// Not for the model to order: loom runs one thread at a time.
    held: Flag,
}

pub struct Slots {
    code: *const Code,
    words: [AtomicUsize; WORDS],
    /// The thread was woken since it was about to sleep.
    pub woken: AtomicBool,
    /// The timer will expire.
    pub armed: AtomicBool,
    /// `page_slots_lock`.
    lock: Mutex<()>,
    pages: Vec<Page>,
    /// Those that the buddy allocator has for the slots, under zone->lock.
    free: Mutex<Vec<usize>>,
    pub interrupted: Counter,
}

// SAFETY: Loom reports an access to a page's content that is not ordered. The code is constant.
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
    /// Page n+1 is in slot n if `full` says so; the other pages are with who pushes them. The thread
    /// was asked to fill the slots.
    pub fn new(bug: &str, full: &[bool], usable: &[bool], pages: usize) -> Self {
        let is_full = |n: usize| full.get(n) == Some(&true);
        let code = CODE.iter().find(|(name, _)| *name == bug);
        let words: [usize; WORDS] = std::array::from_fn(|word| match word {
            FULL => bits(full),
            USABLE => bits(usable),
            ZONE_WORD => ZONE,
            ASKING | TASK => 1,
            slot if (PAGES..ASKING).contains(&slot) && is_full(slot - PAGES) => slot - PAGES + 1,
            _ => 0,
        });
        Self {
            code: code.expect("a bug of build.rs").1,
            words: words.map(AtomicUsize::new),
            woken: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            lock: Mutex::new(()),
            pages: (0..pages)
                .map(|n| Page {
                    content: UnsafeCell::new(if is_full(n) { PREPARED } else { USED }),
                    held: Flag::new(!is_full(n)),
                })
                .collect(),
            free: Mutex::new((1..=pages).filter(|page| !is_full(page - 1)).collect()),
            interrupted: Counter::new(0),
        }
    }

    /// When everybody is done: no slot is busy, and each page is in one slot or with one owner.
    pub fn settle(&self) {
        let word = |word: usize| self.words[word].load(Relaxed);
        let mut resting = vec![0; self.pages.len()];
        for slot in 0..MAX_SLOTS {
            if word(FULL) & 1 << slot != 0 {
                assert!(word(USABLE) & 1 << slot != 0, "a page is left in a slot");
                assert_eq!(word(ZONE_WORD), ZONE, "a page is left in a slot");
                assert_ne!(word(PAGES + slot), NULL, "a slot that is full has no page");
                resting[word(PAGES + slot) - 1] += 1;
            }
        }
        for (page, resting) in self.pages.iter().zip(resting) {
            let held = usize::from(page.held.load(SeqCst));
            assert!(held + resting <= 1, "a page is had by two");
            assert_eq!(held + resting, 1, "a page is lost");
        }
    }

    /// All are in the buddy allocator: none is in a slot, or on its way from or to one. Loom reports who
    /// frees one later, or without an order.
    fn assert_nobody_has_a_page(&self) {
        for page in &self.pages {
            assert!(page.held.load(SeqCst), "somebody has a page in hand");
            // SAFETY: As in `Cpu::take()`.
            page.content
                .with(|content| unsafe { assert_eq!(*content, USED) });
        }
    }

    pub fn count(&self) -> usize {
        self.words[FULL].load(Relaxed).count_ones() as usize
    }
}

/// What runs on one CPU, and what interrupts it.
#[repr(C)]
pub struct Cpu {
    /// What the code takes the addresses of.
    words: [Cell<usize>; WORDS],
    /// If it has the lock.
    guard: Cell<Option<MutexGuard<'static, ()>>>,
    slots: Arc<Slots>,
    /// The last one is next, so many steps from now, in whatever is then running.
    interrupts: RefCell<Vec<(usize, Op)>>,
    memory: Cell<bool>,
    /// What `update_cpu()` is to make of the slots.
    zone: Cell<usize>,
    limit: Cell<usize>,
}

loom::thread_local! {
    static CURRENT: Cell<*const Cpu> = Cell::new(null());
}

/// What a thread that sleeps leaves by.
struct Asleep;

impl Cpu {
    pub fn new(slots: &Arc<Slots>, interrupts: Vec<(usize, Op)>) -> Self {
        Self {
            words: Default::default(),
            guard: Cell::new(None),
            slots: slots.clone(),
            interrupts: RefCell::new(interrupts),
            memory: Cell::new(true),
            zone: Cell::new(ZONE),
            limit: Cell::new(MAX_SLOTS),
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

    fn word(&self, word: *const usize) -> &AtomicUsize {
        let offset = word.addr() - self.words.as_ptr().addr();
        &self.slots.words[offset / size_of::<usize>()]
    }

    /// Prepares an own page for free.
    fn prepare(&self, page: usize) {
        let state = &self.slots.pages[page - 1];
        assert!(state.held.swap(false, SeqCst), "a page is freed twice");
        // SAFETY: The page is this one's, or loom reports it.
        state.content.with_mut(|content| unsafe {
            assert_eq!(*content, USED);
            *content = PREPARED;
        });
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

    /// Whether a slot took it.
    fn free(&self, page: usize) -> bool {
        self.prepare(page);
        // SAFETY: It takes no more than the address of this CPU, and calls what is below.
        match unsafe { ((*self.slots.code).push)(self, ZONE, page) } {
            NULL => return true,
            left => self.take(left),
        }
        false
    }

    fn pop(&self) -> Option<usize> {
        // As page_slots_zone() does.
        self.step();
        let zone = self.slots.words[ZONE_WORD].load(Relaxed);
        // SAFETY: As above.
        let page = unsafe { ((*self.slots.code).pop)(zone, 0) };
        (page != NULL).then(|| {
            assert_eq!(zone, ZONE, "a page of another zone is had");
            assert_ne!(page, UNUSABLE, "a page that is isolated is had");
            self.take(page);
            page
        })
    }

    fn drain(&self, which: usize) {
        // SAFETY: As above.
        unsafe { ((*self.slots.code).drain)(self, which) };
    }

    fn update(&self, zone: usize, limit: usize) {
        self.zone.set(zone);
        self.limit.set(limit);
        // It reads what nobody else writes without READ_ONCE().
        self.words[ZONE_WORD].set(self.slots.words[ZONE_WORD].load(Relaxed));
        // SAFETY: As above.
        unsafe { ((*self.slots.code).update)(0) };
    }

    /// Whether it got, or got rid of, a page.
    pub fn run(&self, op: Op) -> bool {
        CURRENT.with(|current| current.set(self));
        match op {
            Op::Push(page) => return self.free(page),
            Op::Pop => return self.pop().is_some(),
            Op::Reuse => return self.pop().is_some_and(|page| self.free(page)),
            Op::Lower(limit) => self.update(ZONE, limit),
            Op::Move => self.update(OTHER_ZONE, MAX_SLOTS),
            Op::Drain => self.drain(!0),
            Op::NeedAll => {
                self.slots.free.lock().unwrap().clear();
                // SAFETY: As above.
                unsafe { ((*self.slots.code).drain_zone)(ZONE) };
                self.slots.assert_nobody_has_a_page();
            }
            Op::Disable => {
                self.update(ZONE, 0);
                self.slots.assert_nobody_has_a_page();
            }
            Op::Thread { memory } => {
                self.memory.set(memory);
                // SAFETY: As above. It can only be left by unwinding, and has nothing to drop.
                let thread = || unsafe { ((*self.slots.code).thread)(null()) };
                let left = catch_unwind(std::panic::AssertUnwindSafe(thread));
                let left = left.expect_err("a thread without end");
                if !left.is::<Asleep>() {
                    resume_unwind(left);
                }
            }
            Op::Late { memory } => {
                self.memory.set(memory);
                // SAFETY: As above.
                unsafe { ((*self.slots.code).late)(null()) };
            }
        }
        true
    }
}

/// What the code calls is for the CPU that it runs on.
fn here<R>(call: impl FnOnce(&Cpu) -> R) -> R {
    let cpu = CURRENT.with(Cell::get);
    // SAFETY: Who runs the code has set it to himself, and waits for it to come back.
    let cpu = unsafe { &*cpu };
    cpu.step();
    call(cpu)
}

fn numbers(pages: usize) -> impl Iterator<Item = usize> {
    (1..usize::BITS as usize).filter(move |page| pages >> page & 1 == 1)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_cpu() -> *const Cpu {
    CURRENT.with(Cell::get)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_read(word: *const usize) -> usize {
    here(|cpu| cpu.word(word).load(Relaxed))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_write(word: *const usize, value: usize) {
    here(|cpu| cpu.word(word).store(value, Relaxed));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_cmpxchg(
    word: *const usize,
    old: usize,
    new: usize,
    ordered: bool,
) -> usize {
    here(|cpu| {
        let order = if ordered { AcqRel } else { Relaxed };
        let result = cpu.word(word).compare_exchange(old, new, order, Relaxed);
        if ordered && result.is_ok() {
            fence(SeqCst);
        }
        result.unwrap_or_else(|other| other)
    })
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_set_bit(bit: usize, word: *const usize) {
    here(|cpu| cpu.word(word).fetch_or(1 << bit, Relaxed));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_test_and_set_bit(bit: usize, word: *const usize) -> bool {
    here(|cpu| {
        let old = cpu.word(word).fetch_or(1 << bit, AcqRel);
        fence(SeqCst);
        old & 1 << bit != 0
    })
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_test_and_clear_bit(
    bit: usize,
    word: *const usize,
    ordered: bool,
) -> bool {
    here(|cpu| {
        let order = if ordered { AcqRel } else { Relaxed };
        let old = cpu.word(word).fetch_and(!(1 << bit), order);
        if ordered {
            fence(SeqCst);
        }
        old & 1 << bit != 0
    })
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_mb() {
    here(|_| fence(SeqCst));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_lock() -> i32 {
    here(|cpu| {
        let guard = cpu.slots.lock.lock().unwrap();
        // SAFETY: The lock lives as long as this CPU, which drops the guard.
        cpu.guard.set(Some(unsafe {
            transmute::<MutexGuard<'_, ()>, MutexGuard<'static, ()>>(guard)
        }));
    });
    1
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_unlock(_held: &i32) {
    here(|cpu| drop(cpu.guard.take()));
}

/// Pages of the buddy allocator, prepared.
#[unsafe(no_mangle)]
extern "C-unwind" fn model_rmqueue(count: i32, pages: &mut usize) -> i32 {
    here(|cpu| {
        let mut free = cpu.slots.free.lock().unwrap();
        let had = free.len();
        let left = had.saturating_sub(if cpu.memory.get() { count as usize } else { 0 });
        for page in free.drain(left..) {
            cpu.prepare(page);
            *pages |= 1 << page;
        }
        (had - left) as i32
    })
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_free(pages: usize) {
    for page in numbers(pages) {
        here(|cpu| cpu.take(page));
    }
}

fn swap(flag: &AtomicBool, value: bool) {
    flag.swap(value, AcqRel);
    fence(SeqCst);
}

/// `set_current_state()` is a full barrier. Who wakes it before loses nothing.
#[unsafe(no_mangle)]
extern "C-unwind" fn model_set_asleep() {
    here(|cpu| swap(&cpu.slots.woken, false));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_wake() {
    here(|cpu| swap(&cpu.slots.woken, true));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_schedule() {
    here(|cpu| {
        if !cpu.slots.woken.load(Relaxed) {
            resume_unwind(Box::new(Asleep));
        }
    });
}

/// It comes again after all that goes on meanwhile.
#[unsafe(no_mangle)]
extern "C-unwind" fn model_schedule_timeout() {
    here(|cpu| {
        swap(&cpu.slots.woken, true);
        resume_unwind(Box::new(Asleep));
    });
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_arm_timer() {
    here(|cpu| swap(&cpu.slots.armed, true));
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_timer_pending() -> bool {
    here(|cpu| cpu.slots.armed.load(Relaxed))
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_zone() -> usize {
    here(|cpu| cpu.zone.get())
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_limit() -> u32 {
    here(|cpu| cpu.limit.get() as u32)
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_zone_of(_page: usize) -> usize {
    ZONE
}

#[unsafe(no_mangle)]
extern "C-unwind" fn model_usable(page: usize) -> bool {
    page != UNUSABLE
}

/// The bug is found, and by what one of `messages` is about.
pub fn expect(bug: &str, messages: &[&str], explore: impl FnOnce() + UnwindSafe) {
    let panic = catch_unwind(explore).expect_err(bug);
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied());
    let is_about = |text: &str| messages.iter().any(|message| text.contains(message));
    assert!(text.is_some_and(is_about), "{bug}: {text:?}");
}
