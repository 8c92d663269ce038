// SPDX-License-Identifier: GPL-2.0

//! Frees objects after a grace period, in bulk, for code that may hold raw spinlocks.
//!
//! What `kvfree_rcu()` is for C, and more: where C has to sleep or to leak, the object comes back,
//! and objects with a destructor can be queued too.
//!
//! The object must be unreachable for new readers before it is pushed. Readers that found it earlier
//! may go on reading it until they leave their RCU read-side critical section.

use core::{
    marker::PhantomData,
    mem::needs_drop,
    pin::Pin,
    ptr::NonNull, //
};

use kernel::{
    alloc::{
        allocator::{
            KVmalloc,
            Kmalloc,
            Vmalloc, //
        },
        Allocator,
        Box, //
    },
    bindings,
    debugfs::Scope,
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Relaxed, //
        },
        Atomic, //
    },
    types::ForeignOwnable, //
};

use crate::nolocks::{
    page::{
        alloc_page_nolocks,
        NoLocksFlags,
        NoLocksPage, //
    },
    slots::PageSlots, //
};

pub mod platform;
pub mod shard;

use platform::{
    Local,
    Workqueue, //
};
pub use shard::Object;
use shard::{
    Head,
    Kind,
    Lock,
    Pushed, //
};

/// How many objects fit in a block: what is left of a page beside the block's own fields.
pub const CAPACITY: usize = PAGE_SIZE / size_of::<Object>() - 7;

/// Pages that each CPU keeps for the queue where no lock may be tried. A push that takes one has them
/// refilled by a worker, for which nobody makes room: for so many blocks a CPU may go
/// on pushing until the worker has had its turn.
const SLOTS: u32 = 16;

/// How a queue gets its pages and gets rid of its objects.
///
/// # Safety
///
/// - `elapsed` must not say yes while a reader may still read what was unpublished before the
///   snapshot.
/// - `destroy` must leave the memory of the object to be freed.
pub unsafe trait Policy: 'static {
    /// Whether an object may own other memory, so that kmemleak has to look for pointers in it.
    const OWNS_MEMORY: bool;

    /// Called before each step of [`Queue::new()`] that can fail, so that a test can have it fail.
    fn step() -> Result {
        Ok(())
    }

    /// A page for a block, in any context.
    fn page() -> Option<NoLocksPage> {
        alloc_page_nolocks(NoLocksFlags::NONE.nowarn()).ok()
    }

    /// Whether the grace period is over.
    fn elapsed(snapshot: bindings::rcu_gp_seq) -> bool {
        platform::elapsed(snapshot)
    }

    /// Runs the destructor of an object, if it has one, in a task that may sleep.
    ///
    /// That is one of the queue's workers, or whoever waits in `barrier()` or drops the queue, and it
    /// holds a mutex of the queue's. So it may push, to this queue too, allocate, sleep, wait for a
    /// grace period, and ask for `stats()`; but neither call `barrier()` nor drop a queue, of any
    /// policy. It should not wait long, as the other objects of a CPU wait for it. One that always
    /// pushes another object keeps the queue from ever being dropped.
    ///
    /// # Safety
    ///
    /// The caller owns the object, which the policy has [accepted](Accepts), and nobody else uses it
    /// any more.
    unsafe fn destroy(_object: Object) {}
}

/// Says that a queue with this policy may be handed objects of type `T`.
///
/// # Safety
///
/// [`Policy::destroy()`] must do all that dropping a `T` would do.
pub unsafe trait Accepts<T>: Policy {
    /// To be evaluated by who pushes.
    const CHECK: () = assert!(
        size_of::<T>() != 0,
        "an object of no size has no memory to free"
    );
}

/// Objects without a destructor, of any type.
pub struct Plain(());

// SAFETY: The defaults ask RCU and run nothing.
unsafe impl Policy for Plain {
    const OWNS_MEMORY: bool = false;
}

// SAFETY: Dropping a `T` does nothing, or `CHECK` would not compile.
unsafe impl<T> Accepts<T> for Plain {
    const CHECK: () = assert!(
        size_of::<T>() != 0 && !needs_drop::<T>(),
        "an object that a `BulkQueue` frees must have a size, and no destructor: that is what `DropQueue` is for"
    );
}

/// Objects of type `T`, whose destructors are run.
pub struct Destroy<T>(PhantomData<fn(T)>);

// SAFETY: The defaults ask RCU, and a destructor does not free the memory that its object is in.
unsafe impl<T: Send + 'static> Policy for Destroy<T> {
    const OWNS_MEMORY: bool = needs_drop::<T>();

    unsafe fn destroy(object: Object) {
        // SAFETY: By the safety requirements this is a `T`, and nobody uses it after this. As `T` is
        // `Send`, it may be dropped here.
        unsafe { object.cast::<T>().drop_in_place() }
    }
}

// SAFETY: Drops a `T`.
unsafe impl<T: Send + 'static> Accepts<T> for Destroy<T> {}

/// An allocator whose memory a queue can free.
///
/// # Safety
///
/// `kvfree()` must free what it allocates, and `kfree()` too unless `is_vmalloc` says yes.
pub unsafe trait Reclaimable: Allocator {
    /// How memory of this allocator has to be freed.
    #[doc(hidden)]
    fn is_vmalloc(object: Object) -> bool;
}

// SAFETY: It is what `kfree()` is for.
unsafe impl Reclaimable for Kmalloc {
    fn is_vmalloc(_object: Object) -> bool {
        false
    }
}

// SAFETY: `kvfree()` calls `vfree()`.
unsafe impl Reclaimable for Vmalloc {
    fn is_vmalloc(_object: Object) -> bool {
        true
    }
}

// SAFETY: As its own `free()` would tell them apart.
unsafe impl Reclaimable for KVmalloc {
    fn is_vmalloc(object: Object) -> bool {
        // SAFETY: Only looks at the address.
        unsafe { bindings::is_vmalloc_addr(object.as_ptr()) }
    }
}

/// A box, pinned or not, that can be pushed.
///
/// # Safety
///
/// `into_foreign` must return the address of a `Value` in memory of its own from `Allocator`.
pub unsafe trait Owned: ForeignOwnable {
    /// What is in the box.
    type Value;
    /// Where the box comes from.
    type Allocator: Reclaimable;
}

// SAFETY: So it does.
unsafe impl<T, A: Reclaimable> Owned for Box<T, A> {
    type Value = T;
    type Allocator = A;
}

// SAFETY: So it does.
unsafe impl<T, A: Reclaimable> Owned for Pin<Box<T, A>> {
    type Value = T;
    type Allocator = A;
}

/// A field by which an object can be queued when there is no memory for a block.
///
/// It belongs to the queue: who reads the object leaves it alone.
#[repr(transparent)]
pub struct BulkHead(core::cell::UnsafeCell<Head>);

// SAFETY: Nobody but the queue, under its lock, uses what is in it.
unsafe impl Send for BulkHead {}
// SAFETY: As above.
unsafe impl Sync for BulkHead {}

impl BulkHead {
    /// The head of an object that has not been pushed.
    pub const fn new() -> Self {
        Self(core::cell::UnsafeCell::new(Head::new()))
    }
}

impl Default for BulkHead {
    fn default() -> Self {
        Self::new()
    }
}

/// An object with a [`BulkHead`] in it. To be implemented with [`impl_has_bulk_head!`].
///
/// # Safety
///
/// `raw_head` must return the address of a field of the object, aligned as its type asks.
pub unsafe trait HasBulkHead {
    /// Where the head is.
    ///
    /// # Safety
    ///
    /// `object` must be valid.
    unsafe fn raw_head(object: *mut Self) -> *mut BulkHead;
}

/// Implements [`HasBulkHead`] for a type, of which it names the field.
macro_rules! impl_has_bulk_head {
    (impl HasBulkHead for $type:ty { self.$field:ident }) => {
        // SAFETY: The address is that of a field, to which there could be a reference.
        unsafe impl $crate::queue::HasBulkHead for $type {
            unsafe fn raw_head(object: *mut Self) -> *mut $crate::queue::BulkHead {
                // Refuses a field that is found by `Deref`, in another object.
                const _: usize = ::core::mem::offset_of!($type, $field);
                // Refuses one that a packed type does not align.
                // SAFETY: By the safety requirements.
                let _ = unsafe { &(*object).$field };
                // SAFETY: By the safety requirements.
                unsafe { &raw mut (*object).$field }
            }
        }
    };
}
#[allow(unused_imports, reason = "not every module has objects with a head")]
pub(crate) use impl_has_bulk_head;

/// What the shards, the shrinker and debugfs share.
struct Shards<R: Policy> {
    // Boxed, because works and locks stay where they are.
    shards: Pin<KVBox<[Local<R>]>>,
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
        let shards = KVBox::pin_slice(
            // SAFETY: The workqueue is dropped after the shards, which the drop stops first. If one
            // cannot be made, those before it are dropped without: as nobody has pushed to them, none
            // of their works was ever queued.
            |_| unsafe { Local::new(&workqueue) },
            kernel::cpu::nr_cpu_ids() as usize,
            GFP_KERNEL,
        )?;
        let slots = R::step().and_then(|()| PageSlots::register(SLOTS));

        Ok(Self {
            shards,
            returned: Atomic::new(0),
            _workqueue: workqueue,
            _slots: slots.ok(),
        })
    }

    /// Drains all of every shard, and says whether one has something that `left` asks for.
    fn drain_all(&self, left: impl Fn(shard::Rest) -> bool) -> bool {
        self.shards
            .iter()
            .fold(false, |any, shard| left(shard.drain(true)) | any)
    }

    fn barrier(&self) {
        if let Some(shard) = self.shards.first() {
            shard::barrier(shard, || self.drain_all(|rest| rest.open.is_some()));
        }
    }

    fn shrinkable(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.state.with(|state| state.shrinkable()))
            .sum()
    }

    /// Drains nothing here: destructors may want locks that the one who reclaims holds.
    fn shrink(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard::shrink(shard, &shard.state))
            .sum()
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
            let counts = shard.state.with(|state| state.counts());
            stats.pushed += counts.pushed;
            stats.listed += counts.listed;
            stats.full += counts.full;
            stats.aged += counts.aged;
            stats.blockless += counts.blockless;
        }
        stats
    }
}

impl<R: Policy> Drop for Shards<R> {
    fn drop(&mut self) {
        if let Some(shard) = self.shards.first() {
            shard::finish(
                shard,
                &self.shards,
                |shard| {
                    let _rest = shard.drain(true);
                },
                |shard| shard.freed.load(Acquire) + shard.twice.load(Acquire),
                |shard| shard.state.with(|state| state.counts().pushed),
            );
        }
        self.shards.iter().for_each(Local::settle);
        kernel::sync::rcu::synchronize_rcu();
        self.shards.iter().for_each(Local::stop);
    }
}

impl<R: Policy> kernel::debugfs::Writer for Shards<R> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();

        writeln!(f, "pushed {}", stats.pushed)?;
        writeln!(f, "freed {}", stats.freed)?;
        writeln!(f, "returned {}", stats.returned)?;
        writeln!(f, "twice {}", stats.twice)?;
        writeln!(f, "listed {}", stats.listed)?;
        writeln!(f, "blocks_full {}", stats.full)?;
        writeln!(f, "blocks_aged {}", stats.aged)?;
        writeln!(f, "blockless {}", stats.blockless)
    }
}

/// What a queue has done. Objects unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Taken from their owners.
    pub pushed: u64,
    /// Freed after a grace period.
    pub freed: u64,
    /// Given back to their owners, or freed after one that the owner waited for.
    pub returned: u64,
    /// Not freed because they had been pushed before.
    pub twice: u64,
    /// Queued by their heads.
    pub listed: u64,
    /// Blocks that were sealed because they were full.
    pub full: u64,
    /// Blocks that were sealed because they were old, or because somebody asked.
    pub aged: u64,
    /// Pushes that found no block.
    pub blockless: u64,
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
    /// `shrinker` must be one that `new::<R>()` registered.
    unsafe extern "C" fn count<R: Policy>(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the safety requirements and those of `new()`.
        let shards = unsafe { &*(*shrinker).private_data.cast::<Shards<R>>() };

        match shards.shrinkable() {
            0 => bindings::SHRINK_EMPTY as c_ulong,
            count => count,
        }
    }

    /// # Safety
    ///
    /// `shrinker` must be one that `new::<R>()` registered.
    unsafe extern "C" fn scan<R: Policy>(
        shrinker: *mut bindings::shrinker,
        _control: *mut bindings::shrink_control,
    ) -> c_ulong {
        // SAFETY: By the safety requirements and those of `new()`.
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
/// They run in a task, and may push to this queue or to another one, but neither call
/// [`barrier()`](Queue::barrier) nor drop a queue: see [`Policy::destroy()`].
pub type DropQueue<T> = Queue<Destroy<T>>;

/// Frees objects after a grace period. See [`BulkQueue`] and [`DropQueue`].
///
/// # Contexts
///
/// [`push()`](Self::push) and [`push_headless()`](Self::push_headless) may be called in task, softirq
/// and hard interrupt context and under any lock, raw spinlocks, `current->pi_lock` and runqueue
/// locks included, with interrupts enabled or not, on every preemption model. In NMI only
/// [`try_push()`](Self::try_push) may be. All else is for tasks that may sleep.
///
/// Dropping the queue waits until all objects are freed. A module must not leak its queue, because
/// the queue's workers run the module's code.
pub struct Queue<R: Policy> {
    // Before what it points to.
    _shrinker: Shrinker,
    shards: Pin<KBox<Scope<Shards<R>>>>,
}

impl<R: Policy> Queue<R> {
    /// Creates a queue. In debugfs, `name/stats` shows what it does.
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
            _shrinker: unsafe { Shrinker::new(name, &shards) }?,
            shards,
        })
    }

    /// Queues an object. Never fails: the list by the heads is there if no block is.
    pub fn push<O: Owned>(&self, object: O)
    where
        O::Value: HasBulkHead,
        R: Accepts<O::Value>,
    {
        let object = object.into_foreign().cast();
        // SAFETY: The object was just taken out of its box.
        let head = unsafe { O::Value::raw_head(object) };
        // SAFETY: It is not null, being in a box.
        let object = unsafe { NonNull::new_unchecked(object.cast()) };

        // SAFETY: The head is a field of the object.
        match unsafe { self.push_raw::<O>(self.here(), true, object, NonNull::new(head.cast())) } {
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
    /// The object. There may be readers, so it must not be dropped before a grace period has passed:
    /// keep it, and push it again later.
    pub fn push_headless<O: Owned>(&self, object: O) -> Result<(), O>
    where
        R: Accepts<O::Value>,
    {
        self.push_to(self.here(), true, object)
            .inspect_err(|_| self.shards.returned.add(1, Relaxed))
    }

    /// As [`push_headless()`](Self::push_headless), without waiting for the queue's own lock either.
    /// For NMIs.
    ///
    /// # Errors
    ///
    /// As for [`push_headless()`](Self::push_headless).
    pub fn try_push<O: Owned>(&self, mut object: O) -> Result<(), O>
    where
        R: Accepts<O::Value>,
    {
        let here = self.here();

        // What was interrupted may hold the lock of this CPU's shard.
        for shard in [here, here ^ 1] {
            object = match self.push_to(shard, false, object) {
                Ok(()) => return Ok(()),
                Err(object) => object,
            };
        }
        self.shards.returned.add(1, Relaxed);
        Err(object)
    }

    /// Queues an object that has no head, or waits for a grace period and frees it.
    pub fn push_mightsleep<O: Owned>(&self, object: O)
    where
        R: Accepts<O::Value>,
    {
        kernel::task::might_sleep();
        if let Err(object) = self.push_headless(object) {
            kernel::sync::rcu::synchronize_rcu();
            drop(object);
        }
    }

    /// Waits until all objects are freed that were pushed before. Not to be called by a destructor.
    /// What destructors push meanwhile is not waited for.
    pub fn barrier(&self) {
        self.shards.barrier();
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

    /// What [`shrink()`](Self::shrink) would return.
    pub fn shrinkable(&self) -> usize {
        self.shards.shrinkable()
    }

    /// The shard of this CPU. Any other would do, only slower.
    #[inline]
    fn here(&self) -> usize {
        // SAFETY: Only reads a number, which may be out of date at once.
        unsafe { bindings::raw_smp_processor_id() as usize }
    }

    // Always, for the same reason as below.
    #[inline(always)]
    fn push_to<O: Owned>(&self, shard: usize, wait: bool, object: O) -> Result<(), O>
    where
        R: Accepts<O::Value>,
    {
        let object = object.into_foreign();
        // SAFETY: It is not null, being in a box.
        let owned = unsafe { NonNull::new_unchecked(object.cast()) };

        // SAFETY: There is no head.
        match unsafe { self.push_raw::<O>(shard, wait, owned, None) } {
            Pushed::Queued => Ok(()),
            // SAFETY: The queue has not taken it.
            Pushed::Refused | Pushed::Twice => Err(unsafe { O::from_foreign(object) }),
        }
    }

    /// # Safety
    ///
    /// The object must come from an `O`, and `head` must be part of it.
    // Always, because `wait`, the kind and the head are known where it is called.
    #[inline(always)]
    unsafe fn push_raw<O: Owned>(
        &self,
        shard: usize,
        wait: bool,
        object: Object,
        head: Option<NonNull<Head>>,
    ) -> Pushed
    where
        R: Accepts<O::Value>,
    {
        const { <R as Accepts<O::Value>>::CHECK };
        let kind = match O::Allocator::is_vmalloc(object) {
            true => Kind::Vmalloc,
            false => Kind::Slab,
        };
        let Some(shard) = self.shards.shards.get(shard) else {
            return Pushed::Refused;
        };

        // SAFETY: The allocator says how to free it, and the policy accepts its type.
        unsafe { shard::push(shard, &shard.state, wait, object, kind, head) }
    }
}
