// SPDX-License-Identifier: GPL-2.0

//! What a shard stands on: pages, grace periods, and the works that come for it.
//!
//! A push reaches nothing but the shard's lock, the allocator and `irq_work_queue()`: to queue a
//! work or to arm a timer there would wake a task under the caller's raw spinlock. The interrupt
//! does that, and the works drain:
//!
//! ```text
//! push -> irq_work -> delayed_work -> drain -> rcu_work -> drain -> ...
//! ```
//!
//! Lock order: `waiting` (a mutex) -> `state` (raw).

use core::{
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull,
};

use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            ordering::Release,
            Atomic, //
        },
        new_mutex,
        Mutex, //
    },
    types::Opaque, //
};

use super::{
    lock::IrqsaveLock,
    object,
    shard::{
        self,
        Block,
        Kind,
        Lock,
        Object,
        Rest,
        Waiting, //
        Wake,
    },
    Policy, //
};
use crate::nolocks::page::NoLocksPage;

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_queue_init_works(
        irq_work: *mut bindings::irq_work,
        on_irq: unsafe extern "C" fn(*mut bindings::irq_work),
        delayed: *mut bindings::delayed_work,
        on_time: unsafe extern "C" fn(*mut bindings::work_struct),
        rcu: *mut bindings::rcu_work,
        on_grace_period: unsafe extern "C" fn(*mut bindings::work_struct),
    );
    fn nolocks_queue_snapshot(snapshot: *mut bindings::rcu_gp_seq);
    fn nolocks_queue_elapsed(snapshot: *mut bindings::rcu_gp_seq) -> bool;
    fn nolocks_queue_adopt(object: *mut c_void, scan: bool) -> bool;
    fn nolocks_queue_disown(object: *mut c_void);
    fn nolocks_queue_breathe();
}

/// The grace period that readers of what was unpublished until now are done after.
pub fn snapshot() -> bindings::rcu_gp_seq {
    let mut snapshot = Default::default();
    // SAFETY: May be called in every context, and writes to the local.
    unsafe { nolocks_queue_snapshot(&mut snapshot) };
    snapshot
}

/// Whether that grace period is over.
pub fn elapsed(mut snapshot: bindings::rcu_gp_seq) -> bool {
    // SAFETY: Only reads the local and RCU's own state.
    unsafe { nolocks_queue_elapsed(&mut snapshot) }
}

const ANY_CPU: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// A page with a block in it.
///
/// # Invariants
///
/// `block` points to the start of `page`, where an initialised block is that this owns.
pub struct BlockPage<R: Policy> {
    block: NonNull<Block<Local<R>>>,
    /// Frees the memory, in any context.
    _page: NoLocksPage,
}

// SAFETY: It owns the block, whose objects belong to no task and no CPU.
unsafe impl<R: Policy> Send for BlockPage<R> {}

impl<R: Policy> BlockPage<R> {
    fn new(page: NoLocksPage) -> Self {
        const { assert!(size_of::<Block<Local<R>>>() <= kernel::page::PAGE_SIZE) };
        let mut slot: NonNull<MaybeUninit<_>> = page.address().cast();

        // SAFETY: The page is ours and has room for a block, at the start and so aligned.
        let block = Block::init(unsafe { slot.as_mut() });
        // INVARIANT: Initialised right above.
        Self {
            block: block.into(),
            _page: page,
        }
    }
}

impl<R: Policy> Deref for BlockPage<R> {
    type Target = Block<Local<R>>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        // SAFETY: By the invariant.
        unsafe { self.block.as_ref() }
    }
}

impl<R: Policy> DerefMut for BlockPage<R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: By the invariant.
        unsafe { self.block.as_mut() }
    }
}

/// The workqueue that drains.
pub struct Workqueue(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used from anywhere.
unsafe impl Send for Workqueue {}
// SAFETY: As above.
unsafe impl Sync for Workqueue {}

impl Workqueue {
    pub(super) fn new(name: &CStr) -> Result<Self> {
        // Memory is freed there, so it must not wait for memory.
        let flags = bindings::wq_flags_WQ_UNBOUND | bindings::wq_flags_WQ_MEM_RECLAIM;
        // SAFETY: The format takes one string, which is copied.
        let wq = unsafe {
            bindings::alloc_workqueue_noprof(c"%s".as_char_ptr(), flags, 0, name.as_char_ptr())
        };

        NonNull::new(wq).map(Self).ok_or(ENOMEM)
    }
}

impl Drop for Workqueue {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new()`; those who queue here are gone before.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) }
    }
}

/// One CPU's part of the queue.
#[pin_data]
pub struct Local<R: Policy> {
    #[pin]
    pub(super) state: IrqsaveLock<shard::Shard<Self>>,
    #[pin]
    waiting: Mutex<Waiting<Self>>,
    /// What `waiting` counts, for those who cannot wait for destructors. Changed under it.
    pub(super) freed: Atomic<u64>,
    pub(super) twice: Atomic<u64>,
    #[pin]
    irq_work: Opaque<bindings::irq_work>,
    #[pin]
    delayed_work: Opaque<bindings::delayed_work>,
    #[pin]
    rcu_work: Opaque<bindings::rcu_work>,
    /// Outlives the shard.
    workqueue: *mut bindings::workqueue_struct,
    _policy: PhantomData<fn(R)>,
}

// SAFETY: The objects belong to no task, the works may be queued from anywhere, and so may the
// workqueue.
unsafe impl<R: Policy> Send for Local<R> {}
// SAFETY: As above, and what changes is locked.
unsafe impl<R: Policy> Sync for Local<R> {}

impl<R: Policy> Local<R> {
    /// # Safety
    ///
    /// `workqueue` must outlive the shard, and once something was pushed to it, the shard must be
    /// [`stop()`](Self::stop)ped before its memory is freed.
    pub(super) unsafe fn new(workqueue: &Workqueue) -> impl PinInit<Self, Error> {
        let workqueue = workqueue.0.as_ptr();

        try_pin_init!(Self {
            state <- IrqsaveLock::new(
                shard::Shard::new(),
                c"nolocks_queue",
                kernel::static_lock_class!(),
            ),
            waiting <- new_mutex!(Waiting::new(), "nolocks_queue_waiting"),
            freed: Atomic::new(0),
            twice: Atomic::new(0),
            irq_work: Opaque::uninit(),
            delayed_work: Opaque::uninit(),
            rcu_work: Opaque::uninit(),
            workqueue,
            _policy: PhantomData,
        }? Error)
        .pin_chain(|this| {
            R::step()?;
            // SAFETY: The three are valid for writes, and stay where they are. The functions get
            // them from works that `stop()` has waited for when the shard goes.
            unsafe {
                nolocks_queue_init_works(
                    this.irq_work.get(),
                    Self::on_irq,
                    this.delayed_work.get(),
                    Self::on_time,
                    this.rcu_work.get(),
                    Self::on_grace_period,
                )
            };
            Ok(())
        })
    }

    /// Drains, and sees to it that somebody comes for the rest.
    pub(super) fn drain(&self, all: bool) -> Rest {
        let mut waiting = self.waiting.lock();
        let rest = shard::drain(self, &self.state, &mut *waiting, all);
        let (freed, twice) = waiting.counts();

        // So that who sees them sees what the destructors have pushed.
        self.freed.store(freed, Release);
        self.twice.store(twice, Release);
        if rest.waiting {
            // SAFETY: Both are valid, and waited for in `stop()`.
            unsafe { bindings::queue_rcu_work(self.workqueue, self.rcu_work.get()) };
        }
        if let Some(ticks) = rest.open {
            // SAFETY: As above.
            unsafe {
                bindings::queue_delayed_work_on(
                    ANY_CPU,
                    self.workqueue,
                    self.delayed_work.get(),
                    ticks,
                )
            };
        }
        rest
    }

    /// Waits for the interrupt that may still be to come. To be called when nobody can push any more.
    pub(super) fn settle(&self) {
        // SAFETY: Initialised in `new()`.
        unsafe { bindings::irq_work_sync(self.irq_work.get()) };
    }

    /// Waits for works that may still run. To be called when nothing is left to drain, and when an
    /// RCU grace period has passed since all shards were [`settle()`](Self::settle)d: that does not
    /// wait for a handler that still runs on another CPU than a later one, but RCU waits for
    /// handlers, as interrupts are disabled in them.
    pub(super) fn stop(&self) {
        // SAFETY: Initialised in `new()`. In this order: the first may queue the second, and with
        // nothing to drain none queues the one before.
        unsafe {
            bindings::disable_delayed_work_sync(self.delayed_work.get());
            bindings::flush_rcu_work(self.rcu_work.get());
        }
    }

    /// # Safety
    ///
    /// To be called with the `irq_work` of a live shard.
    unsafe extern "C" fn on_irq(work: *mut bindings::irq_work) {
        // SAFETY: By the safety requirements.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, irq_work) };
        let (workqueue, work) = (this.workqueue, this.delayed_work.get());

        match this.state.with(|shard| shard.wake()) {
            Wake::Idle => (),
            Wake::Later => {
                // SAFETY: Both are valid, and waited for in `stop()`.
                unsafe {
                    bindings::queue_delayed_work_on(
                        ANY_CPU,
                        workqueue,
                        work,
                        <Self as shard::Platform>::PERIOD,
                    )
                };
            }
            Wake::Now => {
                // SAFETY: As above.
                unsafe { bindings::mod_delayed_work_on(ANY_CPU, workqueue, work, 0) };
            }
        }
    }

    /// # Safety
    ///
    /// To be called with the `work` in the `delayed_work` of a live shard.
    unsafe extern "C" fn on_time(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirements.
        let work = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
        // SAFETY: By the safety requirements.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, delayed_work) };
        let _rest = this.drain(false);
    }

    /// # Safety
    ///
    /// To be called with the `work` in the `rcu_work` of a live shard.
    unsafe extern "C" fn on_grace_period(work: *mut bindings::work_struct) {
        // SAFETY: By the safety requirements.
        let work = unsafe { kernel::container_of!(work, bindings::rcu_work, work) };
        // SAFETY: By the safety requirements.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, rcu_work) };
        let _rest = this.drain(false);
    }
}

impl<R: Policy> shard::Platform for Local<R> {
    type Page = BlockPage<R>;
    type Snapshot = bindings::rcu_gp_seq;
    /// A second.
    const PERIOD: usize = bindings::CONFIG_HZ as usize;

    fn snapshot(&self) -> Self::Snapshot {
        snapshot()
    }

    fn elapsed(&self, snapshot: &Self::Snapshot) -> bool {
        R::elapsed(*snapshot)
    }

    fn synchronize(&self) {
        kernel::sync::rcu::synchronize_rcu();
    }

    fn page(&self) -> Option<Self::Page> {
        R::page().map(BlockPage::new)
    }

    fn now(&self) -> usize {
        // SAFETY: The clock is only read, and may change under us.
        unsafe { core::ptr::addr_of!(bindings::jiffies).read_volatile() }
    }

    fn kick(&self) {
        // SAFETY: Initialised in `new()`, and waited for in `stop()`. May be called in every context.
        unsafe { bindings::irq_work_queue(self.irq_work.get()) };
    }

    /// Of what is in a block nobody else keeps a record.
    const ADOPTS: bool = cfg!(any(CONFIG_DEBUG_OBJECTS, CONFIG_DEBUG_KMEMLEAK));

    fn adopt(&self, object: Object) -> bool {
        // Neither debugobjects nor kmemleak knows pages.
        // SAFETY: The queue owns the object.
        object::is_page(object) || unsafe { nolocks_queue_adopt(object.as_ptr(), R::OWNS_MEMORY) }
    }

    unsafe fn reclaim(&self, kind: Option<Kind>, objects: &mut [Object]) {
        for object in objects.iter() {
            if Self::ADOPTS && !object::is_page(*object) {
                // SAFETY: By the safety requirements, and it was adopted.
                unsafe { nolocks_queue_disown(object.as_ptr()) };
            }
            // SAFETY: By the safety requirements.
            unsafe { R::destroy(object::address_of(*object)) };
        }
        if kind == Some(Kind::Slab) {
            // SAFETY: By the safety requirements, and they came from `kmalloc()`. A null cache stands
            // for whatever cache each is of.
            unsafe {
                bindings::kmem_cache_free_bulk(
                    core::ptr::null_mut(),
                    objects.len(),
                    objects.as_mut_ptr().cast(),
                )
            };
        } else {
            for object in objects {
                // SAFETY: By the safety requirements; it was destroyed, and is not used after this.
                unsafe { object::free(*object) };
            }
        }
        // SAFETY: This is a task that may sleep.
        unsafe { nolocks_queue_breathe() };
    }
}
