// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs, one for each load, to show that the tests would see them.
//!
//! Lockdep, the scheduler, the ledger or the oracle must report each of them. Of no other use.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    new_spinlock,
    page::Page,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

#[path = "../../lib/nolocks/mod.rs"]
pub mod nolocks;

#[allow(dead_code, reason = "a control needs little of it")]
#[path = "../../harness/mod.rs"]
mod harness;
#[path = "../../harness/pages/ledger.rs"]
mod ledger;
#[allow(dead_code, reason = "a control needs little of it")]
#[path = "../../harness/pages/vm.rs"]
mod vm;

use api::{
    Api,
    Held, //
};
use context::{
    Context,
    Site, //
};
use harness::*;
use ktap::{
    Chosen,
    Outcome, //
};
use ledger::Ledger;
use nmi::Nmi;
use nolocks::{
    page::{
        alloc_page_nolocks,
        NoLocksFlags, //
    },
    raw_spin_lock::{
        new_raw_spin_lock,
        RawSpinLock, //
    },
    slots::PageSlots, //
};
use oracle::{
    Oracle,
    Tally,
    CALLS,
    VISITS, //
};
use task::Pinned;

module! {
    type: Control,
    name: "nolocks_control",
    authors: ["The nolocks authors"],
    description: "Deliberate bugs that the tests of nolocks must report",
    license: "GPL",
    params: {
        control: u32 {
            default: 0,
            description: "1 GFP_ATOMIC under a raw spinlock, 2 a trylock of a spinlock_t under pi_lock, 3 GFP_KERNEL under a raw spinlock, 4 a leaked page, 5 a page handed out twice, 6 a trylock that fails, in an NMI, 7 a page freed that still has a mapping, 8 a tail page freed, 9 a page freed that is page_pool's",
        },
    },
}

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_spoil_page(page: *mut bindings::page);
    fn nolocks_pool_page(page: *mut bindings::page);
    fn nolocks_alloc_tail() -> *mut bindings::page;
}

struct Control;

impl kernel::Module for Control {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match module_parameters::control.value() {
            1 => atomic_under_raw_lock()?,
            2 => trylock_under_pi_lock()?,
            3 => sleep_under_raw_lock()?,
            4 => ktap::run(&(), &[("ledger", leaked)], &Chosen::ALL, 0)?,
            5 => ktap::run(&(), &[("ledger", handed_out_twice)], &Chosen::ALL, 0)?,
            6 => ktap::run(&(), &[("locks", failed_trylock)], &Chosen::ALL, 0)?,
            7 => free_bad(|| marked(nolocks_spoil_page))?,
            8 => free_bad(tail)?,
            9 => free_bad(|| marked(nolocks_pool_page))?,
            control => {
                pr_err!("control={control} is no control: give control=1 to control=9\n");
                return Err(EINVAL);
            }
        }
        Ok(Self)
    }
}

fn new_lock<T>(data: T) -> Result<Pin<KBox<RawSpinLock<T>>>> {
    KBox::pin_init(new_raw_spin_lock!(data, "nolocks_control"), GFP_KERNEL)
}

/// `GFP_ATOMIC` under a raw spinlock, until the pcp lists are empty and zone->lock is taken.
fn atomic_under_raw_lock() -> Result {
    /// More than the pcp lists of a CPU hold.
    const ROOM: usize = 1 << 14;

    let lock = new_lock(KVVec::with_capacity(ROOM, GFP_KERNEL)?)?;
    let mut guard = lock.lock();

    while guard.len() < ROOM {
        let Ok(page) = Page::alloc_page(GFP_ATOMIC) else {
            break;
        };
        guard.push_within_capacity(page)?;
    }
    // The allocation is the only bug: the pages are given back where that is legal.
    let pages = core::mem::take(&mut *guard);
    drop(guard);
    pr_info!("control 1: {} pages under a raw spinlock\n", pages.len());
    Ok(())
}

/// A trylock of a lock that sleeps, under the lock that PREEMPT_RT takes inside its wait_lock.
fn trylock_under_pi_lock() -> Result {
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let lock = KBox::pin_init(new_spinlock!((), "nolocks_tried"), GFP_KERNEL)?;
    let mut taken = false;

    {
        let _pinned = Pinned::new();
        site.run(Context::PiLock, || taken = lock.try_lock().is_some());
    }
    pr_info!("control 2: a spinlock_t tried under pi_lock: {taken}\n");
    Ok(())
}

/// An allocation that may sleep, under a raw spinlock.
fn sleep_under_raw_lock() -> Result {
    let lock = new_lock(())?;
    let guard = lock.lock();
    let page = Page::alloc_page(GFP_KERNEL);

    drop(guard);
    pr_info!(
        "control 3: a page with GFP_KERNEL under a raw spinlock: {}\n",
        page.is_ok()
    );
    Ok(())
}

/// Pages that are in no book but the kernel's.
fn leaked(_: &()) -> Result<Outcome> {
    /// More than kvfree_rcu() may take meanwhile.
    const LEAKED: u32 = 32;

    let ledger = Ledger::open();
    let slots = PageSlots::register(LEAKED)?;
    for _ in 0..LEAKED {
        let _lost = ManuallyDrop::new(alloc_page_nolocks(NoLocksFlags::NONE)?);
    }

    drop(slots);
    Ok(ledger.close())
}

fn handed_out_twice(_: &()) -> Result<Outcome> {
    let ledger = Ledger::open();
    let slots = PageSlots::register(1)?;
    let held = Held::obtain(Api::NoLocks, NoLocksFlags::NONE).ok_or(ENOMEM)?;
    // SAFETY: The twin is forgotten before `held` goes, so the page is freed once.
    let mut twin = unsafe { core::ptr::read(&held) };

    twin.mark();
    core::mem::forget(twin);
    drop(held);
    drop(slots);
    Ok(ledger.close())
}

/// An allocation that tries a lock in vain first, which only ftrace sees.
fn failed_trylock(_: &()) -> Result<Outcome> {
    let _nmi = Nmi::new()?;
    let oracle = Oracle::new()?;
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let lock = new_lock(())?;
    let mut tally = Tally::new();

    for _ in 0..VISITS {
        if tally.calls >= CALLS {
            break;
        }
        let _pinned = Pinned::new();
        site.run(Context::Nmi, || {
            let _held = lock.try_lock();
            let _page = oracle.count(&mut tally, || {
                drop(lock.try_lock());
                Held::obtain(Api::NoLocks, NoLocksFlags::NONE)
            });
        });
    }
    Ok(tally.check(Context::Nmi, "alloc", Outcome::Passed))
}

/// A page that says that it is still in use.
fn marked(mark: unsafe extern "C" fn(*mut bindings::page)) -> *mut bindings::page {
    // SAFETY: This is a task that may sleep.
    let page = unsafe { bindings::alloc_pages(bindings::GFP_KERNEL, 0) };

    if !page.is_null() {
        // SAFETY: The page is ours.
        unsafe { mark(page) };
    }
    page
}

fn tail() -> *mut bindings::page {
    // SAFETY: This is a task that may sleep.
    unsafe { nolocks_alloc_tail() }
}

/// A page that may not be freed.
struct Bad(NonNull<bindings::page>);

// SAFETY: Pages belong to no task and no CPU.
unsafe impl Sync for Bad {}

impl Bad {
    fn free(&self) {
        // SAFETY: Whoever has it does not use it. That it may not be freed is the bug.
        unsafe { bindings::free_pages_nolock(self.0.as_ptr(), 0) }
    }
}

/// Frees such pages where that can be said at once, and where it has to be left to a worker. None of
/// them may come back.
fn free_bad(bad: fn() -> *mut bindings::page) -> Result {
    /// More than slots and lists give before what was freed last.
    const OTHERS: usize = 1 << 13;
    /// In which a worker has freed what was left to it.
    const SETTLE: Delta = Delta::from_millis(200);
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let slots = PageSlots::register(16)?;
    let mut freed = KVec::new();

    for ctx in [Context::Task, Context::RawIrqsave, Context::Hardirq] {
        let page = Bad(NonNull::new(bad()).ok_or(ENOMEM)?);
        let _pinned = Pinned::new();

        site.run(ctx, || page.free());
        freed.push(page, GFP_KERNEL)?;
    }
    fsleep(SETTLE);

    let mut others = KVVec::with_capacity(OTHERS, GFP_KERNEL)?;
    let mut came_back = false;
    for nth in 0..OTHERS {
        let held = if nth % 2 == 0 {
            Held::obtain(Api::NoLocks, NoLocksFlags::NONE)
        } else {
            Held::obtain_as_usual(false)
        };
        if let Some(held) = held {
            came_back |= freed.iter().any(|bad| bad.0.as_ptr() == held.page());
            others.push(held, GFP_KERNEL)?;
        }
    }
    kernel::warn_on!(came_back);
    drop(slots);
    Ok(())
}
