// SPDX-License-Identifier: GPL-2.0
//! Checks that build no kernel: `make check`, and the first part of `make test`.

use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::{capture, output, run_lines};
use crate::base::progress::Progress;
use crate::command::bench::committed::note_on_series;
use crate::command::form;
use crate::command::job::Job;
use crate::command::litmus;
use crate::host::cargo::{cargo, check_cargo};
use crate::host::setup::{self, Need, RUSTFMT};
use crate::report::numbers::thousands;
use crate::source::debian;
use crate::source::git::{forget_repository, git};
use crate::source::series::{Series, State};
use crate::verdict::check::{Check, Found};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use std::fs;
use std::iter::repeat;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub fn run(job: &Job) -> Result<()> {
    setup::ensure(&job.cache, Need::Check, job.yes)?;
    let mut tally = Tally::default();
    all(job, &mut tally)?;
    if let Some(note) = note_on_series(&job.checkout, &job.series()?.hash) {
        println!("{note}");
    }
    println!("{}", tally.closing());
    tally.result()
}

pub fn all(job: &Job, tally: &mut Tally) -> Result<()> {
    check_cargo()?;
    let pristine = debian::fetch_unless_cached(&job.cache)?.pristine()?;
    tally.check(
        "ci: rustfmt",
        succeeds(in_ci(job, "fmt").args(["--all", "--check"])),
    )?;
    tally.check(
        "ci: clippy",
        succeeds(in_ci(job, "clippy").args([
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ])),
    )?;
    unit_tests(job, tally)?;
    tally.check(
        "rust-module: rustfmt as the kernel does",
        rustfmt(job, &pristine),
    )?;
    tally.check("shell scripts parse", shell(job))?;
    tally.check("SPDX lines", spdx(&job.checkout))?;
    let is_litmus = |f: &PathBuf| f.extension().is_some_and(|e| e == "litmus");
    let tests: Vec<PathBuf> = tracked(&job.checkout)?
        .into_iter()
        .filter(is_litmus)
        .collect();
    litmus::check(&job.cache, &tests, &pristine, tally)?;
    let series = job.series()?;
    form::check(&series, &job.checkout.join("patches"), &pristine, tally)?;
    let all = series.patches.len();
    for n in 1..=all {
        let refreshed = if n == all {
            ", make refresh changes none,"
        } else {
            ""
        };
        tally.check(
            &format!("patches 1 to {n} apply by git am{refreshed} and come off"),
            prefix(&series.prefix(n), &pristine, n == all),
        )?;
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn in_ci(job: &Job, subcommand: &str) -> Command {
    let mut cargo = cargo(subcommand);
    cargo
        .current_dir(job.checkout.join("ci"))
        .env("CARGO_TARGET_DIR", job.cache.root.join("runner"));
    // The tests make repositories of their own.
    forget_repository(&mut cargo);
    cargo
}

fn unit_tests(job: &Job, tally: &mut Tally) -> Result<()> {
    let mut progress = Progress::new("ci: unit tests", 0);
    let mut lines = Vec::new();
    let status = run_lines(
        // What fails first is not all there is to know.
        in_ci(job, "test").args(["--workspace", "--locked", "--no-fail-fast"]),
        |line| {
            progress.say(line);
            lines.push(line.to_owned());
        },
    )?;
    let (passed, failed) = count_tests(&lines, status.success(), tally);
    for what in EXPLORED {
        let count = explored(&lines, what);
        let result = (count > 0).then_some(()).context("none");
        tally.check(&format!("ci: {count} {what}"), result)?;
        tally
            .explored
            .push(format!("{} {what}", thousands(count as u64)));
    }
    progress.finish(&format!("{passed} passed, {failed} failed"));
    Ok(())
}

/// As many failures as libtest counts, whether or not they can be told by name: what a test writes
/// to stderr may tear name and verdict apart.
fn count_tests(lines: &[String], success: bool, tally: &mut Tally) -> (usize, usize) {
    let (passed, failed) = counts(&lines.join("\n"));
    let failed = failed.max(usize::from(!success || passed == 0));
    let named = |verdict: &'static str| {
        let names = lines
            .iter()
            .filter_map(move |l| l.strip_prefix("test ")?.strip_suffix(verdict));
        names.map(|name| format!("unit test {name}"))
    };
    let passes = named(" ... ok").chain(repeat("a unit test without a name".to_owned()));
    let passes = passes.map(|name| Check::case(name, Found::Passed));
    tally.take(&Vec::from_iter(passes.take(passed)));
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    let torn = "a unit test without a name, or the build of the tests";
    let fails = named(" ... FAILED").map(|name| Check::failed(name, Exit::Test, "see cargo test"));
    let fails = fails.chain(repeat(Check::failed(torn, Exit::Test, format!("\n{tail}"))));
    tally.take(&Vec::from_iter(fails.take(failed)));
    (passed, failed)
}

/// What the models go through without finding a bug, as their tests call it.
const EXPLORED: [&str; 4] = [
    "interleavings of the slots",
    "interleavings of the refill",
    "interleavings of the queue",
    "random sequences of the queue",
];

fn explored(lines: &[String], what: &str) -> usize {
    let count = |line: &String| {
        let (count, of) = line.split_once("explored ")?.1.split_once(' ')?;
        (of == what).then(|| count.parse().ok()).flatten()
    };
    lines
        .iter()
        .filter_map(count)
        .fold(0, usize::saturating_add)
}

fn counts(text: &str) -> (usize, usize) {
    let line =
        Regex::new(r"test result: .* (\d+) passed; (\d+) failed").expect("a constant pattern");
    line.captures_iter(text).fold((0, 0), |(p, f), c| {
        (
            p + c[1].parse::<usize>().unwrap_or(0),
            f + c[2].parse::<usize>().unwrap_or(0),
        )
    })
}

fn tracked(checkout: &Path) -> Result<Vec<PathBuf>> {
    let list = output(git(checkout).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let files: Vec<PathBuf> = list
        .split('\0')
        .filter(|f| !f.is_empty())
        .map(|f| checkout.join(f))
        .filter(|f| f.is_file())
        .collect();
    ensure!(
        !files.is_empty(),
        "git lists no files in {}",
        checkout.display()
    );
    Ok(files)
}

fn rustfmt(job: &Job, pristine: &Path) -> Result<()> {
    let files: Vec<PathBuf> = tracked(&job.checkout)?
        .into_iter()
        .filter(|f| {
            f.starts_with(job.checkout.join("rust-module"))
                && f.extension().is_some_and(|e| e == "rs")
        })
        .collect();
    ensure!(!files.is_empty(), "rust-module/ holds no Rust");
    let mut command = Command::new(RUSTFMT);
    command
        .args(["--check", "--edition", "2021", "--config-path"])
        .arg(pristine.join(".rustfmt.toml"));
    let out = capture(command.args(files), Stdio::null())?;
    ensure!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

fn shell(job: &Job) -> Result<()> {
    for file in ["scripts/bootstrap.sh", "ci/guest/run.sh", ".ci/run"] {
        output(Command::new("sh").arg("-n").arg(job.checkout.join(file)))?;
    }
    Ok(())
}

/// Data that cannot hold a comment, and texts that say their licence elsewhere.
const NO_SPDX: &[&str] = &["md", "patch", "lock", "json", "txt", "log"];

fn spdx(checkout: &Path) -> Result<()> {
    let mut without = Vec::new();
    for file in tracked(checkout)? {
        let extension = file.extension().unwrap_or_default().to_string_lossy();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let fixture = file.strip_prefix(checkout)?.starts_with("ci/fixtures");
        if fixture || name == "LICENSE" || name == ".gitignore" || NO_SPDX.contains(&&*extension) {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
        if !text
            .lines()
            .take(3)
            .any(|l| l.contains("SPDX-License-Identifier: GPL-2.0"))
        {
            without.push(file.display().to_string());
        }
    }
    ensure!(without.is_empty(), "no SPDX line in {}", without.join(", "));
    Ok(())
}

/// In a repository of its own that holds only the files the series touches. Of a part refresh would number
/// the patches otherwise, as [PATCH 1/2].
fn prefix(series: &Series, pristine: &Path, is_whole: bool) -> Result<()> {
    let repo = series.scratch(pristine)?;
    // With the tree's attributes git names a hunk by the function that it is in, and not by a label.
    for file in [".gitattributes", "Makefile", "mm/page_alloc.c"] {
        fs::create_dir_all(repo.path().join("mm"))?;
        let (from, to) = (pristine.join(file), repo.path().join(file));
        if from.exists() && !to.exists() {
            fs::copy(from, to)?;
        }
    }
    output(git(repo.path()).args(["init", "--quiet"]))?;
    for (key, value) in [
        ("user.name", "check"),
        ("user.email", "check@localhost"),
        ("commit.gpgsign", "false"),
    ] {
        output(git(repo.path()).args(["config", key, value]))?;
    }
    output(git(repo.path()).args(["add", "--force", "--all"]))?;
    output(git(repo.path()).args(["commit", "--quiet", "--message", "base"]))?;
    let before = output(git(repo.path()).args(["rev-parse", "HEAD^{tree}"]))?;
    series.apply(repo.path()).or_exit(Exit::Tree)?;
    if series.state(repo.path())? != State::All {
        bail!("git am succeeded and the series is not there");
    }
    if is_whole {
        series.check_unchanged_by_refresh(repo.path())?;
    }
    series.unapply(repo.path())?;
    let after = output(git(repo.path()).args(["rev-parse", "HEAD^{tree}"]))?;
    if before != after {
        return Err(fail(
            Exit::Test,
            "taking the series off did not bring the tree back",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::series::tests::fixture;

    #[test]
    fn cargo_counts_add_up() {
        let text = "test result: ok. 3 passed; 0 failed; 0 ignored\nx\ntest result: FAILED. 1 passed; 2 failed;\n";
        assert_eq!(counts(text), (4, 2));
        assert_eq!(counts("error: could not compile"), (0, 0));
    }

    #[test]
    fn a_failure_without_a_name_counts() {
        const TORN: &str = "test a ... explored 3 x\nFAILED\ntest b ... FAILED\ntest result: FAILED. 1 passed; 2 failed;";
        for (text, success, closing) in [
            (TORN, false, "1 passed, 2 failed"),
            (
                "test result: ok. 3 passed; 0 failed;",
                true,
                "3 passed, 0 failed",
            ),
            (
                "test result: ok. 3 passed; 0 failed;",
                false,
                "3 passed, 1 failed",
            ),
            (
                "test result: ok. 0 passed; 0 failed;",
                true,
                "0 passed, 1 failed",
            ),
            ("error: could not compile", false, "0 passed, 1 failed"),
        ] {
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let mut tally = Tally::default();
            count_tests(&lines, success, &mut tally);
            assert_eq!(tally.closing(), closing, "{text}");
        }
    }

    #[test]
    fn what_was_explored_adds_up_by_kind() {
        let lines = [
            "explored 3 interleavings of the slots",
            // Without threads of its own the harness has begun a line by then.
            "test a ... explored 4 interleavings of the slots",
            "explored 2 interleavings of the refill",
            "explored 5 interleavings of the queue",
            "explored many random sequences of the queue",
        ]
        .map(str::to_owned);
        let counts = EXPLORED.map(|what| explored(&lines, what));
        assert_eq!(counts, [7, 2, 5, 0]);
    }

    fn repo(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        output(git(dir.path()).args(["init", "--quiet"])).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    /// git format-patch's own form has a signature, and the commit's id.
    #[test]
    fn patches_that_refresh_would_change_are_red_as_a_whole() {
        let f = fixture(false);
        prefix(&f.series, &f.tree, false).unwrap();
        let e = prefix(&f.series, &f.tree, true).unwrap_err().to_string();
        assert!(e.contains("would change patches/"), "{e}");
        assert!(e.contains("\n  changed  mm: two"), "{e}");
    }

    #[test]
    fn a_file_without_spdx_is_found() {
        let good = ("a.rs", "// SPDX-License-Identifier: GPL-2.0\n");
        spdx(repo(&[good, ("notes.md", "x")]).path()).unwrap();
        let e = spdx(repo(&[good, ("b.rs", "fn f() {}\n")]).path()).unwrap_err();
        assert!(
            e.to_string().contains("b.rs") && !e.to_string().contains("a.rs"),
            "{e}"
        );
    }
}
