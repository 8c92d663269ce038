// SPDX-License-Identifier: GPL-2.0
//! QEMU: the machine's own; for arm64, whose guests were seen to hang under an older one (docs/runner.md),
//! and where several CPUs count instructions, that of the machine's backports, extracted beside it, where
//! its own is not new enough.

use crate::base::arch::Arch;
use crate::base::cache::Cache;
use crate::base::exit::{Exit, fail};
use crate::base::proc::{check_interrupt, output};
use crate::host::other_suite::Packages;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The first version whose arm64 is not known to hang, and one whose CPUs share the time under `-icount`
/// evenly: in 7.2 one waits for its turn for 100 ms.
const NEW: u32 = 10;

/// With the firmware that they load. Their libraries are those of the machine's own QEMU.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "qemu-system-arm",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    pub program: PathBuf,
    /// Where it was extracted, if it was.
    root: Option<PathBuf>,
}

impl Qemu {
    pub fn at(program: PathBuf) -> Qemu {
        Qemu {
            program,
            root: None,
        }
    }

    /// Debian's QEMU looks for its parts in /usr alone, where another version's may lie.
    pub fn arguments(&self) -> Option<String> {
        let root = self.root.as_ref()?;
        let folders = ["usr/share/qemu", "usr/share/seabios"].map(|f| root.join(f));
        Some(folders.map(|f| format!("-L {}", f.display())).join(" "))
    }

    pub fn environment(&self) -> Option<(&'static str, PathBuf)> {
        let libraries = fs::read_dir(self.root.as_ref()?.join("usr/lib")).ok()?;
        let mut folders = libraries.flatten().map(|f| f.path().join("qemu"));
        Some(("QEMU_MODULE_DIR", folders.find(|f| f.is_dir())?))
    }
}

/// Asked once for each architecture: a program's version does not change during a run.
static FOUND: Mutex<BTreeMap<(&str, u32), Qemu>> = Mutex::new(BTreeMap::new());

pub fn find(cache: &Cache, arch: Arch) -> Result<Qemu> {
    // What hangs in an older one is arm64's interrupt controller.
    find_since(cache, arch, if arch == Arch::Arm64 { NEW } else { 1 })
}

/// One whose CPUs take even turns where each instruction is a nanosecond.
pub fn find_even(cache: &Cache, arch: Arch) -> Result<Qemu> {
    find_since(cache, arch, NEW)
}

fn find_since(cache: &Cache, arch: Arch, oldest: u32) -> Result<Qemu> {
    let mut found = FOUND.lock().expect("nobody panics with it");
    if let Some(qemu) = found.get(&(arch.qemu(), oldest)) {
        return Ok(qemu.clone());
    }
    let own = which::which(arch.qemu()).ok();
    let qemu = choose(own, arch, oldest, || backport(cache))?;
    found.insert((arch.qemu(), oldest), qemu.clone());
    Ok(qemu)
}

fn choose(
    on_path: Option<PathBuf>,
    arch: Arch,
    oldest: u32,
    backport: impl FnOnce() -> Result<PathBuf>,
) -> Result<Qemu> {
    let have = on_path.as_deref().and_then(version);
    if let Some(path) = &on_path
        && have >= Some(oldest)
    {
        return Ok(Qemu::at(path.clone()));
    }
    let tried = backport().and_then(|root| {
        let program = root.join("usr/bin").join(arch.qemu());
        // It may lack a library that this machine does not have.
        output(Command::new(&program).arg("--version"))?;
        Ok(Qemu {
            program,
            root: Some(root),
        })
    });
    match (tried, on_path, have) {
        (Ok(qemu), ..) => Ok(qemu),
        (Err(e), Some(path), Some(have)) => {
            check_interrupt()?;
            eprintln!(
                "{} {have} is used, whose boots may hang now and then and whose CPUs wait long for their \
                 turn; a newer one could not be had: {e:#}",
                arch.qemu()
            );
            Ok(Qemu::at(path))
        }
        (Err(e), ..) => Err(fail(
            Exit::Setup,
            format!("no {} on PATH, and {e:#}", arch.qemu()),
        )),
    }
}

fn backport(cache: &Cache) -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = format!("{}-backports", codename(&release).unwrap_or("stable"));
    Packages {
        folder: "qemu",
        suite: &suite,
        names: PACKAGES,
    }
    .fetched(cache)
}

fn codename(os_release: &str) -> Option<&str> {
    let mut lines = os_release.lines();
    lines.find_map(|l| l.strip_prefix("VERSION_CODENAME="))
}

/// Of `QEMU emulator version 10.0.2 (...)`.
fn version(program: &Path) -> Option<u32> {
    let said = output(Command::new(program).arg("--version")).ok()?;
    let number = said.split("version ").nth(1)?;
    number.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::base::proc::tests::script;

    /// A folder with the machine's QEMU and one that was extracted, of these versions.
    fn programs(own: &str, backport: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("root/usr/bin");
        for folder in [&bin, &dir.path().join("root/usr/lib/x/qemu")] {
            fs::create_dir_all(folder).unwrap();
        }
        let (own_file, said) = (dir.path().join("qemu"), "echo QEMU emulator version");
        script(&own_file, &format!("{said} '{own}'"));
        for arch in [Arch::X86, Arch::Arm64] {
            script(&bin.join(arch.qemu()), &format!("{said} {backport}"));
        }
        (dir, own_file)
    }

    #[test]
    fn the_machines_own_is_taken_where_it_is_new_enough() {
        let (dir, own) = programs("10.0.2 (Debian x)", "10.1");
        let never = || panic!("nothing is to be fetched");
        let qemu = choose(Some(own.clone()), Arch::Arm64, NEW, never).unwrap();
        assert_eq!(qemu, Qemu::at(own));
        assert_eq!((qemu.arguments(), qemu.environment()), (None, None));
        drop(dir);
    }

    #[test]
    fn a_backport_brings_what_it_loads() {
        let (dir, own) = programs("7.2.22", "10.0.2");
        let root = dir.path().join("root");
        let qemu = choose(Some(own), Arch::Arm64, NEW, || Ok(root.clone())).unwrap();
        assert_eq!(qemu.program, root.join("usr/bin/qemu-system-aarch64"));
        assert!(
            qemu.arguments()
                .unwrap()
                .contains("root/usr/share/qemu -L ")
        );
        let (_, modules) = qemu.environment().unwrap();
        assert_eq!(modules, root.join("usr/lib/x/qemu"));
    }

    #[test]
    fn an_older_one_serves_where_no_backport_can_be_had() {
        let (_dir, own) = programs("7.2.22", "");
        let none = || Err(anyhow::anyhow!("no network"));
        let qemu = choose(Some(own.clone()), Arch::Arm64, NEW, none).unwrap();
        assert_eq!(qemu, Qemu::at(own));
        let e = choose(None, Arch::Arm64, NEW, none).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Setup));
        assert!(e.to_string().contains("no network"), "{e}");
    }

    #[test]
    fn x86_64_is_emulated_by_whatever_the_machine_has() {
        let (_dir, own) = programs("7.2.22", "10.0.2");
        let never = || panic!("nothing is to be fetched");
        let qemu = choose(Some(own.clone()), Arch::X86, 1, never).unwrap();
        assert_eq!(qemu, Qemu::at(own));
    }

    #[test]
    fn the_suite_is_the_releases_own() {
        assert_eq!(
            codename("NAME=x\nVERSION_CODENAME=bookworm\n"),
            Some("bookworm")
        );
    }
}
