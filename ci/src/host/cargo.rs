// SPDX-License-Identifier: GPL-2.0
//! cargo, as every part of the runner starts it.

use crate::base::exit::{Exit, fail};
use crate::base::proc;
use anyhow::Result;
use std::process::Command;

/// cargo's configuration may say that everything is built for another machine.
const FOR_HOST: &str = "--target=host-tuple";

/// A subcommand of the cargo that built the runner.
pub fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(subcommand);
    // It builds nothing, and has no such option.
    if subcommand != "fmt" {
        cargo.arg(FOR_HOST);
    }
    cargo
}

/// Whether cargo can format and lint, which it leaves to programs of other packages.
pub fn check_cargo() -> Result<()> {
    check_subcommands(cargo)
}

fn check_subcommands(cargo: impl Fn(&str) -> Command) -> Result<()> {
    for (sub, component, package) in [
        ("fmt", "rustfmt", "rustfmt-web"),
        ("clippy", "clippy", "rust-web-clippy"),
    ] {
        if let Err(e) = proc::output(cargo(sub).arg("--version")) {
            proc::check_interrupt()?;
            return Err(fail(
                Exit::Setup,
                format!(
                    "`cargo {sub}` is missing: `rustup component add {component}` with rustup's cargo, else apt-get install {package} ({e:#})"
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::base::proc::tests::script;
    use std::fs;
    use std::path::Path;

    /// With `[build] target` in the user's configuration `make mutants` built the models' tests for that machine.
    #[test]
    fn cargo_builds_for_this_machine_whatever_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        let package = "[package]\nname = \"a\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n";
        for (name, text) in [
            ("Cargo.toml", package),
            ("lib.rs", ""),
            (".cargo/config.toml", "build.target = \"no-such-machine\"\n"),
        ] {
            let file = dir.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let mut check = cargo("check");
        let check = check.arg("--offline").current_dir(dir.path());
        proc::output(check.env("CARGO_TARGET_DIR", dir.path().join("target"))).unwrap();
        assert_eq!(cargo("fmt").get_args().count(), 1);
    }

    #[test]
    fn cargo_is_started_in_one_place() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = walkdir::WalkDir::new(&source)
            .into_iter()
            .map(Result::unwrap);
        let named = files.map(|f| f.into_path()).filter(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.contains("var_os(\"CARGO\")") || text.contains("new(\"cargo\")")
        });
        assert_eq!(Vec::from_iter(named), [source.join("host/cargo.rs")]);
    }

    #[test]
    fn a_cargo_that_cannot_format_is_a_matter_of_setup() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cargo");
        let cargo = |sub: &str| {
            let mut cargo = Command::new(&file);
            cargo.arg(sub);
            cargo
        };
        script(&file, "exit 0");
        check_subcommands(cargo).unwrap();
        script(
            &file,
            "[ $1 = fmt ] || { echo no such command >&2; exit 1; }",
        );
        let e = check_subcommands(cargo).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Setup));
        assert!(
            e.to_string().contains("cargo clippy") && e.to_string().contains("no such command"),
            "{e}"
        );
    }
}
