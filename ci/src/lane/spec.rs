// SPDX-License-Identifier: GPL-2.0
//! A lane: one file below `ci/lanes/`, with the fragments that it names. Lines that begin with `#:` are TOML and say
//! how to boot and judge; the rest are options on top of the project's `Kconfig.fragment`.

use crate::base::arch::Arch;
use crate::base::exit::{Exit, OrExit, fail};
use crate::lane::cases::{Cases, NO_KUNIT, QUEUE, STRESS};
use crate::lane::config::Options;
use crate::lane::head::{complaint, header};
use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Suites and their skipped cases.
pub type Skips = BTreeMap<String, BTreeSet<String>>;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub config: String,
    pub about: String,
    pub arch: Arch,
    pub cpus: u32,
    pub memory: String,
    #[serde(default)]
    pub cmdline: Vec<String>,
    /// More arguments for QEMU.
    #[serde(default)]
    pub qemu: Vec<String>,
    /// Lines for the guest's sh, before all else: what cannot be said on the kernel's command line.
    #[serde(default)]
    pub setup: Vec<String>,
    pub limits: Limits,
    #[serde(default)]
    pub stress: Load,
    /// A lane without this table is part of `make test` only when it is named.
    pub test: Option<Load>,
    /// Cases of the stress module that cannot run here, and must say so; all others must run.
    #[serde(default)]
    pub skips: BTreeSet<String>,
    /// A lane without this table leaves the queue alone.
    pub queue: Option<Queue>,
    /// KUnit suites that must have run, and their cases that cannot run here.
    #[serde(default)]
    pub kunit: Skips,
    #[serde(default, rename = "boot")]
    pub boots: Vec<Boot>,
    #[serde(default, rename = "control")]
    pub controls: Vec<Control>,
}

/// Seconds; generous, because they tell a hang from work, not fast from slow.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    boot: u64,
    run: u64,
    shutdown: u64,
}

impl Limits {
    pub fn boot(&self) -> Duration {
        Duration::from_secs(self.boot)
    }
    pub fn run(&self, load: Duration) -> Duration {
        Duration::from_secs(self.run) + load
    }
    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown)
    }
}

/// What the stress module is told, and what it must at least have obtained.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    #[serde(default)]
    pub params: BTreeMap<String, u64>,
    /// Pages obtained by `__GFP_NO_LOCKS` over all contexts.
    pub obtained: u64,
    /// Pages obtained in each of `contexts`.
    pub obtained_each: u64,
    /// The contexts where the contract promises pages.
    pub contexts: Vec<String>,
    /// CPUs in place of the lane's; of `[test]` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
}

/// What the queue's stress module is told, and what it must at least have freed.
#[derive(Debug, Clone, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// Its parameter of this name.
    pub objects: u64,
    /// Objects over all cases.
    pub freed: u64,
    /// Cases that cannot run here, as above.
    #[serde(default)]
    pub skips: BTreeSet<String>,
}

/// One more boot of the same kernel, for its KUnit suites: green but for the controls that share it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    pub name: String,
    /// On top of the lane's own.
    pub cmdline: Vec<String>,
    pub kunit: Skips,
    /// Cases that run or not as the machine will have it.
    #[serde(default)]
    pub either: Skips,
}

/// A deliberate bug whose boot must come out red.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    pub name: String,
    pub module: String,
    pub params: String,
    /// Controls that name the same boot share it, and with a `[[boot]]` if it is one's name. Behind
    /// lockdep's report, which is silent from then on, come only those that are seen without it.
    pub boot: Option<String>,
    /// Splat rules that must fire, and no others may; and what each of their reports must say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<String, String>,
    /// KTAP cases of the module that must fail, and why they must say so; no others may.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fails: BTreeMap<String, String>,
}

/// Rules whose report turns lockdep off.
const LOCKDEP: [&str; 2] = ["invalid-wait-context", "circular-dependency"];
/// Rules whose report needs no lockdep. It turns it off as well.
const WITHOUT_LOCKDEP: [&str; 1] = ["bad-page"];

impl Control {
    pub fn silences_lockdep(&self) -> bool {
        self.expect
            .keys()
            .any(|rule| LOCKDEP.contains(&rule.as_str()))
    }

    fn is_seen_without_lockdep(&self) -> bool {
        let mut rules = self.expect.keys();
        rules.all(|rule| WITHOUT_LOCKDEP.contains(&rule.as_str())) && self.fails.is_empty()
    }
}

impl Lane {
    /// The lane of one run: a file of options makes it another kernel, under a name of its own.
    pub fn with(mut self, config: Option<&Path>, bootargs: Option<&str>) -> Result<Lane> {
        if let Some(path) = config {
            let text = fs::read_to_string(path)
                .with_context(|| format!("CONFIG={}", path.display()))
                .or_exit(Exit::Usage)?;
            let file = path.display().to_string();
            Options::parse(&[(&file, &text)])?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let stem = stem.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_', "-");
            self.name = format!("{}+{stem}", self.name);
            // A comment of its own must not be taken for one of the lane's lines.
            let text = text.replace("#:", "# ");
            self.config = format!("{}\n# {file}:\n{text}\n", self.config.trim_end());
        }
        let bootargs = bootargs.unwrap_or_default();
        check_bootargs(bootargs).or_exit(Exit::Usage)?;
        let words = bootargs.split_whitespace();
        self.cmdline.extend(words.map(str::to_owned));
        Ok(self)
    }

    /// From a file that a run has kept, with the cases of that run: a lane made whole, or one of a time when each
    /// lane's file was.
    pub fn read(path: &Path, name: &str, cases: &Cases) -> Result<Lane> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Lane::named(name, &text, cases).map_err(|(line, what)| {
            fail(Exit::Config, format!("{}:{line}: {what}", path.display()))
        })
    }

    pub(super) fn named(name: &str, text: &str, cases: &Cases) -> Result<Lane, (usize, String)> {
        Ok(Lane {
            name: name.to_owned(),
            config: text.to_owned(),
            ..parse(text, cases)?
        })
    }

    /// The load of `make test`.
    pub fn test_load(&self) -> &Load {
        self.test.as_ref().unwrap_or(&self.stress)
    }

    /// The boots after the main one, each with its controls. Lockdep falls silent after a report, so
    /// whoever causes one has a boot of its own; those that only make a case fail share one, and
    /// others where the lane says so.
    pub fn later_boots(&self) -> Vec<(String, Vec<&Control>)> {
        let green = self.boots.iter().map(|b| (b.name.clone(), Vec::new()));
        let mut boots: Vec<(String, Vec<&Control>)> = green.collect();
        for control in &self.controls {
            let name = match &control.boot {
                Some(name) if boots.iter().any(|(known, _)| known == name) => name.clone(),
                Some(name) => format!("controls-{name}"),
                None if control.expect.is_empty() => "controls-ktap".to_owned(),
                None => format!("control-{}", control.name),
            };
            match boots.iter_mut().find(|(known, _)| *known == name) {
                Some((_, controls)) => controls.push(control),
                None => boots.push((name, vec![control])),
            }
        }
        boots
    }

    /// More of the kernel's command line for one of them: KUnit runs where a boot is judged by it.
    pub fn later_cmdline(&self, boot: &str) -> Vec<String> {
        match self.boots.iter().find(|b| b.name == boot) {
            Some(boot) => boot.cmdline.clone(),
            None => vec![NO_KUNIT.to_owned()],
        }
    }
}

fn parse(text: &str, cases: &Cases) -> Result<Lane, (usize, String)> {
    let header = header(text);
    let lane: Lane = toml::from_str(&header).map_err(|e| complaint(&header, &e))?;
    let bad = |what: &str| Err((1, what.to_owned()));
    let cpus = lane.test.as_ref().and_then(|test| test.cpus);
    if lane.cpus == 0 || cpus == Some(0) {
        return bad("cpus: at least 1");
    }
    if lane.stress.cpus.is_some() {
        return bad("stress: `cpus` is the lane's own, above the tables");
    }
    if lane.limits.boot == 0 || lane.limits.run == 0 || lane.limits.shutdown == 0 {
        return bad("limits: each of boot, run and shutdown must be above 0");
    }
    let stress = std::iter::once((STRESS, &lane.skips));
    let queue = lane.queue.iter().map(|q| (QUEUE, &q.skips));
    let booted =
        std::iter::once(&lane.kunit).chain(lane.boots.iter().flat_map(|b| [&b.kunit, &b.either]));
    let kunit = booted
        .flatten()
        .map(|(suite, skips)| (suite.as_str(), skips));
    for (suite, skips) in stress.chain(queue).chain(kunit) {
        if cases.of(suite).is_empty() {
            return bad(&format!("kunit: ci/cases.toml knows no {suite}"));
        }
        if let Some(name) = skips.iter().find(|s| !cases.of(suite).contains(s)) {
            return bad(&format!("skips: {suite} has no case {name}"));
        }
    }
    let mut names = BTreeSet::from(["main"]);
    if !lane.boots.iter().all(|b| names.insert(&b.name)) {
        return bad("boot: two have the same name, or one is called main");
    }
    for (i, control) in lane.controls.iter().enumerate() {
        for pattern in control.expect.values() {
            if let Err(e) = Regex::new(pattern) {
                return bad(&format!("control: {}: {e}", control.name));
            }
        }
        if control.expect.is_empty() && control.fails.is_empty() {
            return bad(
                "control: `expect` must name the rule that turns it red, or `fails` the case",
            );
        }
        if lane.controls[..i].iter().any(|c| c.name == control.name) {
            return bad("control: two have the same name");
        }
    }
    for (boot, controls) in lane.later_boots() {
        let mut rest = controls.iter().skip_while(|c| !c.silences_lockdep());
        let silencing = rest.next();
        let misplaced = rest.find(|c| !c.is_seen_without_lockdep());
        if let (Some(silencing), Some(misplaced)) = (silencing, misplaced) {
            return bad(&format!(
                "control: {} must come before {} in boot {boot}, because lockdep is silent after its report",
                misplaced.name, silencing.name
            ));
        }
    }
    Ok(lane)
}

/// What virtme-ng cannot pass on, and what keeps the modules' own lines from the console, which is all that a boot is
/// judged by.
fn check_bootargs(text: &str) -> Result<()> {
    if text.contains(['\'', '"', '\\']) {
        bail!("BOOTARGS={text}: a quote or a backslash does not get to the guest");
    }
    for word in text.split_whitespace() {
        let level = word.strip_prefix("loglevel=");
        let is_low = level.is_some_and(|level| level.parse().is_ok_and(|n: u32| n < 7));
        if word == "quiet" || is_low {
            bail!(
                "BOOTARGS={word}: the console would lack what the boot is judged by; it needs loglevel=7 or more"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
