// SPDX-License-Identifier: GPL-2.0
//! One boot under virtme-ng. virtme-ng has no time limit and its exit status says little, so the
//! markers on the console tell the phases apart, and each phase has a limit of its own.

use crate::base::arch::Arch;
use crate::base::cache::write_atomic;
use crate::base::exit::{Exit, OrExit};
use crate::base::proc::{check_interrupt, clear_environment, spawn_lines};
use crate::base::progress::Progress;
use crate::facts::ending::{DONE, Ending, Phase, UP};
use crate::guest::wedged;
use crate::host::qemu::Qemu;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{LineWriter, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct PhaseLimits {
    pub boot: Duration,
    /// Without a line before the guest is up: not slow, but wedged.
    pub silence: Duration,
    pub run: Duration,
    pub shutdown: Duration,
}

#[derive(Debug, Clone)]
pub struct Guest {
    pub vng: PathBuf,
    pub arch: Arch,
    pub emulator: Qemu,
    pub image: PathBuf,
    /// Only where the host's own root does not serve.
    pub root: Option<PathBuf>,
    pub cpus: u32,
    pub memory: String,
    pub cmdline: Vec<String>,
    pub qemu: Vec<String>,
    pub kvm: bool,
    /// The run folder, /mnt in the guest.
    pub share: PathBuf,
    /// For virtme-ng's own files: the user's settings must not change a run.
    pub home: PathBuf,
}

#[derive(Clone)]
pub struct Outcome {
    pub console: String,
    pub ending: Ending,
    pub took: Duration,
}

impl Guest {
    pub fn command(&self) -> Command {
        let mut vng = Command::new(&self.vng);
        clear_environment(&mut vng);
        vng.arg("--run")
            .arg(&self.image)
            .args(["--skip-modules", "--force-9p"]);
        if !self.kvm {
            vng.arg("--disable-kvm");
        }
        vng.arg("--qemu").arg(&self.emulator.program);
        if let Some(arguments) = self.emulator.arguments() {
            vng.arg(format!("--qemu-opts={arguments}"));
        }
        vng.envs(self.emulator.environment());
        if let Some(root) = &self.root {
            vng.arg("--root").arg(root);
        }
        let mut words: Vec<&str> = vec![
            // 7.3's 9p refuses a source that is not named.
            "root=/dev/root",
            // As virtme-ng mounts it, but cached: nobody changes it, and without a cache each page of a
            // program that starts is asked of the host.
            "rootflags=version=9p2000.L,trans=virtio,access=any,msize=524288,cache=loose",
            // The markers must not fall to rate limits, nor the log to its own size.
            "printk.devkmsg=on",
            "log_buf_len=4M",
            "oops=panic",
            // An emulated CPU beside a compiler may stand still for long: these are for hangs, as are
            // the limits in Kconfig.fragment.
            "watchdog_thresh=60",
            "workqueue.watchdog_thresh=300",
        ];
        if self.arch == Arch::X86 {
            // An emulated timer on a busy host was seen to fail the boot's check of it, which panics.
            words.push("no_timer_check");
        }
        words.extend(self.cmdline.iter().map(String::as_str));
        for word in words {
            vng.args(["--append", word]);
        }
        vng.args(["--cpus", &self.cpus.to_string(), "--memory", &self.memory]);
        vng.arg(format!("--rwdir=/mnt={}", self.share.display()));
        if self.arch == Arch::Arm64 {
            // virtme-ng asks for a cortex-a57 without LSE and a machine without pseudo-NMIs.
            vng.args(["--arch", "arm64", "--user", "root"]);
            vng.arg("--qemu-opts=-M virt,gic-version=3 -cpu max,pauth-impdef=on");
        }
        for arguments in &self.qemu {
            vng.arg(format!("--qemu-opts={arguments}"));
        }
        vng.env("HOME", &self.home).current_dir("/");
        // virtme-ng starts its helper by name.
        if let Some(bin) = self.vng.parent() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let paths = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
            if let Ok(path) = std::env::join_paths(paths) {
                vng.env("PATH", path);
            }
        }
        vng
    }

    /// Boots, runs the steps in `share/name/plan`, and writes `share/name/console.txt`.
    pub fn boot(&self, name: &str, limits: PhaseLimits, env: &[(&str, String)]) -> Result<Outcome> {
        let folder = self.share.join(name);
        std::fs::create_dir_all(folder.join("out"))?;
        let log = folder.join("console.txt");
        // By lines, for people who watch it.
        let mut file = LineWriter::new(
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?,
        );
        let mut vng = self.command();
        // A socket's path must be short, and TMPDIR may be long.
        let monitor = tempfile::tempdir_in("/tmp").or_exit(Exit::Setup)?;
        let socket = monitor.path().join("qmp");
        vng.arg(format!(
            "--qemu-opts=-qmp unix:{},server=on,wait=off",
            socket.display()
        ));
        let exports: String = env.iter().map(|(k, v)| format!("{k}={v} ")).collect();
        vng.args([
            "--verbose",
            "--exec",
            &format!("{exports}sh /mnt/guest.sh {name}"),
        ]);
        let lane = self.share.file_name().unwrap_or_default();
        let what = format!("{}: boot {name}", lane.to_string_lossy());
        let mut progress = Progress::new(what, 0);
        let (mut group, lines) = spawn_lines(&mut vng)?;
        let mut console = String::new();
        let mut phase = Phase::Boot;
        let mut since = Instant::now();
        let mut heard = since;
        let ending = loop {
            let limit = match phase {
                Phase::Boot => limits.boot,
                Phase::Run => limits.run,
                Phase::Shutdown => limits.shutdown,
            };
            let Some(left) = limit.checked_sub(since.elapsed()) else {
                break Ending::Hung(phase, limit);
            };
            if phase == Phase::Boot && heard.elapsed() >= limits.silence {
                break Ending::Hung(phase, limits.silence);
            }
            // Short, so that a log without a terminal hears of a silent guest too.
            match lines.recv_timeout(left.min(Duration::from_secs(1))) {
                Ok(line) => {
                    heard = Instant::now();
                    writeln!(file, "{line}")?;
                    console.push_str(&line);
                    console.push('\n');
                    if phase == Phase::Boot && line.contains(UP) {
                        (phase, since) = (Phase::Run, Instant::now());
                    } else if phase == Phase::Run && line.contains(DONE) {
                        (phase, since) = (Phase::Shutdown, Instant::now());
                    }
                    progress.say(&format!("{phase}: {line}"));
                }
                Err(RecvTimeoutError::Timeout) => progress.say(&format!("{phase}: no output")),
                Err(RecvTimeoutError::Disconnected) => {
                    break match phase {
                        Phase::Shutdown => Ending::Done,
                        phase => Ending::Died(phase),
                    };
                }
            }
        };
        if matches!(ending, Ending::Hung(..)) {
            let symbols = std::fs::read_to_string(self.share.join("System.map"));
            let text = wedged::registers(&socket, &symbols.unwrap_or_default())
                .unwrap_or_else(|e| format!("{e:#}\n"));
            write_atomic(&folder.join("registers.txt"), &text)?;
        }
        group.kill();
        // What was on its way; the dead close their end, and an escaped process cannot hold this up.
        while let Ok(line) = lines.recv_timeout(Duration::from_secs(1)) {
            writeln!(file, "{line}")?;
            console.push_str(&line);
            console.push('\n');
        }
        file.flush()?;
        group.wait()?;
        check_interrupt()?;
        let took = progress.elapsed();
        progress.finish(&match ending {
            Ending::Done => "guest done".to_owned(),
            Ending::Died(phase) => format!("the guest ended during {phase}"),
            Ending::Hung(phase, limit) => {
                format!("{phase} hung: not over after {} s", limit.as_secs())
            }
        });
        Ok(Outcome {
            console,
            ending,
            took,
        })
    }
}

#[cfg(test)]
pub mod tests;
