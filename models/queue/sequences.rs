// SPDX-License-Identifier: GPL-2.0
//! Random sequences of everything that can happen, against a model of what the queue must do.

const CAPACITY: usize = 4;

macro_rules! variant {
    ($name:ident) => {
        #[allow(
            unused,
            clippy::match_single_binding,
            clippy::unnecessary_min_or_max,
            reason = "a variant is for one bug"
        )]
        mod $name {
            use super::CAPACITY;

            mod capacity {
                pub(super) use super::super::CAPACITY;
            }
            pub mod shard {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
            }
            include!("sequences/run.rs");

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
variant!(long_list_left);
variant!(long_list_not_told);
variant!(list_joins_older);
variant!(one_list);
variant!(drains_for_nothing);
variant!(dry_for_ever);
variant!(drain_asks_as_a_push);
variant!(polls_on);
variant!(wrong_order);
variant!(barrier_too_short);
variant!(barrier_without_flush);
variant!(finish_too_short);
variant!(hurried_again);
variant!(lost_when_locked);

#[test]
fn the_queue_does_what_the_model_does() {
    faithful::check("").unwrap();
    faithful::check_long_list("").unwrap();
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
fn a_long_list_that_waits_until_it_is_old_is_found() {
    long_list_left::check_long_list("rests").unwrap_err();
}

#[test]
fn a_long_list_that_nobody_is_told_of_is_found() {
    long_list_not_told::check("wake").unwrap_err();
}

#[test]
fn a_list_that_is_freed_with_an_older_one_is_found() {
    list_joins_older::check("freed under a reader").unwrap_err();
}

#[test]
fn a_list_that_waits_for_a_newer_one_is_found() {
    one_list::check("freed, not").unwrap_err();
}

#[test]
fn drains_for_nothing_are_found() {
    drains_for_nothing::check("wake").unwrap_err();
}

#[test]
fn a_shard_that_never_asks_for_blocks_again_is_found() {
    dry_for_ever::check("wake").unwrap_err();
}

#[test]
fn a_drain_that_asks_as_a_push_is_found() {
    drain_asks_as_a_push::check("may not sleep").unwrap_err();
}

#[test]
fn looks_at_what_cannot_have_elapsed_are_found() {
    polls_on::check("polls").unwrap_err();
}

#[test]
fn blocks_in_the_wrong_order_are_found() {
    wrong_order::check("freed, not").unwrap_err();
}

#[test]
fn a_barrier_that_does_not_wait_for_the_work_that_reclaims_is_found() {
    barrier_without_flush::check("left by a barrier").unwrap_err();
}
