// SPDX-License-Identifier: GPL-2.0
//! A lane that is ready to boot, and its boots.

use crate::base::cache::{Cache, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit};
use crate::build::modules::Modules;
use crate::facts::boot::{BootFacts, ENDING, Ended};
use crate::guest::accel::{self, Accel};
use crate::guest::boot::{Guest, Outcome, PhaseLimits};
use crate::guest::root;
use crate::host::own_tools::own_tools;
use crate::host::qemu;
use crate::lane::spec::Lane;
use crate::verdict::standards::Standards;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two lines of a boot lay 60 seconds at most, an emulated arm64's beside a compiler.
const SILENCE: Duration = Duration::from_secs(240);
const GUEST_SCRIPT: &str = include_str!("../../guest/run.sh");

/// A lane that is ready to boot: everything it needs is in its own folder.
#[derive(Clone)]
pub struct Ready {
    pub lane: Lane,
    pub folder: PathBuf,
    pub guest: Guest,
    pub accel: Accel,
}

impl Ready {
    /// Copies what a boot needs, so that a later build cannot change what a run meant.
    pub fn new(
        cache: &Cache,
        run: &Path,
        lane: &Lane,
        build: &Path,
        modules: Option<(&Modules, &[&str])>,
    ) -> Result<Ready> {
        let folder = run.join(&lane.name);
        fs::create_dir_all(folder.join("modules"))?;
        let image = build.join(lane.arch.image());
        let kernel = folder.join("kernel");
        fs::copy(&image, &kernel).with_context(|| format!("cannot copy {}", image.display()))?;
        fs::copy(build.join(".config"), folder.join("config"))?;
        fs::copy(build.join("System.map"), folder.join("System.map"))?;
        if let Some((modules, names)) = modules {
            for name in names {
                fs::copy(
                    modules.path(name)?,
                    folder.join(format!("modules/{name}.ko")),
                )?;
            }
        }
        write_atomic(&folder.join("lane.config"), &lane.config)?;
        write_atomic(&folder.join("guest.sh"), GUEST_SCRIPT)?;
        Standards::builtin()?.keep(&folder)?;
        Self::again(cache, &folder, lane)
    }

    pub fn again(cache: &Cache, folder: &Path, lane: &Lane) -> Result<Ready> {
        if !folder.join("guest.sh").exists() {
            write_atomic(&folder.join("guest.sh"), GUEST_SCRIPT)?;
        }
        let mut guest = Guest {
            vng: own_tools(cache).vng,
            arch: lane.arch,
            emulator: qemu::find(cache, lane.arch)?,
            image: folder.join("kernel"),
            root: root::ensure(cache, lane.arch)?,
            cpus: lane.cpus,
            memory: lane.memory.clone(),
            cmdline: lane.cmdline.clone(),
            qemu: lane.qemu.clone(),
            kvm: false,
            share: folder.to_owned(),
            home: cache.dir("home")?,
        };
        let accel = accel::choose(cache, &guest)?;
        guest.kvm = accel.kvm;
        Ok(Ready {
            lane: lane.clone(),
            folder: folder.to_owned(),
            guest,
            accel,
        })
    }

    pub fn boot(&self, name: &str, steps: &str, load: Duration) -> Result<Outcome> {
        self.boot_env(name, steps, load, &[])
    }

    pub fn boot_env(
        &self,
        name: &str,
        steps: &str,
        load: Duration,
        env: &[(&str, String)],
    ) -> Result<Outcome> {
        self.write_steps(name, steps)?;
        let limits = &self.lane.limits;
        let limits = PhaseLimits {
            boot: limits.boot(),
            silence: SILENCE,
            run: limits.run(load),
            shutdown: limits.shutdown(),
        };
        self.boot_within(name, limits, env)
    }

    /// A boot of steps that are there.
    pub fn boot_within(
        &self,
        name: &str,
        limits: PhaseLimits,
        env: &[(&str, String)],
    ) -> Result<Outcome> {
        let outcome = self.guest.boot(name, limits, env).or_exit(Exit::Boot)?;
        record_ending(&self.folder.join(name), outcome)
    }

    /// What a boot left.
    pub fn read_facts(&self, boot: &str) -> Result<BootFacts> {
        let standards = Standards::kept(&self.folder)?;
        BootFacts::read(&self.folder.join(boot), &standards.rules)
    }

    /// The steps of a boot, where the guest looks for it.
    pub fn write_steps(&self, name: &str, steps: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        write_atomic(&folder.join("plan"), &format!("{steps}\n"))?;
        let setup: String = self.lane.setup.iter().map(|l| format!("{l}\n")).collect();
        write_atomic(&folder.join("setup"), &setup)?;
        Ok(folder)
    }
}

/// Writes what the console does not say, for who judges the boot, now or later.
fn record_ending(folder: &Path, outcome: Outcome) -> Result<Outcome> {
    let ended = Ended {
        ending: outcome.ending,
        took_s: outcome.took.as_secs_f64(),
    };
    write_json(&folder.join(ENDING), &ended)?;
    Ok(outcome)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::facts::ending::{Ending, Phase};
    use crate::guest::boot::tests::guest;
    use crate::lane::cases::Cases;
    use crate::lane::plan::Plan;
    use crate::verdict::standards::Standards;

    /// `lane` with a guest whose virtme-ng is `script`, both at home in `dir`.
    pub fn made_up(dir: &Path, lane: Lane, script: &str) -> Ready {
        let guest = guest(dir, script);
        let folder = guest.share.clone();
        fs::create_dir_all(&folder).unwrap();
        Standards::builtin().unwrap().keep(&folder).unwrap();
        let accel = Accel {
            kvm: false,
            why: String::new(),
        };
        Ready {
            lane,
            folder,
            guest,
            accel,
        }
    }

    /// A lane that demands next to nothing, and waits for so many seconds.
    pub fn small_lane(dir: &Path, arch: &str, boot: u64, run: u64) -> Lane {
        let lane = format!(
            "#: about = \"x\"\n#: arch = \"{arch}\"\n#: cpus = 1\n#: memory = \"1G\"\n\
            #: limits = {{ boot = {boot}, run = {run}, shutdown = 60 }}\n#: [stress]\n#: obtained = 1\n\
            #: obtained_each = 1\n#: contexts = []\n"
        );
        let path = dir.join("l.config");
        fs::write(&path, lane).unwrap();
        Lane::read(&path, "l", &Cases::builtin()).unwrap()
    }

    /// Loads nothing, so that each boot that ends well is green.
    pub fn idle_plan(lane: &Lane) -> Plan {
        let plan = Plan::new(&lane.stress, None, &Default::default());
        Plan {
            load: None,
            lines: format!("nothing at all seed={}", plan.params["seed"]),
            ..plan
        }
    }

    pub const FINE: &str = "echo NOLOCKS: guest up; echo NOLOCKS: guest done";

    #[test]
    fn a_boot_that_hangs_is_not_tried_again() {
        let script = format!("if mkdir $HOME/tried; then sleep 1000; else {FINE}; fi");
        for arch in ["arm64", "x86_64"] {
            let dir = tempfile::tempdir().unwrap();
            let ready = made_up(dir.path(), small_lane(dir.path(), arch, 1, 60), &script);
            let outcome = ready.boot("main", "", Duration::ZERO).unwrap();
            assert!(
                matches!(outcome.ending, Ending::Hung(Phase::Boot, _)),
                "{arch}"
            );
        }
    }
}
