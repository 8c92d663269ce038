// SPDX-License-Identifier: GPL-2.0
//! How a boot ended, and in which of its phases.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What the guest says when it is up, and when its steps were carried out.
pub const UP: &str = "NOLOCKS: guest up";
pub const DONE: &str = "NOLOCKS: guest done";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Boot,
    Run,
    Shutdown,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Boot => "boot",
            Phase::Run => "run",
            Phase::Shutdown => "shutdown",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The steps were carried out and the machine went off.
    Done,
    /// The machine went off before the steps were carried out.
    Died(Phase),
    Hung(Phase, Duration),
}

impl Ending {
    /// As far as the console tells, of a boot that left nothing else: one that went off in the middle,
    /// and one that hung, look the same.
    pub fn by_console(console: &str) -> Ending {
        match (console.contains(DONE), console.contains(UP)) {
            (true, _) => Ending::Done,
            (_, true) => Ending::Died(Phase::Run),
            _ => Ending::Died(Phase::Boot),
        }
    }
}
