// SPDX-License-Identifier: GPL-2.0
//! Pushes, drains, grace periods and readers, in small: every interleaving in which threads are
//! preempted no more than [`PREEMPTIONS`] times. What they wait for does not count.

use std::io::{stderr, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

/// So that two objects make a block full.
const CAPACITY: usize = 2;

const PREEMPTIONS: usize = 3;

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
            include!("interleavings/scenes.rs");
        }
    };
}
variant!(faithful);
variant!(snapshot_at_opening);
variant!(block_not_waited_for);
variant!(list_not_waited_for);
variant!(lost_wakeup);
variant!(timer_not_rearmed);
variant!(barrier_too_short);
variant!(barrier_without_flush);
variant!(one_list);
variant!(barrier_and_one_list);
variant!(not_settled);
variant!(no_grace_period_at_the_end);
variant!(finish_too_short);
variant!(books_backwards);
variant!(lost_when_locked);

fn explore(scene: fn()) {
    let count = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    let counted = count.clone();
    builder.check(move || {
        scene();
        counted.fetch_add(1, Relaxed);
    });
    // The harness would keep what print!() says of a test that passes, and `make check` shows it.
    let count = count.load(Relaxed);
    let line = format!("explored {count} interleavings of the queue\n");
    stderr().write_all(line.as_bytes()).unwrap();
}

/// What `message` is about must be the reason why the bug in a scene is found.
fn found(scene: fn(), message: &str) {
    let panic = std::panic::catch_unwind(|| explore(scene)).expect_err("the bug was not found");
    let text = panic
        .downcast_ref::<String>()
        .map_or("no text", String::as_str);
    assert!(text.contains(message), "{text}");
}

#[test]
fn no_reader_meets_a_freed_object_of_a_block() {
    explore(faithful::reader_and_block);
}

#[test]
fn no_reader_meets_a_freed_object_of_a_list() {
    explore(faithful::reader_and_list);
}

#[test]
fn every_push_is_drained() {
    explore(faithful::pushes_and_drain);
}

#[test]
fn a_barrier_waits_for_what_was_pushed_before() {
    explore(faithful::barrier_and_drain);
}

#[test]
fn a_barrier_waits_for_a_list_that_a_later_one_joins() {
    explore(faithful::barrier_and_later_list);
    explore(one_list::barrier_and_later_list);
}

#[test]
fn what_destructors_push_is_waited_for() {
    explore(faithful::children_and_finish);
}

#[test]
fn no_handler_looks_at_a_shard_that_is_gone() {
    explore(faithful::handlers_and_end);
}

#[test]
fn a_try_that_fails_leaves_the_object_alone() {
    explore(faithful::try_and_push);
}

#[test]
fn a_snapshot_that_is_too_old_is_found() {
    found(snapshot_at_opening::reader_and_block, "Causality");
}

#[test]
fn a_block_freed_before_its_snapshot_elapsed_is_found() {
    found(block_not_waited_for::reader_and_block, "Causality");
}

#[test]
fn a_list_freed_before_its_snapshot_elapsed_is_found() {
    found(list_not_waited_for::reader_and_list, "Causality");
}

#[test]
fn a_lost_wakeup_is_found() {
    found(lost_wakeup::pushes_and_drain, "left == right");
}

#[test]
fn a_barrier_that_is_too_short_is_found() {
    found(barrier_too_short::barrier_and_drain, "left == right");
}

#[test]
fn a_timer_that_is_not_armed_again_is_found() {
    found(timer_not_rearmed::pushes_and_drain, "left == right");
}

#[test]
fn a_barrier_that_forgets_a_list_that_a_later_one_joined_is_found() {
    found(
        barrier_and_one_list::barrier_and_later_list,
        "freed by a barrier",
    );
}

#[test]
fn a_barrier_that_does_not_wait_for_the_work_that_reclaims_is_found() {
    found(barrier_without_flush::barrier_and_drain, "left == right");
}

#[test]
fn an_end_that_does_not_wait_for_an_interrupt_to_come_is_found() {
    found(not_settled::handlers_and_end, "Causality");
}

#[test]
fn an_end_that_does_not_wait_for_an_older_handler_is_found() {
    found(no_grace_period_at_the_end::handlers_and_end, "Causality");
}

#[test]
fn an_end_that_overlooks_a_shard_is_found() {
    found(finish_too_short::children_and_finish, "left == right");
}

#[test]
fn books_that_are_read_in_the_wrong_order_are_found() {
    found(books_backwards::children_and_finish, "left == right");
}

#[test]
fn an_object_that_a_failed_try_lost_is_found() {
    found(lost_when_locked::try_and_push, "left == right");
}
