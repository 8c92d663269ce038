// SPDX-License-Identifier: GPL-2.0

//! A CPU that takes no part, and for how long others miss their pages because of it.

use kernel::{
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Release, //
        },
        Atomic, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    }, //
};

use crate::task::wait_for;

/// In which all have to be back, on top of what they take with nobody in the way.
const BOUND: Delta = Delta::from_millis(200);
/// How long a CPU sits with interrupts disabled at most: enough for any worker, and far from what
/// counts as a hang.
pub(crate) const SIT: Delta = Delta::from_secs(30);

/// A CPU that sits with interrupts disabled until another has seen what it does meanwhile.
pub(crate) struct Sitting(Atomic<u32>);

impl Sitting {
    const SITS: u32 = 1;
    const OVER: u32 = 2;

    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Sits until [`Self::end()`], for [`SIT`] at most. To be called with interrupts disabled.
    pub(crate) fn sit(&self) {
        let start = Instant::<Monotonic>::now();

        self.0.store(Self::SITS, Release);
        while self.is_on() && start.elapsed() < SIT {
            kernel::processor::cpu_relax();
        }
        self.end();
    }

    /// Whether the other CPU still sits: what comes later it may have waited for.
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Acquire) == Self::SITS
    }

    /// Waits until the other CPU sits.
    pub(crate) fn wait(&self) {
        wait_for(|| self.is_on());
    }

    pub(crate) fn end(&self) {
        self.0.store(Self::OVER, Release);
    }
}

/// How long the pages were away, beside what and with nothing.
pub(crate) struct Away {
    took: Option<Delta>,
    reference: Delta,
}

impl Away {
    /// Of nanoseconds, negative for never.
    pub(crate) fn new(took: i64, reference: Delta) -> Self {
        Self {
            took: (took >= 0).then_some(Delta::from_nanos(took)),
            reference,
        }
    }

    pub(crate) fn is_short(&self) -> bool {
        self.took
            .is_some_and(|took| took.as_nanos() <= BOUND.as_nanos() + 4 * self.reference.as_nanos())
    }

    pub(crate) fn print(&self, what: &str, beside: &str) {
        let reference = self.reference.as_millis();

        match self.took {
            Some(took) => pr_info!(
                "# {what}: beside={beside} ms={} reference_ms={reference}\n",
                took.as_millis()
            ),
            None => {
                pr_info!("# {what}: beside={beside} ms=never reference_ms={reference}\n")
            }
        }
    }
}
