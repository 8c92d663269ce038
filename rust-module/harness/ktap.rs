// SPDX-License-Identifier: GPL-2.0

//! The verdict, as KTAP on the kernel log.

use kernel::prelude::*;

use crate::choice;

extern "C" {
    fn nolocks_case_parameter() -> *const c_char;
}

/// How a case ended.
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
pub(crate) fn repeat<T>(
    mut func: impl FnMut() -> Result<T>,
    as_wanted: impl Fn(&T) -> bool,
) -> Result<T> {
    const TRIES: u32 = 3;
    let mut tries = 1;
    let mut result = func()?;

    while !as_wanted(&result) && tries < TRIES {
        tries += 1;
        result = func()?;
    }
    tell_tries(tries);
    Ok(result)
}

/// Says how often something was tried, unless the first try was good enough.
pub(crate) fn tell_tries(tries: u32) {
    if tries > 1 {
        pr_info!("# tries: {tries}\n");
    }
}

/// A case and its name.
pub(crate) type Case<E> = (&'static str, fn(&E) -> Result<Outcome>);

/// The cases to run.
pub(crate) struct Chosen(&'static str);

impl Chosen {
    #[allow(dead_code, reason = "the stress modules are told")]
    pub(crate) const ALL: Self = Self("");

    /// By what the parameter `case=` says.
    pub(crate) fn from_parameter<E>(cases: &[Case<E>]) -> Result<Self> {
        // SAFETY: A string, which nobody writes to once the module's init is called.
        let list = unsafe { CStr::from_char_ptr(nolocks_case_parameter()) };
        let list = list.to_str().map_err(|_| {
            pr_err!("case= is not UTF-8\n");
            EINVAL
        })?;

        if let Some(pattern) = choice::unknown(list, cases.iter().map(|(name, _)| *name)) {
            pr_err!("case={list}: there is no case {pattern:?}; there are:\n");
            for (name, _) in cases {
                pr_err!("  {name}\n");
            }
            return Err(EINVAL);
        }
        Ok(Self(list))
    }

    fn has(&self, name: &str) -> bool {
        choice::is_chosen(self.0, name)
    }
}

/// Runs the cases that are `chosen`; an error if one failed.
///
/// `seed` is what a later run needs to do the same.
pub(crate) fn run<E>(env: &E, cases: &[Case<E>], chosen: &Chosen, seed: u64) -> Result {
    let chosen = cases.iter().filter(|(name, _)| chosen.has(name));
    let mut failed = 0;

    pr_info!("KTAP version 1\n");
    pr_info!("1..{}\n", chosen.clone().count());
    pr_info!("# seed: {seed}\n");
    for (number, (name, case)) in (1..).zip(chosen) {
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
