// SPDX-License-Identifier: GPL-2.0
//! KVM or emulation. A /dev/kvm that opens and makes machines may still kill every guest, so KVM is
//! used only where this kernel has booted to its marker under it.

use crate::base::arch::Arch;
use crate::base::cache::{self, Cache};
use crate::facts::ending::Ending;
use crate::guest::boot::{Guest, PhaseLimits};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Accel {
    pub kvm: bool,
    pub why: String,
}

#[derive(Serialize, Deserialize)]
struct KvmProbe {
    boot_id: String,
    accel: Accel,
}

const PROBE_LIMIT: Duration = Duration::from_secs(40);

fn emulated_because(why: &str) -> Accel {
    Accel {
        kvm: false,
        why: why.to_owned(),
    }
}

/// What can be said without a boot.
fn excluded(arch: Arch, device: &Path) -> Option<Accel> {
    if arch.kernel() != std::env::consts::ARCH.replace("aarch64", "arm64") {
        return Some(emulated_because(
            "emulated: the guest's architecture is not the host's",
        ));
    }
    match OpenOptions::new().read(true).write(true).open(device) {
        Err(e) => Some(emulated_because(&format!(
            "emulated: {}: {e}",
            device.display()
        ))),
        Ok(_) => None,
    }
}

pub fn choose(cache: &Cache, guest: &Guest) -> Result<Accel> {
    if let Some(accel) = excluded(guest.arch, Path::new("/dev/kvm")) {
        return Ok(accel);
    }
    if guest.qemu.iter().any(|q| q.contains("-icount")) {
        return Ok(emulated_because("emulated: its instructions are counted"));
    }
    // The machine may differ after its next start, so what was found holds for this one only.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let file = cache.root.join("kvm.json");
    if let Some(last) = cache::read_json::<KvmProbe>(&file)
        && last.boot_id == boot_id
    {
        return Ok(last.accel);
    }
    let accel = probe(guest)?;
    cache::write_json(
        &file,
        &KvmProbe {
            boot_id,
            accel: accel.clone(),
        },
    )?;
    Ok(accel)
}

fn probe(guest: &Guest) -> Result<Accel> {
    let name = "kvm-probe";
    fs::create_dir_all(guest.share.join(name))?;
    fs::write(guest.share.join(name).join("plan"), "")?;
    let limits = PhaseLimits {
        boot: PROBE_LIMIT,
        silence: PROBE_LIMIT,
        run: PROBE_LIMIT,
        shutdown: PROBE_LIMIT,
    };
    let guest = Guest {
        kvm: true,
        ..guest.clone()
    };
    let outcome = guest.boot(name, limits, &[])?;
    Ok(match outcome.ending {
        Ending::Done => Accel {
            kvm: true,
            why: "a guest booted to its marker under KVM".to_owned(),
        },
        Ending::Died(phase) => emulated_because(&format!(
            "emulated: under KVM the guest died during {phase}"
        )),
        Ending::Hung(phase, _) => {
            emulated_because(&format!("emulated: under KVM the guest hung in {phase}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::boot::tests::guest;

    fn probed(script: &str) -> Accel {
        let dir = tempfile::tempdir().unwrap();
        // It tells the two modes apart, so that the probe is seen to ask for KVM.
        let script = format!("case \"$*\" in *--disable-kvm*) exit 9;; esac\n{script}");
        probe(&guest(dir.path(), &script)).unwrap()
    }

    #[test]
    fn only_a_guest_that_reached_its_marker_earns_kvm() {
        assert!(probed("echo NOLOCKS: guest up; echo NOLOCKS: guest done").kvm);
        let dead = probed("echo 'KVM internal error'; exit 0");
        assert!(!dead.kvm);
        assert!(dead.why.contains("died during boot"), "{}", dead.why);
    }

    #[test]
    fn another_architecture_is_emulated() {
        let other = if std::env::consts::ARCH == "x86_64" {
            Arch::Arm64
        } else {
            Arch::X86
        };
        assert!(!excluded(other, Path::new("/dev/null")).unwrap().kvm);
    }

    #[test]
    fn a_device_that_is_not_there_or_may_not_be_opened_is_named() {
        let native = if std::env::consts::ARCH == "x86_64" {
            Arch::X86
        } else {
            Arch::Arm64
        };
        assert_eq!(excluded(native, Path::new("/dev/null")), None);
        // A socket may not be opened, root or not.
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for device in [&socket, &dir.path().join("no-such")] {
            let accel = excluded(native, device).unwrap();
            assert!(!accel.kvm);
            assert!(
                accel.why.contains(&device.display().to_string()),
                "{accel:?}"
            );
        }
    }
}
