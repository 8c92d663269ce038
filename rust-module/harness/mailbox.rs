// SPDX-License-Identifier: GPL-2.0

//! A function that an interrupt is to call, while the one who asked waits.

use kernel::{
    sync::atomic::{
        ordering::{
            Acquire,
            Full,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    time::{
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

use crate::task::PATIENCE;

/// A function to run elsewhere, on the stack of the one who waits for it.
struct Call<'a> {
    /// Gets the interrupted instruction pointer, where known.
    func: &'a mut (dyn FnMut(usize) + Send),
    done: Atomic<bool>,
}

/// Where a handler finds what to call.
///
/// # Invariants
///
/// The pointer is null or points to a live `Call` whose owner waits for `done`. Whoever takes it
/// out has sole access until it sets `done`.
pub(crate) struct Mailbox(Atomic<*mut Call<'static>>);

impl Mailbox {
    pub(crate) const fn new() -> Self {
        // INVARIANT: Null.
        Self(Atomic::new(core::ptr::null_mut()))
    }

    /// Runs `func` in the handler that `kick` sets off, and waits by calling `wait`.
    ///
    /// Returns false, without having called `func`, when no handler came.
    pub(crate) fn post(
        &self,
        func: &mut (dyn FnMut(usize) + Send),
        kick: impl FnOnce(),
        wait: impl Fn(),
    ) -> bool {
        /// A machine that lost one handler is not given the time to lose them all.
        static LOST: Atomic<bool> = Atomic::new(false);

        if LOST.load(Relaxed) {
            return false;
        }
        let call = Opaque::new(Call {
            func,
            done: Atomic::new(false),
        });
        let ptr = call.get();

        // INVARIANT: `call` outlives the loops below, which end with `done` or take `call` out.
        while self
            .0
            .cmpxchg(core::ptr::null_mut(), ptr.cast(), Full)
            .is_err()
        {
            wait();
        }
        let start = Instant::<Monotonic>::now();
        kick();
        // SAFETY: `ptr` points to `call`, and `done` is only accessed atomically.
        while !unsafe { (*ptr).done.load(Acquire) } {
            if start.elapsed() > PATIENCE
                && self
                    .0
                    .cmpxchg(ptr.cast(), core::ptr::null_mut(), Full)
                    .is_ok()
            {
                LOST.store(true, Relaxed);
                return false;
            }
            wait();
        }
        true
    }

    /// Answers a call if there is one.
    pub(crate) fn answer(&self, ip: usize) -> bool {
        let call = self.0.xchg(core::ptr::null_mut(), Full);

        if call.is_null() {
            return false;
        }
        // SAFETY: By the invariant the call is live, and as we took it out nobody else uses `func`.
        unsafe { ((*call).func)(ip) };
        // SAFETY: As above; the owner may be gone after this, so it is the last access.
        unsafe { (*call).done.store(true, Release) };
        true
    }
}
