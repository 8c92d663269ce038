// SPDX-License-Identifier: GPL-2.0
//! Child processes. Each one leads a process group of its own, so that Ctrl-C, a time limit or an
//! error in the runner ends make's compilers and virtme-ng's QEMU too, never only their parent.

use crate::base::exit::{Exit, FULL, FULL_SAID, fail};
use anyhow::{Context, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

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
        check_interrupt()?;
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let id = i32::try_from(child.id())?;
        GROUPS.lock().expect("no panic under this lock").insert(id);
        let group = Group { child, id };
        // The handler may have gone through the list before this one was in it.
        check_interrupt()?;
        Ok(group)
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

/// All that a build or a guest gets of the user's environment: its stamp or metadata know nothing of
/// any other variable, and messages are searched for words in English.
const ENVIRONMENT: [&str; 6] = ["HOME", "LOGNAME", "PATH", "TERM", "TMPDIR", "USER"];

/// To be called before variables of the command's own are set.
pub fn clear_environment(command: &mut Command) {
    let kept = ENVIRONMENT.map(|name| (name, std::env::var_os(name)));
    let kept = kept.into_iter().filter_map(|(name, v)| Some((name, v?)));
    command.env_clear().envs(kept).env("LC_ALL", "C.UTF-8");
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

/// Where a command writes to. Not a pipe: whatever a command leaves in the background, as hooks of
/// git may, keeps a pipe open, and its reader waiting.
fn memory() -> Result<File> {
    let file = memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?;
    Ok(file.into())
}

fn written(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Runs `command` to its end and returns what it wrote. Never with a terminal to read from, which
/// stops a group that is not the terminal's own.
pub fn capture(command: &mut Command, stdin: impl Into<Stdio>) -> Result<Output> {
    let (stdout, stderr) = (memory()?, memory()?);
    command
        .stdin(stdin)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let status = Group::spawn(command)?.wait()?;
    check_interrupt()?;
    Ok(Output {
        status,
        stdout: written(stdout)?,
        stderr: written(stderr)?,
    })
}

/// Runs `command` and returns its stdout; its stderr becomes part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let out = capture(command, Stdio::null())?;
    succeeded(command, &out)
}

/// As `output`, but the first Ctrl-C neither ends nor forbids it: for what must not stop half way,
/// and for what puts it right. In a session of its own, so that nothing below it can wait for an
/// answer at the terminal: it gets an error instead.
pub fn complete(command: &mut Command) -> Result<String> {
    let (stdout, stderr) = (memory()?, memory()?);
    let mut session = Command::new("setsid");
    session.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => session.env(name, value),
            None => session.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        session.current_dir(dir);
    }
    let before = INTERRUPTS.load(Ordering::SeqCst);
    let mut child = session
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let _ = match INTERRUPTS.load(Ordering::SeqCst) - before {
            0 => Ok(()),
            1 => {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("{} is let finish; Ctrl-C again ends it", brief(command));
                }
                Ok(())
            }
            2 => killpg(group, Signal::SIGTERM),
            _ => killpg(group, Signal::SIGKILL),
        };
        std::thread::sleep(Duration::from_millis(20));
    };
    let out = Output {
        status,
        stdout: written(stdout)?,
        stderr: written(stderr)?,
    };
    succeeded(command, &out)
}

fn succeeded(command: &Command, out: &Output) -> Result<String> {
    if !out.status.success() {
        // Formatters report on stdout.
        let said = if out.stderr.is_empty() {
            &out.stdout
        } else {
            &out.stderr
        };
        let said = String::from_utf8_lossy(said);
        // The cause first: a command line may be long.
        let text = format!("{} ({}: {})", said.trim(), brief(command), out.status);
        if said.contains(FULL_SAID) {
            return Err(fail(Exit::Setup, format!("{FULL}: {text}")));
        }
        bail!(text);
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// A command's name and first words.
fn brief(command: &Command) -> String {
    let line = show(command);
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

pub fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|a| a.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
pub mod tests;
