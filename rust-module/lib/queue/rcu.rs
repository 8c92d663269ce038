// SPDX-License-Identifier: GPL-2.0

//! Grace periods of RCU, as the queue takes note of them.

use kernel::bindings;

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_queue_snapshot(snapshot: *mut bindings::rcu_gp_seq);
    fn nolocks_queue_elapsed(snapshot: *mut bindings::rcu_gp_seq) -> bool;
}

/// The grace period that readers of what was unpublished until now are done after.
pub fn snapshot() -> bindings::rcu_gp_seq {
    let mut snapshot = Default::default();
    // SAFETY: May be called in every context, and writes to the local.
    unsafe { nolocks_queue_snapshot(&mut snapshot) };
    snapshot
}

/// Whether that grace period is over.
pub fn elapsed(mut snapshot: bindings::rcu_gp_seq) -> bool {
    // SAFETY: Only reads the local and RCU's own state.
    unsafe { nolocks_queue_elapsed(&mut snapshot) }
}
