// SPDX-License-Identifier: GPL-2.0
//! The cases that there are: `ci/cases.toml`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub const STRESS: &str = "nolocks_stress";
pub const QUEUE: &str = "nolocks_queue_stress";

static CASES: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    toml::from_str(include_str!("../../cases.toml")).expect("ci/cases.toml is names only")
});

/// The cases that a suite has; none of one that nobody knows.
pub fn cases(suite: &str) -> &'static [String] {
    CASES.get(suite).map_or(&[], Vec::as_slice)
}

pub fn suites() -> impl Iterator<Item = &'static str> {
    CASES.keys().map(String::as_str)
}
