// SPDX-License-Identifier: GPL-2.0
//! What a run found, as `report.json` has it and every other report is made of.

use crate::facts::scan::Finding;
use crate::facts::suite::{Locks, Stat, Status, Suite};
use crate::verdict::check::Check;
use crate::verdict::judge::{BootReport, ControlResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LaneReport {
    pub name: String,
    pub arch: String,
    pub kernel: String,
    pub accel: String,
    /// All boots together.
    pub duration_s: f64,
    /// The contexts where the contract promises pages.
    pub promised: Vec<String>,
    pub suite: Option<Suite>,
    pub queue: Option<Suite>,
    /// The queue's, when blocks cannot be allocated.
    pub failing: Option<Suite>,
    pub kunit: Vec<Suite>,
    /// Beside the one with the modules.
    pub boots: Vec<BootReport>,
    pub controls: Vec<ControlResult>,
    pub findings: Vec<Finding>,
    pub debug_locks: Option<bool>,
    /// The folders that hold the console.txt of a boot.
    pub consoles: Vec<String>,
    /// Those of them that have a copy by file and line beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decoded: Vec<String>,
    /// All that was held against the lane's demands.
    pub checks: Vec<Check>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RunReport {
    pub lanes: Vec<LaneReport>,
    pub metadata: Value,
    /// From the command to this report.
    pub total_s: f64,
    /// Whether kernels of an earlier run were there: `cold` or `warm`.
    pub cache: String,
    /// What loom and proptest went through without finding a bug, if that was part of the run.
    #[serde(default)]
    pub explored: Vec<String>,
}

/// Ours first, then mainline's, in the order in which they appear everywhere in the report.
pub const APIS: [&str; 3] = ["no_locks", "nolock", "nowait"];
pub const OPS: [&str; 2] = ["alloc", "free"];

impl LaneReport {
    pub fn stat(&self, context: &str, api: &str) -> Option<&Stat> {
        let stats = &self.suite.as_ref()?.stats;
        stats.iter().find(|s| s.context == context && s.api == api)
    }

    /// Those of the API under test.
    pub fn locks(&self) -> impl Iterator<Item = &Locks> {
        let locks = self.suite.iter().flat_map(|s| &s.locks);
        locks.filter(|l| l.api == APIS[0])
    }

    pub fn obtained(&self) -> u64 {
        let stats = self.suite.iter().flat_map(|s| &s.stats);
        stats.filter(|s| s.api == APIS[0]).map(|s| s.obtained).sum()
    }

    /// Those of the boot with the modules.
    pub fn suites(&self) -> impl Iterator<Item = &Suite> {
        let modules = self.suite.iter().chain(&self.queue).chain(&self.failing);
        modules.chain(&self.kunit)
    }

    /// With the boot that each is of, where it is not that one.
    pub fn all_suites(&self) -> impl Iterator<Item = (Option<&str>, &Suite)> {
        let more = self.boots.iter();
        let more = more.flat_map(|b| b.kunit.iter().map(|s| (Some(b.name.as_str()), s)));
        self.suites().map(|s| (None, s)).chain(more)
    }

    pub fn all_findings(&self) -> impl Iterator<Item = &Finding> {
        let more = self.boots.iter().flat_map(|b| &b.findings);
        self.findings.iter().chain(more)
    }

    /// On, if it was on at the end of each boot.
    pub fn debug_locks(&self) -> Option<bool> {
        let more = self.boots.iter().map(|b| b.debug_locks);
        let mut all = std::iter::once(self.debug_locks).chain(more).flatten();
        all.clone().next().map(|_| all.all(|on| on))
    }

    pub fn count(&self, status: Status) -> usize {
        self.all_suites().map(|(_, s)| s.count(status)).sum()
    }

    /// What failed, without the lane's name before it.
    pub fn problems(&self) -> Vec<String> {
        let failures = self.checks.iter().filter_map(Check::failure);
        let lane = format!("{}: ", self.name);
        let text = |(_, what): (_, String)| what.strip_prefix(&lane).unwrap_or(&what).to_owned();
        failures.map(text).collect()
    }

    pub fn has_passed(&self) -> bool {
        !self.checks.is_empty() && self.problems().is_empty()
    }

    pub fn say_controls_caught(&self) -> String {
        let caught = self.controls.iter().filter(|c| c.ok).count();
        match self.controls.len() {
            0 => "–".to_owned(),
            all => format!("{caught}/{all} red"),
        }
    }

    /// What was done again inside a case, by case.
    pub fn say_repetitions(&self) -> Option<String> {
        let suites = self.all_suites();
        let cases = suites.flat_map(|(_, suite)| {
            let cases = suite.cases.iter().filter(|c| c.repetitions > 0);
            cases.map(|c| format!("{} {} ({})", suite.name, c.name, c.repetitions))
        });
        let cases = Vec::from_iter(cases).join(", ");
        (!cases.is_empty()).then(|| format!("repeated inside a case: {cases}"))
    }

    pub fn say_cases(&self) -> String {
        let (pass, fail, skip) = (Status::Pass, Status::Fail, Status::Skip);
        let mut text = format!("{} ok", self.count(pass));
        for (status, word) in [(fail, "failed"), (skip, "skipped")] {
            match self.count(status) {
                0 => {}
                n => text += &format!(", {n} {word}"),
            }
        }
        text
    }

    pub fn say_lockdep(&self) -> &'static str {
        match self.debug_locks() {
            Some(true) => "on",
            Some(false) => "OFF",
            None => "–",
        }
    }
}

impl RunReport {
    /// Those with pages where they are promised; the page has the others.
    pub fn contexts(&self) -> Vec<&str> {
        let lanes = self.lanes.iter();
        let contexts = lanes.flat_map(|l| l.promised.iter().map(move |c| (l, c.as_str())));
        let asked = contexts.filter(|(l, c)| l.stat(c, APIS[0]).is_some());
        unique(asked.map(|(_, c)| c))
    }

    pub fn lock_contexts(&self) -> Vec<&str> {
        let locks = self.lanes.iter().flat_map(LaneReport::locks);
        unique(locks.map(|l| l.context.as_str()))
    }

    /// The lanes whose kernel was not made of patches/ as it is, and of what it was made.
    pub fn changed(&self) -> Vec<(&str, &'static str)> {
        let lanes = self.metadata.as_array().into_iter().flatten();
        let what = |lane: &'_ Value| {
            let changes = lane["changes"].as_object()?;
            Some(match changes["had_series"] == true {
                true => "the series with changes of the tree's own",
                false => "patches/ on top of work that was not committed",
            })
        };
        let told = lanes.filter_map(|lane| Some((lane["lane"].as_str()?, what(lane)?)));
        told.collect()
    }
}

pub fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut out = Vec::new();
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

pub fn apis<'a>(used: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = unique(used);
    all.sort_by_key(|api| APIS.iter().position(|a| a == api).unwrap_or(APIS.len()));
    all
}
