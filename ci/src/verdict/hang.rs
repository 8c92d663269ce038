// SPDX-License-Identifier: GPL-2.0
//! Whether a boot that hung may be the emulator's fault.

use crate::facts::boot::{BootFacts, CaseFacts};
use crate::verdict::standards::Standards;

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
pub fn shows_more_than_a_hang(facts: &BootFacts, standards: &Standards, storms: bool) -> bool {
    let is_ours = |suite: &String| !standards.cases.of(suite).is_empty();
    let failed = |case: &CaseFacts| case.printed.lines().any(|l| l.starts_with("not ok "));
    let mut reports = facts
        .findings
        .iter()
        .filter(|f| standards.rules.is_report(f));
    let other = reports.any(|f| !(storms && STALLS.contains(&f.rule.as_str())));
    other || facts.open_suites.iter().any(is_ours) || facts.cases.iter().any(failed)
}
