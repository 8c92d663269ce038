// SPDX-License-Identifier: GPL-2.0
//! `make modules` and `make shell`.

use crate::base::cache;
use crate::base::exit::{Exit, OrExit, fail};
use crate::build::modules::{What, build_modules};
use crate::build::users_kernel::{check_same_tools, check_users_kernel};
use crate::command::args::{OnTop, Where};
use crate::command::job::Job;
use crate::guest::boot::Guest;
use crate::host::setup::{self, Need};
use crate::lane::cases::STRESS;
use crate::lane::plan::MODULES;
use anyhow::{Context, Result};
use std::fs;

impl Job {
    pub fn modules(&self, at: &Where) -> Result<()> {
        let modules = match &at.kdir {
            // Built there by its owner, who keeps the choice of configuration.
            Some(kdir) => {
                if at.lane.is_some() {
                    let what =
                        "LANE= means nothing to `make modules KDIR=`: the tree has a configuration";
                    return Err(fail(Exit::Usage, what));
                }
                let kdir = fs::canonicalize(kdir)
                    .map_err(|e| fail(Exit::Tree, format!("KDIR={}: {e}", kdir.display())))?;
                cache::buildable("KDIR=", &kdir)?;
                let (arch, config) = check_users_kernel(&kdir)?;
                setup::ensure(&self.cache, Need::Lanes, self.yes)?;
                check_same_tools(&kdir, &config)?;
                vec![build_modules(
                    &self.cache,
                    &kdir,
                    arch.kernel(),
                    &self.checkout,
                    What::All,
                )?]
            }
            None => {
                let (_, builds) = self.build_kernels(at)?;
                builds
                    .iter()
                    .map(|(l, b)| self.build_lane_modules(l, b))
                    .collect::<Result<_>>()?
            }
        };
        for m in modules {
            for name in MODULES {
                println!("{}", m.path(name)?.display());
            }
        }
        Ok(())
    }

    pub fn shell(&self, at: &Where, on_top: &OnTop) -> Result<()> {
        at.one_lane("shell")?;
        let (_, builds) = self.build_kernels_with(at, on_top)?;
        let (lane, build) = builds.first().context("no lane")?;
        let modules = self.build_lane_modules(lane, build)?;
        let run = self.run_folder("shell")?;
        let ready = self.ready_with_modules(&run, lane, build, &modules)?;
        println!(
            "in the guest: insmod /mnt/modules/{STRESS}.ko seconds=1; files left in /mnt stay in {}",
            ready.folder.display()
        );
        at_prompt(&ready.guest)
    }
}

/// Boots the guest with this terminal as its own, until its shell ends.
pub fn at_prompt(guest: &Guest) -> Result<()> {
    // A terminal's job control belongs to the guest, so no group of its own here.
    let status = guest
        .command()
        .args(["--user", "root"])
        .status()
        .or_exit(Exit::Boot)?;
    if !status.success() {
        return Err(fail(Exit::Boot, format!("virtme-ng ended with {status}")));
    }
    Ok(())
}
