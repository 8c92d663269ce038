// SPDX-License-Identifier: GPL-2.0
//! The exit codes, each of which names the stage that failed (docs/runner.md lists them).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, ErrorKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    Usage = 2,
    Setup = 10,
    Tree = 11,
    Config = 12,
    Build = 13,
    Boot = 14,
    Hang = 15,
    Splat = 16,
    Test = 17,
    Interrupted = 130,
}

/// An error together with the stage it belongs to.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    error: anyhow::Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl std::error::Error for Failure {}

pub fn fail(exit: Exit, message: impl fmt::Display) -> anyhow::Error {
    anyhow::Error::new(Failure {
        exit,
        error: anyhow::anyhow!("{message}"),
    })
}

pub const FULL: &str = "the disk is full: make room, or set NOLOCKS_CACHE to a larger disk";
/// What other programs say of it.
pub const FULL_SAID: &str = "No space left on device";

fn disk_full(error: &anyhow::Error) -> bool {
    let full =
        |e: &io::Error| matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    error
        .chain()
        .any(|e| e.downcast_ref::<io::Error>().is_some_and(full))
}

/// What apt, cargo, pip and their libraries say of a network that is not there, in lower case.
const NETWORK_SAID: [&str; 11] = [
    "could not resolve",
    "name resolution",
    "name or service not known",
    "could not connect",
    "unable to connect",
    "failed to establish a new connection",
    "connection refused",
    "connection reset",
    "network is unreachable",
    "timed out",
    "network failure",
];

/// For people: a doubt that is worth saying only if a failed command said something of the kind.
pub fn perhaps_network(said: &str) -> &'static str {
    let said = said.to_lowercase();
    if NETWORK_SAID.iter().any(|words| said.contains(words)) {
        " (is the network there?)"
    } else {
        ""
    }
}

/// For people: what to do about a full disk, which whoever met it did not know.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    if disk_full(&error) {
        error.context(FULL)
    } else {
        error
    }
}

/// The stage of an error; `None` for a defect of the runner itself.
pub fn stage(error: &anyhow::Error) -> Option<Exit> {
    // Whatever was to be written, the machine lacks room for it.
    if disk_full(error) {
        return Some(Exit::Setup);
    }
    error
        .chain()
        .find_map(|e| e.downcast_ref::<Failure>())
        .map(|f| f.exit)
}

pub trait OrExit<T> {
    /// Files the error under `exit` unless a deeper layer has already filed it.
    fn or_exit(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|e| {
            let error = e.into();
            match stage(&error) {
                Some(_) => error,
                None => anyhow::Error::new(Failure { exit, error }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_deepest_stage_wins_through_context() {
        let error = Err::<(), _>(fail(Exit::Config, "no CONFIG_RUST"))
            .context("lane x")
            .or_exit(Exit::Build)
            .unwrap_err();
        assert_eq!(stage(&error), Some(Exit::Config));
        assert!(format!("{error:#}").contains("lane x: no CONFIG_RUST"));
    }

    #[test]
    fn a_full_disk_is_a_matter_of_setup() {
        let full = || Err::<(), _>(io::Error::from(ErrorKind::StorageFull));
        let error = full().context("cannot write x").unwrap_err();
        assert_eq!(stage(&error), Some(Exit::Setup));
        let error = full().or_exit(Exit::Tree).context("copying").unwrap_err();
        assert_eq!(stage(&error), Some(Exit::Setup));
        assert!(format!("{:#}", explained(error)).starts_with(FULL));
    }

    #[test]
    fn the_network_is_doubted_only_where_it_was_complained_of() {
        for (said, doubted) in [
            (
                "Err:1 http://x trixie InRelease\n  Could not resolve 'x'",
                true,
            ),
            ("  Temporary failure resolving 'x': name resolution", true),
            (
                "warning: spurious network error (3 tries remaining): [7] Could not connect to server",
                true,
            ),
            (
                "NewConnectionError('<x>: Failed to establish a new connection: [Errno 111]')",
                true,
            ),
            ("E: Unable to locate package clang-22", false),
            (
                "E: The repository 'http://x trixie Release' is not signed.",
                false,
            ),
            ("error[E0308]: mismatched types", false),
            ("No space left on device", false),
        ] {
            assert_eq!(!perhaps_network(said).is_empty(), doubted, "{said}");
        }
    }

    #[test]
    fn an_unfiled_error_has_no_stage() {
        assert_eq!(stage(&anyhow::anyhow!("bug")), None);
    }
}
