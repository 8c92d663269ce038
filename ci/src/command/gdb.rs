// SPDX-License-Identifier: GPL-2.0
//! `make gdb`: a lane's guest that waits for gdb, from a kernel with debug info.

use crate::base::arch::Arch;
use crate::base::cache::write_atomic;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::progress::Progress;
use crate::build::make::{make, run_logged};
use crate::command::args::{OnTop, Where};
use crate::command::job::{DEFAULT_LANE, Job, check_users_tree};
use crate::command::modules::at_prompt;
use crate::guest::boot::Guest;
use crate::lane::spec::Lane;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

impl Job {
    /// The lane's kernel with debug info: a build of its own, of the same code.
    pub fn with_debug_info(&self, lane: Lane) -> Result<Lane> {
        lane.with(Some(&self.checkout.join("ci/debug-info.config")), None)
    }

    pub fn gdb(&self, at: &Where, on_top: &OnTop) -> Result<()> {
        at.one_lane("gdb")?;
        let lanes = self.lanes(at.lane.as_deref(), DEFAULT_LANE)?;
        let lane = lanes.into_iter().next().context("no lane")?;
        check_users_tree(at.kdir.as_deref())?;
        let gdb = debugger(lane.arch, std::env::consts::ARCH, |name| {
            which::which(name).is_ok()
        })?;
        // CONFIG= may ask for the variables of Rust, which make other code of it.
        let lane = self.with_debug_info(lane)?;
        let lane = lane.with(on_top.config.as_deref(), on_top.bootargs.as_deref())?;
        let (source, builds) = self.build_kernels_of(vec![lane], at.kdir.as_deref())?;
        let (lane, build) = builds.first().context("no lane")?;
        let mut progress = Progress::new("scripts of gdb", 0);
        let mut make = make(&self.cache, lane.arch.kernel(), &source.dir, &build.dir);
        let log = build.dir.join("nolocks-gdb.log");
        run_logged(make.arg("scripts_gdb"), &log, &mut progress).or_exit(Exit::Build)?;
        progress.finish("built");
        let modules = self.build_lane_modules(lane, build)?;
        let run = self.run_folder("gdb")?;
        let mut ready = self.ready_with_modules(&run, lane, build, &modules)?;
        let stub = Stub::halt(&mut ready.guest)?;
        let file = ready.folder.join("gdb.commands");
        let modules = ready.folder.join("modules");
        write_atomic(&file, &commands(&build.dir, &modules, &stub.socket()))?;
        println!(
            "the guest is halted before its first instruction, and has this terminal. In another one:\n  {gdb} -x {}\n\
             It goes on to start_kernel(); `continue` there brings the prompt here, with the modules in /mnt/modules.",
            file.display()
        );
        at_prompt(&ready.guest)
    }
}

/// Debian's gdb knows the machine's own architecture, and gdb-multiarch each.
fn debugger(arch: Arch, host: &str, have: impl Fn(&str) -> bool) -> Result<&'static str> {
    let is_native = arch.kernel() == host.replace("aarch64", "arm64");
    let fit: &[&'static str] = if is_native {
        &["gdb", "gdb-multiarch"]
    } else {
        &["gdb-multiarch"]
    };
    let found = fit.iter().copied().find(|name| have(name));
    found.ok_or_else(|| {
        let what = format!(
            "{0} is not there, and a guest of {1} is debugged by it: apt-get install {0}",
            fit[0],
            arch.kernel()
        );
        fail(Exit::Setup, what)
    })
}

/// Where gdb finds a guest that QEMU starts only when gdb says so. A socket in the file system, because a port
/// would be open to everybody on the machine, and may be taken.
pub struct Stub(TempDir);

impl Stub {
    pub fn halt(guest: &mut Guest) -> Result<Stub> {
        // A socket's path must be short, and TMPDIR may be long.
        let stub = Stub(tempfile::tempdir_in("/tmp").or_exit(Exit::Setup)?);
        let socket = stub.socket();
        (guest.qemu).push(format!(
            "-S -gdb unix:{},server=on,wait=off",
            socket.display()
        ));
        // vmlinux has the addresses that are not random.
        guest.cmdline.push("nokaslr".to_owned());
        Ok(stub)
    }

    pub fn socket(&self) -> PathBuf {
        self.0.path().join("gdb")
    }
}

/// A breakpoint of the processor's: one in memory would be overwritten when the kernel is unpacked there.
fn commands(build: &Path, modules: &Path, socket: &Path) -> String {
    let (build, modules) = (build.display(), modules.display());
    format!(
        "add-auto-load-safe-path {build}\n\
         file {build}/vmlinux\n\
         target remote {}\n\
         hbreak start_kernel\n\
         continue\n\
         echo \\n`apropos lx-` lists the kernel's own commands; after insmod: lx-symbols {modules}\\n\n",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::base::proc::show;
    use crate::command::job::tests::job;
    use crate::lane::config::Options;

    #[test]
    fn a_gdb_that_knows_the_guest_is_used_and_a_missing_one_is_named() {
        let only = |have: &'static str| move |name: &str| name == have;
        for (arch, host, have, want) in [
            (Arch::X86, "x86_64", "gdb", Ok("gdb")),
            (Arch::X86, "x86_64", "gdb-multiarch", Ok("gdb-multiarch")),
            (Arch::X86, "x86_64", "", Err("apt-get install gdb")),
            (Arch::Arm64, "aarch64", "gdb", Ok("gdb")),
            (
                Arch::Arm64,
                "x86_64",
                "gdb",
                Err("apt-get install gdb-multiarch"),
            ),
        ] {
            match (debugger(arch, host, only(have)), want) {
                (Ok(found), want) => assert_eq!(Ok(found), want),
                (Err(e), Err(part)) => {
                    assert_eq!(stage(&e), Some(Exit::Setup));
                    assert!(e.to_string().ends_with(part), "{e}");
                }
                (Err(e), Ok(_)) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn the_guest_waits_at_the_socket_that_gdb_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut guest = crate::guest::boot::tests::guest(dir.path(), "");
        let stub = Stub::halt(&mut guest).unwrap();
        let socket = stub.socket();
        let place = socket.display();
        let line = show(&guest.command());
        for part in [
            &format!("--qemu-opts=-S -gdb unix:{place},server=on,wait=off"),
            "--append nokaslr",
        ] {
            assert!(line.contains(part), "{line}");
        }
        let text = commands(Path::new("/b"), Path::new("/run/modules"), &socket);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..5],
            [
                "add-auto-load-safe-path /b",
                "file /b/vmlinux",
                &format!("target remote {place}"),
                "hbreak start_kernel",
                "continue",
            ]
        );
        assert!(lines[5].starts_with("echo ") && lines[5].contains("lx-symbols /run/modules"));
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn debug_info_is_all_that_the_other_kernel_has_more() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(&dir.path().join("cache"));
        let lane = job.lanes(Some("x86_64-rt"), "").unwrap().remove(0);
        let twin = job.with_debug_info(lane.clone()).unwrap();
        assert_eq!(twin.name, "x86_64-rt+debug-info");
        let options = |lane: &Lane| {
            let text = Options::parse(&[("x", &lane.config)]).unwrap().render();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        let (before, after) = (options(&lane), options(&twin));
        let more: Vec<_> = after.iter().filter(|l| !before.contains(l)).collect();
        assert_eq!(more.len(), after.len() - before.len());
        assert!(
            more.iter()
                .all(|l| l.contains("DEBUG_INFO") || l.contains("GDB"))
        );
    }
}
