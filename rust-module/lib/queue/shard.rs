// SPDX-License-Identifier: GPL-2.0

//! The part of the queue that needs no kernel: blocks, sealing, snapshots, what to fall back to and
//! when to drain.
//!
//! Compiled into the modules and, the same file, into the tests on the host (`models/queue`), where
//! [`CAPACITY`] is small. It is long because it stays one file: the models and `make mutants` copy
//! it with one bug in it at a time.
//!
//! # How a pointer travels
//!
//! An *open* block takes pointers. It is *sealed*, and a grace period's snapshot taken, when it is
//! full or has become old: not before its last pointer was queued, and never again, so that it waits
//! for one grace period and for no other block. What has been sealed is taken out of the shard by
//! [`drain()`], and *waits* until the snapshot has elapsed. It is then *ready*, and freed by
//! [`reclaim()`], for which no lock is held.
//!
//! Where there is no block an object is *listed* by its head. A list is taken by [`drain()`] when it
//! has as many objects as a full block, or has become old; its snapshot is taken then.

use core::{
    ffi::c_void,
    mem::{
        self,
        MaybeUninit, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};

use super::capacity::CAPACITY;

/// Empty blocks that a shard keeps for pushes that cannot allocate one.
pub const SPARES: usize = 4;

/// What the queue stands on.
///
/// # Safety
///
/// - `elapsed` must not say yes while a reader may still read what was unpublished before the
///   snapshot.
/// - Of two snapshots the later one must not elapse before the earlier one.
/// - `same` must not say yes unless both elapse at once.
pub unsafe trait Platform: Sized {
    /// A block, and the memory it is in.
    type Page: DerefMut<Target = Block<Self>>;

    /// A grace period to wait for.
    type Snapshot: Copy;

    /// For how many ticks an object may stay in an open block.
    const PERIOD: usize;

    /// For how many ticks nobody is woken for blocks after a drain that found none.
    const PAUSE: usize;

    /// The grace period that readers of what was unpublished until now are done after.
    fn snapshot(&self) -> Self::Snapshot;

    /// Whether that grace period is over.
    fn elapsed(&self, snapshot: &Self::Snapshot) -> bool;

    /// Whether both stand for the same grace period.
    fn same(&self, one: &Self::Snapshot, other: &Self::Snapshot) -> bool;

    /// Waits until a snapshot taken before this call has elapsed.
    fn synchronize(&self);

    /// An empty block. Called in the context of the push.
    fn page(&self) -> Option<Self::Page>;

    /// An empty block. Called by [`drain()`], in a task that may sleep.
    fn page_mightsleep(&self) -> Option<Self::Page>;

    /// A clock that may wrap.
    fn now(&self) -> usize;

    /// Has [`Shard::wake()`] looked at soon. Called under the shard's lock.
    fn kick(&self);

    /// Notes what [`shrink()`] would find, for those who do not take the shard's lock to ask. Called
    /// under it.
    fn set_shrinkable(&self, count: usize);

    /// Whether [`Self::adopt()`] may say no to an object in a block, or has to hear of it.
    const ADOPTS: bool = true;

    /// Called by [`drain()`] when it first meets an object. False keeps the object from being freed.
    fn adopt(&self, object: Object) -> bool;

    /// Frees objects, of a kind that only blocks know, in a task that may sleep.
    ///
    /// # Safety
    ///
    /// - The caller owns the objects, which were pushed and, if [`Self::ADOPTS`] is true, adopted.
    /// - `kind` is that which they were pushed with, or [`None`] if they were queued by their heads.
    /// - Nobody reads them any more, and nobody uses them after this.
    unsafe fn reclaim(&self, kind: Option<Kind>, objects: &mut [Object]);
}

/// The works of a shard, by which somebody comes for what is in it.
pub trait Works {
    /// Has [`drain()`] called in so many ticks, unless it is to be called sooner.
    fn drain_in(&self, ticks: usize);

    /// Has [`drain()`] called at once.
    fn drain_now(&self);

    /// Starts a grace period, and has [`drain()`] called after it.
    fn drain_after_grace_period(&self);

    /// Has [`reclaim()`] called at once.
    fn reclaim(&self);

    /// Waits until what [`Platform::kick()`] asked for is no longer pending.
    fn settle(&self);

    /// Waits for works that still run, where nothing is left that they could queue another for.
    fn stop(&self);
}

/// Does what [`Platform::kick()`] asks for, in an interrupt.
pub fn answer(works: &impl Works, wake: Wake, period: usize) {
    match wake {
        Wake::Idle => (),
        Wake::Later => works.drain_in(period),
        Wake::Now => works.drain_now(),
    }
}

/// Sees to it that somebody comes for what a drain has left.
pub fn follow_up(works: &impl Works, rest: Rest) {
    if rest.ready {
        works.reclaim();
    }
    if rest.waiting {
        works.drain_after_grace_period();
    }
    if let Some(ticks) = rest.open {
        works.drain_in(ticks);
    }
}

/// Waits for all that may still use a shard, after [`finish()`] and before their memory is freed.
///
/// [`Works::settle()`] does not wait for an interrupt handler that still runs on one CPU while a later
/// one was settled on another; but a grace period waits for handlers, as interrupts are disabled in
/// them. The grace period alone would not do: of an interrupt that an NMI asks for in user mode it
/// knows nothing before that comes.
pub fn shut_down<P: Platform, W: Works>(platform: &P, shards: &[impl Deref<Target = W>]) {
    shards.iter().for_each(|works| works.settle());
    platform.synchronize();
    shards.iter().for_each(|works| works.stop());
}

/// A lock around `T` that a push may take.
pub trait Lock<T> {
    /// Calls `func` under the lock.
    fn with<R>(&self, func: impl FnOnce(&mut T) -> R) -> R;

    /// Calls `func` under the lock unless that is taken.
    fn try_with<R>(&self, func: impl FnOnce(&mut T) -> R) -> Option<R>;
}

/// The address of an object that waits to be freed.
pub type Object = NonNull<c_void>;

/// Objects that are freed in bulk together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For `kfree()`, many at a time.
    Slab,
    /// What is freed one by one: of `vmalloc()`, or a page.
    Single,
}

impl Kind {
    const COUNT: usize = 2;
}

/// Room for as many pointers as fit in a page.
///
/// # Invariants
///
/// The first `len` of `objects` are initialised and owned by the block, and were pushed as of its `kind`.
// In this order, so that a push finds an object's place by one addition less.
#[repr(C)]
pub struct Block<P: Platform> {
    objects: [MaybeUninit<Object>; CAPACITY],
    next: Option<P::Page>,
    /// [`None`] until the block is sealed.
    snapshot: Option<P::Snapshot>,
    kind: Kind,
    len: usize,
}

impl<P: Platform> Block<P> {
    /// Makes an empty block of `slot` without touching what it has no use for.
    pub fn init(slot: &mut MaybeUninit<Self>) -> &mut Self {
        let block = slot.as_mut_ptr();

        // SAFETY: Writes within `slot`. INVARIANT: No object is in it.
        unsafe {
            (&raw mut (*block).next).write(None);
            (&raw mut (*block).snapshot).write(None);
            (&raw mut (*block).kind).write(Kind::Slab);
            (&raw mut (*block).len).write(0);
        }
        // SAFETY: All fields were written, but for `objects`, which may hold anything.
        unsafe { slot.assume_init_mut() }
    }

    /// Adds an object, and says whether that was the last room.
    ///
    /// # Safety
    ///
    /// There must be room, and `object` be of the block's kind.
    #[inline]
    unsafe fn push(&mut self, object: Object) -> bool {
        let len = self.len;
        // SAFETY: There is room.
        let room = unsafe { self.objects.get_unchecked_mut(len) };

        // INVARIANT: The next one is initialised before it counts.
        room.write(object);
        self.len = len + 1;
        self.len == CAPACITY
    }

    fn objects(&mut self) -> &mut [Object] {
        let objects = self.objects.as_mut_ptr().cast();

        // SAFETY: By the invariant, the first `len` are initialised.
        unsafe { core::slice::from_raw_parts_mut(objects, self.len) }
    }

    /// Forgets objects that `keep` says no to, and returns how many.
    fn retain(&mut self, mut keep: impl FnMut(Object) -> bool) -> usize {
        let before = self.len;
        let mut kept = 0;

        for index in 0..before {
            let objects = self.objects();
            if keep(objects[index]) {
                objects.swap(kept, index);
                kept += 1;
            }
        }
        // INVARIANT: A shorter part of what was initialised.
        self.len = kept;
        before - kept
    }
}

/// Blocks, the newest on top.
struct Stack<P: Platform> {
    top: Option<P::Page>,
    len: usize,
}

impl<P: Platform> Stack<P> {
    const EMPTY: Self = Self { top: None, len: 0 };

    fn push(&mut self, mut page: P::Page) {
        page.next = self.top.take();
        self.top = Some(page);
        self.len += 1;
    }

    fn pop(&mut self) -> Option<P::Page> {
        let mut page = self.top.take()?;

        self.top = page.next.take();
        self.len -= 1;
        Some(page)
    }

    /// The other way round.
    fn reversed(mut self) -> Self {
        let mut reversed = Self::EMPTY;

        while let Some(page) = self.pop() {
            reversed.push(page);
        }
        reversed
    }
}

impl<P: Platform> Drop for Stack<P> {
    fn drop(&mut self) {
        // One at a time: left to themselves the blocks would be dropped inside each other.
        while self.pop().is_some() {}
    }
}

/// A part of an object by which it can be queued without a block.
#[derive(Default)]
pub struct Head {
    next: Option<NonNull<Head>>,
    /// Also the sign that the head is in use.
    object: Option<Object>,
}

impl Head {
    /// A head of an object that is not queued.
    pub(super) const fn new() -> Self {
        Self {
            next: None,
            object: None,
        }
    }
}

/// Objects linked by their heads.
///
/// # Invariants
///
/// All heads in the list are valid, and parts of objects that the list owns.
struct List {
    first: Option<NonNull<Head>>,
    len: usize,
}

impl List {
    const EMPTY: Self = Self {
        first: None,
        len: 0,
    };

    /// Adds an object, or says no because its head is in use.
    ///
    /// # Safety
    ///
    /// `head` must be valid, and part of `object`, which the list comes to own unless it says no.
    unsafe fn push(&mut self, mut head: NonNull<Head>, object: Object) -> bool {
        // SAFETY: `head` is valid, and part of an object whose readers leave it alone.
        let head_ref = unsafe { head.as_mut() };

        if head_ref.object.is_some() {
            return false;
        }
        // INVARIANT: `head` is valid, and part of `object`, which the list comes to own.
        *head_ref = Head {
            next: self.first.replace(head),
            object: Some(object),
        };
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<(NonNull<Head>, Object)> {
        let mut head = self.first?;
        // SAFETY: By the invariant all heads in the list are valid, and parts of objects that it owns.
        let head_ref = unsafe { head.as_mut() };
        let object = head_ref.object.take()?;

        self.first = head_ref.next.take();
        self.len -= 1;
        Some((head, object))
    }

    /// Adds the objects of another list that `keep` says yes to, and returns how many are left out.
    fn append(&mut self, mut other: Self, mut keep: impl FnMut(Object) -> bool) -> usize {
        let before = self.len + other.len;

        while let Some((head, object)) = other.pop() {
            if keep(object) {
                // SAFETY: A list owned the object, of which the head is a part.
                let _unused = unsafe { self.push(head, object) };
            }
        }
        before - self.len
    }
}

/// How soon a shard wants to be drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// There is nothing to drain.
    Idle,
    /// When an object has become too old.
    Later,
    /// At once.
    Now,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// The queue owns the object.
    Queued,
    /// The caller still owns the object: there is no block, and no head either, or the lock is taken.
    Refused,
    /// The head is in use: the object was pushed before, and must not be freed twice.
    Twice,
}

/// What a shard has seen. Objects unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken from their owners.
    pub pushed: u64,
    /// Of these, linked by their heads.
    pub listed: u64,
    /// Blocks sealed because they were full.
    pub full: u64,
    /// Blocks sealed because they were old, or because somebody asked.
    pub aged: u64,
    /// Lists taken, for whichever reason.
    pub lists: u64,
    /// Pushes that found no block.
    pub blockless: u64,
    /// Drains.
    pub drains: u64,
}

/// A part of the queue, to be protected by a [`Lock`].
///
/// # Invariants
///
/// - If an object is in an open block or listed, `wake` is not [`Wake::Idle`], and `since` is not
///   after the oldest of them was pushed.
/// - An open block has room for another object, and lies where those of its kind do.
/// - If a block is sealed, `wake` is [`Wake::Now`].
/// - Whoever raised `wake` has called [`Platform::kick()`].
pub struct Shard<P: Platform> {
    open: [Option<P::Page>; Kind::COUNT],
    sealed: Stack<P>,
    spares: Stack<P>,
    listed: List,
    since: usize,
    wake: Wake,
    /// Whether [`shrink()`] has been here since the oldest of the open objects came.
    hurried: bool,
    /// Whether a push has found no block since the last drain.
    starved: bool,
    /// When a drain found no page either.
    dry: Option<usize>,
    /// Without the objects in open blocks, which a push need not count.
    counts: Counts,
}

// SAFETY: The objects belong to the shard, and their memory to no task or CPU. Whether their
// destructors may run anywhere is the business of who pushes them.
unsafe impl<P: Platform> Send for Shard<P>
where
    P::Page: Send,
    P::Snapshot: Send,
{
}

impl<P: Platform> Shard<P> {
    /// A shard without objects and without blocks.
    // INVARIANT: Nothing is in it.
    pub(super) const fn new() -> Self {
        Self {
            open: [const { None }; Kind::COUNT],
            sealed: Stack::EMPTY,
            spares: Stack::EMPTY,
            listed: List::EMPTY,
            since: 0,
            wake: Wake::Idle,
            hurried: false,
            starved: false,
            dry: None,
            counts: Counts {
                pushed: 0,
                listed: 0,
                full: 0,
                aged: 0,
                lists: 0,
                blockless: 0,
                drains: 0,
            },
        }
    }

    /// How soon to drain.
    pub fn wake(&self) -> Wake {
        self.wake
    }

    /// What was pushed until now, and how.
    pub fn counts(&self) -> Counts {
        Counts {
            pushed: self.counts.pushed + self.open_len() as u64,
            ..self.counts
        }
    }

    fn has_open(&self) -> bool {
        self.open.iter().any(Option::is_some) || self.listed.first.is_some()
    }

    /// How many objects are in open blocks.
    fn open_len(&self) -> usize {
        self.open.iter().flatten().map(|block| block.len).sum()
    }

    /// How many objects [`hurry()`] would find.
    fn unhurried(&self) -> usize {
        match self.hurried {
            true => 0,
            false => self.open_len() + self.listed.len,
        }
    }

    /// Tells those who do not take the lock. What is in an open block is not counted at each push: it
    /// stands for a full one.
    fn publish(&self, platform: &P) {
        let blocks = self.open.iter().flatten().count();
        let open = match self.hurried {
            true => 0,
            false => blocks * CAPACITY + self.listed.len,
        };
        platform.set_shrinkable(open + self.spares.len);
    }

    fn want(&mut self, platform: &P, wake: Wake) {
        if self.wake < wake {
            self.wake = wake;
            platform.kick();
        }
    }

    /// Notes when the first of the open objects came.
    fn open_up(&mut self, platform: &P) {
        if !self.has_open() {
            self.hurried = false;
            self.since = platform.now();
        }
        self.want(platform, Wake::Later);
    }

    fn seal(&mut self, platform: &P, kind: Kind) -> bool {
        let Some(mut block) = self.open[kind as usize].take() else {
            return false;
        };
        block.snapshot = Some(platform.snapshot());
        self.counts.pushed += block.len as u64;
        self.sealed.push(block);
        true
    }

    /// Puts an object in a block if there is one.
    #[inline]
    fn put(&mut self, platform: &P, object: Object, kind: Kind) -> bool {
        let Some(block) = &mut self.open[kind as usize] else {
            return self.put_first(platform, object, kind);
        };
        // INVARIANT: A block without room is open no longer.
        // SAFETY: By the invariant an open block has room, and this one is of the object's kind.
        if unsafe { block.push(object) } {
            self.fill_up(platform, kind);
        }
        true
    }

    /// Opens a spare block for an object.
    #[cold]
    fn put_first(&mut self, platform: &P, object: Object, kind: Kind) -> bool {
        let Some(mut block) = self.spares.pop() else {
            return false;
        };
        core::assert!(block.len == 0);
        block.kind = kind;
        self.open_up(platform);
        // INVARIANT: All of it is room, and it is of that kind right above.
        self.open[kind as usize] = Some(block);
        self.publish(platform);
        self.put(platform, object, kind)
    }

    /// Seals a block that has just become full.
    #[cold]
    fn fill_up(&mut self, platform: &P, kind: Kind) {
        self.counts.full += u64::from(self.seal(platform, kind));
        // A drain comes in any case, which may bring the next blocks before they are missed.
        self.starved |= self.spares.top.is_none();
        self.publish(platform);
        self.want(platform, Wake::Now);
    }

    /// Puts an object wherever there is room, `page` included.
    ///
    /// # Safety
    ///
    /// As for [`push()`].
    unsafe fn put_anywhere(
        &mut self,
        platform: &P,
        page: Option<P::Page>,
        object: Object,
        kind: Kind,
        head: Option<NonNull<Head>>,
    ) -> Pushed {
        if let Some(page) = page {
            self.spares.push(page);
        }
        if self.put(platform, object, kind) {
            self.publish(platform);
            return Pushed::Queued;
        }

        // A drain can allocate where this push could not.
        self.counts.blockless += 1;
        self.starved = true;
        let Some(head) = head else {
            self.want_blocks(platform);
            return Pushed::Refused;
        };
        self.open_up(platform);
        // SAFETY: `head` is valid and part of `object`, which the queue may own.
        if !unsafe { self.listed.push(head, object) } {
            return Pushed::Twice;
        }
        self.counts.pushed += 1;
        self.counts.listed += 1;
        self.publish(platform);
        match self.listed.len {
            // As a full block: nobody waits until it is old.
            CAPACITY => self.want(platform, Wake::Now),
            _ => self.want_blocks(platform),
        }
        Pushed::Queued
    }

    /// Has a drain come for blocks, unless one that came a moment ago found none.
    fn want_blocks(&mut self, platform: &P) {
        let is_dry = |since| platform.now().wrapping_sub(since) < P::PAUSE;

        if !self.dry.is_some_and(is_dry) {
            self.want(platform, Wake::Now);
        }
    }

    /// Gives out what has to wait for a grace period, `all` or only what is full or has become old.
    fn take(&mut self, platform: &P, all: bool) -> Taken<P> {
        let age = self.age(platform);
        let is_due = all || age >= P::PERIOD;

        self.counts.drains += 1;
        if is_due {
            for kind in [Kind::Slab, Kind::Single] {
                self.counts.aged += u64::from(self.seal(platform, kind));
            }
        }
        let mut listed = None;
        if is_due && self.listed.len != 0 || self.listed.len >= CAPACITY {
            let list = mem::replace(&mut self.listed, List::EMPTY);
            listed = Some((list, platform.snapshot()));
            self.counts.lists += 1;
        }
        // INVARIANT: Nothing is sealed any more. The caller of `drain()` comes back for the rest.
        self.wake = match self.has_open() {
            true => Wake::Later,
            false => Wake::Idle,
        };
        self.publish(platform);
        Taken {
            sealed: mem::replace(&mut self.sealed, Stack::EMPTY),
            listed,
            starved: mem::take(&mut self.starved),
            // What is open has not become old, or it would have been taken.
            open: self.has_open().then(|| P::PERIOD - age),
        }
    }

    fn hurry(&mut self, platform: &P) -> usize {
        let open = self.unhurried();

        if open != 0 {
            self.hurried = true;
            self.since = platform.now().wrapping_sub(P::PERIOD);
            self.publish(platform);
            self.want(platform, Wake::Now);
        }
        open
    }

    fn age(&self, platform: &P) -> usize {
        platform.now().wrapping_sub(self.since)
    }

    /// Exchanges blocks with `pages`, so that the shard has the spares it should.
    fn restock(&mut self, platform: &P, pages: &mut Stack<P>) {
        while self.spares.len < SPARES {
            let Some(page) = pages.pop() else { break };
            self.spares.push(page);
        }
        while self.spares.len > SPARES {
            let Some(page) = self.spares.pop() else { break };
            pages.push(page);
        }
        self.publish(platform);
    }
}

/// What a drain took out of a shard.
struct Taken<P: Platform> {
    /// The newest on top.
    sealed: Stack<P>,
    listed: Option<(List, P::Snapshot)>,
    /// Whether a push has found no block.
    starved: bool,
    /// In how many ticks something that is still open becomes too old.
    open: Option<usize>,
}

/// Takes over `object`, if there is room for it.
///
/// Tries, in this order: a block of the shard; a block that can be allocated in the context of the
/// caller, which the lock would change; the `head`. With `wait` false it does not wait for the lock
/// either.
///
/// # Safety
///
/// - After [`Pushed::Queued`] the queue owns `object`, and [`Platform::reclaim()`] must be able to
///   free it.
/// - `head` must be valid, and part of `object`.
#[inline]
pub unsafe fn push<P: Platform>(
    platform: &P,
    lock: &impl Lock<Shard<P>>,
    wait: bool,
    object: Object,
    kind: Kind,
    head: Option<NonNull<Head>>,
) -> Pushed {
    let put = |shard: &mut Shard<P>| shard.put(platform, object, kind);
    let done = match wait {
        true => Some(lock.with(put)),
        false => lock.try_with(put),
    };
    match done {
        Some(true) => Pushed::Queued,
        // SAFETY: `head` is valid and part of `object`, which the queue can free and may own.
        Some(false) => unsafe { push_slowly(platform, lock, wait, object, kind, head) },
        None => Pushed::Refused,
    }
}

/// # Safety
///
/// As for [`push()`].
#[cold]
unsafe fn push_slowly<P: Platform>(
    platform: &P,
    lock: &impl Lock<Shard<P>>,
    wait: bool,
    object: Object,
    kind: Kind,
    head: Option<NonNull<Head>>,
) -> Pushed {
    let page = platform.page();
    let put = |shard: &mut Shard<P>| {
        // SAFETY: `head` is valid and part of `object`, which the queue can free and may own.
        unsafe { shard.put_anywhere(platform, page, object, kind, head) }
    };

    match wait {
        true => lock.with(put),
        false => lock.try_with(put).unwrap_or(Pushed::Refused),
    }
}

/// Lists that can wait at once, each with a snapshot of its own.
///
/// Of all that was sealed or taken up to now, snapshots stand for the end of this grace period or of
/// the next one.
const LISTS: usize = 2;

/// What was taken out of a shard and waits for grace periods.
///
/// # Invariants
///
/// - Of the blocks in `older` the one on top has the earliest snapshot, of those in `newer` the
///   latest, and none in `newer` an earlier one than any in `older`.
/// - Of the lists an earlier one has the earlier snapshot.
/// - Every object was adopted, if the platform adopts.
pub struct Waiting<P: Platform> {
    older: Stack<P>,
    newer: Stack<P>,
    listed: [Option<(List, P::Snapshot)>; LISTS],
    ready: Ready<P>,
    twice: u64,
}

// SAFETY: As for `Shard`.
unsafe impl<P: Platform> Send for Waiting<P>
where
    P::Page: Send,
    P::Snapshot: Send,
{
}

/// What no reader reads any more, for [`reclaim()`].
///
/// # Invariants
///
/// Every object was adopted, if the platform adopts, and the snapshot of its block or list has elapsed.
#[must_use = "what is in it would be leaked"]
pub struct Ready<P: Platform> {
    blocks: Stack<P>,
    listed: List,
}

impl<P: Platform> Ready<P> {
    const EMPTY: Self = Self {
        blocks: Stack::EMPTY,
        listed: List::EMPTY,
    };

    fn is_empty(&self) -> bool {
        self.blocks.top.is_none() && self.listed.first.is_none()
    }
}

impl<P: Platform> Waiting<P> {
    /// Nothing waits.
    // INVARIANT: Nor is anything in a wrong order.
    pub(super) const fn new() -> Self {
        Self {
            older: Stack::EMPTY,
            newer: Stack::EMPTY,
            listed: [const { None }; LISTS],
            ready: Ready::EMPTY,
            twice: 0,
        }
    }

    /// How many objects were not freed because they had been pushed twice.
    pub fn twice(&self) -> u64 {
        self.twice
    }

    /// Gives out what is to be freed.
    pub fn take_ready(&mut self) -> Ready<P> {
        mem::replace(&mut self.ready, Ready::EMPTY)
    }

    /// Whether something waits for a grace period.
    fn is_empty(&self) -> bool {
        self.older.top.is_none()
            && self.newer.top.is_none()
            && self.listed.iter().all(Option::is_none)
    }

    /// Adds what has just been taken out of a shard, and so is later than all that is here.
    fn add(&mut self, platform: &P, sealed: Stack<P>, listed: Option<(List, P::Snapshot)>) {
        let mut sealed = sealed.reversed();

        // INVARIANT: In the order in which they were sealed, and without what was not adopted.
        while let Some(mut block) = sealed.pop() {
            if P::ADOPTS {
                self.twice += block.retain(|object| platform.adopt(object)) as u64;
            }
            self.newer.push(block);
        }
        if let Some((list, snapshot)) = listed {
            self.add_listed(platform, list, snapshot);
        }
    }

    fn add_listed(&mut self, platform: &P, list: List, snapshot: P::Snapshot) {
        let last = self.listed.iter().rposition(Option::is_some);
        let place = match last {
            Some(last) => match &self.listed[last] {
                // They wait for the same, or there is no place for another: the later snapshot is
                // good for both.
                Some((_, earlier)) if platform.same(earlier, &snapshot) => last,
                _ => (last + 1).min(LISTS - 1),
            },
            None => 0,
        };
        // INVARIANT: The latest of all, in the last place that is in use, and what was not adopted is left out.
        let (target, latest) = self.listed[place].get_or_insert((List::EMPTY, snapshot));

        *latest = snapshot;
        self.twice += target.append(list, |object| platform.adopt(object)) as u64;
    }

    /// Finds out which lists no grace period stands in the way of.
    fn reap_listed(&mut self, platform: &P) {
        while let Some((list, _)) =
            self.listed[0].take_if(|(_, snapshot)| platform.elapsed(snapshot))
        {
            // INVARIANT: Adopted, as all that waits, and its snapshot has elapsed.
            let _all = self.ready.listed.append(list, |_| true);
            // INVARIANT: The others keep their order.
            self.listed.rotate_left(1);
        }
    }

    /// The same of blocks. Those behind the first that has to wait have to wait as well.
    fn reap_blocks(&mut self, platform: &P) {
        loop {
            if self.older.top.is_none() {
                // INVARIANT: The earliest is on top now.
                self.older = mem::replace(&mut self.newer, Stack::EMPTY).reversed();
            }
            let Some(block) = &self.older.top else { break };
            if !block.snapshot.is_some_and(|snap| platform.elapsed(&snap)) {
                break;
            }
            if let Some(block) = self.older.pop() {
                // INVARIANT: Adopted, as all that waits, and its snapshot has elapsed.
                self.ready.blocks.push(block);
            }
        }
    }
}

/// What a drain leaves behind for its caller to come back for, by [`follow_up()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rest {
    /// Something can be freed.
    pub ready: bool,
    /// Something waits for a grace period, which has to be started.
    pub waiting: bool,
    /// A list is among it. It may wait for a later grace period than it had to when it was taken.
    pub listed: bool,
    /// In how many ticks something open becomes too old.
    pub open: Option<usize>,
}

/// Seals what has become old, or `all`, and finds out what no grace period stands in the way of.
pub fn drain<P: Platform>(
    platform: &P,
    lock: &impl Lock<Shard<P>>,
    waiting: &mut Waiting<P>,
    all: bool,
) -> Rest {
    // First, because then there is a place for the next list.
    waiting.reap_listed(platform);

    let taken = lock.with(|shard| shard.take(platform, all));
    waiting.add(platform, taken.sealed, taken.listed);
    waiting.reap_blocks(platform);

    if taken.starved {
        let mut pages = Stack::EMPTY;
        while pages.len < SPARES {
            let Some(page) = platform.page_mightsleep() else {
                break;
            };
            pages.push(page);
        }
        lock.with(|shard| {
            shard.dry = pages.top.is_none().then(|| platform.now());
            shard.restock(platform, &mut pages);
        });
    }
    Rest {
        ready: !waiting.ready.is_empty(),
        waiting: !waiting.is_empty(),
        listed: waiting.listed[0].is_some(),
        open: taken.open,
    }
}

/// Frees what [`drain()`] has found ready, and returns how many objects that were. To be called without
/// any lock, as destructors are run.
pub fn reclaim<P: Platform>(platform: &P, lock: &impl Lock<Shard<P>>, mut ready: Ready<P>) -> u64 {
    let mut pages = Stack::EMPTY;
    let mut freed = 0;

    while let Some(mut block) = ready.blocks.pop() {
        let kind = Some(block.kind);
        // SAFETY: By its invariant the block owns its objects, which are of its kind; by that of `Ready` they
        // were adopted, and their snapshot has elapsed.
        unsafe { platform.reclaim(kind, block.objects()) };
        freed += block.len as u64;
        // INVARIANT: No object is left.
        block.len = 0;
        block.snapshot = None;
        // The others are freed at once.
        if pages.len < SPARES {
            pages.push(block);
        }
    }
    while let Some((_, object)) = ready.listed.pop() {
        // SAFETY: By its invariant the list owned the object, queued by its head; by that of `Ready` it was
        // adopted, and its snapshot has elapsed.
        unsafe { platform.reclaim(None, &mut [object]) };
        freed += 1;
    }
    if pages.top.is_some() {
        lock.with(|shard| shard.restock(platform, &mut pages));
    }
    freed
}

/// Waits until every object is freed that was pushed before.
///
/// `drain_all` has to call [`drain()`] for all of every shard, and to say whether a list still waits;
/// `flush` to wait until what that found ready is freed.
pub fn barrier<P: Platform>(platform: &P, drain_all: impl Fn() -> bool, flush: impl FnOnce()) {
    drain_all();
    platform.synchronize();
    // A list that had no place of its own may have joined one of ours in the last place, with its later
    // snapshot. As the list before that has gone with our grace period, ours is in the first place now,
    // where none joins it.
    if drain_all() {
        platform.synchronize();
        drain_all();
    }
    flush();
}

/// Waits until every object is freed, where nobody pushes any more but destructors.
///
/// `drain` has to call [`drain()`] for all of a shard, and to wait until what that found ready is freed;
/// `done` says how many of its objects were freed or had been pushed twice, and `pushed` how many were
/// pushed.
pub fn finish<P: Platform, T>(
    platform: &P,
    shards: &[T],
    drain: impl Fn(&T),
    done: impl Fn(&T) -> u64,
    pushed: impl Fn(&T) -> u64,
) {
    loop {
        shards.iter().for_each(&drain);
        // Of all shards, because a destructor pushes to whichever it runs beside; and in this order:
        // if what has been pushed by now was done before, no destructor has run since then.
        let done: u64 = shards.iter().map(&done).sum();
        if done == shards.iter().map(&pushed).sum() {
            return;
        }
        platform.synchronize();
    }
}

/// Has the next drain, which comes at once, take what is open.
///
/// Returns how many objects that are. What was hurried before does not count again.
pub fn hurry<P: Platform>(platform: &P, lock: &impl Lock<Shard<P>>) -> usize {
    lock.with(|shard| shard.hurry(platform))
}

/// As [`hurry()`], and frees the spare blocks.
///
/// Returns how many objects and blocks that are.
pub fn shrink<P: Platform>(platform: &P, lock: &impl Lock<Shard<P>>) -> usize {
    let (open, spares) = lock.with(|shard| {
        let open = shard.hurry(platform);
        // To be dropped without the lock.
        let spares = mem::replace(&mut shard.spares, Stack::EMPTY);
        shard.publish(platform);
        (open, spares)
    });
    open + spares.len
}
