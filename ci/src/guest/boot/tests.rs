// SPDX-License-Identifier: GPL-2.0

use super::*;
use std::fs;
use std::path::Path;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);
const WHOLE: PhaseLimits = PhaseLimits {
    boot: LONG,
    silence: LONG,
    run: LONG,
    shutdown: LONG,
};
const UP: &str = "echo '[ 1.0] NOLOCKS: guest up'";
const DONE: &str = "echo '[ 2.0] NOLOCKS: guest done'";

/// Its virtme-ng is a shell script.
pub fn guest(dir: &Path, script: &str) -> Guest {
    let vng = dir.join("vng");
    // Not by this process: a child that a test beside this one starts would have the file open for
    // writing for a moment, and keep it from being run.
    let written = Command::new("sh")
        .args(["-c", "printf %s \"$1\" >\"$0\" && chmod +x \"$0\""])
        .arg(&vng)
        .arg(format!("#!/bin/sh\n{script}\n"))
        .status();
    assert!(written.unwrap().success());
    Guest {
        vng,
        arch: Arch::X86,
        emulator: Qemu::at("/qemu".into()),
        image: "/k".into(),
        root: None,
        cpus: 2,
        memory: "1G".into(),
        cmdline: vec!["cma=64M".into()],
        qemu: vec![],
        kvm: false,
        share: dir.join("run"),
        home: dir.to_owned(),
    }
}

/// Only the phase under test has a short limit, so that a slow machine cannot turn one phase's
/// hang into another's.
fn fake(script: &str, limits: PhaseLimits) -> (Outcome, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let outcome = guest(dir.path(), script).boot("main", limits, &[]).unwrap();
    (outcome, dir)
}

#[test]
fn a_whole_run_is_done_and_its_console_is_kept() {
    let (outcome, dir) = fake(&format!("{UP}; {DONE}; echo off >&2; exit 255"), WHOLE);
    assert_eq!(outcome.ending, Ending::Done);
    assert!(outcome.console.ends_with("off\n"));
    assert_eq!(
        fs::read_to_string(dir.path().join("run/main/console.txt")).unwrap(),
        outcome.console
    );
}

#[test]
fn a_hang_says_its_phase() {
    for (script, limits, phase) in [
        (
            "sleep 1000".to_owned(),
            PhaseLimits {
                boot: SHORT,
                ..WHOLE
            },
            Phase::Boot,
        ),
        (
            format!("{UP}; sleep 1000"),
            PhaseLimits {
                run: SHORT,
                ..WHOLE
            },
            Phase::Run,
        ),
        (
            format!("{UP}; {DONE}; sleep 1000"),
            PhaseLimits {
                shutdown: SHORT,
                ..WHOLE
            },
            Phase::Shutdown,
        ),
    ] {
        assert_eq!(fake(&script, limits).0.ending, Ending::Hung(phase, SHORT));
    }
}

#[test]
fn a_boot_that_falls_silent_is_over_before_its_limit() {
    let silence = SHORT;
    let limits = PhaseLimits { silence, ..WHOLE };
    let (outcome, dir) = fake("echo booting; sleep 1000", limits);
    assert_eq!(outcome.ending, Ending::Hung(Phase::Boot, SHORT));
    let registers = dir.path().join("run/main/registers.txt");
    assert!(
        fs::read_to_string(registers)
            .unwrap()
            .contains("no monitor")
    );
    // A guest that is up may be silent for as long as its phase may take.
    let (outcome, _dir) = fake(&format!("{UP}; sleep 1; {DONE}"), limits);
    assert_eq!(outcome.ending, Ending::Done);
}

#[test]
fn a_death_says_its_phase() {
    assert_eq!(
        fake("echo panic", WHOLE).0.ending,
        Ending::Died(Phase::Boot)
    );
    assert_eq!(fake(UP, WHOLE).0.ending, Ending::Died(Phase::Run));
}

#[test]
fn a_hang_leaves_no_process_behind() {
    let script = format!("sh -c \"echo pid \\$\\$; {UP}; exec sleep 1000\" & wait");
    let (outcome, _dir) = fake(
        &script,
        PhaseLimits {
            run: SHORT,
            ..WHOLE
        },
    );
    let pid = outcome
        .console
        .lines()
        .find_map(|l| l.strip_prefix("pid "))
        .unwrap();
    // A process gives up its memory, and with it this text, before the stream it holds.
    let left = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert_eq!(left, "");
}

#[test]
fn a_long_tmpdir_makes_no_long_socket_and_the_users_variables_stay_outside() {
    const NAME: &str = "guest::boot::tests::a_long_tmpdir_makes_no_long_socket_and_the_users_variables_stay_outside";
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("x".repeat(100)).display().to_string();
    fs::create_dir(&long).unwrap();
    let env = [
        ("TMPDIR", &*long),
        ("KBUILD_OUTPUT", "/k"),
        ("PYTHONPATH", "/p"),
    ];
    crate::base::proc::tests::alone_with(NAME, &env, || {
        let (outcome, _dir) = fake(&format!("env; printf '%s\\n' \"$@\"; {UP}; {DONE}"), WHOLE);
        let console = outcome.console;
        let socket = console.split("unix:").nth(1).unwrap().split(',').next();
        // What the kernel takes: sun_path with its end.
        assert!(socket.unwrap().len() < 108, "{console}");
        assert!(console.contains("PATH=") && console.contains("HOME="));
        assert!(!console.contains("KBUILD_OUTPUT=") && !console.contains("PYTHONPATH="));
    });
}

#[test]
fn the_command_line_holds_what_the_traps_need() {
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest {
        arch: Arch::Arm64,
        root: Some("/r".into()),
        ..guest(dir.path(), "")
    };
    let text = crate::base::proc::show(&guest.command());
    for part in [
        "--force-9p",
        "--append root=/dev/root",
        "--disable-kvm",
        "gic-version=3",
        "--root /r",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let x86 = crate::base::proc::show(&self::guest(dir.path(), "").command());
    let timer = [&text, &x86].map(|text| text.contains("no_timer_check"));
    assert_eq!(timer, [false, true]);
}
