// SPDX-License-Identifier: GPL-2.0
//! Child processes. Each one leads a process group of its own, so that Ctrl-C, a time limit or an
//! error in the runner ends make's compilers and virtme-ng's QEMU too, never only their parent.

use crate::exit::{Exit, fail};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, PipeReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);

pub fn interrupted() -> bool {
    INTERRUPTS.load(Ordering::SeqCst) > 0
}

/// To be asked wherever a long step could go on after its child was ended by Ctrl-C.
pub fn check_interrupt() -> Result<()> {
    if interrupted() {
        return Err(fail(Exit::Interrupted, "interrupted"));
    }
    Ok(())
}

pub fn install_handler() -> Result<()> {
    ctrlc::set_handler(|| {
        // A second Ctrl-C means that the polite signal did not help.
        let signal = match INTERRUPTS.fetch_add(1, Ordering::SeqCst) {
            0 => Signal::SIGTERM,
            _ => Signal::SIGKILL,
        };
        for &group in GROUPS.lock().expect("no panic under this lock").iter() {
            let _ = killpg(Pid::from_raw(group), signal);
        }
    })
    .context("cannot install the Ctrl-C handler")
}

/// A running process group; dropping it kills whatever is left of it.
pub struct Group {
    child: Child,
    id: i32,
}

impl Group {
    pub fn spawn(command: &mut Command) -> Result<Group> {
        use std::os::unix::process::CommandExt;
        check_interrupt()?;
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let id = i32::try_from(child.id())?;
        GROUPS.lock().expect("no panic under this lock").insert(id);
        Ok(Group { child, id })
    }

    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    pub fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.id), Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
        GROUPS
            .lock()
            .expect("no panic under this lock")
            .remove(&self.id);
    }
}

/// Starts `command` with stdout and stderr in one stream, in the order written.
pub fn spawn_lines(command: &mut Command) -> Result<(Group, Receiver<String>)> {
    let (reader, writer) = std::io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let group = Group::spawn(command)?;
    // The command keeps the pipe's writing ends open, and the stream would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (tx, rx) = channel();
    std::thread::spawn(move || read_lines(reader, |line| tx.send(line).is_ok()));
    Ok((group, rx))
}

fn read_lines(reader: PipeReader, mut deliver: impl FnMut(String) -> bool) {
    let mut reader = BufReader::new(reader);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let line = String::from_utf8_lossy(&bytes);
        if !deliver(line.trim_end_matches(['\n', '\r']).to_owned()) {
            return;
        }
        bytes.clear();
    }
}

/// Runs `command` to its end and hands each line of its output to `sink`.
pub fn run_lines(command: &mut Command, mut sink: impl FnMut(&str)) -> Result<ExitStatus> {
    let (mut group, lines) = spawn_lines(command)?;
    for line in lines {
        sink(&line);
    }
    let status = group.wait()?;
    check_interrupt()?;
    Ok(status)
}

/// Runs `command` and returns its stdout; its stderr becomes part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    check_interrupt()?;
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    check_interrupt()?;
    if !out.status.success() {
        // Formatters report on stdout.
        let said = if out.stderr.is_empty() {
            &out.stdout
        } else {
            &out.stderr
        };
        bail!(
            "{} failed ({}): {}",
            show(command),
            out.status,
            String::from_utf8_lossy(said).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| a.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_arrive_in_order() {
        let mut seen = Vec::new();
        let status = run_lines(
            Command::new("sh").args(["-c", "echo a; echo b >&2; printf c; exit 3"]),
            |l| seen.push(l.to_owned()),
        )
        .unwrap();
        assert_eq!(seen, ["a", "b", "c"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn dropping_a_group_ends_grandchildren() {
        let (group, lines) =
            spawn_lines(Command::new("sh").args(["-c", "sh -c 'echo $$; exec sleep 1000' & wait"]))
                .unwrap();
        let grandchild = lines.recv().unwrap();
        assert!(std::path::Path::new(&format!("/proc/{grandchild}")).exists());
        drop(group);
        // The stream ends only when no process of the group holds it any more.
        assert!(lines.recv().is_err());
    }

    #[test]
    fn output_reports_stderr() {
        let e = output(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).unwrap_err();
        assert!(e.to_string().contains("why"), "{e}");
    }
}
