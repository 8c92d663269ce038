// SPDX-License-Identifier: GPL-2.0
//! Whether a boot that hung may be the emulator's fault.

use crate::facts::scan::{self, Rules};
use crate::lane::cases::suites;
use anyhow::Result;
use regex::Regex;

/// What the kernel says of a hang.
const STALLS: [&str; 8] = [
    "rcu-stall",
    "rcu-starved",
    "soft-lockup",
    "hard-lockup",
    "workqueue-lockup",
    "hung-task",
    "hung-task-owner",
    "unexplained-trace",
];

/// Whether a boot that hung showed more than that: another report of the kernel's, a case that failed, or
/// our KUnit suite in the middle. Such a hang is no accident of the emulator's. Where that `storms`, it may
/// last for so long that the kernel reports it.
pub fn shows_more_than_a_hang(console: &str, storms: bool) -> Result<bool> {
    let rules = Rules::builtin()?;
    let failed = Regex::new(r"nolocks\w*: not ok ")?;
    let begun = |suite: &&str| console.contains(&format!("# Subtest: {suite}"));
    let over = |suite: &str| {
        scan::messages(console).iter().any(|(_, text)| {
            let result = text.trim().trim_start_matches("not ").strip_prefix("ok ");
            result.is_some_and(|r| r.split(' ').nth(1) == Some(suite))
        })
    };
    let ended = suites().filter(begun).all(over);
    let findings = rules.scan(console);
    let mut reports = findings.iter().filter(|f| rules.is_report(f));
    let other = reports.any(|f| !(storms && STALLS.contains(&f.rule.as_str())));
    Ok(!ended || other || failed.is_match(console))
}
