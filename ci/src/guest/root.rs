// SPDX-License-Identifier: GPL-2.0
//! The guest's root folder where the host's own does not serve: another architecture's userland,
//! unpacked from Debian's packages without running any of it.

use crate::base::arch::Arch;
use crate::base::cache::{Cache, remove_dir};
use crate::base::exit::{Exit, OrExit, fail, perhaps_network};
use crate::base::pins::PINS;
use crate::base::proc::run_lines;
use crate::base::progress::Progress;
use crate::source::debian::{KEYRING, machine_archive};
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Part of the folder's name: a change of what is in it makes a new one.
const RECIPE: u32 = 7;

/// What virtme-ng's shell script runs during boot, and what is nowhere else. Emulated and under lockdep a
/// program starts several times faster without shared libraries.
const APPLETS: &[&str] = &[
    "base64", "cat", "chmod", "chown", "cp", "cut", "date", "dmesg", "env", "grep", "hostname",
    "id", "install", "ip", "ln", "ls", "mkdir", "mktemp", "mount", "poweroff", "ps", "readlink",
    "rm", "sed", "setsid", "sleep", "sort", "stty", "sync", "touch", "umount", "uname",
];

/// In the guest all are root.
const ANYBODY: &str = "auth required pam_permit.so\naccount required pam_permit.so\npassword required pam_permit.so\n\
    session required pam_permit.so\n";

/// What packages' scripts would write, which are not run.
const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\n"),
    ("etc/shadow", "root:*:19000:0:99999:7:::\n"),
    ("etc/fstab", ""),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    // By su virtme-ng opens a shell; PAM gives up where a policy includes a file that is not there, and it
    // reads `other` for every program.
    ("etc/pam.d/su", ANYBODY),
    ("etc/pam.d/other", ANYBODY),
];

pub fn ensure(cache: &Cache, arch: Arch) -> Result<Option<PathBuf>> {
    if arch == Arch::X86 {
        return x86_host(std::env::consts::ARCH).map(|()| None);
    }
    let dir = cache
        .dir("roots")?
        .join(format!("arm64-{}-{RECIPE}", PINS.debian.guest));
    let _alone = cache.lock("roots")?;
    if !dir.exists() {
        make(cache, &dir)
            .context("making the arm64 guest's root")
            .or_exit(Exit::Setup)?;
    }
    Ok(Some(dir))
}

/// The host's own root serves no other architecture, and there is no recipe for x86_64's.
fn x86_host(host: &str) -> Result<()> {
    if host != "x86_64" {
        return Err(fail(
            Exit::Setup,
            format!(
                "an x86_64 lane boots from the root folder of an x86_64 machine, and this one is {host}: name an arm64 lane with LANE="
            ),
        ));
    }
    Ok(())
}

fn make(cache: &Cache, dir: &Path) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(fail(
            Exit::Setup,
            "mmdebstrap makes the arm64 guest's root folder, and needs root once",
        ));
    }
    let parent = cache.dir("roots")?;
    let next = parent.join("next");
    remove_dir(&next)?;
    let mut progress = Progress::new("arm64 root from Debian", 0);
    let mut said = String::new();
    let status = run_lines(&mut unpack(&next, machine_archive()?.as_deref()), |line| {
        progress.say(line);
        said += &format!("{line}\n");
    })?;
    if !status.success() {
        let lines: Vec<&str> = said.lines().collect();
        return Err(fail(
            Exit::Setup,
            format!(
                "mmdebstrap failed{}:\n{}",
                perhaps_network(&said),
                lines[lines.len().saturating_sub(12)..].join("\n")
            ),
        ));
    }
    for sub in [
        "opt", "srv", "mnt", "root", "home", "sys", "dev", "run", "tmp",
    ] {
        fs::create_dir_all(next.join(sub))?;
    }
    for (file, text) in FILES {
        fs::write(next.join(file), text)?;
    }
    let busybox = ["usr/bin/busybox", "bin/busybox"]
        .into_iter()
        .find(|p| next.join(p).exists())
        .context("busybox-static holds no busybox")?;
    for applet in APPLETS {
        let folders = ["usr/bin", "usr/sbin"].map(|folder| next.join(folder).join(applet));
        let packaged = folders.iter().find(|path| path.symlink_metadata().is_ok());
        let link = packaged.unwrap_or(&folders[1]);
        if packaged.is_some() {
            fs::remove_file(link)?;
        }
        symlink(format!("/{busybox}"), link)?;
    }
    let packages = fs::read_dir(next.join("var/cache/apt/archives"))?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned() + "\n");
    let mut packages: Vec<String> = packages.collect();
    packages.sort();
    fs::write(next.join("nolocks-packages"), packages.concat())?;
    // virtme-ng's script mounts something at each of these that there is.
    for left in [
        "var/cache",
        "var/lib/apt",
        "var/lib/dpkg",
        "var/log",
        "var/tmp",
    ] {
        remove_dir(&next.join(left))?;
    }
    fs::set_permissions(&next, fs::Permissions::from_mode(0o755))?;
    fs::rename(&next, dir)?;
    progress.finish("ready");
    Ok(())
}

/// apt does the fetching, so whatever the machine's apt can reach will do. Nothing is run, and no device
/// is made, so the cache may be mounted nodev.
fn unpack(root: &Path, archive: Option<&str>) -> Command {
    let suite = &PINS.debian.guest;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args([
            "--mode=root",
            "--variant=extract",
            "--architectures=arm64",
            "--include=?or(?essential,?priority(required))",
            // Not busybox's insmod: after a failed load it loads once more, by the older system call.
            "--include=busybox-static,kmod",
            // /bin is a link, which bookworm leaves to a package's scripts.
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            // The archives' names are the list of packages.
            "--skip=output/dev,cleanup/apt",
            // apt's own user may not enter a cache below a home folder.
            "--aptopt=APT::Sandbox::User \"root\"",
            suite,
        ])
        .arg(root);
    if let Some(uri) = archive {
        // A whole line: mmdebstrap takes no mirror+file: alone.
        mmdebstrap.arg(format!("deb [signed-by={KEYRING}] {uri} {suite} main"));
    }
    mmdebstrap
}

/// The packages that a root holds, for a run's metadata.
pub fn packages(root: &Path) -> Vec<String> {
    fs::read_to_string(root.join("nolocks-packages"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    /// `make shell` had no prompt on the arm64 lanes: "su: Critical error - immediate abort".
    #[test]
    fn su_needs_no_file_that_a_package_script_writes() {
        for policy in ["etc/pam.d/su", "etc/pam.d/other"] {
            let (_, text) = FILES.iter().find(|(f, _)| *f == policy).unwrap();
            assert!(!text.contains("include"), "{policy}");
            for kind in ["auth", "account", "session"] {
                assert!(
                    text.lines().any(|l| l.starts_with(kind)),
                    "{policy}: {kind}"
                );
            }
        }
    }

    /// Of Debian's cloud images: debootstrap took this for an address, and died.
    #[test]
    fn mirror_lists_go_to_mmdebstrap_as_a_whole_line() {
        let line = |archive| crate::base::proc::show(&unpack(Path::new("/r"), archive));
        let mirrored = line(Some("mirror+file:/etc/apt/mirrors/debian.list"));
        let whole = format!(
            "deb [signed-by={KEYRING}] mirror+file:/etc/apt/mirrors/debian.list {} main",
            PINS.debian.guest
        );
        assert!(mirrored.contains(&whole), "{mirrored}");
        assert!(!line(None).contains("deb ["));
    }

    /// A cache on nodev or noexec: nothing is run there, and no device made.
    #[test]
    fn a_root_needs_neither_devices_nor_programs_that_run() {
        let line = crate::base::proc::show(&unpack(Path::new("/r"), None));
        for word in ["--variant=extract", "--skip=output/dev"] {
            assert!(line.contains(word), "{line}");
        }
    }

    #[test]
    fn an_x86_guest_needs_an_x86_host() {
        assert!(x86_host("x86_64").is_ok());
        let e = x86_host("aarch64").unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Setup));
    }
}
