// SPDX-License-Identifier: GPL-2.0

use super::*;

/// Ctrl-C is for the whole process, so a test of it needs one of its own: `test` is its full name.
pub fn alone(test: &str, body: impl FnOnce()) {
    alone_with(test, &[], body);
}

/// The same of variables, which are set to the values given.
pub fn alone_with(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    const ALONE: &str = "NOLOCKS_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return body();
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let out = again
        .args(["--exact", test])
        .env(ALONE, "1")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("1 passed"), "{text}");
}

/// Not written by this process: a child that a test beside this one starts would have the file
/// open for writing for a moment, and keep it from being run.
pub fn script(file: &std::path::Path, text: &str) {
    let mut sh = Command::new("sh");
    sh.args([
        "-c",
        "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod +x \"$0\"",
    ])
    .arg(file)
    .arg(text);
    complete(&mut sh).unwrap();
}

/// As Ctrl-C does it.
pub fn interrupt() {
    INTERRUPTS.fetch_add(1, Ordering::SeqCst);
}

#[test]
fn ctrl_c_ends_what_an_output_waits_for() {
    alone(
        "base::proc::tests::ctrl_c_ends_what_an_output_waits_for",
        || {
            install_handler().unwrap();
            let me = std::process::id();
            let script = format!("setsid kill -INT {me} & exec sleep 30");
            let start = std::time::Instant::now();
            let e = output(Command::new("sh").args(["-c", &script])).unwrap_err();
            assert_eq!(crate::base::exit::stage(&e), Some(Exit::Interrupted));
            assert!(start.elapsed().as_secs() < 15);
        },
    );
}

#[test]
fn a_group_that_the_handler_missed_does_not_run_on() {
    alone(
        "base::proc::tests::a_group_that_the_handler_missed_does_not_run_on",
        || {
            let dir = tempfile::tempdir().unwrap();
            let started = dir.path().join("started");
            let script = format!("touch {}; exec sleep 30", started.display());
            // The list is held up, as if the handler had just gone through it.
            let list = GROUPS.lock().unwrap();
            let run = std::thread::spawn(move || {
                output(Command::new("sh").args(["-c", &script])).is_err()
            });
            while !started.exists() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            interrupt();
            let start = std::time::Instant::now();
            drop(list);
            assert!(run.join().unwrap());
            assert!(start.elapsed().as_secs() < 15);
        },
    );
}

#[test]
fn what_must_not_stop_half_way_runs_to_its_end() {
    alone(
        "base::proc::tests::what_must_not_stop_half_way_runs_to_its_end",
        || {
            install_handler().unwrap();
            let me = std::process::id();
            let script = format!("kill -INT {me}; sleep 0.3; echo whole");
            let whole = || complete(Command::new("sh").args(["-c", &script])).unwrap();
            assert_eq!(whole(), "whole\n");
            assert!(interrupted());
            assert_eq!(whole(), "whole\n");
            assert!(output(&mut Command::new("true")).is_err());
        },
    );
}

#[test]
fn nobody_waits_for_what_a_command_leaves_behind() {
    let leave = "sleep 60 & echo whole";
    let start = std::time::Instant::now();
    assert_eq!(
        complete(Command::new("sh").args(["-c", leave])).unwrap(),
        "whole\n"
    );
    assert_eq!(
        output(Command::new("sh").args(["-c", leave])).unwrap(),
        "whole\n"
    );
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn a_second_ctrl_c_ends_what_would_never_end() {
    alone(
        "base::proc::tests::a_second_ctrl_c_ends_what_would_never_end",
        || {
            install_handler().unwrap();
            let me = std::process::id();
            let script = format!("kill -INT {me}; sleep 0.3; kill -INT {me}; exec sleep 60");
            let start = std::time::Instant::now();
            complete(Command::new("sh").args(["-c", &script])).unwrap_err();
            assert!(start.elapsed().as_secs() < 30);
        },
    );
}

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
    let full = "echo 'cp: x: No space left on device' >&2; exit 1";
    let e = output(Command::new("sh").args(["-c", full])).unwrap_err();
    assert_eq!(crate::base::exit::stage(&e), Some(Exit::Setup));
}
