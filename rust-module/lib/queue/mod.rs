// SPDX-License-Identifier: GPL-2.0

//! Frees objects after a grace period, in bulk, for code that may hold raw spinlocks.
//!
//! What `kvfree_rcu()` is for C, and more: where C has to sleep or to leak, the object comes back,
//! and objects with a destructor can be queued too.
//!
//! The object must be unreachable for new readers before it is pushed. Readers that found it earlier
//! may go on reading it until they leave their RCU read-side critical section.

use core::{
    mem::{
        needs_drop,
        ManuallyDrop, //
    },
    ptr::NonNull, //
};

use kernel::{
    bindings,
    debugfs::Scope,
    fmt,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed, //
        },
        Atomic, //
    }, //
};

use crate::nolocks::slots::PageSlots;

mod capacity;
mod head;
mod lock;
pub mod memory;
mod object;
mod platform;
mod pointer;
mod policy;
pub mod rcu;
#[allow(unreachable_pub, reason = "the models take it for a module of theirs")]
mod shard;
mod stats;

pub use capacity::CAPACITY;
#[allow(unused_imports, reason = "not every module has objects with a head")]
pub(crate) use head::impl_has_bulk_head;
pub use head::{
    BulkHead,
    HasBulkHead, //
};
pub use object::{
    Owned,
    Reclaimable,
    Retired, //
};
use platform::{
    Local,
    Workqueue, //
};
pub use pointer::RcuPointer;
pub use policy::{
    Accepts,
    Destroy,
    Hooks,
    Plain,
    Policy, //
};
pub use shard::Object;
use shard::{
    Lock,
    Pushed, //
};
pub use stats::Stats;

/// Pages that each CPU keeps for the queue where no lock may be tried. A push that takes one has them
/// refilled by a worker, for which nobody makes room: for so many blocks a CPU may go
/// on pushing until the worker has had its turn.
const SLOTS: u32 = 16;

/// What the shards, the shrinker and debugfs share.
///
/// # Invariants
///
/// There are as many shards as `nr_cpu_ids`.
struct Shards<R: Policy> {
    // Each by itself, on the node of its CPU, where works and locks stay.
    shards: KVVec<Pin<KBox<Local<R>>>>,
    /// Objects that were given back.
    returned: Atomic<u64>,
    /// After the shards, which queue on it.
    _workqueue: Workqueue,
    /// Pages for where no lock may be tried, and for when the lists happen to be empty. Without them
    /// a push has what a drain left behind.
    _slots: Option<PageSlots>,
}

impl<R: Policy> Shards<R> {
    fn new(name: &CStr) -> Result<Self> {
        R::step()?;
        let workqueue = Workqueue::new(name)?;
        R::step()?;
        let cpus = kernel::cpu::nr_cpu_ids();
        let mut shards = KVVec::with_capacity(cpus as usize, GFP_KERNEL)?;
        for cpu in 0..cpus {
            // SAFETY: The workqueue is dropped after the shards, which the drop stops first. If one
            // cannot be made, those before it are dropped without: as nobody has pushed to them, none
            // of their works was ever queued.
            shards.push_within_capacity(unsafe { Local::new(&workqueue, cpu) }?)?;
        }
        let slots = R::step().and_then(|()| PageSlots::register(SLOTS));

        // INVARIANT: One was pushed for each number below `nr_cpu_ids`, which does not change any more.
        Ok(Self {
            shards,
            returned: Atomic::new(0),
            _workqueue: workqueue,
            _slots: slots.ok(),
        })
    }

    fn barrier(&self) {
        let shards = || self.shards.iter();

        if let Some(shard) = self.shards.first() {
            shard::barrier(
                &**shard,
                || shards().fold(false, |any, shard| shard.drain(true).listed | any),
                || shards().for_each(|shard| shard.flush()),
            );
        }
    }

    fn wait_until_empty(&self) {
        if let Some(shard) = self.shards.first() {
            shard::finish(
                &**shard,
                &self.shards,
                |shard| {
                    let _rest = shard.drain(true);
                    shard.flush();
                },
                |shard| shard.freed.load(Acquire) + shard.twice.load(Acquire),
                |shard| shard.state().with(|state| state.counts().pushed),
            );
        }
    }

    /// Takes no lock, and what is in an open block stands for a full one.
    fn shrinkable(&self) -> usize {
        self.shards.iter().map(|shard| shard.shrinkable()).sum()
    }

    /// Drains nothing here: destructors may want locks that the one who reclaims holds.
    fn shrink(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard::shrink(&**shard, shard.state()))
            .sum()
    }

    fn hurry(&self) {
        for shard in &*self.shards {
            shard::hurry(&**shard, shard.state());
        }
    }

    /// Whether this task runs a destructor of an object in here.
    fn is_reclaiming(&self) -> bool {
        self.shards.iter().any(|shard| shard.is_reclaiming())
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats {
            returned: self.returned.load(Relaxed),
            ..Stats::default()
        };
        for shard in &*self.shards {
            // In this order, or an object might seem freed before it was pushed.
            stats.freed += shard.freed.load(Acquire);
            stats.twice += shard.twice.load(Acquire);
            let counts = shard.state().with(|state| state.counts());
            stats.pushed += counts.pushed;
            stats.listed += counts.listed;
            stats.full += counts.full;
            stats.aged += counts.aged;
            stats.lists += counts.lists;
            stats.blockless += counts.blockless;
            stats.drains += counts.drains;
        }
        stats
    }
}

impl<R: Policy> Drop for Shards<R> {
    fn drop(&mut self) {
        self.wait_until_empty();
        if let Some(shard) = self.shards.first() {
            shard::shut_down(&**shard, &self.shards);
        }
    }
}

impl<R: Policy> kernel::debugfs::Writer for Shards<R> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().write(f)
    }
}

/// When memory is short, what is open is drained at once and spare blocks are freed.
struct Shrinker(NonNull<bindings::shrinker>);

// SAFETY: Registered and freed from wherever the queue is.
unsafe impl Send for Shrinker {}
// SAFETY: As above.
unsafe impl Sync for Shrinker {}

impl Shrinker {
    /// # Safety
    ///
    /// `shards` must outlive the shrinker.
    unsafe fn new<R: Policy>(name: &CStr, shards: &Shards<R>) -> Result<Self> {
        // SAFETY: The format takes one string, which is copied.
        let shrinker =
            unsafe { bindings::shrinker_alloc(0, c"%s".as_char_ptr(), name.as_char_ptr()) };
        let this = Self(NonNull::new(shrinker).ok_or(ENOMEM)?);

        // SAFETY: Nobody else knows it yet.
        unsafe {
            (*shrinker).count_objects = Some(Self::count::<R>);
            (*shrinker).scan_objects = Some(Self::scan::<R>);
            (*shrinker).private_data = core::ptr::from_ref(shards).cast_mut().cast();
            bindings::shrinker_register(shrinker);
        }
        Ok(this)
    }

    /// # Safety
    ///
    /// `shrinker` must be one that `new::<R>()` registered, and not be freed yet.
    unsafe extern "C" fn count<R: Policy>(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: `new::<R>()` has set `private_data` to a `Shards<R>`, which outlives the shrinker.
        let shards = unsafe { &*(*shrinker).private_data.cast::<Shards<R>>() };

        match shards.shrinkable() {
            0 => bindings::SHRINK_EMPTY as c_ulong,
            count => count,
        }
    }

    /// # Safety
    ///
    /// `shrinker` must be one that `new::<R>()` registered, and not be freed yet.
    unsafe extern "C" fn scan<R: Policy>(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: `new::<R>()` has set `private_data` to a `Shards<R>`, which outlives the shrinker.
        let shards = unsafe { &*(*shrinker).private_data.cast::<Shards<R>>() };

        match shards.shrink() {
            0 => bindings::SHRINK_STOP as c_ulong,
            count => count,
        }
    }
}

impl Drop for Shrinker {
    fn drop(&mut self) {
        // SAFETY: Allocated in `new()`. Waits for those who use it.
        unsafe { bindings::shrinker_free(self.0.as_ptr()) }
    }
}

/// A queue for objects without a destructor, of any type.
pub type BulkQueue = Queue<Plain>;

/// A queue for objects of type `T`, whose destructors are run after the grace period.
///
/// They run in a work on the system's unbound workqueue, without a lock of the queue's. They may push, to
/// this queue too, allocate, sleep, flush a work, wait for a grace period and ask for
/// [`stats()`](Queue::stats). To drop another queue waits for that one's destructors. The other objects of a
/// CPU wait for one that takes long; one that always pushes another object keeps the queue from ever being
/// dropped. Without memory [`push_mightsleep()`](Queue::push_mightsleep) runs them in its caller's task.
///
/// An object may have an `Arc` to its queue. If that is the last one, the queue ends in a task of its own,
/// which keeps the module until it is done. A module that is being unloaded, or whose init fails, cannot be
/// kept: it has to call [`wait_until_empty()`](Queue::wait_until_empty) before it drops an `Arc` of its own.
pub type DropQueue<T> = Queue<Destroy<T>>;

/// Frees objects after a grace period. See [`BulkQueue`] and [`DropQueue`].
///
/// # Contexts
///
/// [`push()`](Self::push) and [`push_headless()`](Self::push_headless) may be called in task, softirq
/// and hard interrupt context and under any lock, raw spinlocks, `current->pi_lock` and runqueue
/// locks included, with interrupts enabled or not, on every preemption model, as long as RCU is
/// watching, and so may [`flush()`](Self::flush). In NMI only [`try_push()`](Self::try_push) may be.
/// [`stats()`](Self::stats) and [`backlog()`](Self::backlog) are for tasks, all else is for those that may sleep.
///
/// Dropping the queue waits until all objects are freed, unless a destructor of one of them does it. A
/// module must not leak its queue, because the queue's workers run the module's code.
///
/// # Examples
///
/// ```ignore
/// let queue = BulkQueue::new(c"example")?;
/// queue.push(entry);                                // A box with a `BulkHead` in it.
/// if let Some(old) = place.replace(new) {           // An `RcuPointer`.
///     if let Err(old) = queue.push_headless(old) {
///         later.push_within_capacity(old)?;         // To `retry()` it.
///     }
/// }
/// ```
pub struct Queue<R: Policy> {
    // Dropped before what it points to.
    shrinker: Option<Shrinker>,
    shards: ManuallyDrop<Pin<KBox<Scope<Shards<R>>>>>,
}

impl<R: Policy> Drop for Queue<R> {
    fn drop(&mut self) {
        drop(self.shrinker.take());
        // SAFETY: Not used after this.
        let shards = unsafe { ManuallyDrop::take(&mut self.shards) };

        // One of its objects had the last reference to the queue. Its destructor cannot wait for
        // itself.
        match shards.is_reclaiming() {
            true => platform::drop_elsewhere(shards),
            false => drop(shards),
        }
    }
}

impl<R: Policy> Queue<R> {
    /// Creates a queue. In debugfs, `name/stats` shows what it does.
    ///
    /// That costs a workqueue with its rescuer thread, a shrinker, a few of the page slots that all users of a
    /// CPU share, and for each CPU a shard and up to six pages: one queue for a driver, not one for each device.
    /// Without slots or debugfs it does without.
    ///
    /// # Contexts
    ///
    /// A task that may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(name: &CStr) -> Result<Self> {
        R::step()?;
        let shards = KBox::pin_init(
            Scope::dir(Shards::new(name), name, |shards, dir| {
                dir.read_only_file(c"stats", shards)
            }),
            GFP_KERNEL,
        )?;

        R::step()?;
        Ok(Self {
            // SAFETY: Dropped before the shards, which are boxed.
            shrinker: Some(unsafe { Shrinker::new(name, &shards) }?),
            shards: ManuallyDrop::new(shards),
        })
    }

    /// Queues an object. Never fails: the list by the heads is there if no block is.
    #[inline]
    pub fn push<O: Owned>(&self, object: impl Into<Retired<O>>)
    where
        O::Value: HasBulkHead + Sized,
        R: Accepts<O::Value>,
    {
        let owner = object.into().into_owner();
        let Some(address) = owner.address() else {
            return;
        };
        // SAFETY: By the contract of `Owned` there is a value, and readers leave its head alone.
        let head = unsafe { O::Value::raw_head(address.as_ptr().cast()) };

        // SAFETY: The address is that of the owner, which is forgotten. The head is a field of the
        // value.
        match unsafe { self.push_raw::<O>(self.here(), true, address, NonNull::new(head.cast())) } {
            Pushed::Queued => (),
            // It is leaked rather than freed twice.
            Pushed::Refused | Pushed::Twice => {
                kernel::warn_on!(true);
            }
        }
    }

    /// Queues an object that has no head. Gives it back if there is no memory for a block.
    ///
    /// # Errors
    ///
    /// The object, to be pushed again later, or waited for.
    #[inline]
    pub fn push_headless<O: Owned>(&self, object: impl Into<Retired<O>>) -> Result<(), Retired<O>>
    where
        R: Accepts<O::Value>,
    {
        self.push_to(self.here(), true, object.into().into_owner())
            .map_err(|owner| self.give_back(owner))
    }

    /// As [`push_headless()`](Self::push_headless), without waiting for the queue's own lock either.
    /// For NMIs.
    ///
    /// # Errors
    ///
    /// As for [`push_headless()`](Self::push_headless).
    #[inline]
    pub fn try_push<O: Owned>(&self, object: impl Into<Retired<O>>) -> Result<(), Retired<O>>
    where
        R: Accepts<O::Value>,
    {
        let here = self.here();
        let mut owner = object.into().into_owner();

        // What was interrupted may hold the lock of this CPU's shard.
        for shard in [here, here ^ 1] {
            owner = match self.push_to(shard, false, owner) {
                Ok(()) => return Ok(()),
                Err(owner) => owner,
            };
        }
        Err(self.give_back(owner))
    }

    /// Queues an object that has no head, or waits for a grace period and frees it.
    ///
    /// Without memory for a block its destructor runs here: hold no lock that this takes. One that pushes
    /// another such object has that destroyed inside its own call, and so on, until the stack is full: a
    /// chain is for [`push()`](Self::push), with a head.
    ///
    /// # Contexts
    ///
    /// A task that may sleep, and is no RCU reader.
    pub fn push_mightsleep<O: Owned>(&self, object: impl Into<Retired<O>>)
    where
        R: Accepts<O::Value>,
    {
        kernel::task::might_sleep();
        if let Err(object) = self.push_headless(object) {
            drop(object.wait());
        }
    }

    /// Waits until all objects are freed that were pushed before. What destructors push meanwhile is
    /// not waited for. A destructor of an object in this queue cannot wait for itself: the call warns
    /// and returns.
    pub fn barrier(&self) {
        if !kernel::warn_on!(self.shards.is_reclaiming()) {
            self.shards.barrier();
        }
    }

    /// Waits until no object is left, those included that destructors push meanwhile. Whoever else
    /// pushes meanwhile may have it wait for ever. A destructor of an object in this queue cannot wait
    /// for itself: the call warns and returns.
    pub fn wait_until_empty(&self) {
        if !kernel::warn_on!(self.shards.is_reclaiming()) {
            self.shards.wait_until_empty();
        }
    }

    /// Has all that was pushed before freed as soon as a grace period is over, and does not wait for
    /// it. May be called wherever [`push()`](Self::push) may.
    pub fn flush(&self) {
        self.shards.hurry();
    }

    /// Objects that are waiting to be freed: see [`Stats::backlog()`].
    pub fn backlog(&self) -> u64 {
        self.stats().backlog()
    }

    /// What the queue has done until now.
    pub fn stats(&self) -> Stats {
        self.shards.stats()
    }

    /// What the kernel calls when memory is short. Returns how many objects will be freed early,
    /// beside empty blocks that were. What it was called for before does not count again.
    pub fn shrink(&self) -> usize {
        self.shards.shrink()
    }

    /// What [`shrink()`](Self::shrink) would return, or more: an open block counts as a full one. Takes
    /// no lock.
    pub fn shrinkable(&self) -> usize {
        self.shards.shrinkable()
    }

    /// The shard of this CPU. Any other would do, only slower.
    #[inline]
    fn here(&self) -> usize {
        // SAFETY: Only reads a number, which may be out of date at once.
        let cpu = unsafe { bindings::raw_smp_processor_id() as usize };

        // SAFETY: There is a shard for each number below `nr_cpu_ids`, of which a CPU's is one.
        unsafe { core::hint::assert_unchecked(cpu < self.shards.shards.len()) };
        cpu
    }

    #[cold]
    fn give_back<O>(&self, owner: ManuallyDrop<O>) -> Retired<O> {
        self.shards.returned.add(1, Relaxed);
        Retired::from_owner(owner)
    }

    // Always, for the same reason as below.
    #[inline(always)]
    fn push_to<O: Owned>(
        &self,
        shard: usize,
        wait: bool,
        owner: ManuallyDrop<O>,
    ) -> Result<(), ManuallyDrop<O>>
    where
        R: Accepts<O::Value>,
    {
        // What has no memory is not there to be freed, nor to be read.
        let Some(address) = owner.address() else {
            return Ok(());
        };

        // SAFETY: The address is that of the owner, which is forgotten unless the queue says no.
        match unsafe { self.push_raw::<O>(shard, wait, address, None) } {
            Pushed::Queued => Ok(()),
            Pushed::Refused | Pushed::Twice => Err(owner),
        }
    }

    /// # Safety
    ///
    /// `address` must be what an `O` returned, which is not used afterwards unless the object is
    /// refused, and `head` must be part of what is there.
    // Always, because `wait`, the kind and the head are known where it is called.
    #[inline(always)]
    unsafe fn push_raw<O: Owned>(
        &self,
        shard: usize,
        wait: bool,
        address: NonNull<c_void>,
        head: Option<NonNull<shard::Head>>,
    ) -> Pushed
    where
        R: Accepts<O::Value>,
    {
        const {
            core::assert!(
                R::DESTROYS || !needs_drop::<O::Value>(),
                "an object that a `BulkQueue` frees must have no destructor: that is what `DropQueue` is for"
            )
        };
        let (object, kind) = O::object(address);
        let Some(shard) = self.shards.shards.get(shard) else {
            return Pushed::Refused;
        };

        // SAFETY: By the contract of `Owned` the memory can be freed as the kind says, and the policy
        // accepts the value. The head is part of it, by the requirement on `head`.
        unsafe { shard::push(&**shard, shard.state(), wait, object, kind, head) }
    }
}

impl<O: Owned> Retired<O> {
    /// Pushes an object again that a queue has given back. Where it came back from an NMI's
    /// [`try_push()`](Queue::try_push), this is for another context.
    ///
    /// # Errors
    ///
    /// The object again, if there is still no memory.
    pub fn retry<R: Accepts<O::Value>>(self, queue: &Queue<R>) -> Result<(), Self> {
        queue.push_headless(self)
    }
}
