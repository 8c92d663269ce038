// SPDX-License-Identifier: GPL-2.0
//! Uses of the queue that must not compile: `rust-module/compile_fail/`. Each says with what message
//! the compiler has to refuse it, and has a twin that differs in one line and compiles.

use crate::cache::{self, Cache};
use crate::kernel::module_make;
use crate::lane::Arch;
use crate::proc::check_interrupt;
use crate::tally::Tally;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

const CASES: &str = "rust-module/compile_fail";
const MESSAGE: &str = "//! Must fail: ";
const TWIN: &str = "// Twin: ";

pub fn check(
    cache: &Cache,
    kernel: &Path,
    arch: Arch,
    checkout: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let _alone = cache.lock("compile-fail")?;
    let dir = cache.dir("compile-fail")?;
    // An object that is up to date would not be compiled again.
    cache::remove_dir(&dir)?;
    let (source, out) = (dir.join("source"), dir.join("out"));
    fs::create_dir_all(&out)?;
    copy(&checkout.join("rust-module"), &source.join("rust-module"))?;
    fs::copy(checkout.join("Kbuild"), source.join("Kbuild"))?;

    let mut names: Vec<String> = fs::read_dir(source.join(CASES))?
        .filter_map(|e| {
            Some(
                e.ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".rs")?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "{CASES} is empty");
    for name in names {
        let text = fs::read_to_string(source.join(format!("{CASES}/{name}.rs")))?;
        let case = Case::parse(&text).with_context(|| format!("{CASES}/{name}.rs"))?;
        fs::write(source.join(format!("{CASES}/{name}_twin.rs")), &case.twin)?;
        let compile = |what: &str| -> Result<(bool, String)> {
            check_interrupt()?;
            let output = module_make(cache, kernel, arch, &source, &out)
                .arg(format!("{CASES}/{what}.o"))
                .output()?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok((output.status.success(), text))
        };
        let (compiled, errors) = compile(&name)?;
        let refused = if compiled {
            Err(anyhow::anyhow!("it compiled"))
        } else if !refused_for(&errors, case.message) {
            Err(anyhow::anyhow!("not for {:?}:\n{errors}", case.message))
        } else {
            Ok(())
        };
        tally.check(&format!("{name}: does not compile"), refused)?;
        let twin = match compile(&format!("{name}_twin"))? {
            (true, _) => Ok(()),
            (false, errors) => Err(anyhow::anyhow!("{errors}")),
        };
        tally.check(&format!("{name}: its twin compiles"), twin)?;
    }
    Ok(())
}

struct Case<'a> {
    message: &'a str,
    twin: String,
}

impl<'a> Case<'a> {
    /// The line after the marker is the one that the twin has otherwise.
    fn parse(text: &'a str) -> Result<Self> {
        let mut messages = text.lines().filter_map(|l| l.strip_prefix(MESSAGE));
        let (message, other) = (messages.next(), messages.next());
        ensure!(other.is_none(), "more than one line with {MESSAGE:?}");
        let mut lines: Vec<&str> = text.lines().collect();
        let marks: Vec<(usize, &str)> = lines
            .iter()
            .enumerate()
            .filter_map(|(i, l)| Some((i, l.trim_start().strip_prefix(TWIN)?)))
            .collect();
        let [(at, line)] = marks[..] else {
            anyhow::bail!("{} lines with {TWIN:?}, not one", marks.len());
        };
        *lines
            .get_mut(at + 1)
            .context("nothing after the twin's line")? = line;
        Ok(Case {
            message: message.with_context(|| format!("no line with {MESSAGE:?}"))?,
            twin: lines.join("\n") + "\n",
        })
    }
}

/// The message of an error, not of a note or of the source that is shown with it.
fn refused_for(errors: &str, message: &str) -> bool {
    errors
        .lines()
        .any(|l| l.starts_with("error") && l.contains(message))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let path = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(path)?;
        } else {
            fs::copy(entry.path(), path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "//! Must fail: no such thing\n\nfn f() {\n    // Twin: good();\n    bad();\n}\n";

    #[test]
    fn a_twin_differs_in_one_line() {
        let case = Case::parse(TEXT).unwrap();
        let differing: Vec<_> = TEXT
            .lines()
            .zip(case.twin.lines())
            .filter(|(a, b)| a != b)
            .collect();
        assert_eq!(differing, [("    bad();", "good();")]);
        assert_eq!(TEXT.lines().count(), case.twin.lines().count());
    }

    #[test]
    fn a_case_without_message_or_twin_is_refused() {
        for (from, to) in [
            ("Must fail", "Should fail"),
            ("Twin", "Other"),
            ("    bad();\n}\n", ""),
            ("fn f", "//! Must fail: or this\nfn f"),
        ] {
            assert!(Case::parse(&TEXT.replace(from, to)).is_err(), "{to:?}");
        }
    }

    #[test]
    fn only_an_error_counts() {
        let errors = "error[E0001]: no such thing\n";
        assert!(refused_for(errors, "no such thing"));
        assert!(!refused_for(
            &errors.replace("error", "note"),
            "no such thing"
        ));
        assert!(!refused_for(errors, "another thing"));
    }

    #[test]
    fn the_shipped_cases_parse() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(CASES);
        let mut count = 0;
        for entry in fs::read_dir(dir).unwrap() {
            Case::parse(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
            count += 1;
        }
        assert!(count >= 5);
    }
}
