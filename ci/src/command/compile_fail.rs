// SPDX-License-Identifier: GPL-2.0
//! Uses of the queue that must not compile: `rust-module/compile_fail/`. Each says with what message
//! the compiler has to refuse it, and has a twin that differs in one line and compiles.

use crate::base::arch::Arch;
use crate::base::cache::{self, Cache};
use crate::base::proc::capture;
use crate::build::kernel::Build;
use crate::build::modules::{Passed, module_make};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;

const BAD_USES: &str = "rust-module/compile_fail";
const MESSAGE: &str = "//! Must fail: ";
const TWIN: &str = "// Twin: ";

pub fn check(
    cache: &Cache,
    build: &Build,
    arch: Arch,
    checkout: &Path,
    tally: &mut Tally,
) -> Result<()> {
    let _alone = cache.lock("compile-fail")?;
    let dir = cache.dir("compile-fail")?;
    let cases = find_bad_uses(&checkout.join(BAD_USES))?;
    let passed = Passed::load(&dir, build, checkout)?;
    if let Some(again) = passed.again() {
        for (name, _) in cases {
            tally.check(&format!("{name}: does not compile{again}"), Ok(()))?;
            tally.check(&format!("{name}: its twin compiles{again}"), Ok(()))?;
        }
        return Ok(());
    }
    // An object that is up to date would not be compiled again.
    cache::remove_dir(&dir)?;
    let (source, out) = (dir.join("source"), dir.join("out"));
    fs::create_dir_all(&out)?;
    copy(&checkout.join("rust-module"), &source.join("rust-module"))?;
    fs::copy(checkout.join("Kbuild"), source.join("Kbuild"))?;
    // As modules, or a kernel with KASAN gets objects without.
    let kbuild = source.join("rust-module/Kbuild");
    let mut modules = fs::read_to_string(&kbuild)?;
    for (name, case) in &cases {
        fs::write(
            source.join(format!("{BAD_USES}/{name}_twin.rs")),
            &case.twin,
        )?;
        let dir = BAD_USES.trim_start_matches("rust-module/");
        modules += &format!("obj-m += {dir}/{name}.o {dir}/{name}_twin.o\n");
    }
    fs::write(&kbuild, modules)?;
    let object = |name: &str| format!("{BAD_USES}/{name}.o");
    let compile = |objects: Vec<String>| -> Result<(bool, String)> {
        let mut make = module_make(cache, &build.dir, arch.kernel(), &source, &out);
        let output = capture(make.arg("--keep-going").args(objects), Stdio::null())?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.success(), errors))
    };
    // All at once. The others one by one, or it would be a guess whose each message is.
    let twins = cases.keys().map(|name| object(&format!("{name}_twin")));
    let (_, twin_errors) = compile(twins.collect())?;
    let mut good = true;
    for (name, case) in &cases {
        let (compiled, errors) = compile(vec![object(name)])?;
        let refused = if compiled {
            Err(anyhow::anyhow!("it compiled"))
        } else if !refused_for(&errors, &case.message) {
            Err(anyhow::anyhow!("not for {:?}:\n{errors}", case.message))
        } else {
            Ok(())
        };
        let twin = if out.join(object(&format!("{name}_twin"))).exists() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{twin_errors}"))
        };
        good &= refused.is_ok() && twin.is_ok();
        tally.check(&format!("{name}: does not compile"), refused)?;
        tally.check(&format!("{name}: its twin compiles"), twin)?;
    }
    if good {
        passed.record()?;
    }
    Ok(())
}

/// By name.
fn find_bad_uses(dir: &Path) -> Result<BTreeMap<String, BadUse>> {
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            let name = path.file_stem().context("a file has a name")?;
            let case = BadUse::parse(&fs::read_to_string(&path)?)
                .with_context(|| path.display().to_string())?;
            cases.insert(name.to_string_lossy().into_owned(), case);
        }
    }
    ensure!(!cases.is_empty(), "{} is empty", dir.display());
    Ok(cases)
}

struct BadUse {
    message: String,
    twin: String,
}

impl BadUse {
    /// The line after the marker is the one that the twin has otherwise.
    fn parse(text: &str) -> Result<Self> {
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
        Ok(BadUse {
            message: message
                .with_context(|| format!("no line with {MESSAGE:?}"))?
                .to_owned(),
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
        let case = BadUse::parse(TEXT).unwrap();
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
            assert!(BadUse::parse(&TEXT.replace(from, to)).is_err(), "{to:?}");
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
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(BAD_USES);
        assert!(find_bad_uses(&dir).unwrap().len() >= 5);
    }
}
