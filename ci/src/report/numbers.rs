// SPDX-License-Identifier: GPL-2.0
//! Figures as people read them.

use crate::facts::suite::Locks;
use std::time::Duration;

fn decimal(tenths: u128) -> String {
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

/// In tenths, rounded down: 100 means every single page, and 0 none.
pub fn percent(obtained: u64, attempts: u64) -> String {
    match (u128::from(obtained) * 1000).checked_div(u128::from(attempts)) {
        None => "–".to_owned(),
        Some(0) if obtained > 0 => "<0.1".to_owned(),
        Some(tenths) => decimal(tenths),
    }
}

/// In tenths, rounded up: 1 means that not a single call took one lock more.
pub fn per_call(locks: &Locks) -> String {
    match u128::from(locks.calls) {
        0 => "–".to_owned(),
        calls => decimal((u128::from(locks.locks) * 10).div_ceil(calls)),
    }
}

pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    groups
        .iter()
        .map(|g| String::from_utf8_lossy(g))
        .collect::<Vec<_>>()
        .join(",")
}

pub fn time(seconds: f64) -> String {
    crate::base::progress::span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::taken;

    #[test]
    fn shares_are_rounded_down() {
        let cases = [
            (0, 0, "–"),
            (0, 9, "0"),
            (1, 10_000, "<0.1"),
            (9_999, 10_000, "99.9"),
            (9, 9, "100"),
        ];
        for (obtained, attempts, text) in cases {
            assert_eq!(percent(obtained, attempts), text);
        }
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9");
    }

    #[test]
    fn locks_for_each_call_are_rounded_up() {
        for (calls, locks, text) in [
            (0, 0, "–"),
            (32, 0, "0"),
            (32, 96, "3"),
            (32, 33, "1.1"),
            (10_000, 10_001, "1.1"),
            (1, u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(
                per_call(&taken("task", "no_locks", "free", calls, locks)),
                text
            );
        }
    }
}
