// SPDX-License-Identifier: GPL-2.0

//! The part of the queue that needs no kernel: blocks, sealing, snapshots, what to fall back to and
//! when to drain.
//!
//! Compiled into the modules and, the same file, into the tests on the host (`models/queue`), where
//! [`CAPACITY`] is small.
//!
//! # How a pointer travels
//!
//! An *open* block takes pointers. It is *sealed*, and a grace period's snapshot taken, when it is
//! full or has become old: not before its last pointer was queued, and never again, so that it waits
//! for one grace period and for no other block. What has been sealed is taken out of the shard by
//! [`drain()`], and *waits* until the snapshot has elapsed.

use core::{
    ffi::c_void,
    mem::{
        self,
        MaybeUninit, //
    },
    ops::DerefMut,
    ptr::{
        addr_of_mut,
        NonNull, //
    },
};

use super::CAPACITY;

/// Empty blocks that a shard keeps for pushes that cannot allocate one.
pub const SPARES: usize = 4;

/// What the queue stands on.
pub trait Platform: Sized {
    /// A block, and the memory it is in.
    type Page: DerefMut<Target = Block<Self>>;

    /// A grace period to wait for.
    type Snapshot: Copy;

    /// For how many ticks an object may stay in an open block.
    const PERIOD: usize;

    /// The grace period that readers of what was unpublished until now are done after.
    fn snapshot(&self) -> Self::Snapshot;

    /// Whether that grace period is over.
    fn elapsed(&self, snapshot: &Self::Snapshot) -> bool;

    /// Waits until a snapshot taken before this call has elapsed.
    fn synchronize(&self);

    /// An empty block. Called in the context of the push, and by [`drain()`].
    fn page(&self) -> Option<Self::Page>;

    /// A clock that may wrap.
    fn now(&self) -> usize;

    /// Has [`Shard::wake()`] looked at soon. Called under the shard's lock.
    fn kick(&self);

    /// Whether [`Self::adopt()`] may say no to an object in a block, or has to hear of it.
    const ADOPTS: bool = true;

    /// Called by [`drain()`] when it first meets an object. False keeps the object from being freed.
    fn adopt(&self, object: Object) -> bool;

    /// Frees objects, of a kind that only blocks know.
    ///
    /// # Safety
    ///
    /// The caller owns the objects and nobody reads them any more.
    unsafe fn reclaim(&self, kind: Option<Kind>, objects: &mut [Object]);
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
    /// For `kfree()`.
    Slab,
    /// For `vfree()`.
    Vmalloc,
}

impl Kind {
    const COUNT: usize = 2;
}

/// Room for as many pointers as fit in a page.
///
/// # Invariants
///
/// The first `len` of `objects` are initialised and owned by the block.
pub struct Block<P: Platform> {
    next: Option<P::Page>,
    /// [`None`] until the block is sealed.
    snapshot: Option<P::Snapshot>,
    kind: Kind,
    len: usize,
    objects: [MaybeUninit<Object>; CAPACITY],
}

impl<P: Platform> Block<P> {
    /// Makes an empty block of `slot` without touching what it has no use for.
    pub fn init(slot: &mut MaybeUninit<Self>) -> &mut Self {
        let block = slot.as_mut_ptr();

        // SAFETY: Writes within `slot`. INVARIANT: No object is in it.
        unsafe {
            addr_of_mut!((*block).next).write(None);
            addr_of_mut!((*block).snapshot).write(None);
            addr_of_mut!((*block).kind).write(Kind::Slab);
            addr_of_mut!((*block).len).write(0);
        }
        // SAFETY: All fields were written, but for `objects`, which may hold anything.
        unsafe { slot.assume_init_mut() }
    }

    /// Adds an object, for which there must be room, and says whether that was the last room.
    #[inline]
    fn push(&mut self, object: Object) -> bool {
        // INVARIANT: The next one is initialised before it counts.
        self.objects[self.len].write(object);
        self.len += 1;
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
    /// `head` must be valid, and part of `object`, which the list comes to own.
    unsafe fn push(&mut self, mut head: NonNull<Head>, object: Object) -> bool {
        // SAFETY: By the safety requirements; readers of the object leave its head alone.
        let head_ref = unsafe { head.as_mut() };

        if head_ref.object.is_some() {
            return false;
        }
        // INVARIANT: By the safety requirements.
        *head_ref = Head {
            next: self.first.replace(head),
            object: Some(object),
        };
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<(NonNull<Head>, Object)> {
        let mut head = self.first?;
        // SAFETY: By the invariant.
        let head_ref = unsafe { head.as_mut() };
        let object = head_ref.object.take()?;

        self.first = head_ref.next.take();
        self.len -= 1;
        Some((head, object))
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
    /// Pushes that found no block.
    pub blockless: u64,
}

/// A part of the queue, to be protected by a [`Lock`].
///
/// # Invariants
///
/// - If an object is in an open block or listed, `wake` is not [`Wake::Idle`], and `since` is not
///   after the oldest of them was pushed.
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
    starved: bool,
    /// Without the objects in open blocks, which a push need not count.
    counts: Counts,
}

// SAFETY: The objects belong to the shard, and their memory to no task or CPU. Whether their
// destructors may run anywhere is the business of who pushes them.
unsafe impl<P: Platform> Send for Shard<P> where P::Page: Send {}

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
            counts: Counts {
                pushed: 0,
                listed: 0,
                full: 0,
                aged: 0,
                blockless: 0,
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

    /// How many objects [`shrink()`] would hurry.
    fn unhurried(&self) -> usize {
        match self.hurried {
            true => 0,
            false => self.open_len() + self.listed.len,
        }
    }

    /// What [`shrink()`] would return.
    pub fn shrinkable(&self) -> usize {
        self.unhurried() + self.spares.len
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
        if block.push(object) {
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
        block.kind = kind;
        self.open_up(platform);
        self.open[kind as usize] = Some(block);
        self.put(platform, object, kind)
    }

    /// Seals a block that has just become full.
    #[cold]
    fn fill_up(&mut self, platform: &P, kind: Kind) {
        self.counts.full += u64::from(self.seal(platform, kind));
        // A drain comes in any case, which may bring the next blocks before they are missed.
        self.starved |= self.spares.top.is_none();
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
            return Pushed::Queued;
        }

        // A drain can allocate where this push could not.
        self.counts.blockless += 1;
        self.starved = true;
        let Some(head) = head else {
            self.want(platform, Wake::Now);
            return Pushed::Refused;
        };
        self.open_up(platform);
        // SAFETY: By the safety requirements.
        if !unsafe { self.listed.push(head, object) } {
            return Pushed::Twice;
        }
        self.counts.pushed += 1;
        self.counts.listed += 1;
        self.want(platform, Wake::Now);
        Pushed::Queued
    }

    /// Gives out what has to wait for a grace period, `all` or only what has become old.
    fn take(&mut self, platform: &P, all: bool, waiting: &mut Waiting<P>) -> (Stack<P>, bool) {
        if self.has_open() && (all || self.age(platform) >= P::PERIOD) {
            for kind in [Kind::Slab, Kind::Vmalloc] {
                self.counts.aged += u64::from(self.seal(platform, kind));
            }
            // Only one list can wait, because the objects have no room for a snapshot each.
            if waiting.listed.first.is_none() && self.listed.first.is_some() {
                waiting.listed = mem::replace(&mut self.listed, List::EMPTY);
                waiting.snapshot = Some(platform.snapshot());
            }
        }
        // INVARIANT: Nothing is sealed any more. The caller of `drain()` comes back for the rest.
        self.wake = match self.has_open() {
            true => Wake::Later,
            false => Wake::Idle,
        };
        (
            mem::replace(&mut self.sealed, Stack::EMPTY),
            mem::take(&mut self.starved),
        )
    }

    fn age(&self, platform: &P) -> usize {
        platform.now().wrapping_sub(self.since)
    }

    /// Exchanges blocks with `pages`, so that the shard has the spares it should.
    fn restock(&mut self, pages: &mut Stack<P>) {
        while self.spares.len < SPARES {
            let Some(page) = pages.pop() else { break };
            self.spares.push(page);
        }
        while self.spares.len > SPARES {
            let Some(page) = self.spares.pop() else { break };
            pages.push(page);
        }
    }
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
        // SAFETY: By the safety requirements.
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
        // SAFETY: By the safety requirements.
        unsafe { shard.put_anywhere(platform, page, object, kind, head) }
    };

    match wait {
        true => lock.with(put),
        false => lock.try_with(put).unwrap_or(Pushed::Refused),
    }
}

/// What was taken out of a shard and waits for grace periods.
pub struct Waiting<P: Platform> {
    blocks: Stack<P>,
    listed: List,
    /// For `listed`.
    snapshot: Option<P::Snapshot>,
    freed: u64,
    twice: u64,
}

// SAFETY: As for `Shard`.
unsafe impl<P: Platform> Send for Waiting<P> where P::Page: Send {}

impl<P: Platform> Waiting<P> {
    /// Nothing waits.
    pub(super) const fn new() -> Self {
        Self {
            blocks: Stack::EMPTY,
            listed: List::EMPTY,
            snapshot: None,
            freed: 0,
            twice: 0,
        }
    }

    /// How many objects were freed, and how many were not because they had been pushed twice.
    pub fn counts(&self) -> (u64, u64) {
        (self.freed, self.twice)
    }

    /// Whether something waits for a grace period.
    fn is_empty(&self) -> bool {
        self.blocks.top.is_none() && self.listed.first.is_none()
    }

    /// Frees the listed objects if their grace period is over.
    fn reclaim_listed(&mut self, platform: &P) {
        if !self.snapshot.is_some_and(|snap| platform.elapsed(&snap)) {
            return;
        }
        self.snapshot = None;
        while let Some((_, object)) = self.listed.pop() {
            // SAFETY: The list owned the object, and its snapshot has elapsed.
            unsafe { platform.reclaim(None, &mut [object]) };
            self.freed += 1;
        }
    }

    /// Frees the objects of those blocks whose grace period is over, and returns these blocks.
    fn reclaim_blocks(&mut self, platform: &P) -> Stack<P> {
        let mut blocks = mem::replace(&mut self.blocks, Stack::EMPTY);
        let mut emptied = Stack::EMPTY;

        while let Some(mut block) = blocks.pop() {
            if !block.snapshot.is_some_and(|snap| platform.elapsed(&snap)) {
                self.blocks.push(block);
                continue;
            }
            let kind = Some(block.kind);
            // SAFETY: The block owned its objects, and its snapshot has elapsed.
            unsafe { platform.reclaim(kind, block.objects()) };
            self.freed += block.len as u64;
            // INVARIANT: No object is left.
            block.len = 0;
            block.snapshot = None;
            emptied.push(block);
        }
        emptied
    }

    fn adopt_listed(&mut self, platform: &P) {
        let mut all = mem::replace(&mut self.listed, List::EMPTY);

        while let Some((head, object)) = all.pop() {
            if !platform.adopt(object) {
                self.twice += 1;
                continue;
            }
            // SAFETY: Head and object come from a list that owned them.
            let _unused = unsafe { self.listed.push(head, object) };
        }
    }
}

/// What a drain leaves behind for its caller to come back for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rest {
    /// Something waits for a grace period, which has to be started.
    pub waiting: bool,
    /// In how many ticks something open becomes too old.
    pub open: Option<usize>,
}

/// Seals what has become old, or `all`, and frees what no grace period stands in the way of.
pub fn drain<P: Platform>(
    platform: &P,
    lock: &impl Lock<Shard<P>>,
    waiting: &mut Waiting<P>,
    all: bool,
) -> Rest {
    // First, because then the next list can wait.
    waiting.reclaim_listed(platform);

    let had_list = waiting.listed.first.is_some();
    let (mut sealed, starved) = lock.with(|shard| shard.take(platform, all, waiting));

    if !had_list {
        waiting.adopt_listed(platform);
    }
    while let Some(mut block) = sealed.pop() {
        if P::ADOPTS {
            waiting.twice += block.retain(|object| platform.adopt(object)) as u64;
        }
        waiting.blocks.push(block);
    }
    let mut pages = waiting.reclaim_blocks(platform);

    while starved && pages.len < SPARES {
        let Some(page) = platform.page() else { break };
        pages.push(page);
    }
    lock.with(|shard| {
        shard.restock(&mut pages);
        let is_blocked = shard.listed.first.is_some() && waiting.listed.first.is_some();
        let open = || match P::PERIOD.saturating_sub(shard.age(platform)) {
            // The end of the older list's grace period is what has somebody come.
            0 if is_blocked => P::PERIOD,
            ticks => ticks.max(1),
        };
        Rest {
            waiting: !waiting.is_empty(),
            open: shard.has_open().then(open),
        }
    })
}

/// Waits until every object is freed that was pushed before.
///
/// `drain_all` has to call [`drain()`] for all of every shard, and to say whether something is left
/// that is open.
pub fn barrier<P: Platform>(platform: &P, mut drain_all: impl FnMut() -> bool) {
    let left = drain_all();
    platform.synchronize();
    // An older list was in the way of a newer one.
    if left {
        drain_all();
        platform.synchronize();
    }
    drain_all();
}

/// Waits until every object is freed, where nobody pushes any more but destructors.
///
/// `drain` has to call [`drain()`] for all of a shard; `done` says how many of its objects were freed
/// or had been pushed twice, and `pushed` how many were pushed.
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

/// Has the next drain, which comes at once, take what is open, and frees the spare blocks.
///
/// Returns how many objects and blocks that are. What was hurried before does not count again.
pub fn shrink<P: Platform>(platform: &P, lock: &impl Lock<Shard<P>>) -> usize {
    let (open, spares) = lock.with(|shard| {
        let open = shard.unhurried();
        if open != 0 {
            shard.hurried = true;
            shard.since = platform.now().wrapping_sub(P::PERIOD);
            shard.want(platform, Wake::Now);
        }
        // To be dropped without the lock.
        (open, mem::replace(&mut shard.spares, Stack::EMPTY))
    });
    open + spares.len
}
