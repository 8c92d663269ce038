// SPDX-License-Identifier: GPL-2.0

//! What a shard stands on: pages, grace periods, and the works that come for it.
//!
//! A push reaches nothing but the shard's lock, the allocator and `irq_work_queue()`: to queue a
//! work or to arm a timer there would wake a task under the caller's raw spinlock. The interrupt
//! does that, and the works drain:
//!
//! ```text
//! push -> irq_work -> delayed_work -> drain -> rcu_work -> drain -> reclaim_work
//! ```
//!
//! The works that drain are on a workqueue of the queue's, which memory reclaim may wait for. What
//! frees the objects is a work of its own, so that no mutex is held where a destructor runs; it is on
//! that workqueue too if there are none, and on the system's if there are, as they may do anything that
//! a task may do.
//!
//! Lock order: `waiting` (a mutex) -> `state` (raw).
//!
//! [`shard`](super::shard) decides which work is asked for and what is waited for at the end, and the
//! models explore that; here each is one call of the kernel.

use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull,
};

use kernel::{
    alloc::{
        allocator::Kmalloc,
        Allocator,
        NumaNode, //
    },
    bindings,
    prelude::*,
    sync::{
        atomic::{
            ordering::{
                Relaxed,
                Release, //
            },
            Atomic, //
        },
        Mutex, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

use super::{
    lock::IrqsaveLock,
    object,
    policy::Policy,
    rcu,
    shard::{
        self,
        Block,
        Kind,
        Lock,
        Object,
        Rest,
        Waiting,
        Works, //
    }, //
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
        reclaim: *mut bindings::work_struct,
        on_reclaim: unsafe extern "C" fn(*mut bindings::work_struct),
    );
    fn nolocks_queue_node(cpu: c_uint) -> c_int;
    fn nolocks_queue_end_elsewhere(
        end: unsafe extern "C" fn(*mut c_void) -> c_int,
        queue: *mut c_void,
    );
    fn nolocks_queue_ended() -> c_int;
    fn nolocks_queue_same(
        one: *const bindings::rcu_gp_seq,
        other: *const bindings::rcu_gp_seq,
    ) -> bool;
    fn nolocks_queue_adopt(object: *mut c_void, scan: bool) -> bool;
    fn nolocks_queue_disown(object: *mut c_void);
    fn nolocks_queue_breathe();
}

/// The memory node of a CPU, as far as there are nodes.
fn node_of(cpu: u32) -> NumaNode {
    // SAFETY: Only reads a table, for a CPU that it has.
    NumaNode::new(unsafe { nolocks_queue_node(cpu) }).unwrap_or(NumaNode::NO_NODE)
}

/// Calls `drop()` for `owner` in a task of its own, until which the module stays.
pub(super) fn drop_elsewhere<T: ForeignOwnable + Send + 'static>(owner: T) {
    /// # Safety
    ///
    /// `owner` is from `T::into_foreign()` and passed to nobody else. The task was created for this.
    unsafe extern "C" fn end<T: ForeignOwnable>(owner: *mut c_void) -> c_int {
        // SAFETY: `owner` is from `T::into_foreign()` and passed to nobody else.
        drop(unsafe { T::from_foreign(owner) });
        // SAFETY: The task was created for this, and nothing of ours is left on its stack.
        unsafe { nolocks_queue_ended() }
    }
    // SAFETY: `end` takes what it is passed, which any task may have, and for any time.
    unsafe { nolocks_queue_end_elsewhere(end::<T>, owner.into_foreign()) }
}

const ANY_CPU: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// A page with a block in it.
///
/// # Invariants
///
/// `block` points to the start of `page`, where an initialised block is that this owns.
pub(super) struct BlockPage<R: Policy> {
    block: NonNull<Block<Local<R>>>,
    /// Frees the memory, in any context.
    _page: NoLocksPage,
}

// SAFETY: It owns the block, whose objects belong to no task and no CPU.
unsafe impl<R: Policy> Send for BlockPage<R> {}

impl<R: Policy> BlockPage<R> {
    fn new(page: NoLocksPage) -> Self {
        const { core::assert!(size_of::<Block<Local<R>>>() <= kernel::page::PAGE_SIZE) };
        let mut slot: NonNull<MaybeUninit<_>> = page.address().cast();

        // SAFETY: The page is ours and has room for a block, at the start and so aligned.
        let block = Block::init(unsafe { slot.as_mut() });
        // INVARIANT: Initialised right above.
        Self {
            block: NonNull::from(block),
            _page: page,
        }
    }
}

impl<R: Policy> Deref for BlockPage<R> {
    type Target = Block<Local<R>>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        // SAFETY: By the invariant the block is initialised, and ours as long as its page.
        unsafe { self.block.as_ref() }
    }
}

impl<R: Policy> DerefMut for BlockPage<R> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: By the invariant the block is initialised, and nobody else's.
        unsafe { self.block.as_mut() }
    }
}

/// The workqueue that drains.
pub(super) struct Workqueue(NonNull<bindings::workqueue_struct>);

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

/// Starts a cache line of its own. That of the widest architecture that the lanes have.
#[repr(align(64))]
#[pin_data]
struct Padded<T> {
    #[pin]
    value: T,
}

/// One CPU's part of the queue.
#[pin_data]
pub(super) struct Local<R: Policy> {
    /// Apart from what others than this CPU look at.
    #[pin]
    state: Padded<IrqsaveLock<shard::Shard<Self>>>,
    #[pin]
    waiting: Mutex<Waiting<Self>>,
    /// Objects. Changed by the work that reclaims.
    pub(super) freed: Atomic<u64>,
    /// What `waiting` counts, changed under it.
    pub(super) twice: Atomic<u64>,
    /// As the shard has said, under its lock.
    shrinkable: Atomic<usize>,
    #[pin]
    irq_work: Opaque<bindings::irq_work>,
    #[pin]
    delayed_work: Opaque<bindings::delayed_work>,
    #[pin]
    rcu_work: Opaque<bindings::rcu_work>,
    #[pin]
    reclaim_work: Opaque<bindings::work_struct>,
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
    pub(super) unsafe fn new(workqueue: &Workqueue, cpu: u32) -> Result<Pin<KBox<Self>>> {
        let layout = Layout::new::<Self>();
        let memory = Kmalloc::alloc(layout, GFP_KERNEL, node_of(cpu))?;
        // SAFETY: Just allocated, by the allocator of the box and for this type, and not initialised.
        let memory = unsafe { KBox::from_raw(memory.as_ptr().cast::<MaybeUninit<Self>>()) };

        // SAFETY: `workqueue` outlives the shard, which is stopped before its memory is freed.
        memory.write_pin_init(unsafe { Self::init(workqueue) })
    }

    /// # Safety
    ///
    /// As for [`new()`](Self::new).
    unsafe fn init(workqueue: &Workqueue) -> impl PinInit<Self, Error> {
        let workqueue = workqueue.0.as_ptr();

        kernel::try_pin_init!(Self {
            state <- pin_init::pin_init!(Padded {
                value <- IrqsaveLock::new(
                    shard::Shard::new(),
                    c"nolocks_queue",
                    kernel::static_lock_class!(),
                ),
            }),
            waiting <- Mutex::new(
                Waiting::new(),
                c"nolocks_queue_waiting",
                kernel::static_lock_class!(),
            ),
            freed: Atomic::new(0),
            twice: Atomic::new(0),
            shrinkable: Atomic::new(0),
            irq_work: Opaque::uninit(),
            delayed_work: Opaque::uninit(),
            rcu_work: Opaque::uninit(),
            reclaim_work: Opaque::uninit(),
            workqueue,
            _policy: PhantomData,
        }? Error)
        .pin_chain(|this| {
            R::step()?;
            // SAFETY: The four are valid for writes, and stay where they are. The functions get
            // them from works that `stop()` has waited for when the shard goes.
            unsafe {
                nolocks_queue_init_works(
                    this.irq_work.get(),
                    Self::on_irq,
                    this.delayed_work.get(),
                    Self::on_time,
                    this.rcu_work.get(),
                    Self::on_grace_period,
                    this.reclaim_work.get(),
                    Self::on_reclaim,
                )
            };
            Ok(())
        })
    }

    /// The shard itself.
    #[inline]
    pub(super) fn state(&self) -> &IrqsaveLock<shard::Shard<Self>> {
        &self.state.value
    }

    /// What [`shard::shrink()`] would find, or more. Takes no lock.
    pub(super) fn shrinkable(&self) -> usize {
        self.shrinkable.load(Relaxed)
    }

    /// Drains, and sees to it that somebody comes for the rest, which it returns.
    pub(super) fn drain(&self, all: bool) -> Rest {
        let mut waiting = self.waiting.lock();
        let rest = shard::drain(self, self.state(), &mut *waiting, all);

        self.twice.store(waiting.twice(), Release);
        // Under the mutex, so that who has drained after us finds the work queued.
        shard::follow_up(self, rest);
        rest
    }

    /// Waits until what the last drain found ready is freed.
    pub(super) fn flush(&self) {
        // SAFETY: Initialised in `init()`.
        unsafe { bindings::flush_work(self.reclaim_work.get()) };
    }

    /// Whether this task is the one that runs destructors of this shard.
    pub(super) fn is_reclaiming(&self) -> bool {
        // SAFETY: Only compares an address, of what need not be there any more.
        unsafe { bindings::current_work() == self.reclaim_work.get() }
    }

    /// # Safety
    ///
    /// To be called with the `irq_work` of a live shard.
    unsafe extern "C" fn on_irq(work: *mut bindings::irq_work) {
        // SAFETY: `work` is the `irq_work` of a live shard.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, irq_work) };
        let wake = this.state().with(|shard| shard.wake());

        shard::answer(this, wake, <Self as shard::Platform>::PERIOD);
    }

    /// # Safety
    ///
    /// To be called with the `work` in the `delayed_work` of a live shard.
    unsafe extern "C" fn on_time(work: *mut bindings::work_struct) {
        // SAFETY: `work` is the one in a `delayed_work`.
        let work = unsafe { kernel::container_of!(work, bindings::delayed_work, work) };
        // SAFETY: That is the `delayed_work` of a live shard.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, delayed_work) };
        let _rest = this.drain(false);
    }

    /// # Safety
    ///
    /// To be called with the `work` in the `rcu_work` of a live shard.
    unsafe extern "C" fn on_grace_period(work: *mut bindings::work_struct) {
        // SAFETY: `work` is the one in an `rcu_work`.
        let work = unsafe { kernel::container_of!(work, bindings::rcu_work, work) };
        // SAFETY: That is the `rcu_work` of a live shard.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, rcu_work) };
        let _rest = this.drain(false);
    }

    /// # Safety
    ///
    /// To be called with the `reclaim_work` of a live shard.
    unsafe extern "C" fn on_reclaim(work: *mut bindings::work_struct) {
        // SAFETY: `work` is the `reclaim_work` of a live shard.
        let this = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, reclaim_work) };
        let ready = this.waiting.lock().take_ready();
        let freed = shard::reclaim(this, this.state(), ready);

        // Release, so that who sees them freed sees what the destructors have pushed.
        this.freed.fetch_add(freed, Release);
    }
}

impl<R: Policy> Works for Local<R> {
    fn drain_in(&self, ticks: usize) {
        // SAFETY: The work was initialised in `init()` and is waited for in `stop()`; the workqueue outlives it.
        unsafe {
            bindings::queue_delayed_work_on(ANY_CPU, self.workqueue, self.delayed_work.get(), ticks)
        };
    }

    fn drain_now(&self) {
        // SAFETY: The work was initialised in `init()` and is waited for in `stop()`; the workqueue outlives it.
        unsafe {
            bindings::mod_delayed_work_on(ANY_CPU, self.workqueue, self.delayed_work.get(), 0)
        };
    }

    fn drain_after_grace_period(&self) {
        // SAFETY: The work was initialised in `init()` and is waited for in `stop()`; the workqueue outlives it.
        unsafe { bindings::queue_rcu_work(self.workqueue, self.rcu_work.get()) };
    }

    fn reclaim(&self) {
        let workqueue = match R::DESTROYS {
            // SAFETY: Set long before there are modules, and never changed.
            true => unsafe { bindings::system_dfl_wq },
            false => self.workqueue,
        };
        // SAFETY: The work was initialised in `init()` and is waited for in `stop()`; both workqueues outlive it.
        unsafe { bindings::queue_work_on(ANY_CPU, workqueue, self.reclaim_work.get()) };
    }

    fn settle(&self) {
        // SAFETY: Initialised in `init()`.
        unsafe { bindings::irq_work_sync(self.irq_work.get()) };
    }

    fn stop(&self) {
        // SAFETY: Initialised in `init()`. In this order: each may queue those after it, and with
        // nothing to drain none queues one before.
        unsafe {
            bindings::disable_delayed_work_sync(self.delayed_work.get());
            bindings::flush_rcu_work(self.rcu_work.get());
            bindings::flush_work(self.reclaim_work.get());
        }
    }
}

// SAFETY: The hooks say yes no sooner than RCU, whose counters only grow. The snapshots of a shard are
// taken under its lock, so a later one has no smaller counter in it. (A test's hook may say no to it and
// yes to a later one: then this waits for it, and is asked itself.) RCU says which are the same.
unsafe impl<R: Policy> shard::Platform for Local<R> {
    type Page = BlockPage<R>;
    type Snapshot = bindings::rcu_gp_seq;
    /// A second.
    const PERIOD: usize = bindings::CONFIG_HZ as usize;
    /// 20 ms.
    const PAUSE: usize = bindings::CONFIG_HZ.div_ceil(50) as usize;

    fn snapshot(&self) -> Self::Snapshot {
        rcu::snapshot()
    }

    fn elapsed(&self, snapshot: &Self::Snapshot) -> bool {
        R::elapsed(*snapshot)
    }

    fn same(&self, one: &Self::Snapshot, other: &Self::Snapshot) -> bool {
        // SAFETY: Only reads both.
        unsafe { nolocks_queue_same(one, other) }
    }

    fn synchronize(&self) {
        kernel::sync::rcu::synchronize_rcu();
    }

    fn page(&self) -> Option<Self::Page> {
        R::page().map(BlockPage::new)
    }

    fn page_mightsleep(&self) -> Option<Self::Page> {
        R::page_mightsleep().map(BlockPage::new)
    }

    fn now(&self) -> usize {
        // SAFETY: The clock is only read, and may change under us.
        unsafe { core::ptr::addr_of!(bindings::jiffies).read_volatile() }
    }

    fn kick(&self) {
        // SAFETY: Initialised in `init()`, and waited for in `settle()`. May be called in every context.
        unsafe { bindings::irq_work_queue(self.irq_work.get()) };
    }

    fn set_shrinkable(&self, count: usize) {
        self.shrinkable.store(count, Relaxed);
    }

    /// Of what is in a block nobody else keeps a record.
    const ADOPTS: bool = core::cfg!(any(CONFIG_DEBUG_OBJECTS, CONFIG_DEBUG_KMEMLEAK));

    fn adopt(&self, object: Object) -> bool {
        // Neither debugobjects nor kmemleak knows pages.
        // SAFETY: The queue owns the object.
        object::is_page(object) || unsafe { nolocks_queue_adopt(object.as_ptr(), R::OWNS_MEMORY) }
    }

    unsafe fn reclaim(&self, kind: Option<Kind>, objects: &mut [Object]) {
        for object in objects.iter() {
            if <Self as shard::Platform>::ADOPTS && !object::is_page(*object) {
                // SAFETY: The caller owns the object, which was adopted, as `ADOPTS` is true.
                unsafe { nolocks_queue_disown(object.as_ptr()) };
            }
            // SAFETY: The caller owns the value, of an accepted type, and nobody else uses it.
            unsafe { R::destroy(object::address_of(*object)) };
        }
        if kind == Some(Kind::Slab) {
            // SAFETY: The caller owns them, and `kfree()` can free what was pushed as `Slab`. A null
            // cache stands for whatever cache each is of.
            unsafe {
                bindings::kmem_cache_free_bulk(
                    core::ptr::null_mut(),
                    objects.len(),
                    objects.as_mut_ptr().cast(),
                )
            };
        } else {
            for object in objects {
                // SAFETY: `Owned::object()` gave it, the caller owns it, and nobody uses it again.
                unsafe { object::free(*object) };
            }
        }
        // SAFETY: This is a task that may sleep.
        unsafe { nolocks_queue_breathe() };
    }
}
