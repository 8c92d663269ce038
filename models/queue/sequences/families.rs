// SPDX-License-Identifier: GPL-2.0
// Included once for the source as it is and once for each bug in it.

use super::{address, number, runner, shard::*};
use proptest::prelude::*;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

const SHARDS: usize = 3;

/// An object, and the objects that its destructor pushes.
struct Member {
    shard: usize,
    children: Vec<usize>,
    head: UnsafeCell<Head>,
    freed: Cell<bool>,
}

struct Cellar<T>(RefCell<T>);

impl<T> Lock<T> for Cellar<T> {
    fn with<R>(&self, func: impl FnOnce(&mut T) -> R) -> R {
        func(&mut self.0.borrow_mut())
    }

    fn try_with<R>(&self, func: impl FnOnce(&mut T) -> R) -> Option<R> {
        Some(self.with(func))
    }
}

struct Local {
    state: Cellar<Shard<Family>>,
    waiting: RefCell<Waiting<Family>>,
    freed: Cell<u64>,
}

/// A queue whose objects have destructors that push.
struct Family {
    gp_seq: Cell<usize>,
    memory: bool,
    shards: [Local; SHARDS],
    members: Vec<Member>,
}

// SAFETY: As for the world; nobody reads.
unsafe impl Platform for Family {
    type Page = Box<Block<Self>>;
    type Snapshot = usize;
    const PERIOD: usize = 1;
    const PAUSE: usize = 1;

    fn snapshot(&self) -> usize {
        self.gp_seq.get() + 1
    }

    fn elapsed(&self, snapshot: &usize) -> bool {
        self.gp_seq.get() >= *snapshot
    }

    fn same(&self, one: &usize, other: &usize) -> bool {
        one == other
    }

    fn synchronize(&self) {
        self.gp_seq.set(self.gp_seq.get() + 1);
    }

    fn page(&self) -> Option<Self::Page> {
        let mut slot = Box::new(MaybeUninit::uninit());
        self.memory.then(|| {
            Block::init(&mut slot);
            // SAFETY: Initialised right above.
            unsafe { slot.assume_init() }
        })
    }

    fn page_mightsleep(&self) -> Option<Self::Page> {
        self.page()
    }

    fn now(&self) -> usize {
        0
    }

    fn kick(&self) {}

    fn set_shrinkable(&self, _count: usize) {}

    fn adopt(&self, _object: Object) -> bool {
        true
    }

    unsafe fn reclaim(&self, _kind: Option<Kind>, objects: &mut [Object]) {
        for member in objects.iter().map(|object| &self.members[number(*object)]) {
            assert!(!member.freed.replace(true));
            member.children.iter().for_each(|nth| self.push(*nth));
        }
    }
}

impl Family {
    /// Object `nth` is a child of an earlier one, or of nobody, and pushed to a shard.
    fn new(memory: bool, births: &[(prop::sample::Index, usize)]) -> Self {
        let mut members: Vec<Member> = Vec::new();
        let mut roots = Vec::new();

        for (nth, (parent, shard)) in births.iter().enumerate() {
            // As likely as each of the others.
            match parent.index(nth + 1) {
                parent if parent < nth => members[parent].children.push(nth),
                _ => roots.push(nth),
            }
            members.push(Member {
                shard: *shard,
                children: Vec::new(),
                head: UnsafeCell::default(),
                freed: Cell::new(false),
            });
        }
        let family = Self {
            gp_seq: Cell::new(0),
            memory,
            shards: std::array::from_fn(|_| Local {
                state: Cellar(RefCell::new(Shard::new())),
                waiting: RefCell::new(Waiting::new()),
                freed: Cell::new(0),
            }),
            members,
        };
        roots.into_iter().for_each(|nth| family.push(nth));
        family
    }

    fn push(&self, nth: usize) {
        let member = &self.members[nth];
        let lock = &self.shards[member.shard].state;
        let head = NonNull::new(member.head.get());

        // SAFETY: The heads live as long as the family; freeing is a note in a book.
        let pushed = unsafe { push(self, lock, true, address(nth), Kind::Slab, head) };
        assert_eq!(pushed, Pushed::Queued);
    }

    fn finish(&self) {
        finish(
            self,
            &self.shards,
            |local| {
                let _rest = drain(self, &local.state, &mut local.waiting.borrow_mut(), true);
                let ready = local.waiting.borrow_mut().take_ready();
                let freed = reclaim(self, &local.state, ready);
                local.freed.set(local.freed.get() + freed);
            },
            |local| local.freed.get(),
            |local| local.state.with(|shard| shard.counts().pushed),
        );
    }
}

/// Drops 2,000 queues with random families in them.
pub fn check() -> Result<(), String> {
    let births = prop::collection::vec((any::<prop::sample::Index>(), 0..SHARDS), 0..30);

    runner()
        .run(&(any::<bool>(), births), |(memory, births)| {
            let family = Family::new(memory, &births);
            family.finish();
            let left = family.members.iter().filter(|m| !m.freed.get()).count();
            match left {
                0 => Ok(()),
                left => Err(TestCaseError::fail(format!("{left} objects are left"))),
            }
        })
        .map_err(|err| err.to_string())
}
