// SPDX-License-Identifier: GPL-2.0
//! What passed and what did not, with the closing line that people and CI read.

use crate::base::exit::{Exit, explained, fail, stage};
use crate::base::proc::check_interrupt;
use crate::base::progress::say;
use crate::verdict::check::{Check, Found};
use anyhow::Result;

#[derive(Default)]
pub struct Tally {
    passed: usize,
    skipped: usize,
    failures: Vec<(Exit, String)>,
    /// What the models went through, for the report.
    pub explored: Vec<String>,
}

impl Tally {
    pub fn passed(&mut self, count: usize) {
        self.passed += count;
    }

    pub fn skipped(&mut self, count: usize) {
        self.skipped += count;
    }

    pub fn failed(&mut self, exit: Exit, what: impl Into<String>) {
        let what = what.into();
        say(&format!("FAIL {what}"));
        self.failures.push((exit, what));
    }

    /// Counts one check; an interruption is none.
    pub fn check(&mut self, name: &str, result: Result<()>) -> Result<()> {
        check_interrupt()?;
        match result {
            Ok(()) => {
                say(&format!("ok   {name}"));
                self.passed += 1;
            }
            Err(e) => {
                let e = explained(e);
                self.failed(stage(&e).unwrap_or(Exit::Test), format!("{name}: {e:#}"));
            }
        }
        Ok(())
    }

    /// Counts what a judgement came to, and says it.
    pub fn take(&mut self, checks: &[Check]) {
        for check in checks {
            match (&check.found, check.failure()) {
                (_, Some((exit, what))) => self.failed(exit, what),
                (Found::Skipped, _) => self.skipped += 1,
                _ => {
                    if !check.is_case {
                        say(&format!("ok   {}", check.name));
                    }
                    self.passed += 1;
                }
            }
        }
    }

    /// Takes over what another has counted, and said.
    pub fn absorb(&mut self, other: Tally) {
        self.passed += other.passed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.explored.extend(other.explored);
    }

    pub fn closing(&self) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        format!(
            "{} passed, {} failed{skipped}",
            self.passed,
            self.failures.len()
        )
    }

    /// The exit code is that of the failure that explains the others best: a hang or a splat goes
    /// before the cases that failed after it.
    pub fn result(&self) -> Result<()> {
        const ORDER: [Exit; 8] = [
            Exit::Setup,
            Exit::Tree,
            Exit::Config,
            Exit::Build,
            Exit::Hang,
            Exit::Splat,
            Exit::Boot,
            Exit::Test,
        ];
        // Nothing counted is nothing shown.
        if self.passed == 0 && self.failures.is_empty() {
            return Err(fail(Exit::Test, "no test ran"));
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let exit = ORDER
            .into_iter()
            .find(|o| self.failures.iter().any(|(e, _)| e == o))
            .unwrap_or(Exit::Test);
        // The rest of each has been on the screen where it happened.
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let list: String = self
            .failures
            .iter()
            .map(|(_, what)| format!("\n  {}", first(what)))
            .collect();
        Err(fail(exit, format!("{} failed:{list}", self.failures.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts() {
        let mut tally = Tally::default();
        tally.check("a", Ok(())).unwrap();
        tally.check("b", Err(anyhow::anyhow!("why"))).unwrap();
        assert_eq!(tally.closing(), "1 passed, 1 failed");
        tally.skipped(2);
        assert_eq!(tally.closing(), "1 passed, 1 failed, 2 skipped");
        assert!(tally.result().unwrap_err().to_string().contains("b: why"));
    }

    #[test]
    fn what_another_counted_is_added() {
        let mut other = Tally::default();
        other.check("b", Err(anyhow::anyhow!("why"))).unwrap();
        other.passed(2);
        other.skipped(1);
        let mut tally = Tally::default();
        tally.passed(1);
        tally.absorb(other);
        assert_eq!(tally.closing(), "3 passed, 1 failed, 1 skipped");
        assert!(tally.result().is_err());
    }

    #[test]
    fn a_splat_explains_failed_cases() {
        let mut tally = Tally::default();
        tally.failed(Exit::Test, "case");
        tally.failed(Exit::Splat, "splat");
        assert_eq!(stage(&tally.result().unwrap_err()), Some(Exit::Splat));
    }

    #[test]
    fn no_failure_is_a_success() {
        let mut tally = Tally::default();
        tally.passed(1);
        assert!(tally.result().is_ok());
        for exit in [Exit::Usage, Exit::Interrupted] {
            let mut tally = Tally::default();
            tally.passed(1);
            tally.failed(exit, "x");
            assert_eq!(stage(&tally.result().unwrap_err()), Some(Exit::Test));
        }
    }

    #[test]
    fn no_test_is_no_success() {
        assert_eq!(
            stage(&Tally::default().result().unwrap_err()),
            Some(Exit::Test)
        );
    }
}
