// SPDX-License-Identifier: GPL-2.0
//! A lane that is ready to boot, and its boots.

use crate::base::arch::Arch;
use crate::base::cache::{self, Cache, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit};
use crate::build::modules::Modules;
use crate::facts::boot::{BootFacts, ENDING, Ended};
use crate::facts::ending::{Ending, Phase};
use crate::guest::accel::{self, Accel};
use crate::guest::boot::{Guest, Outcome, PhaseLimits};
use crate::guest::root;
use crate::host::own_tools::own_tools;
use crate::host::qemu;
use crate::lane::spec::Lane;
use crate::verdict::hang::shows_more_than_a_hang;
use crate::verdict::standards::Standards;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two lines of a boot lay 60 seconds at most, an emulated arm64's beside a compiler.
const SILENCE: Duration = Duration::from_secs(240);
/// Behind the name of a boot that was repeated: where the attempt that hung is kept.
pub const HUNG: &str = "-hung";
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
        let folder = self.write_steps(name, steps)?;
        let limits = &self.lane.limits;
        let limits = PhaseLimits {
            boot: limits.boot(),
            silence: SILENCE,
            run: limits.run(load),
            shutdown: limits.shutdown(),
        };
        let outcome = self.boot_once(name, limits, env)?;
        // An emulated GICv3 with pseudo-NMIs: interrupts that nobody acknowledges, for ever.
        let storms = self.lane.arch == Arch::Arm64 && !self.accel.kvm;
        let hung = match outcome.ending {
            Ending::Hung(Phase::Boot, _) => true,
            Ending::Hung(Phase::Run, _) => storms,
            _ => false,
        };
        if !hung {
            return Ok(outcome);
        }
        let standards = Standards::kept(&self.folder)?;
        let facts = BootFacts::read(&folder, &standards.rules)?;
        if shows_more_than_a_hang(&facts, &standards, storms) {
            return Ok(outcome);
        }
        // Seen a few times in hundreds of boots. A kernel that hangs by itself hangs again; one that does not
        // is not to be blamed for its emulator, but nor is it kept quiet.
        let hung = self.folder.join(format!("{name}{HUNG}"));
        cache::remove_dir(&hung)?;
        fs::rename(&folder, &hung)?;
        self.write_steps(name, steps)?;
        let again = self.guest.boot(name, limits, env).or_exit(Exit::Boot)?;
        let took = outcome.took + again.took;
        record_ending(&folder, Outcome { took, ..again })
    }

    /// A boot that is not repeated, of steps that are there.
    pub fn boot_once(
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
    use crate::guest::boot::tests::guest;
    use crate::lane::cases::{Cases, STRESS};
    use crate::lane::plan::{Plan, STRESS_CASE};
    use crate::verdict::standards::Standards;
    use crate::verdict::standards::tests::keep_older;

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

    /// A guest whose virtme-ng is `script`, which has a second to boot.
    fn booted(script: &str) -> (Outcome, tempfile::TempDir) {
        booted_on("x86_64", 60, script)
    }

    fn booted_on(arch: &str, run: u64, script: &str) -> (Outcome, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let lane = small_lane(dir.path(), arch, 1, run);
        let ready = made_up(dir.path(), lane, script);
        let steps = format!("module {STRESS_CASE} {STRESS}.ko");
        (ready.boot("main", &steps, Duration::ZERO).unwrap(), dir)
    }

    pub const FINE: &str = "echo NOLOCKS: guest up; echo NOLOCKS: guest done";

    #[test]
    fn a_boot_that_hangs_is_repeated_once_and_told() {
        let once = format!("if mkdir $HOME/tried; then echo wedged; sleep 1000; else {FINE}; fi");
        let (outcome, dir) = booted(&once);
        assert_eq!(outcome.ending, Ending::Done);
        let kept = fs::read_to_string(dir.path().join("run/main-hung/console.txt")).unwrap();
        assert!(kept.contains("wedged"));
        assert!(matches!(
            booted("sleep 1000").0.ending,
            Ending::Hung(Phase::Boot, _)
        ));
        assert!(!booted(FINE).1.path().join("run/main-hung").exists());
    }

    #[test]
    fn a_run_that_hangs_is_repeated_where_the_emulator_is_known_for_it() {
        let stall = "[  9.0] watchdog: BUG: soft lockup - CPU#2 stuck for 156s! [nolocks/2:505]";
        let failed = "NOLOCKS: case stress begin\n[  9.0] nolocks_stress: not ok 3 raw";
        for (arch, says, repeated) in [
            ("arm64", "", true),
            ("arm64", stall, true),
            ("arm64", failed, false),
            ("arm64", "BUG: scheduling while atomic: a/0/1/0x2", false),
            ("x86_64", "", false),
        ] {
            let script = format!(
                "echo NOLOCKS: guest up; if mkdir $HOME/tried; then echo '{says}'; sleep 1000; \
                else echo NOLOCKS: guest done; fi"
            );
            let (outcome, dir) = booted_on(arch, 1, &script);
            assert_eq!(
                dir.path().join("run/main-hung").exists(),
                repeated,
                "{arch} {says}"
            );
            assert_eq!(outcome.ending == Ending::Done, repeated, "{arch} {says}");
        }
    }

    /// A splat, or a test of our own that never ends, would be forgotten by the second boot.
    #[test]
    fn a_boot_that_shows_more_than_a_hang_is_not_repeated() {
        let case = "    # Subtest: page_alloc_no_locks\\n    ok 1 no_locks_zero";
        let over = format!("{case}\\nnot ok 1 page_alloc_no_locks");
        for (says, repeated) in [
            ("BUG: scheduling while atomic: swapper/0/1/0x2", false),
            (
                "watchdog: BUG: soft lockup - CPU#0 stuck for 156s! [swapper/0:1]",
                false,
            ),
            (case, false),
            (over.as_str(), true),
            ("Linux version 7.3.4", true),
        ] {
            let script = format!(
                "if mkdir $HOME/tried; then printf '{says}\\n'; sleep 1000; else {FINE}; fi"
            );
            let (outcome, dir) = booted(&script);
            assert_eq!(
                dir.path().join("run/main-hung").exists(),
                repeated,
                "{says}"
            );
            assert_eq!(outcome.ending == Ending::Done, repeated, "{says}");
        }
    }

    #[test]
    fn the_standards_of_its_run_say_whether_a_boot_is_repeated() {
        for (says, repeated) in [
            ("on fire", false),
            ("    # Subtest: older", false),
            ("    # Subtest: page_alloc_no_locks", true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let script =
                format!("if mkdir $HOME/tried; then echo '{says}'; sleep 1000; else {FINE}; fi");
            let ready = made_up(dir.path(), small_lane(dir.path(), "x86_64", 1, 60), &script);
            keep_older(&ready.folder);
            let outcome = ready.boot("main", "", Duration::ZERO).unwrap();
            assert_eq!(outcome.ending == Ending::Done, repeated, "{says}");
        }
    }
}
