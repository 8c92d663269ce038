// SPDX-License-Identifier: GPL-2.0
// Included once for the source as it is and once for each bug in it.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{fence, AtomicBool, AtomicUsize, Ordering::*};
use loom::sync::{Arc, Mutex};
use loom::thread;
use shard::{
    barrier, drain, finish, push, Block, Head, Kind, Lock, Object, Platform, Pushed, Shard,
    Waiting, Wake,
};
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
    done: AtomicUsize,
}

/// The object whose destructor pushes the first one.
const PARENT: usize = 2;

/// The kernel, as far as the queue can tell.
struct World {
    objects: [Slot; 3],
    /// Odd while a grace period is in progress.
    gp_seq: AtomicUsize,
    gp_lock: Mutex<()>,
    reading: AtomicBool,
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

impl Platform for World {
    type Page = Page;
    type Snapshot = usize;
    const PERIOD: usize = 1;

    fn snapshot(&self) -> usize {
        fence(SeqCst);
        // The end of the next grace period that has not begun yet.
        (self.gp_seq.load(Relaxed) + 3) & !1
    }

    fn elapsed(&self, snapshot: &usize) -> bool {
        self.gp_seq.load(Acquire) >= *snapshot
    }

    fn synchronize(&self) {
        let _one_at_a_time = self.gp_lock.lock().unwrap();
        self.gp_seq.fetch_add(1, AcqRel);
        fence(SeqCst);
        while self.reading.load(Acquire) {
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

    fn now(&self) -> usize {
        self.clock.load(Relaxed)
    }

    fn kick(&self) {
        *self.kicked.lock().unwrap() = true;
    }

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
            reading: AtomicBool::new(false),
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
                done: AtomicUsize::new(0),
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
        self.reading.store(true, Relaxed);
        fence(SeqCst);
        let slot = &self.objects[nth];
        if slot.published.load(Relaxed) {
            // SAFETY: Only read, unless the queue is wrong.
            slot.value.with(|value| assert_eq!(unsafe { *value }, LIVE));
        }
        self.reading.store(false, Release);
    }

    /// Whether something is left that is open.
    fn drain(&self, all: bool) -> shard::Rest {
        self.drain_of(&self.shards[0], all)
    }

    fn drain_of(&self, local: &Local, all: bool) -> shard::Rest {
        let mut waiting = local.waiting.lock().unwrap();
        let rest = drain(self, &local.shard, &mut waiting, all);
        let (freed, twice) = waiting.counts();
        local.done.store((freed + twice) as usize, Release);
        rest
    }

    fn finish(&self) {
        finish(
            self,
            &self.shards,
            |local| {
                let _rest = self.drain_of(local, true);
            },
            |local| local.done.load(Acquire) as u64,
            |local| local.shard.with(|shard| shard.counts().pushed),
        );
    }

    fn barrier(&self) {
        barrier(self, || self.drain(true).open.is_some());
    }

    fn freed(&self) -> usize {
        *self.freed.lock().unwrap()
    }

    /// What the interrupt, the timer and the worker do, and no more, until nobody wants anything.
    fn serve(&self) {
        loop {
            if !mem::take(&mut *self.kicked.lock().unwrap()) {
                return;
            }
            let wake = self.shards[0].shard.with(|shard| shard.wake());
            if wake == Wake::Later {
                self.clock.fetch_add(World::PERIOD, Relaxed);
            }
            loop {
                let rest = self.drain(false);
                if rest.waiting {
                    self.synchronize();
                } else if let Some(ticks) = rest.open {
                    self.clock.fetch_add(ticks, Relaxed);
                } else {
                    break;
                }
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

    world.synchronize();
    let _rest = world.drain(false);
    world.synchronize();
    let _rest = world.drain(false);
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
    let _rest = world.drain(true);
    let _rest = world.drain(true);
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

/// A barrier while a drain has an older list in its hands.
pub fn barrier_and_drain() {
    let world = World::new(false);
    world.retire(0);
    let worker = thread::spawn({
        let world = world.clone();
        move || {
            let _rest = world.drain(true);
        }
    });

    world.retire(1);
    world.barrier();
    assert_eq!(world.freed(), 2);
    worker.join().unwrap();
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
            let _rest = world.drain_of(&world.shards[1], false);
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
