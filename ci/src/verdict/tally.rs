// SPDX-License-Identifier: GPL-2.0
//! What passed and what did not, with the closing line that people and CI read.

use crate::base::exit::{Exit, fail};
use crate::base::proc::check_interrupt;
use crate::base::progress::say;
use crate::verdict::check::{Check, Found};
use anyhow::Result;

#[derive(Default)]
pub struct Tally {
    /// The closing line and junit.xml count these, and nothing else.
    pub checks: Vec<Check>,
    /// What the models went through, for the report.
    pub explored: Vec<String>,
}

impl Tally {
    /// Counts one check; an interruption is none.
    pub fn check(&mut self, name: &str, result: Result<()>) -> Result<()> {
        check_interrupt()?;
        self.take(&[Check::new(name, result)]);
        Ok(())
    }

    /// Counts what a judgement came to, and says it.
    pub fn take(&mut self, checks: &[Check]) {
        for check in checks {
            match (&check.found, check.failure()) {
                (_, Some((_, what))) => say(&format!("FAIL {what}")),
                (Found::Passed, _) if !check.is_case => say(&format!("ok   {}", check.name)),
                _ => {}
            }
        }
        self.checks.extend_from_slice(checks);
    }

    /// Takes over what another has counted, and said.
    pub fn absorb(&mut self, other: Tally) {
        self.checks.extend(other.checks);
        self.explored.extend(other.explored);
    }

    fn failures(&self) -> Vec<(Exit, String)> {
        self.checks.iter().filter_map(Check::failure).collect()
    }

    pub fn closing(&self) -> String {
        let count = |is: fn(&Found) -> bool| self.checks.iter().filter(|c| is(&c.found)).count();
        let skipped = match count(|f| matches!(f, Found::Skipped { .. })) {
            0 => String::new(),
            n => format!(", {n} skipped"),
        };
        format!(
            "{} passed, {} failed{skipped}",
            count(|f| *f == Found::Passed),
            self.failures().len()
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
        let failures = self.failures();
        if failures.is_empty() {
            // Nothing counted is nothing shown.
            return match self.checks.iter().any(|c| c.found == Found::Passed) {
                true => Ok(()),
                false => Err(fail(Exit::Test, "no test ran")),
            };
        }
        let exit = ORDER
            .into_iter()
            .find(|o| failures.iter().any(|(e, _)| e == o))
            .unwrap_or(Exit::Test);
        // The rest of each has been on the screen where it happened.
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let list: String = failures
            .iter()
            .map(|(_, what)| format!("\n  {}", first(what)))
            .collect();
        Err(fail(exit, format!("{} failed:{list}", failures.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    fn skipped(name: &str) -> Check {
        let why = "why".to_owned();
        Check::case(name, Found::Skipped { why })
    }

    #[test]
    fn the_closing_line_counts() {
        let mut tally = Tally::default();
        tally.check("a", Ok(())).unwrap();
        tally.check("b", Err(anyhow::anyhow!("why"))).unwrap();
        assert_eq!(tally.closing(), "1 passed, 1 failed");
        tally.take(&[skipped("c"), skipped("d")]);
        assert_eq!(tally.closing(), "1 passed, 1 failed, 2 skipped");
        assert!(tally.result().unwrap_err().to_string().contains("b: why"));
    }

    #[test]
    fn what_another_counted_is_added() {
        let mut other = Tally::default();
        other.check("b", Err(anyhow::anyhow!("why"))).unwrap();
        other.take(&[skipped("c")]);
        let mut tally = Tally::default();
        tally.check("a", Ok(())).unwrap();
        tally.absorb(other);
        assert_eq!(tally.closing(), "1 passed, 1 failed, 1 skipped");
        assert!(tally.result().is_err());
    }

    #[test]
    fn a_splat_explains_failed_cases() {
        let mut tally = Tally::default();
        tally.take(&[Check::failed("case", Exit::Test, "why")]);
        tally.take(&[Check::failed("splat", Exit::Splat, "why")]);
        assert_eq!(stage(&tally.result().unwrap_err()), Some(Exit::Splat));
    }

    #[test]
    fn no_failure_is_a_success() {
        let mut tally = Tally::default();
        tally.check("a", Ok(())).unwrap();
        assert!(tally.result().is_ok());
        for exit in [Exit::Usage, Exit::Interrupted] {
            let mut tally = Tally::default();
            tally.check("a", Ok(())).unwrap();
            tally.take(&[Check::failed("x", exit, "why")]);
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
