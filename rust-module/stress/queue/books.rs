// SPDX-License-Identifier: GPL-2.0

//! What the queue says of itself, and what became of every object.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::ordering::Relaxed, //
};

use crate::{
    env::{
        push_all,
        Env,
        NAME, //
    },
    ktap::{
        tell_tries,
        Outcome, //
    },
    node::{
        Watched,
        CORRUPT,
        FREED,
        PUSHED,
        RETURNED, //
    },
    queue::{
        Queue,
        CAPACITY, //
    }, //
};

extern "C" {
    fn nolocks_read_seq_file(path: *const c_char, buffer: *mut u8, length: usize) -> isize;
}

/// What debugfs shows is what the queue says.
pub(crate) fn debugfs(env: &Env) -> Result<Outcome> {
    const LENGTH: usize = 512;
    /// Somebody may come for what was pushed at any time, and more than once.
    const MOST: u32 = 16;
    let queue = Queue::<Watched>::new(NAME)?;
    let mut text = [0; LENGTH];

    // So that each number is another one: a full block that is freed, and what stays open meanwhile.
    push_all(&queue, CAPACITY)?;
    let mut tries = 0;
    let (read, stats) = loop {
        queue.barrier();
        push_all(&queue, 1)?;
        tries += 1;
        let before = queue.stats();
        // SAFETY: The path is a string, and the buffer as long as we say. This is a task of userspace.
        let read = unsafe {
            nolocks_read_seq_file(
                c"/sys/kernel/debug/nolocks_queue_stress/stats".as_char_ptr(),
                text.as_mut_ptr(),
                LENGTH,
            )
        };
        let after = queue.stats();
        // What has not changed was the same in between.
        if before == after && after.backlog() == 1 || tries == MOST {
            break (read, after);
        }
    };
    tell_tries(tries);
    if read == -(bindings::ENOENT as isize) {
        return Ok(Outcome::Skipped("there is no debugfs"));
    }
    kernel::error::to_result(read as c_int)?;
    let pushed = CAPACITY as u64 + u64::from(tries);
    let should = [
        ("pushed", stats.pushed),
        ("freed", stats.freed),
        ("returned", stats.returned),
        ("backlog", stats.backlog()),
        ("twice", stats.twice),
        ("listed", stats.listed),
        ("blocks_full", stats.full),
        ("blocks_aged", stats.aged),
        ("lists", stats.lists),
        ("blockless", stats.blockless),
        ("drains", stats.drains),
    ];
    let text = core::str::from_utf8(&text[..read as usize]).map_err(|_| EINVAL)?;
    let is_same = text.lines().count() == should.len()
        && text.lines().zip(should).all(|(line, (name, value))| {
            line.split_once(' ')
                .is_some_and(|(key, number)| key == name && number.parse() == Ok(value))
        });
    Ok(Outcome::Passed
        .check(
            stats.pushed == pushed && (stats.freed == pushed - 1 || env.config.fail),
            fmt!("nothing was to be seen: {stats:?}"),
        )
        .check(is_same, fmt!("{stats:?}, but debugfs says {text:?}")))
}

/// Over all queues that there were.
pub(crate) fn ledger(_env: &Env) -> Result<Outcome> {
    let (freed, corrupt) = (FREED.load(Relaxed), CORRUPT.load(Relaxed));

    let (pushed, returned) = (PUSHED.load(Relaxed), RETURNED.load(Relaxed));

    pr_info!("# objects: freed={freed} corrupt={corrupt}\n");
    pr_info!("# balance: pushed={pushed} freed={freed} returned={returned}\n");
    Ok(Outcome::Passed
        .check(corrupt == 0, fmt!("{corrupt} objects were freed twice"))
        .check(
            pushed == freed + returned,
            fmt!("{pushed} were pushed, {freed} freed and {returned} returned"),
        ))
}
