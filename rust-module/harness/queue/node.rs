// SPDX-License-Identifier: GPL-2.0

//! Objects that know whether they have been freed, and the ways to push them.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Full,
            Relaxed, //
        },
        Atomic, //
    }, //
};

use crate::{
    context::Context,
    nolocks::page::{
        alloc_page_nolocks,
        NoLocksFlags,
        NoLocksPage, //
    },
    queue::{
        impl_has_bulk_head,
        Accepts,
        BulkHead,
        Hooks,
        Object,
        Owned,
        Plain,
        Policy,
        Queue, //
    }, //
};

/// Objects that a queue was handed, and those that it gave back.
pub(crate) static PUSHED: Atomic<u64> = Atomic::new(0);
pub(crate) static RETURNED: Atomic<u64> = Atomic::new(0);
/// Objects that a queue has freed.
pub(crate) static FREED: Atomic<u64> = Atomic::new(0);
/// The same by the CPU that has made them.
pub(crate) static FREED_OF: [Atomic<u64>; 64] = [const { Atomic::new(0) }; 64];
/// Objects that had been freed already when they were freed.
pub(crate) static CORRUPT: Atomic<u64> = Atomic::new(0);

/// What a freed object has for a mark.
const POISON: u64 = 0x6b6b_6b6b_6b6b_6b6b;

/// Where an object comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Kmalloc,
    Vmalloc,
    KVmalloc,
}

impl Origin {
    pub(crate) const ALL: [Self; 3] = [Self::Kmalloc, Self::Vmalloc, Self::KVmalloc];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kmalloc => "kmalloc",
            Self::Vmalloc => "vmalloc",
            Self::KVmalloc => "kvmalloc",
        }
    }
}

/// An object that readers can tell from a freed one, and from any other.
pub(crate) struct Node {
    head: BulkHead,
    mark: Atomic<u64>,
    cpu: usize,
}

impl_has_bulk_head! {
    impl HasBulkHead for Node { self.head }
}

impl Node {
    pub(crate) fn new() -> Self {
        static NEXT: Atomic<u64> = Atomic::new(1);

        Self {
            head: BulkHead::new(),
            mark: Atomic::new(NEXT.fetch_add(1, Relaxed)),
            // SAFETY: Only reads a number.
            cpu: unsafe { bindings::raw_smp_processor_id() as usize },
        }
    }

    /// What is the same as long as the object is, or nothing if it was freed.
    pub(crate) fn mark(&self) -> Option<u64> {
        let mark = self.mark.load(Relaxed);
        (mark != POISON).then_some(mark)
    }
}

/// A node in the box that it needs.
pub(crate) enum Boxed {
    Kmalloc(KBox<Node>),
    Vmalloc(VBox<Node>),
    KVmalloc(KVBox<Node>),
}

impl Boxed {
    pub(crate) fn new(origin: Origin) -> Result<Self> {
        let node = Node::new();

        Ok(match origin {
            Origin::Kmalloc => Self::Kmalloc(KBox::new(node, GFP_KERNEL)?),
            Origin::Vmalloc => Self::Vmalloc(VBox::new(node, GFP_KERNEL)?),
            Origin::KVmalloc => Self::KVmalloc(KVBox::new(node, GFP_KERNEL)?),
        })
    }

    /// Hands the node to the queue, or gets it back. Who has published it may drop it only after a
    /// grace period.
    pub(crate) fn push<R: Accepts<Node>>(self, queue: &Queue<R>, how: How) -> Option<Self> {
        PUSHED.add(1, Relaxed);
        let back = match self {
            Self::Kmalloc(node) => how.push(queue, node).map(Self::Kmalloc),
            Self::Vmalloc(node) => how.push(queue, node).map(Self::Vmalloc),
            Self::KVmalloc(node) => how.push(queue, node).map(Self::KVmalloc),
        };
        if back.is_some() {
            RETURNED.add(1, Relaxed);
        }
        back
    }
}

/// A way to push.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Push,
    Headless,
    Try,
}

impl How {
    pub(crate) const ALL: [Self; 3] = [Self::Push, Self::Headless, Self::Try];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Headless => "push_headless",
            Self::Try => "try_push",
        }
    }

    pub(crate) fn is_legal(self, ctx: Context) -> bool {
        self == Self::Try || ctx != Context::Nmi
    }

    fn push<R, O>(self, queue: &Queue<R>, node: O) -> Option<O>
    where
        R: Accepts<Node>,
        O: Owned<Value = Node>,
    {
        let back = match self {
            Self::Push => {
                queue.push(node);
                None
            }
            Self::Headless => queue.push_headless(node).err(),
            Self::Try => queue.try_push(node).err(),
        };
        // SAFETY: Nodes are only read where `readers` has published them, and that waits for a grace
        // period before it drops what came back.
        back.map(|node| unsafe { node.assume_unread() })
    }
}

static ASKED: Atomic<u64> = Atomic::new(0);
static FAIL_NTH: Atomic<u64> = Atomic::new(u64::MAX);
static FAIL_FROM: Atomic<u64> = Atomic::new(u64::MAX);
/// Every so many blocks one fails, as the parameter says; 0 for none.
pub(crate) static FAIL_EVERY: Atomic<u64> = Atomic::new(0);

static STEPS: Atomic<u64> = Atomic::new(0);
static FAIL_STEP: Atomic<u64> = Atomic::new(u64::MAX);
static HELD: Atomic<bool> = Atomic::new(false);
static FAIL_PUSHES: Atomic<bool> = Atomic::new(false);

/// Poisons what it frees, and lets pages be had or not as a test wants.
pub(crate) struct Watched(());

impl Watched {
    /// Makes the `nth` block from now on fail, and with `no_more` all after it.
    pub(crate) fn fail(nth: Option<u64>, no_more: bool) {
        let nth = nth.unwrap_or(u64::MAX);

        ASKED.store(0, Relaxed);
        FAIL_NTH.store(nth, Relaxed);
        FAIL_FROM.store(if no_more { nth } else { u64::MAX }, Relaxed);
    }

    /// Makes all blocks fail that are asked for in the context of a push.
    #[allow(dead_code, reason = "the controls need it not")]
    pub(crate) fn fail_pushes(fail: bool) {
        FAIL_PUSHES.store(fail, Relaxed);
    }

    /// Whether this block is to be had.
    fn has_block() -> bool {
        let nth = ASKED.fetch_add(1, Relaxed);

        nth != FAIL_NTH.load(Relaxed)
            && nth < FAIL_FROM.load(Relaxed)
            && (nth + 1).checked_rem(FAIL_EVERY.load(Relaxed)) != Some(0)
    }

    /// How many blocks were asked for since then.
    pub(crate) fn asked() -> u64 {
        ASKED.load(Relaxed)
    }

    /// Makes the `nth` step of creating a queue fail.
    pub(crate) fn fail_step(nth: Option<u64>) {
        STEPS.store(0, Relaxed);
        FAIL_STEP.store(nth.unwrap_or(u64::MAX), Relaxed);
    }

    /// How many steps there were since then.
    pub(crate) fn steps() -> u64 {
        STEPS.load(Relaxed)
    }

    /// Keeps what is queued from being freed, as if grace periods took that long.
    pub(crate) fn hold() -> Held {
        HELD.store(true, Relaxed);
        Held(())
    }
}

/// As long as it lives nothing is freed. A queue that is dropped or a barrier would wait for ever.
#[must_use]
pub(crate) struct Held(());

impl Drop for Held {
    fn drop(&mut self) {
        HELD.store(false, Relaxed);
    }
}

// SAFETY: It asks RCU.
unsafe impl Hooks for Watched {
    fn step() -> Result {
        match STEPS.fetch_add(1, Relaxed) == FAIL_STEP.load(Relaxed) {
            true => Err(ENOMEM),
            false => Ok(()),
        }
    }

    fn elapsed(snapshot: bindings::rcu_gp_seq) -> bool {
        !HELD.load(Relaxed) && Plain::elapsed(snapshot)
    }

    fn page() -> Option<NoLocksPage> {
        if FAIL_PUSHES.load(Relaxed) || !Self::has_block() {
            return None;
        }
        alloc_page_nolocks(NoLocksFlags::NONE).ok()
    }

    fn page_mightsleep() -> Option<NoLocksPage> {
        Self::has_block().then(Plain::page_mightsleep).flatten()
    }
}

// SAFETY: It frees nothing. Dropping a node does nothing.
unsafe impl Policy for Watched {
    const DESTROYS: bool = true;
    const OWNS_MEMORY: bool = false;

    unsafe fn destroy(node: Object) {
        // SAFETY: The caller owns the value, which is a node, as nothing else is accepted. Shared,
        // because of readers who should not be there.
        let node = unsafe { node.cast::<Node>().as_ref() };

        if node.mark.xchg(POISON, Full) == POISON {
            CORRUPT.add(1, Relaxed);
        }
        FREED.add(1, Relaxed);
        FREED_OF[node.cpu % FREED_OF.len()].add(1, Relaxed);
    }
}

// SAFETY: `destroy()` takes nodes.
unsafe impl Accepts<Node> for Watched {}
