// SPDX-License-Identifier: GPL-2.0

//! The verdict, as KTAP on the kernel log.

use kernel::prelude::*;

/// How a case ended.
#[allow(dead_code, reason = "the controls skip nothing")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    Skipped(&'static str),
}

impl Outcome {
    /// Says what went wrong unless `ok`.
    pub(crate) fn check(self, ok: bool, what: core::fmt::Arguments<'_>) -> Self {
        if ok {
            return self;
        }
        pr_info!("# failed: {}\n", what);
        Self::Failed
    }
}

/// Calls `func` until it is `as_wanted`, and returns what it was in the end.
///
/// For what others may spoil, who take a lock just then or keep a worker from its CPU: not so often
/// that all the tries have it by chance. What is broken fails in each.
#[allow(dead_code, reason = "nobody is beside the controls")]
pub(crate) fn repeat<T>(
    mut func: impl FnMut() -> Result<T>,
    as_wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    const TRIES: u32 = 3;
    let mut result = func()?;

    for _ in 1..TRIES {
        if as_wanted(&result) {
            break;
        }
        result = func()?;
    }
    Ok(result)
}

/// A case and its name.
pub(crate) type Case<E> = (&'static str, fn(&E) -> Result<Outcome>);

/// The cases to run by what a parameter says, 0 for all of them.
#[allow(dead_code, reason = "the controls are chosen by name")]
pub(crate) fn chosen<E>(mask: u64, cases: &[Case<E>]) -> Result<u64> {
    let all = (1u64 << cases.len()) - 1;

    if mask & !all != 0 {
        pr_err!(
            "mask={:#x} names cases that do not exist: there are {}, {:#x} is all\n",
            mask,
            cases.len(),
            all
        );
        return Err(EINVAL);
    }
    Ok(if mask == 0 { all } else { mask })
}

/// Runs the cases whose bit is set in `mask`; an error if one failed.
///
/// `seed` is what a later run needs to do the same.
pub(crate) fn run<E>(env: &E, cases: &[Case<E>], mask: u64, seed: u64) -> Result {
    let mut failed = 0;
    let mut number = 0;

    pr_info!("KTAP version 1\n");
    pr_info!("1..{}\n", mask.count_ones());
    pr_info!("# seed: {seed}\n");
    for (bit, (name, case)) in cases.iter().enumerate() {
        if mask & 1 << bit == 0 {
            continue;
        }
        number += 1;
        let outcome = case(env).unwrap_or_else(|err| {
            Outcome::Passed.check(false, fmt!("{name} could not run: {err:?}"))
        });
        match outcome {
            Outcome::Passed => pr_info!("ok {number} {name}\n"),
            Outcome::Skipped(why) => pr_info!("ok {number} {name} # SKIP {why}\n"),
            Outcome::Failed => {
                failed += 1;
                pr_info!("not ok {number} {name}\n");
            }
        }
    }
    // Not a number that the loader uses for reasons of its own.
    if failed == 0 {
        Ok(())
    } else {
        Err(EIO)
    }
}
