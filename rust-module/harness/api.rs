// SPDX-License-Identifier: GPL-2.0

//! The allocators under test, and a page that remembers which one it came from.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
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
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_page_address(page: *mut bindings::page) -> *mut c_void;
}

/// The ledger: what was obtained must have been freed in the end.
pub(crate) static OBTAINED: Atomic<u64> = Atomic::new(0);
pub(crate) static FREED: Atomic<u64> = Atomic::new(0);
/// The part of [`OBTAINED`] for which the kernel has a count of its own: with `__GFP_NO_LOCKS`.
pub(crate) static BY_FLAG: Atomic<u64> = Atomic::new(0);
/// The part for which it has none, or, for those that came from a slot, the same one.
pub(crate) static BY_TRYLOCK: Atomic<u64> = Atomic::new(0);
/// Pages in which somebody else's data was found.
pub(crate) static CORRUPT: Atomic<u64> = Atomic::new(0);

/// A way to get a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `alloc_page_nolocks()`, the one under test.
    NoLocks,
    /// Mainline's `alloc_pages_nolock()`.
    TryLock,
    /// `alloc_pages(GFP_NOWAIT)`.
    GfpNowait,
}

impl Api {
    pub(crate) const ALL: [Self; 3] = [Self::NoLocks, Self::TryLock, Self::GfpNowait];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoLocks => "no_locks",
            Self::TryLock => "nolock",
            Self::GfpNowait => "nowait",
        }
    }

    /// Whether mainline's trylocks are tried in `ctx`: not where `PREEMPT_RT` cannot have them, nor
    /// where UP could not fail. There only the slots are left to [`Api::TryLock`].
    pub(crate) const fn tries_locks(ctx: Context) -> bool {
        match ctx {
            Context::Nmi if !cfg!(CONFIG_SMP) => false,
            _ => !cfg!(CONFIG_PREEMPT_RT) || ctx.trylock_allowed(),
        }
    }

    /// Whether it may be called in `ctx` without a report from lockdep.
    pub(crate) const fn is_legal(self, ctx: Context) -> bool {
        match self {
            Self::NoLocks | Self::TryLock => true,
            // It may take zone->lock, which no raw spinlock may surround.
            Self::GfpNowait => match ctx {
                Context::Task | Context::Softirq => true,
                Context::PreemptOff => !cfg!(CONFIG_PREEMPT_RT),
                _ => false,
            },
        }
    }
}

/// How a page is freed.
enum Source {
    /// By its own drop.
    NoLocks(ManuallyDrop<NoLocksPage>),
    /// With `free_pages_nolock()`.
    TryLock(NonNull<bindings::page>),
    /// With `__free_pages()`.
    GfpNowait(NonNull<bindings::page>),
}

/// A page, its owner's mark in it, and its line in the ledger.
///
/// # Invariants
///
/// The page is directly mapped and this is its only reference.
pub(crate) struct Held {
    source: Source,
    /// What is written in the page, 0 for a page without a mark.
    mark: u64,
}

// SAFETY: Pages belong to no task and no CPU.
unsafe impl Send for Held {}

impl Held {
    const WORDS: usize = PAGE_SIZE / size_of::<u64>();
    /// Where the mark is: both ends and the middle, so that a mark costs little beside a page.
    const MARKS: [usize; 3] = [0, Self::WORDS / 2, Self::WORDS - 1];

    /// Obtains a page and marks it as ours.
    pub(crate) fn obtain(api: Api, flags: NoLocksFlags) -> Option<Self> {
        let mut held = Self::obtain_unmarked(api, flags)?;
        held.mark();
        Some(held)
    }

    /// Allocates a page the ordinary way, and marks it, for `free_pages_nolock()` to free. In a task
    /// that may sleep; `charged` to its memory cgroup or not.
    pub(crate) fn obtain_as_usual(charged: bool) -> Option<Self> {
        let gfp = if charged {
            bindings::GFP_KERNEL_ACCOUNT
        } else {
            bindings::GFP_KERNEL
        };
        // SAFETY: This is a task that may sleep.
        let page = NonNull::new(unsafe { bindings::alloc_pages(gfp, 0) })?;

        OBTAINED.add(1, Relaxed);
        // INVARIANT: As in `obtain_unmarked()`.
        let mut held = Self {
            source: Source::TryLock(page),
            mark: 0,
        };
        held.mark();
        Some(held)
    }

    /// Obtains a page and leaves it as it came.
    ///
    /// `flags` are for [`Api::NoLocks`] only.
    pub(crate) fn obtain_unmarked(api: Api, flags: NoLocksFlags) -> Option<Self> {
        let source = match api {
            Api::NoLocks => {
                let page = alloc_page_nolocks(flags).ok()?;
                BY_FLAG.add(1, Relaxed);
                Source::NoLocks(ManuallyDrop::new(page))
            }
            // SAFETY: May be called in every context where `is_legal()`.
            Api::TryLock => Source::TryLock(NonNull::new(unsafe {
                bindings::alloc_pages_nolock_noprof(0, bindings::NUMA_NO_NODE, 0)
            })?),
            // SAFETY: As above.
            Api::GfpNowait => Source::GfpNowait(NonNull::new(unsafe {
                bindings::alloc_pages(bindings::GFP_NOWAIT, 0)
            })?),
        };

        OBTAINED.add(1, Relaxed);
        if api == Api::TryLock {
            BY_TRYLOCK.add(1, Relaxed);
        }
        // INVARIANT: No flag of ours asks for high memory, so the page is mapped; it is new, so the
        // reference is the only one.
        Some(Self { source, mark: 0 })
    }

    pub(crate) fn page(&self) -> *mut bindings::page {
        match &self.source {
            Source::NoLocks(page) => page.as_ptr(),
            Source::TryLock(page) | Source::GfpNowait(page) => page.as_ptr(),
        }
    }

    fn word(&self, index: usize) -> *mut u64 {
        // SAFETY: By the invariant the page is valid and mapped.
        let start = unsafe { nolocks_page_address(self.page()) }.cast::<u64>();
        start.wrapping_add(index % Self::WORDS)
    }

    fn read(&self, index: usize) -> u64 {
        // SAFETY: `word()` stays within the page, which is ours by the invariant. Volatile, because
        // another owner that should not exist may write to it.
        unsafe { self.word(index).read_volatile() }
    }

    fn write(&mut self, index: usize, value: u64) {
        // SAFETY: As in `read()`.
        unsafe { self.word(index).write_volatile(value) }
    }

    /// Frees the page with `__free_pages()`, and so to no slot. In a task that may sleep.
    pub(crate) fn free_as_usual(mut self) {
        if let Some(page) = NonNull::new(self.page()) {
            // No source frees a page when it is replaced.
            self.source = Source::GfpNowait(page);
        }
    }

    /// Claims the page for this owner.
    pub(crate) fn mark(&mut self) {
        static NEXT: Atomic<u64> = Atomic::new(1);

        self.mark = NEXT.fetch_add(1, Relaxed);
        for index in Self::MARKS {
            self.write(index, self.mark ^ index as u64);
        }
    }

    /// Overwrites the whole page, the mark included.
    pub(crate) fn fill(&mut self, value: u64) {
        self.mark = 0;
        for index in 0..Self::WORDS {
            self.write(index, value);
        }
    }

    /// Whether every word of the page is `value`.
    pub(crate) fn is_filled_with(&self, value: u64) -> bool {
        (0..Self::WORDS).all(|index| self.read(index) == value)
    }

    /// Whether some word of the page is `value`.
    pub(crate) fn has(&self, value: u64) -> bool {
        (0..Self::WORDS).any(|index| self.read(index) == value)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.mark != 0
            && Self::MARKS
                .into_iter()
                .any(|index| self.read(index) != self.mark ^ index as u64)
        {
            CORRUPT.add(1, Relaxed);
        }
        match &mut self.source {
            // SAFETY: Nobody uses the source after this.
            Source::NoLocks(page) => unsafe { ManuallyDrop::drop(page) },
            // SAFETY: By the invariant this is the only reference; legal in every context.
            Source::TryLock(page) => unsafe { bindings::free_pages_nolock(page.as_ptr(), 0) },
            // SAFETY: As above, but legal only where `Api::GfpNowait` is; such pages stay there.
            Source::GfpNowait(page) => unsafe { bindings::__free_pages(page.as_ptr(), 0) },
        }
        FREED.add(1, Relaxed);
    }
}

/// A stack of pages whose room is set aside beforehand.
pub(crate) struct Pile(KVVec<Held>);

impl Pile {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self(KVVec::with_capacity(room, GFP_KERNEL)?))
    }

    /// Makes `n` attempts and returns how many succeeded.
    pub(crate) fn obtain(&mut self, api: Api, flags: NoLocksFlags, n: usize) -> usize {
        (0..n)
            .filter_map(|_| Held::obtain(api, flags))
            // A page for which there is no room is freed at once and does not count.
            .filter_map(|held| self.push(held))
            .count()
    }

    pub(crate) fn push(&mut self, held: Held) -> Option<()> {
        self.0.push_within_capacity(held).ok()
    }

    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.0.pop()
    }

    /// Frees up to `n` pages, the newest first, and says whether any are left.
    pub(crate) fn free(&mut self, n: usize) -> bool {
        self.0.truncate(self.0.len().saturating_sub(n));
        !self.0.is_empty()
    }

    /// Frees all pages as [`Held::free_as_usual()`] does.
    pub(crate) fn free_as_usual(&mut self) {
        while let Some(held) = self.pop() {
            held.free_as_usual();
        }
    }

    pub(crate) fn pages(&mut self) -> &mut [Held] {
        self.0.as_mut_slice()
    }
}
