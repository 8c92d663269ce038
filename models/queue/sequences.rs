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

            pub mod families {
                include!("sequences/families.rs");
            }
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
variant!(finish_too_short);
variant!(hurried_again);
variant!(restless);
variant!(lost_when_locked);

#[test]
fn the_queue_does_what_the_model_does() {
    faithful::check("").unwrap();
}

#[test]
fn what_destructors_push_is_waited_for() {
    faithful::families::check().unwrap();
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

#[test]
fn an_end_that_overlooks_a_shard_is_found() {
    finish_too_short::families::check().unwrap_err();
}

#[test]
fn an_object_that_a_failed_try_lost_is_found() {
    lost_when_locked::check("not Refused").unwrap_err();
}

#[test]
fn an_object_that_is_hurried_again_is_found() {
    hurried_again::check("shrunk").unwrap_err();
}

#[test]
fn a_timer_that_does_not_rest_is_found() {
    restless::check("rests").unwrap_err();
}
