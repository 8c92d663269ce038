// SPDX-License-Identifier: GPL-2.0
// What the queue stands on in the model, a part of run.rs.

/// The kernel, as far as the queue can tell.
#[derive(Default)]
struct World {
    /// Odd while a grace period is in progress.
    gp_seq: Cell<usize>,
    now: Cell<usize>,
    memory: Cell<bool>,
    /// Whether who asks for a block may sleep.
    may_sleep: Cell<bool>,
    /// How often it was asked whether a grace period is over.
    polls: Cell<usize>,
    shrinkable: Cell<usize>,
    /// Blocks that exist.
    pages: Rc<Cell<usize>>,
    kicks: Cell<usize>,
    /// By object, the grace period that the readers of the moment of the push are done after.
    safe_at: RefCell<Vec<usize>>,
    adopted: RefCell<BTreeSet<usize>>,
    freed: RefCell<BTreeSet<usize>>,
    complaints: RefCell<Vec<String>>,
}

impl World {
    fn snap(&self) -> usize {
        (self.gp_seq.get() + 3) & !1
    }

    fn complain(&self, what: String) {
        self.complaints.borrow_mut().push(what);
    }
}

struct Page(Box<Block<World>>, Rc<Cell<usize>>);

impl Drop for Page {
    fn drop(&mut self) {
        self.1.set(self.1.get() - 1);
    }
}

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

fn address(nth: usize) -> Object {
    NonNull::new((nth + 1) as *mut _).unwrap()
}

fn number(object: Object) -> usize {
    object.as_ptr() as usize - 1
}

// SAFETY: Readers are done when the grace period is over, and snapshots only grow.
unsafe impl Platform for World {
    type Page = Page;
    type Snapshot = usize;
    const PERIOD: usize = PERIOD;
    const PAUSE: usize = PAUSE;

    fn snapshot(&self) -> usize {
        self.snap()
    }

    fn elapsed(&self, snapshot: &usize) -> bool {
        self.polls.set(self.polls.get() + 1);
        self.gp_seq.get() >= *snapshot
    }

    fn same(&self, one: &usize, other: &usize) -> bool {
        one == other
    }

    fn synchronize(&self) {
        self.gp_seq.set(self.snap());
    }

    fn page(&self) -> Option<Page> {
        if self.may_sleep.get() {
            self.complain("asked for a block as one that may not sleep".to_owned());
        }
        self.page_mightsleep()
    }

    fn page_mightsleep(&self) -> Option<Page> {
        let mut slot = Box::new(MaybeUninit::uninit());
        self.memory.get().then(|| {
            self.pages.set(self.pages.get() + 1);
            Block::init(&mut slot);
            // SAFETY: Initialised right above.
            Page(unsafe { slot.assume_init() }, self.pages.clone())
        })
    }

    fn now(&self) -> usize {
        self.now.get()
    }

    fn kick(&self) {
        self.kicks.set(self.kicks.get() + 1);
    }

    fn set_shrinkable(&self, count: usize) {
        self.shrinkable.set(count);
    }

    fn adopt(&self, object: Object) -> bool {
        self.adopted.borrow_mut().insert(number(object))
    }

    unsafe fn reclaim(&self, kind: Option<Kind>, objects: &mut [Object]) {
        for nth in objects.iter().copied().map(number) {
            let safe_at = self.safe_at.borrow()[nth];
            if self.gp_seq.get() < safe_at {
                self.complain(format!("{nth} freed under a reader"));
            }
            if !self.freed.borrow_mut().insert(nth) {
                self.complain(format!("{nth} freed twice"));
            }
            if kind.is_some_and(|kind| (kind == Kind::Single) != is_single(nth)) {
                self.complain(format!("{nth} freed as {kind:?}"));
            }
        }
    }
}

/// Of which kind an object is shows in its number.
fn is_single(nth: usize) -> bool {
    nth % 2 == 1
}

/// A lock that is found taken after so many tries, or else a cell with another name.
struct Taken<T>(RefCell<T>, Cell<usize>);

impl<T> Lock<T> for Taken<T> {
    fn with<R>(&self, func: impl FnOnce(&mut T) -> R) -> R {
        func(&mut self.0.borrow_mut())
    }

    fn try_with<R>(&self, func: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.1.set(self.1.get().checked_sub(1)?);
        Some(self.with(func))
    }
}
