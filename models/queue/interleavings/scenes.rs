// SPDX-License-Identifier: GPL-2.0
// Included once for the source as it is and once for each bug in it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering::*};
use loom::sync::{Arc, Mutex};
use loom::thread;
use shard::{
    answer, barrier, drain, finish, follow_up, push, reclaim, shut_down, Block, Head, Kind, Lock,
    Object, Platform, Pushed, Shard, Waiting, Works,
};
use std::cell::Cell;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const LIVE: u32 = 0x600d;
const POISON: u32 = 0xdead;

/// An object that one reader may read, and its place in a table that the reader looks at.
struct Slot {
    published: AtomicBool,
    value: UnsafeCell<u32>,
    head: std::cell::UnsafeCell<Head>,
}

/// A shard, as the module has one for each CPU.
struct Local {
    shard: Spin<Shard<World>>,
    waiting: Mutex<Waiting<World>>,
    /// Held by the work that reclaims, as no work runs beside itself.
    reclaiming: Mutex<()>,
    freed: AtomicUsize,
    twice: AtomicUsize,
}

/// The works that somebody has asked for.
#[derive(Default)]
struct Calls {
    drain_in: Cell<Option<usize>>,
    drain_now: Cell<bool>,
    grace_period: Cell<bool>,
    reclaim: Cell<bool>,
}

impl Works for Calls {
    fn drain_in(&self, ticks: usize) {
        // As a timer that is armed already.
        self.drain_in.set(self.drain_in.get().or(Some(ticks)));
    }

    fn drain_now(&self) {
        self.drain_now.set(true);
    }

    fn drain_after_grace_period(&self) {
        self.grace_period.set(true);
    }

    fn reclaim(&self) {
        self.reclaim.set(true);
    }

    fn settle(&self) {}

    fn stop(&self) {}
}

/// The object whose destructor pushes the first one.
const PARENT: usize = 2;

/// The kernel, as far as the queue can tell.
struct World {
    objects: [Slot; 3],
    /// Odd while a grace period is in progress.
    gp_seq: AtomicUsize,
    gp_lock: Mutex<()>,
    /// Readers, of which a handler of an interrupt is one.
    reading: AtomicUsize,
    // Not an atomic: loom lets a swap read what is no longer the latest value.
    kicked: Mutex<bool>,
    clock: AtomicUsize,
    freed: Mutex<usize>,
    /// Whether blocks can be allocated.
    memory: bool,
    /// Whether there is a [`PARENT`].
    family: bool,
    shards: [Local; 2],
}

// SAFETY: The queue's rules keep two threads from using a head at once, and loom watches the rest.
unsafe impl Sync for World {}
// SAFETY: As above.
unsafe impl Send for World {}

struct Page(Box<Block<World>>);

impl Deref for Page {
    type Target = Block<World>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

// SAFETY: A grace period waits for readers, and snapshots only grow.
unsafe impl Platform for World {
    type Page = Page;
    type Snapshot = usize;
    const PERIOD: usize = 1;
    const PAUSE: usize = 1;

    fn snapshot(&self) -> usize {
        fence(SeqCst);
        // The end of the next grace period that has not begun yet.
        (self.gp_seq.load(Relaxed) + 3) & !1
    }

    fn elapsed(&self, snapshot: &usize) -> bool {
        self.gp_seq.load(Acquire) >= *snapshot
    }

    fn same(&self, one: &usize, other: &usize) -> bool {
        one == other
    }

    fn synchronize(&self) {
        let _one_at_a_time = self.gp_lock.lock().unwrap();
        self.gp_seq.fetch_add(1, AcqRel);
        fence(SeqCst);
        while self.reading.load(Acquire) != 0 {
            thread::yield_now();
        }
        self.gp_seq.fetch_add(1, AcqRel);
    }

    fn page(&self) -> Option<Page> {
        let mut slot = Box::new(MaybeUninit::uninit());
        self.memory.then(|| {
            Block::init(&mut slot);
            // SAFETY: Initialised right above.
            Page(unsafe { slot.assume_init() })
        })
    }

    fn page_mightsleep(&self) -> Option<Page> {
        self.page()
    }

    fn now(&self) -> usize {
        self.clock.load(Relaxed)
    }

    fn kick(&self) {
        *self.kicked.lock().unwrap() = true;
    }

    fn set_shrinkable(&self, _count: usize) {}

    fn adopt(&self, _object: Object) -> bool {
        true
    }

    unsafe fn reclaim(&self, _kind: Option<Kind>, objects: &mut [Object]) {
        for object in objects {
            // Loom reports a reader that has not been waited for.
            self.objects[object.as_ptr() as usize - 1]
                .value
                // SAFETY: The queue says that it is the only one here.
                .with_mut(|value| unsafe { assert_eq!(value.replace(POISON), LIVE) });
            if self.family && object.as_ptr() as usize - 1 == PARENT {
                self.retire(0);
            }
            *self.freed.lock().unwrap() += 1;
        }
    }
}

/// Says whether it is taken, because loom has no try meet a holder that was preempted.
struct Spin<T> {
    taken: AtomicBool,
    data: Mutex<T>,
}

impl<T> Lock<T> for Spin<T> {
    fn with<R>(&self, func: impl FnOnce(&mut T) -> R) -> R {
        let mut data = self.data.lock().unwrap();
        self.taken.store(true, Relaxed);
        let value = func(&mut data);
        self.taken.store(false, Relaxed);
        value
    }

    fn try_with<R>(&self, func: impl FnOnce(&mut T) -> R) -> Option<R> {
        (!self.taken.load(Relaxed)).then(|| self.with(func))
    }
}

impl World {
    fn new(memory: bool) -> Arc<Self> {
        Self::with(memory, false)
    }

    fn with(memory: bool, family: bool) -> Arc<Self> {
        Arc::new(Self {
            objects: std::array::from_fn(|_| Slot {
                published: AtomicBool::new(true),
                value: UnsafeCell::new(LIVE),
                head: std::cell::UnsafeCell::new(Head::new()),
            }),
            gp_seq: AtomicUsize::new(0),
            gp_lock: Mutex::new(()),
            reading: AtomicUsize::new(0),
            kicked: Mutex::new(false),
            clock: AtomicUsize::new(0),
            freed: Mutex::new(0),
            memory,
            family,
            shards: std::array::from_fn(|_| Local {
                shard: Spin {
                    taken: AtomicBool::new(false),
                    data: Mutex::new(Shard::new()),
                },
                waiting: Mutex::new(Waiting::new()),
                reclaiming: Mutex::new(()),
                freed: AtomicUsize::new(0),
                twice: AtomicUsize::new(0),
            }),
        })
    }

    /// Unpublishes an object and pushes it.
    fn retire(&self, nth: usize) {
        assert_eq!(self.retire_to(0, nth, true), Pushed::Queued);
    }

    fn retire_to(&self, shard: usize, nth: usize, wait: bool) -> Pushed {
        let slot = &self.objects[nth];
        let object = NonNull::new((nth + 1) as *mut _).unwrap();

        slot.published.store(false, Relaxed);
        // SAFETY: Nobody pushes this one twice, and the head is valid as long as the world.
        unsafe {
            push(
                self,
                &self.shards[shard].shard,
                wait,
                object,
                Kind::Slab,
                NonNull::new(slot.head.get()),
            )
        }
    }

    /// A reader's visit to object `nth`.
    fn read(&self, nth: usize) {
        self.reading.fetch_add(1, Relaxed);
        fence(SeqCst);
        let slot = &self.objects[nth];
        if slot.published.load(Relaxed) {
            // SAFETY: Only read, unless the queue is wrong.
            slot.value.with(|value| assert_eq!(unsafe { *value }, LIVE));
        }
        self.reading.fetch_sub(1, Release);
    }

    fn drain(&self, all: bool) -> shard::Rest {
        self.drain_of(&self.shards[0], all)
    }

    fn drain_of(&self, local: &Local, all: bool) -> shard::Rest {
        let mut waiting = local.waiting.lock().unwrap();
        let rest = drain(self, &local.shard, &mut waiting, all);
        local.twice.store(waiting.twice() as usize, Release);
        rest
    }

    /// What the work does that reclaims; and who does it himself has waited for it too.
    fn reclaim_of(&self, local: &Local) {
        let _one_at_a_time = local.reclaiming.lock().unwrap();
        let ready = local.waiting.lock().unwrap().take_ready();
        let freed = reclaim(self, &local.shard, ready);
        local.freed.fetch_add(freed as usize, Release);
    }

    fn drain_and_reclaim(&self, local: &Local, all: bool) {
        if self.drain_of(local, all).ready {
            self.reclaim_of(local);
        }
    }

    fn finish(&self) {
        finish(
            self,
            &self.shards,
            |local| {
                let _rest = self.drain_of(local, true);
                self.reclaim_of(local);
            },
            |local| (local.freed.load(Acquire) + local.twice.load(Acquire)) as u64,
            |local| local.shard.with(|shard| shard.counts().pushed),
        );
    }

    fn barrier(&self) {
        barrier(
            self,
            || self.drain(true).listed,
            || self.reclaim_of(&self.shards[0]),
        );
    }

    fn freed(&self) -> usize {
        *self.freed.lock().unwrap()
    }

    /// What the interrupt, the timer and the workers do, and no more, until nobody wants anything.
    fn serve(&self) {
        let calls = Calls::default();

        while mem::take(&mut *self.kicked.lock().unwrap()) {
            answer(
                &calls,
                self.shards[0].shard.with(|shard| shard.wake()),
                World::PERIOD,
            );
            loop {
                if calls.reclaim.take() {
                    self.reclaim_of(&self.shards[0]);
                }
                if calls.grace_period.take() {
                    self.synchronize();
                } else if let Some(ticks) = calls.drain_in.take() {
                    // Or else at once.
                    if !calls.drain_now.take() {
                        self.clock.fetch_add(ticks, Relaxed);
                    }
                } else if !calls.drain_now.take() {
                    break;
                }
                follow_up(&calls, self.drain(false));
            }
        }
    }
}

/// A reader of the object that fills a block, in which another one is already.
pub fn reader_and_block() {
    let world = World::new(true);
    world.retire(0);
    let reader = thread::spawn({
        let world = world.clone();
        move || world.read(1)
    });
    let pusher = thread::spawn({
        let world = world.clone();
        move || world.retire(1)
    });

    for _ in 0..2 {
        world.synchronize();
        world.drain_and_reclaim(&world.shards[0], false);
    }
    pusher.join().unwrap();
    reader.join().unwrap();
    world.barrier();
    assert_eq!(world.freed(), 2);
}

/// A reader of an object that is in a list, because there is no memory for a block.
pub fn reader_and_list() {
    let world = World::new(false);
    let reader = thread::spawn({
        let world = world.clone();
        move || world.read(0)
    });

    world.retire(0);
    for _ in 0..2 {
        world.drain_and_reclaim(&world.shards[0], true);
    }
    reader.join().unwrap();
    world.retire(1);
    world.barrier();
    assert_eq!(world.freed(), 2);
}

/// Two that push, and a worker that comes only when it is called.
pub fn pushes_and_drain() {
    let world = World::new(true);
    let pushers = [&[0, 1][..], &[2]].map(|objects| {
        let world = world.clone();
        thread::spawn(move || objects.iter().for_each(|nth| world.retire(*nth)))
    });

    world.serve();
    for pusher in pushers {
        pusher.join().unwrap();
    }
    world.serve();
    assert_eq!(world.freed(), 3);
}

/// A barrier while a drain has an older list in its hands, or the work that reclaims.
pub fn barrier_and_drain() {
    let world = World::new(false);
    world.retire(0);
    let worker = thread::spawn({
        let world = world.clone();
        move || world.drain_and_reclaim(&world.shards[0], true)
    });

    world.retire(1);
    world.barrier();
    let freed = world.freed();
    worker.join().unwrap();
    assert_eq!(freed, 2);
}

/// A barrier, and a list that is taken while it waits for an earlier one.
pub fn barrier_and_later_list() {
    let world = World::new(false);
    world.retire(0);
    world.retire(1);
    let worker = thread::spawn({
        let world = world.clone();
        move || {
            world.retire(2);
            world.drain_and_reclaim(&world.shards[0], true);
        }
    });

    world.barrier();
    let freed = world.freed();
    worker.join().unwrap();
    assert!(freed >= 2, "{freed} freed by a barrier");
}

/// A destructor that pushes to the shard that comes before its own, in the hands of whoever drops
/// the queue or of a worker.
pub fn children_and_finish() {
    let world = World::with(true, true);
    assert_eq!(world.retire_to(1, PARENT, true), Pushed::Queued);
    let _rest = world.drain_of(&world.shards[1], true);
    let worker = thread::spawn({
        let world = world.clone();
        move || {
            world.synchronize();
            world.drain_and_reclaim(&world.shards[1], false);
        }
    });

    world.finish();
    let freed = world.freed();
    worker.join().unwrap();
    assert_eq!(freed, 2);
}

/// One that pushes only if nobody else has the lock.
pub fn try_and_push() {
    let world = World::new(true);
    let pusher = thread::spawn({
        let world = world.clone();
        move || world.retire(0)
    });

    let queued = usize::from(world.retire_to(0, 1, false) == Pushed::Queued);
    pusher.join().unwrap();
    world.barrier();
    assert_eq!(world.freed(), 1 + queued);
}

/// A CPU's interrupt, by which a shard asks for somebody to come.
struct Interrupts {
    world: Arc<World>,
    /// As the kernel has it for its `irq_work`.
    flags: AtomicUsize,
    /// Whether the shard's memory is there.
    is_alive: UnsafeCell<bool>,
}

// SAFETY: loom watches.
unsafe impl Sync for Interrupts {}
// SAFETY: As above.
unsafe impl Send for Interrupts {}

impl Interrupts {
    const PENDING: usize = 1;
    const BUSY: usize = 2;

    /// What `irq_work_queue()` does. The handler comes whenever the CPU lets it: what asked may have
    /// been an NMI in user mode, and RCU knows nothing of it before it comes.
    fn raise(this: &Arc<Self>) -> Option<thread::JoinHandle<()>> {
        let old = this.flags.fetch_or(Self::PENDING | Self::BUSY, AcqRel);
        let this = this.clone();

        (old & Self::PENDING == 0).then(|| thread::spawn(move || this.handle()))
    }

    /// What `irq_work_single()` does, in an interrupt.
    fn handle(&self) {
        self.world.reading.fetch_add(1, Relaxed);
        fence(SeqCst);
        let flags = self.flags.fetch_and(!Self::PENDING, AcqRel) & !Self::PENDING;

        // SAFETY: Only read, unless the queue is wrong.
        self.is_alive.with(|alive| assert!(unsafe { *alive }));
        let _unless_raised_again =
            self.flags
                .compare_exchange(flags, flags & !Self::BUSY, AcqRel, Relaxed);
        self.world.reading.fetch_sub(1, Release);
    }
}

impl Works for Interrupts {
    fn drain_in(&self, _ticks: usize) {}

    fn drain_now(&self) {}

    fn drain_after_grace_period(&self) {}

    fn reclaim(&self) {}

    fn settle(&self) {
        while self.flags.load(Acquire) & Interrupts::BUSY != 0 {
            thread::yield_now();
        }
    }

    fn stop(&self) {}
}

/// Two CPUs' interrupts, of which the first may be handled still when the second is over, and the end
/// of the shard that they look at.
pub fn handlers_and_end() {
    let world = World::new(true);
    let interrupts = Arc::new(Interrupts {
        world: world.clone(),
        flags: AtomicUsize::new(0),
        is_alive: UnsafeCell::new(true),
    });
    let handlers = [
        Interrupts::raise(&interrupts),
        Interrupts::raise(&interrupts),
    ];

    shut_down(&*world, std::slice::from_ref(&interrupts));
    // SAFETY: Nobody looks any more, unless the queue is wrong.
    interrupts
        .is_alive
        .with_mut(|alive| unsafe { *alive = false });
    for handler in handlers.into_iter().flatten() {
        handler.join().unwrap();
    }
}
