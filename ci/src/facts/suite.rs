// SPDX-License-Identifier: GPL-2.0
//! What a suite of tests printed: its cases, and what they counted.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Fail,
    Skip,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Case {
    pub name: String,
    pub status: Status,
    pub reason: Option<String>,
    /// How often something in it was done again, because somebody else may have spoilt it.
    #[serde(default)]
    pub repetitions: u64,
}

/// A remark in key=value that nothing is judged by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Note {
    pub what: String,
    pub fields: Vec<(String, String)>,
}

/// Pages asked for and obtained in a context through an API.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stat {
    pub context: String,
    pub api: String,
    pub attempts: u64,
    pub obtained: u64,
}

/// Pages obtained of so many that were asked for at once.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BurstStat {
    pub context: String,
    pub api: String,
    pub size: u64,
    pub obtained: u64,
}

/// Locks that `calls` calls of an operation took; those of RCU, for which nobody waits, are apart.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Locks {
    pub context: String,
    pub api: String,
    pub op: String,
    pub calls: u64,
    pub locks: u64,
    pub rcu: u64,
    #[serde(default)]
    pub names: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ledger {
    pub obtained: u64,
    pub freed: u64,
}

/// What all CPUs pushed to the queue without a pause, and what of it found no block.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Peak {
    pub cpus: u64,
    pub pushed: u64,
    pub listed: u64,
    pub ms: u64,
}

/// Objects that the queue freed, and those that it freed twice.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Objects {
    pub freed: u64,
    pub corrupt: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Suite {
    pub name: String,
    pub planned: Option<usize>,
    pub cases: Vec<Case>,
    #[serde(default)]
    pub stats: Vec<Stat>,
    #[serde(default)]
    pub bursts: Vec<BurstStat>,
    #[serde(default)]
    pub locks: Vec<Locks>,
    #[serde(default)]
    pub ledger: Option<Ledger>,
    #[serde(default)]
    pub peak: Option<Peak>,
    #[serde(default)]
    pub objects: Option<Objects>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Why the case that has not ended yet failed.
    #[serde(skip)]
    pub failed: Vec<String>,
    /// What the case that has not ended yet did again.
    #[serde(skip)]
    pub repeated: u64,
}

impl Suite {
    pub fn count(&self, status: Status) -> usize {
        self.cases.iter().filter(|c| c.status == status).count()
    }
}
