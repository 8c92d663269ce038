// SPDX-License-Identifier: GPL-2.0
//! Random sequences of everything that can happen, against a model of what the queue must do.

const CAPACITY: usize = 4;

macro_rules! variant {
    ($name:ident) => {
        #[allow(unused, reason = "a variant is for one bug")]
        mod $name {
            use super::CAPACITY;

            pub mod shard {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            include!("sequences/model.rs");
        }
    };
}
variant!(faithful);
variant!(snapshot_at_opening);
variant!(block_not_waited_for);
variant!(list_not_waited_for);
variant!(lost_wakeup);
variant!(late_wakeup);
variant!(barrier_too_short);

#[test]
fn the_queue_does_what_the_model_does() {
    faithful::check("").unwrap();
}

#[test]
fn a_snapshot_that_is_too_old_is_found() {
    snapshot_at_opening::check("freed under a reader").unwrap_err();
}

#[test]
fn a_block_freed_before_its_snapshot_elapsed_is_found() {
    block_not_waited_for::check("freed under a reader").unwrap_err();
}

#[test]
fn a_list_freed_before_its_snapshot_elapsed_is_found() {
    list_not_waited_for::check("freed under a reader").unwrap_err();
}

#[test]
fn a_lost_wakeup_is_found() {
    lost_wakeup::check("wake").unwrap_err();
}

#[test]
fn a_late_wakeup_is_found() {
    late_wakeup::check("wake").unwrap_err();
}

#[test]
fn a_barrier_that_is_too_short_is_found() {
    barrier_too_short::check("left by a barrier").unwrap_err();
}
