// SPDX-License-Identifier: GPL-2.0
//! `make repro`: a run once more.

use crate::base::cache;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::command::job::Job;
use crate::host::setup::{self, Need};
use crate::lane::spec::Lane;
use crate::run::finish::{self, finish};
use crate::run::lane::lane_report;
use crate::run::ready::Ready;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

impl Job {
    /// Boots a run's own images again, with the plan that it had and all its boots.
    /// `old` is a run's folder, or its name in the cache.
    pub fn repro(&self, old: &Path) -> Result<()> {
        finish::begin();
        let in_cache = self.cache.root.join("runs").join(old);
        let old = if old.exists() { old } else { &in_cache };
        let mut folders: Vec<PathBuf> = fs::read_dir(old)
            .with_context(|| format!("RUN={}", old.display()))
            .or_exit(Exit::Usage)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.join("metadata.json").exists() && p.join("kernel").exists())
            .collect();
        folders.sort();
        if old.join("kernel").exists() {
            folders.push(old.to_owned());
        }
        if folders.is_empty() {
            return Err(fail(
                Exit::Usage,
                format!("RUN={} is no run's folder", old.display()),
            ));
        }
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let run = self.run_folder("repro")?;
        let mut tally = Tally::default();
        let mut reports = Vec::new();
        for from in folders {
            let metadata: Value =
                cache::read_json(&from.join("metadata.json")).ok_or_else(|| {
                    fail(Exit::Usage, format!("{}: no metadata.json", from.display()))
                })?;
            let name = metadata["lane"]
                .as_str()
                .context("metadata names its lane")?
                .to_owned();
            let folder = run.join(&name);
            fs::create_dir_all(&folder)?;
            for part in ["kernel", "System.map", "config", "lane.config", "modules"] {
                output(
                    Command::new("cp")
                        .arg("--recursive")
                        .arg(from.join(part))
                        .arg(&folder),
                )?;
            }
            let lanes = tempfile::tempdir()?;
            fs::copy(
                from.join("lane.config"),
                lanes.path().join(format!("{name}.config")),
            )?;
            let lane = Lane::load(lanes.path(), &name)?;
            let ready = Ready::again(&self.cache, &folder, &lane)?;
            let plan = serde_json::from_value(metadata["plan"].clone())
                .with_context(|| format!("{} records no plan", from.display()))
                .or_exit(Exit::Usage)?;
            reports.push((
                lane_report(&ready, &metadata, &plan, &mut tally)?,
                metadata.clone(),
            ));
        }
        finish(&run, reports, "untouched", &tally)
    }
}
