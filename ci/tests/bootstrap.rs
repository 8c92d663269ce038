// SPDX-License-Identifier: GPL-2.0
//! scripts/bootstrap.sh on other people's machines: in a checkout, and with a cargo, that are made up.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const CARGO: &str = r#"
case $1 in
--version) echo "cargo 1.9999.0 (x)"; echo "host: a-machine" ;;
build)
	# As a real one does that is told by its configuration to build for another machine.
	case "$*" in *" --target a-machine"*) ;; *) exit 1 ;; esac
	env >"$NOLOCKS_CACHE/cargo-env"
	while [ "$1" != --target-dir ]; do shift; done
	mkdir -p "$2/a-machine/debug"
	printf '#!/bin/sh\nenv; echo "runs $*"\n' >"$2/a-machine/debug/nolocks-ci"
	chmod +x "$2/a-machine/debug/nolocks-ci"
	echo "runner: $NOLOCKS_CHECKOUT/ci/build.rs $NOLOCKS_CHECKOUT/ci/a.rs" >"$2/a-machine/debug/nolocks-ci.d" ;;
esac"#;

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new(cargo: &str) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["bin", "scripts", "ci", "cache/runner/debug", "home"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/bootstrap.sh");
        fs::copy(real, dir.path().join("scripts/bootstrap.sh")).unwrap();
        // No cargo of this machine is so new, and there is no apt-get on this PATH.
        let manifest = "rust-version = \"1.9999\"\n";
        fs::write(dir.path().join("ci/Cargo.toml"), manifest).unwrap();
        let machine = Machine { dir };
        for tool in [
            "awk", "chmod", "cut", "dirname", "env", "find", "id", "mkdir", "rm", "sed", "sh",
        ] {
            let place = machine.path("bin").join(tool);
            symlink(which::which(tool).unwrap(), place).unwrap();
        }
        for tool in ["cc", "git"] {
            machine.program(tool, "exit 1");
        }
        let home = machine.path("home");
        machine.program("getent", &format!("echo me:x:1:1::{}:", home.display()));
        machine.program("cargo", cargo);
        // What another cargo configuration, or none, had built before.
        machine.program("../cache/runner/debug/nolocks-ci", "echo old");
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Not written by this process: a child that a test beside this one starts would have the file
    /// open for writing for a moment, and keep it from being run.
    fn program(&self, name: &str, text: &str) {
        let write = "rm -f \"$0\"; printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod +x \"$0\"";
        let file = self.path("bin").join(name);
        let status = Command::new("sh")
            .args(["-c", write])
            .arg(file)
            .arg(text)
            .status();
        assert!(status.unwrap().success());
    }

    /// As the Makefile starts it. Without a value a variable is not set.
    fn start(&self, env: &[(&str, Option<&str>)]) -> (Option<i32>, String) {
        let mut sh = Command::new("/bin/sh");
        sh.args(["scripts/bootstrap.sh", "check"])
            .current_dir(self.dir.path())
            .env("PATH", self.path("bin"))
            .env("HOME", self.path("home"))
            .env("NOLOCKS_CACHE", self.path("cache"))
            .stdin(Stdio::null());
        for (name, value) in env {
            match value {
                Some(value) => sh.env(name, value),
                None => sh.env_remove(name),
            };
        }
        let out = sh.output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr) + String::from_utf8_lossy(&out.stdout);
        (out.status.code(), text.into_owned())
    }
}

/// With core.autocrlf=true the clone's scripts and patches had CRLF, and nothing read them.
#[test]
fn a_clone_has_the_line_ends_of_the_repository_whatever_git_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let attributes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.gitattributes");
    fs::create_dir(dir.path().join("from")).unwrap();
    fs::copy(attributes, dir.path().join("from/.gitattributes")).unwrap();
    fs::write(dir.path().join("from/script.sh"), "one\ntwo\n").unwrap();
    let steps = "git init -q from && git -C from add . &&
        git -C from -c user.name=n -c user.email=n@x commit -qm x &&
        git -c core.autocrlf=true clone -q from to";
    let status = Command::new("sh")
        .args(["-c", steps])
        .current_dir(dir.path())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .status();
    assert!(status.unwrap().success());
    let text = fs::read_to_string(dir.path().join("to/script.sh")).unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn a_variable_reaches_cargo_and_runner_only_if_it_is_named() {
    let dropped = "CARGO_BUILD_TARGET CARGO_TARGET_DIR RUSTFLAGS RUSTC_WRAPPER KCFLAGS KRUSTFLAGS \
        KCONFIG_CONFIG KBUILD_OUTPUT CROSS_COMPILE LOCALVERSION LIBCLANG_PATH ARCH CC MAKEFLAGS \
        CDPATH POSIXLY_CORRECT GIT_DIFF_OPTS GIT_DIR GIT_INDEX_FILE GREP_OPTIONS TAR_OPTIONS \
        LD_PRELOAD_X PERL5OPT PYTHONPATH LANG LC_MESSAGES LANGUAGE NOT_HOME";
    let kept = "TERM TZ https_proxy NO_PROXY SSL_CERT_FILE CARGO_HOME CARGO_NET_OFFLINE PIP_CERT \
        RUSTUP_TOOLCHAIN GIT_AUTHOR_NAME GIT_CONFIG_COUNT GIT_CONFIG_KEY_0 NOLOCKS_OTHER";
    let machine = Machine::new(CARGO);
    let names = dropped.split_whitespace().chain(kept.split_whitespace());
    let mut env: Vec<_> = names.map(|name| (name, Some("a value"))).collect();
    // An exported function of bash.
    env.push(("BASH_FUNC_ls%%", Some("() { rm; }")));
    let (code, runner) = machine.start(&env);
    assert_eq!(code, Some(0), "{runner}");
    let cargo = fs::read_to_string(machine.path("cache/cargo-env")).unwrap();
    for (who, said) in [("cargo", cargo), ("runner", runner)] {
        let has = |name: &str| said.lines().any(|l| l.split('=').next() == Some(name));
        for name in dropped.split_whitespace().chain(["BASH_FUNC_ls%%"]) {
            assert!(!has(name), "{name} reaches the {who}");
        }
        for name in kept.split_whitespace().chain(["PATH", "HOME"]) {
            assert!(has(name), "{name} does not reach the {who}");
        }
        assert!(said.contains("\nLC_ALL=C.UTF-8\n"), "{said}");
    }
}

#[test]
fn a_start_succeeds() {
    for env in [
        vec![],
        vec![("CDPATH", Some(".:/tmp"))],
        vec![("TMPDIR", Some(""))],
        vec![("HOME", None)],
        vec![("HOME", None), ("NOLOCKS_CACHE", None)],
        vec![("HOME", Some("")), ("NOLOCKS_CACHE", Some(""))],
    ] {
        let machine = Machine::new(&CARGO.replace("\"$NOLOCKS_CACHE/cargo-env\"", "/dev/null"));
        let (code, said) = machine.start(&env);
        assert_eq!(code, Some(0), "{env:?}: {said}");
        // Not the one that was there before.
        assert!(said.ends_with("runs check\n"), "{env:?}: {said}");
    }
}

#[test]
fn a_build_of_the_runner_is_told_and_nothing_where_there_is_none() {
    let machine = Machine::new(CARGO);
    for file in ["ci/build.rs", "ci/a.rs"] {
        fs::write(machine.path(file), "").unwrap();
    }
    let is_told = || machine.start(&[]).1.contains("ci: building the runner");
    assert!(is_told());
    assert!(!is_told());
    let edited = fs::File::options()
        .append(true)
        .open(machine.path("ci/a.rs"));
    let set = |time| edited.as_ref().unwrap().set_modified(time).unwrap();
    set(SystemTime::now() + Duration::from_secs(60));
    assert!(is_told());
    set(SystemTime::UNIX_EPOCH);
    assert!(!is_told());
    let record = machine.path("cache/runner/a-machine/debug/nolocks-ci.d");
    fs::write(record, "runner: /other/ci/build.rs /other/ci/a.rs\n").unwrap();
    assert!(is_told());
}

#[test]
fn what_cannot_be_used_is_named_and_the_network_only_where_it_may_be_the_cause() {
    let of = |version: &str| format!("[ $1 = --version ] && echo 'cargo {version} (x)'");
    let failing = |step: &str| format!("[ $1 != {step} ] || exit 1\n{CARGO}");
    for (cargo, tool, env, code, what) in [
        ("", "", Some(("TMPDIR", "/no/such")), 2, "TMPDIR=/no/such"),
        ("", "", Some(("TMPDIR", "bin")), 2, "TMPDIR=bin"),
        ("", "", Some(("NOLOCKS_CACHE", "/a b")), 2, "without blanks"),
        (
            "",
            "",
            Some(("NOLOCKS_CACHE", "/dev/null/x")),
            10,
            "NOLOCKS_CACHE",
        ),
        ("", "getent", Some(("HOME", "")), 2, "set HOME"),
        // Whoever may not be made executable is not executed.
        ("", "chmod", None, 10, "noexec"),
        (&of("1.9998.0"), "", None, 10, "too old: cargo 1.9998.0"),
        (&failing("fetch"), "", None, 10, "is the network there?"),
        (&failing("build"), "", None, 10, "could not build"),
    ] {
        let machine = Machine::new(if cargo.is_empty() { CARGO } else { cargo });
        if !tool.is_empty() {
            machine.program(tool, "exit 0");
        }
        let env: Vec<_> = env.into_iter().map(|(name, v)| (name, Some(v))).collect();
        let (ended, said) = machine.start(&env);
        assert_eq!(ended, Some(code), "{what}: {said}");
        assert!(said.contains(what), "{what}: {said}");
        let network = said.contains("is the network there?");
        assert_eq!(network, what.contains("network"), "{said}");
        assert!(!said.contains("\nold") && !said.contains("runs"), "{said}");
    }
}

/// What `make` was told and did not understand was a no.
#[test]
fn a_yes_that_is_none_is_refused() {
    let make = |words: &[&str]| {
        let mut make = Command::new("make");
        make.arg("--dry-run").args(words).env_remove("YES");
        make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let out = make.output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr) + String::from_utf8_lossy(&out.stdout);
        (out.status.success(), text.into_owned())
    };
    for (words, what) in [
        (&["check", "YES=true"][..], "YES=true: it takes 1, y or yes"),
        (&["judge", "RUN=x", "TODAYS=true"], "TODAYS=true: it takes"),
    ] {
        let (success, text) = make(words);
        assert!(!success && text.contains(what), "{words:?}: {text}");
    }
    let (success, text) = make(&["judge", "RUN=x", "TODAYS=1", "YES=yes"]);
    assert!(
        success && text.contains("--yes") && text.contains("--todays"),
        "{text}"
    );
    assert!(!make(&["check"]).1.contains("--yes"));
}
