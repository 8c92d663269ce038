// SPDX-License-Identifier: GPL-2.0
//! The tools: what is missing is listed, and installed where that is allowed.

use crate::base::cache::Cache;
use crate::base::exit::{Exit, OrExit, fail, perhaps_network};
use crate::base::pins::{LLVM, PINS};
use crate::base::proc;
use crate::base::progress::Progress;
use crate::host::own_tools::{self, own_tools};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Debian's rustc: the one on PATH is often rustup's, which may lack its library source.
pub const RUSTC: &str = "/usr/bin/rustc";
pub const CLIPPY: &str = "/usr/bin/clippy-driver";
pub const RUSTFMT: &str = "/usr/bin/rustfmt";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Checks of the series that build nothing.
    Check,
    /// Kernel, modules and boots on both architectures.
    Lanes,
    /// What steps through a guest of either architecture.
    Bench,
    /// What makes a BPF program, and a kernel that takes one.
    Torture,
    /// tools/perf.
    Perf,
}

struct Tool {
    /// A program on PATH, or a file where the name has a slash; `*` stands for one folder, `|` for "or" and
    /// `{llvm}`, here and in the package, for what kernel.toml says.
    probe: &'static str,
    package: &'static str,
    need: Need,
}

const fn tool(need: Need, probe: &'static str, package: &'static str) -> Tool {
    Tool {
        probe,
        package,
        need,
    }
}

const TOOLS: &[Tool] = &[
    tool(Need::Check, "git", "git"),
    tool(Need::Check, "patch", "patch"),
    tool(Need::Check, "perl", "perl"),
    tool(Need::Check, "xz", "xz-utils"),
    tool(Need::Check, "rsync", "rsync"),
    tool(Need::Check, "gcc", "build-essential"),
    tool(Need::Check, RUSTC, "rustc-web"),
    tool(Need::Check, RUSTFMT, "rustfmt-web"),
    tool(Need::Check, CLIPPY, "rust-web-clippy"),
    tool(
        Need::Check,
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "debian-archive-keyring",
    ),
    tool(Need::Lanes, "clang{llvm}", "clang{llvm}"),
    tool(Need::Lanes, "ld.lld{llvm}", "lld{llvm}"),
    tool(Need::Lanes, "llvm-nm{llvm}", "llvm{llvm}"),
    tool(
        Need::Lanes,
        "/usr/lib/llvm{llvm}/lib/libclang.so",
        "libclang{llvm}-dev",
    ),
    tool(
        Need::Lanes,
        "/usr/lib/rustlib/src/rust/library/core/src/lib.rs",
        "rust-web-src",
    ),
    tool(Need::Lanes, "flex", "flex"),
    tool(Need::Lanes, "bison", "bison"),
    tool(Need::Lanes, "bc", "bc"),
    tool(Need::Lanes, "cpio", "cpio"),
    tool(Need::Lanes, "/usr/sbin/modprobe", "kmod"),
    tool(Need::Lanes, "busybox", "busybox-static"),
    tool(Need::Lanes, "/usr/include/libelf.h", "libelf-dev"),
    tool(Need::Lanes, "/usr/include/openssl/ssl.h", "libssl-dev"),
    tool(
        Need::Lanes,
        "/usr/lib/python3*/ensurepip/__init__.py",
        "python3-venv",
    ),
    tool(Need::Lanes, "qemu-system-x86_64", "qemu-system-x86"),
    tool(Need::Lanes, "qemu-system-aarch64", "qemu-system-arm"),
    tool(
        Need::Lanes,
        // Debian 12's place, and 13's.
        "/usr/lib/ipxe/qemu/efi-virtio.rom|/usr/share/qemu/efi-virtio.rom",
        "ipxe-qemu",
    ),
    tool(Need::Lanes, "mmdebstrap", "mmdebstrap"),
    tool(Need::Bench, "gdb-multiarch", "gdb-multiarch"),
    tool(Need::Torture, "pahole", "dwarves"),
    tool(
        Need::Torture,
        "/usr/include/bpf/bpf_helpers.h",
        "libbpf-dev",
    ),
    tool(
        Need::Perf,
        "/usr/include/traceevent/event-parse.h",
        "libtraceevent-dev",
    ),
    tool(
        Need::Perf,
        "/usr/include/tracefs/tracefs.h",
        "libtracefs-dev",
    ),
    tool(Need::Perf, "/usr/include/elfutils/libdw.h", "libdw-dev"),
    tool(Need::Perf, "pkg-config", "pkg-config"),
];

pub fn ensure(cache: &Cache, need: Need, yes: bool) -> Result<()> {
    let missing = missing_packages(need, is_tool_there);
    if !missing.is_empty() {
        install(&missing, yes)?;
        let left = missing_packages(need, is_tool_there);
        if !left.is_empty() {
            return Err(fail(
                Exit::Setup,
                format!(
                    "apt-get succeeded, and these are still not usable: {}",
                    join_packages(&left)
                ),
            ));
        }
    }
    if need >= Need::Check {
        check_rustc(&proc::output(Command::new(RUSTC).arg("--version")).or_exit(Exit::Setup)?)?;
    }
    if need >= Need::Lanes {
        own_tools::ensure(cache)?;
    }
    Ok(())
}

fn missing_packages(need: Need, is_there: impl Fn(&str) -> bool) -> BTreeSet<String> {
    TOOLS
        .iter()
        .filter(|t| t.need <= need && !is_there(&pinned(t.probe)))
        .map(|t| pinned(t.package))
        .collect()
}

fn pinned(name: &str) -> String {
    name.replace("{llvm}", &LLVM)
}

fn is_tool_there(probe: &str) -> bool {
    probe.split('|').any(is_place_there)
}

fn is_place_there(probe: &str) -> bool {
    if let Some((dir, rest)) = probe.split_once('*') {
        let dir = Path::new(dir);
        let (Some(parent), Some(stem)) = (dir.parent(), dir.file_name()) else {
            return false;
        };
        return fs::read_dir(parent).is_ok_and(|entries| {
            entries.flatten().any(|e| {
                e.file_name()
                    .to_string_lossy()
                    .starts_with(&*stem.to_string_lossy())
                    && e.path().join(rest.trim_start_matches('/')).exists()
            })
        });
    }
    if probe.contains('/') {
        Path::new(probe).exists()
    } else {
        which::which(probe).is_ok()
    }
}

fn join_packages(packages: &BTreeSet<String>) -> String {
    Vec::from_iter(packages.iter().map(String::as_str)).join(" ")
}

// With recommends, the two qemu packages conflict and apt gives up.
const APT_INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];

fn refusal(missing: &BTreeSet<String>, why: &str) -> anyhow::Error {
    fail(
        Exit::Setup,
        format!(
            "{why} As root on Debian:\n  apt-get update && apt-get install --no-install-recommends {}",
            join_packages(missing)
        ),
    )
}

fn install(missing: &BTreeSet<String>, yes: bool) -> Result<()> {
    eprintln!("missing packages: {}", join_packages(missing));
    if which::which("apt-get").is_err() {
        return Err(refusal(
            missing,
            "this is no Debian machine, so install the same tools by hand.",
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(refusal(missing, "installing them needs root."));
    }
    if !yes && !ask_yes_or_no("install them now with apt-get? [y/N] ")? {
        return Err(refusal(
            missing,
            "nothing was installed (CI=true or YES=1 means yes).",
        ));
    }
    let mut progress = Progress::new("apt-get", 0);
    let mut tail = Vec::new();
    for args in [
        &["update"][..],
        &[
            &APT_INSTALL[..],
            &missing.iter().map(String::as_str).collect::<Vec<_>>(),
        ]
        .concat(),
    ] {
        let status = proc::run_lines(
            Command::new("apt-get")
                .args(args)
                .env("DEBIAN_FRONTEND", "noninteractive"),
            |line| {
                progress.step(line);
                tail.push(line.to_owned());
            },
        )?;
        if !status.success() {
            let last: Vec<_> = tail.iter().rev().take(8).rev().cloned().collect();
            return Err(refusal(
                missing,
                &format!(
                    "apt-get {} failed{}:\n{}\n",
                    args[0],
                    perhaps_network(&tail.join("\n")),
                    last.join("\n")
                ),
            ));
        }
    }
    progress.finish("installed");
    Ok(())
}

fn ask_yes_or_no(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let answer = read_answer(std::io::stdin())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Read in a thread of its own, because Ctrl-C does not end a read.
fn read_answer(from: impl Read + Send + 'static) -> Result<String> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = BufReader::new(from).read_line(&mut text);
        tx.send(read.map(|_| text))
    });
    loop {
        match rx.recv_timeout(Duration::from_millis(200)) {
            Err(RecvTimeoutError::Timeout) => proc::check_interrupt()?,
            answer => return Ok(answer.context("nobody reads the answer")??),
        }
    }
}

fn check_rustc(version: &str) -> Result<()> {
    let minor: u32 = version
        .strip_prefix("rustc 1.")
        .and_then(|r| r.split('.').next()?.parse().ok())
        .unwrap_or(0);
    let oldest = &PINS.toolchain.rustc;
    let needed = oldest.strip_prefix("1.").and_then(|r| r.parse().ok());
    if needed.is_none_or(|needed| minor < needed) {
        return Err(fail(
            Exit::Setup,
            format!(
                "{RUSTC} is {:?}, and the kernel needs at least {oldest}: apt-get install rustc-web rust-web-src",
                version.trim()
            ),
        ));
    }
    Ok(())
}

/// For a run's metadata: what each tool says of its version, in one line.
pub fn versions(cache: &Cache, qemu: &Path) -> serde_json::Value {
    let tools = own_tools(cache);
    let qemu = qemu.to_string_lossy();
    let vng = tools.vng.to_string_lossy().into_owned();
    let bindgen = tools.bindgen.to_string_lossy().into_owned();
    let clang = format!("clang{}", *LLVM);
    let lld = format!("ld.lld{}", *LLVM);
    [
        ("rustc", RUSTC),
        ("clang", &clang),
        ("lld", &lld),
        ("bindgen", &bindgen),
        ("qemu", &qemu),
        ("virtme-ng", &vng),
    ]
    .into_iter()
    .map(|(name, program)| {
        let text = proc::output(Command::new(program).arg("--version"))
            .context("not there")
            .unwrap_or_else(|e| e.to_string());
        (name.to_owned(), text.lines().next().unwrap_or("").into())
    })
    .collect::<serde_json::Map<_, _>>()
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    #[test]
    fn only_what_is_needed_and_absent_is_missing() {
        let clang = pinned("clang{llvm}");
        let absent = [&*clang, "git", "pkg-config"];
        let lanes = missing_packages(Need::Lanes, |p| !absent.contains(&p));
        assert_eq!(join_packages(&lanes), format!("{clang} git"));
        assert_eq!(
            join_packages(&missing_packages(Need::Check, |p| p != clang)),
            ""
        );
    }

    #[test]
    fn a_missing_tool_names_its_apt_line() {
        let e = refusal(
            &BTreeSet::from(["xz-utils", "bc"].map(str::to_owned)),
            "installing them needs root.",
        );
        assert_eq!(stage(&e), Some(Exit::Setup));
        assert!(
            e.to_string()
                .ends_with("install --no-install-recommends bc xz-utils"),
            "{e}"
        );
    }

    #[test]
    fn probes_find_programs_files_and_globs() {
        assert!(is_tool_there("sh") && is_tool_there("/bin/sh") && is_tool_there("/usr/b*/env"));
        assert!(is_tool_there("/no/such|/bin/sh") && !is_tool_there("/no/such|no-such-program"));
        assert!(
            !is_tool_there("no-such-program")
                && !is_tool_there("/no/such")
                && !is_tool_there("/usr/b*/no-such")
        );
    }

    /// Debian 13 has QEMU's ROM elsewhere, and `make setup` found it missing after its package was installed.
    #[test]
    fn a_rom_is_found_where_either_release_has_it() {
        let tool = TOOLS.iter().find(|t| t.package == "ipxe-qemu").unwrap();
        for at in ["usr/lib/ipxe/qemu", "usr/share/qemu"] {
            let root = tempfile::tempdir().unwrap();
            let inside =
                |probe: &str| probe.replace("/usr", &format!("{}/usr", root.path().display()));
            assert!(!is_tool_there(&inside(tool.probe)), "{at}");
            fs::create_dir_all(root.path().join(at)).unwrap();
            fs::write(root.path().join(at).join("efi-virtio.rom"), "").unwrap();
            assert!(is_tool_there(&inside(tool.probe)), "{at}");
        }
    }

    #[test]
    fn a_question_is_answered_or_interrupted() {
        proc::tests::alone(
            "host::setup::tests::a_question_is_answered_or_interrupted",
            || {
                assert_eq!(read_answer(&b"y\nn\n"[..]).unwrap(), "y\n");
                let (silent, _open) = std::io::pipe().unwrap();
                let asked = std::thread::spawn(|| read_answer(silent).unwrap_err());
                proc::tests::interrupt();
                assert_eq!(stage(&asked.join().unwrap()), Some(Exit::Interrupted));
            },
        );
    }

    #[test]
    fn an_old_rustc_is_refused() {
        assert!(check_rustc("rustc 1.96.0 (x)").is_ok());
        assert_eq!(
            stage(&check_rustc("rustc 1.63.0").unwrap_err()),
            Some(Exit::Setup)
        );
        assert!(check_rustc("garbage").is_err());
    }
}
