// SPDX-License-Identifier: GPL-2.0
//! Suites, and text that comes close to them, for tests that any of them must pass.

use crate::facts::suite::{BurstStat, Case, Ledger, Locks, Stat, Status, Suite};
use proptest::prelude::*;

pub fn suites() -> impl Strategy<Value = Suite> {
    let name = "[a-z][a-z0-9_]{0,12}";
    let status = prop_oneof![Just(Status::Pass), Just(Status::Fail), Just(Status::Skip)];
    let case = (status, "[A-RT-Za-z0-9][A-Za-z0-9 ]{0,20}[a-z]");
    let cases = prop::collection::btree_map(name, case, 1..20);
    let stat = (any::<u64>(), any::<u64>());
    let stats = prop::collection::btree_map((name, name), stat, 0..8);
    let burst = (name, name, any::<u64>(), any::<u64>());
    let bursts = prop::collection::vec(burst, 0..8);
    let taken = prop::collection::btree_map("[&a-z][a-z>. -]{0,8}[a-z]", any::<u32>(), 0..4);
    let lock = (any::<u64>(), any::<u32>(), any::<u64>(), taken);
    let locks = prop::collection::btree_map((name, name, name), lock, 0..8);
    let ledger = any::<Option<(u64, u64)>>();
    let seed = any::<Option<u64>>();
    (cases, stats, bursts, locks, ledger, seed).prop_map(
        |(cases, stats, bursts, locks, ledger, seed)| Suite {
            name: "nolocks_stress".to_owned(),
            planned: Some(cases.len()),
            cases: cases
                .into_iter()
                .map(|(name, (status, reason))| Case {
                    name,
                    status,
                    reason: (status != Status::Pass).then_some(reason),
                    repetitions: 0,
                })
                .collect(),
            stats: stats
                .into_iter()
                .map(|((context, api), (a, b))| Stat {
                    context,
                    api,
                    attempts: a.max(b),
                    obtained: a.min(b),
                })
                .collect(),
            bursts: bursts
                .into_iter()
                .map(|(context, api, a, b)| BurstStat {
                    context,
                    api,
                    size: a.max(b),
                    obtained: a.min(b),
                })
                .collect(),
            locks: locks
                .into_iter()
                .map(|((context, api, op), (calls, unnamed, rcu, names))| Locks {
                    context,
                    api,
                    op,
                    calls,
                    locks: u64::from(unnamed) + names.values().map(|n| u64::from(*n)).sum::<u64>(),
                    rcu,
                    names: names.into_iter().map(|(k, n)| (k, n.into())).collect(),
                })
                .collect(),
            ledger: ledger.map(|(obtained, freed)| Ledger { obtained, freed }),
            peak: None,
            objects: None,
            seed,
            notes: Vec::new(),
            repeated: 0,
            failed: Vec::new(),
        },
    )
}

/// Text that comes close to KTAP, so that the parsers get past the first line.
pub fn nearly_ktap() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "nolocks_stress: ",
        "KTAP version 1",
        "1..",
        "1",
        "2",
        "99999999999999999999",
        "ok ",
        "not ok ",
        " ",
        "    ",
        "# ",
        "#",
        "SKIP",
        "stat: ",
        "burst: ",
        "ledger: ",
        "locks: ",
        "lock: ",
        "failed: ",
        " of ",
        "seed: ",
        "context=",
        "api=",
        "attempts=",
        "obtained=",
        "Subtest: ",
        "\n",
        "\n",
        "\n",
        "é",
        "[    1.000000] ",
        "-",
        "=",
    ]);
    prop::collection::vec(words, 0..60).prop_map(|w| w.concat())
}

/// A failure prints its case; nothing is written into the checkout.
pub fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
