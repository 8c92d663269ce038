// SPDX-License-Identifier: GPL-2.0

//! Programs of userspace: loads beside a case that this module did not write, and scripts.

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    str::CString,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::{
    task::breathe,
    vm::{
        self,
        Events, //
    }, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_load_start(script: *mut c_char) -> *mut bindings::pid;
    fn nolocks_load_stop(pid: *mut bindings::pid) -> bool;
    fn nolocks_script(script: *mut c_char) -> bool;
}

/// Has `sh` run a script, and says whether it went well. May sleep.
pub(crate) fn run_script(script: &CStr) -> bool {
    // SAFETY: The script is a string that nobody writes to. This is a task that may sleep.
    unsafe { nolocks_script(script.as_char_ptr().cast_mut()) }
}

/// What userspace does meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Shells that fork and wait, one after the other.
    Forks,
    /// Readers of a block device that is larger than memory, each of a part of its own, so that all
    /// that they read has to be reclaimed for what they read next.
    Readers,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Forks => "forks",
            Self::Readers => "readers",
        }
    }

    fn script(self, nth: u32) -> Result<CString> {
        match self {
            Self::Forks => CString::try_from_fmt(fmt!("while :; do (:); done")),
            // null_blk has 250 GB, and never gets there.
            Self::Readers => CString::try_from_fmt(fmt!(
                "exec dd if=/dev/nullb0 of=/dev/null bs=1M skip={} 2>/dev/null",
                nth * 8192
            )),
        }
    }

    /// How much of it there has been, by the kernel's counters.
    fn done(self) -> u64 {
        match self {
            Self::Forks => Events::now().faults(),
            Self::Readers => vm::reclaimed_pages(),
        }
    }
}

/// A running program.
///
/// # Invariants
///
/// `pid` came from `nolocks_load_start()`.
struct Program {
    pid: *mut bindings::pid,
}

impl Program {
    fn start(script: &CString) -> Result<Self> {
        // SAFETY: The script is a string that nobody writes to. This is a task that may sleep.
        let pid = from_err_ptr(unsafe { nolocks_load_start(script.as_char_ptr().cast_mut()) })?;
        // INVARIANT: Started just now.
        Ok(Self { pid })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: By the invariant, and once.
        if !unsafe { nolocks_load_stop(self.pid) } {
            pr_info!("# note: a load ended by itself\n");
        }
    }
}

/// Programs that run until this is dropped.
pub(crate) struct Load {
    kind: Kind,
    _programs: KVec<Program>,
    _ballast: Option<Ballast>,
    before: u64,
}

impl Load {
    /// Page faults, or pages that were reclaimed, of a load that has begun: one fault is not.
    pub(crate) const FELT: u64 = 200;
    /// Four emulated readers have 12 MB a second, and need [`Ballast::LEFT`] until somebody reclaims.
    const PATIENCE: Delta = Delta::from_secs(300);

    /// Starts `n` programs and waits until they can be felt: `None` when they never are, as where
    /// there is no such device.
    pub(crate) fn start(kind: Kind, n: u32) -> Result<Option<Self>> {
        const LOOK: Delta = Delta::from_millis(20);
        let ballast = match kind {
            Kind::Forks => None,
            Kind::Readers => Some(Ballast::new()?),
        };
        let mut programs = KVec::with_capacity(n as usize, GFP_KERNEL)?;
        let before = kind.done();
        for nth in 0..n {
            programs.push(Program::start(&kind.script(nth)?)?, GFP_KERNEL)?;
        }
        let load = Self {
            kind,
            _programs: programs,
            _ballast: ballast,
            before,
        };
        let start = Instant::<Monotonic>::now();
        while load.done() < Self::FELT {
            if start.elapsed() > Self::PATIENCE {
                return Ok(None);
            }
            fsleep(LOOK);
        }
        Ok(Some(load))
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What [`done()`](Self::done) counts.
    pub(crate) fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Forks => "faults",
            Kind::Readers => "reclaimed",
        }
    }

    /// How much the programs have done.
    pub(crate) fn done(&self) -> u64 {
        self.kind.done() - self.before
    }
}

/// Memory that is held, so that little is left for a page cache and all of it is soon in use.
struct Ballast(KVVec<*mut bindings::page>);

impl Ballast {
    const ORDER: c_uint = bindings::MAX_PAGE_ORDER;
    /// What is left to others: enough not to run out, and little to read into.
    const LEFT: usize = 96 << 20 >> kernel::page::PAGE_SHIFT;

    fn new() -> Result<Self> {
        const GFP: bindings::gfp_t = bindings::GFP_NOWAIT | bindings::__GFP_NOWARN;
        /// More than these machines have.
        const ROOM: usize = 1 << 14;
        let mut blocks = KVVec::with_capacity(ROOM, GFP_KERNEL)?;

        while blocks.len() < ROOM {
            // SAFETY: This is a task.
            let page = unsafe { bindings::alloc_pages(GFP, Self::ORDER) };
            if page.is_null() {
                break;
            }
            blocks.push_within_capacity(page)?;
            breathe();
        }
        let mut ballast = Self(blocks);
        // From everywhere, so that each zone has its share.
        let give_back = (Self::LEFT >> Self::ORDER).min(ballast.0.len());
        for nth in 0..give_back {
            let at = nth * ballast.0.len() / give_back;
            if let Some(page) = ballast.0.get_mut(at) {
                Self::free(core::mem::replace(page, core::ptr::null_mut()));
            }
        }
        Ok(ballast)
    }

    fn free(page: *mut bindings::page) {
        if !page.is_null() {
            // SAFETY: Obtained in `new()` with this order; whoever calls this has it for himself.
            unsafe { bindings::__free_pages(page, Self::ORDER) };
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        for page in self.0.iter() {
            Self::free(*page);
            breathe();
        }
    }
}
