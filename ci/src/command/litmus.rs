// SPDX-License-Identifier: GPL-2.0
//! The litmus tests of the lock-free parts: of each, herd7 with the kernel's memory model must observe what
//! the test's own `Result:` comment says, as with the kernel's own litmus tests.

use crate::base::cache::Cache;
use crate::base::pins::PINS;
use crate::base::proc::{capture, check_interrupt, output};
use crate::host::other_suite::{Packages, started_with_its_libc};
use crate::verdict::check::{Check, Found};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As the kernel's tools/memory-model/README asks for.
const OLDEST: (u32, u32) = (7, 58);

/// Where no herd7 can be had, each test counts as skipped.
pub fn check(cache: &Cache, tests: &[PathBuf], pristine: &Path, tally: &mut Tally) -> Result<()> {
    let herd = match Herd::find(cache, pristine) {
        Ok(herd) => herd,
        Err(e) => {
            check_interrupt()?;
            let why = format!("the litmus tests were not run: {e:#}");
            println!("{}", why.lines().next().unwrap_or_default());
            for test in tests {
                let name = test.file_name().unwrap_or_default().display();
                let found = Found::Skipped { why: why.clone() };
                tally.take(&[Check::case(name.to_string(), found)]);
            }
            return Ok(());
        }
    };
    let mut wanted = Vec::new();
    for test in tests {
        let name = test.file_name().unwrap_or_default().display();
        let text = fs::read_to_string(test)?;
        let result = declared(&text);
        let title = format!(
            "{name}: {}, by herd7",
            result.unwrap_or("no result declared")
        );
        let observed = herd.run(test).and_then(|said| observed(&said));
        tally.check(&title, judge_test(result, observed))?;
        wanted.extend(result.map(str::to_owned));
    }
    tally.check(
        "litmus tests: forbidden ones, and an allowed one as control",
        kinds(&wanted),
    )
}

fn judge_test(declared: Option<&str>, observed: Result<String>) -> Result<()> {
    let declared = declared.context("no line ` * Result: Never` (or Sometimes, or Always)")?;
    let observed = observed?;
    ensure!(observed == declared, "herd7 observes {observed}");
    Ok(())
}

/// What the test says of itself; the kernel's judgelitmus.sh takes the same line.
fn declared(test: &str) -> Option<&str> {
    let mut lines = test.lines();
    lines.find_map(|l| {
        l.trim_start_matches(['(', ' '])
            .strip_prefix("* Result: ")?
            .split_whitespace()
            .next()
    })
}

/// herd7 warns of what it cannot parse, and succeeds.
fn observed(said: &str) -> Result<String> {
    let line = |what: &str| said.lines().find_map(|l| l.strip_prefix(what));
    if let Some(flag) = line("Flag ") {
        bail!("herd7 flags it: {flag}");
    }
    let observation =
        line("Observation ").with_context(|| format!("herd7 observed nothing: {}", said.trim()))?;
    let word = observation.split_whitespace().nth(1);
    Ok(word
        .context("an observation names its test first")?
        .to_owned())
}

/// A model that forbids everything would find every `Never` right.
fn kinds(declared: &[String]) -> Result<()> {
    for kind in ["Never", "Sometimes"] {
        ensure!(
            declared.iter().any(|d| d == kind),
            "there is none with `Result: {kind}`"
        );
    }
    Ok(())
}

struct Herd {
    /// The program, or what starts it, and its arguments.
    words: Vec<String>,
    model: PathBuf,
}

impl Herd {
    /// The one on PATH if it is new enough, else another Debian suite's.
    fn find(cache: &Cache, pristine: &Path) -> Result<Herd> {
        let model = pristine.join("tools/memory-model");
        let ask_version = || output(Command::new("herd7").arg("-version"));
        if which::which("herd7").is_ok() && ask_version().is_ok_and(|v| version(&v) >= Some(OLDEST))
        {
            let words = vec!["herd7".to_owned()];
            return Ok(Herd { words, model });
        }
        let other = Packages {
            folder: "herdtools7",
            suite: &PINS.debian.herd7,
            names: &["herdtools7", "libgmp10", "libc6"],
        };
        let root = other.fetched(cache)?;
        let mut words = started_with_its_libc(&root, "usr/bin/herd7")?;
        let library = root.join("usr/share/herdtools7/herd");
        words.extend(["-set-libdir".to_owned(), library.display().to_string()]);
        Ok(Herd { words, model })
    }

    fn run(&self, test: &Path) -> Result<String> {
        let mut herd = Command::new(&self.words[0]);
        herd.args(&self.words[1..])
            .args(["-conf", "linux-kernel.cfg"])
            .arg(test)
            .current_dir(&self.model);
        let out = capture(&mut herd, Stdio::null())?;
        let said = [out.stdout, out.stderr].concat();
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}

/// Of `7.58, Rev: exported`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (major, rest) = said.trim().split_once('.')?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: &str = "Test a Allowed\nStates 1\nObservation a Never 0 5\nTime a 0.08\n";

    fn verdict(test: &str, said: &str) -> Result<()> {
        judge_test(declared(test), observed(said))
    }

    #[test]
    fn a_test_is_judged_by_its_own_line() {
        let test = "C a\n\n(*\n * Result: Never\n *\n * Result: Sometimes, without smp_mb()\n *)\n";
        verdict(test, NEVER).unwrap();
        verdict("C a\n(* Result: Never *)\n", NEVER).unwrap();
        let sometimes = NEVER.replace("Never 0", "Sometimes 1");
        let e = verdict(test, &sometimes).unwrap_err();
        assert!(e.to_string().contains("observes Sometimes"), "{e}");
        let e = verdict("C a\n", NEVER).unwrap_err();
        assert!(e.to_string().contains("Result: Never"), "{e}");
    }

    #[test]
    fn what_herd7_cannot_parse_or_flags_is_red() {
        let test = "(* Result: Never *)";
        let e = verdict(test, "Warning: File \"a\", line 3: unexpected '}'\n").unwrap_err();
        assert!(e.to_string().contains("unexpected"), "{e}");
        let e = verdict(test, &format!("Flag data-race\n{NEVER}")).unwrap_err();
        assert!(e.to_string().contains("data-race"), "{e}");
    }

    #[test]
    fn the_control_may_not_be_missing() {
        let declared = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        kinds(&declared(&["Never", "Sometimes"])).unwrap();
        assert!(kinds(&declared(&["Never", "Never"])).is_err());
        assert!(kinds(&declared(&["Sometimes"])).is_err());
    }

    #[test]
    fn an_older_herd7_is_told_from_a_newer() {
        assert_eq!(version("7.58, Rev: exported\n"), Some((7, 58)));
        assert!(version("7.56+03, Rev: x") < Some(OLDEST) && version("8.0") > Some(OLDEST));
        assert_eq!(version("herd7: cannot open file"), None);
    }
}
