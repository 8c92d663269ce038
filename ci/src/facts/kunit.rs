// SPDX-License-Identifier: GPL-2.0
//! Reads what KUnit leaves of its suites, as strictly as [`ktap`](crate::facts::ktap).

use crate::facts::ktap::{parse_number, parse_result, parse_tries};
use crate::facts::suite::{Case, Status, Suite};
use anyhow::{Context, Result, ensure};

/// What KUnit leaves in /sys/kernel/debug/kunit/SUITE/results; several such files may follow each other.
pub fn parse_kunit_results(text: &str) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    let mut open: Option<Kunit> = None;
    for (i, raw) in text.lines().enumerate() {
        let line = raw.trim_end();
        let at = || format!("line {}: {line:?}", i + 1);
        if line == "KTAP version 1" {
            ensure!(open.is_none(), "{}: the suite before is cut off", at());
            open = Some(Kunit::default());
        } else if !line.is_empty() {
            let kunit = open
                .as_mut()
                .with_context(|| format!("{}: no KTAP header before it", at()))?;
            if let Some(suite) = kunit.read_line(line).with_context(at)? {
                suites.push(suite);
                open = None;
            }
        }
    }
    ensure!(open.is_none(), "the last suite is cut off");
    ensure!(!suites.is_empty(), "no KUnit suite in the results");
    Ok(suites)
}

#[derive(Default)]
struct Kunit {
    planned: bool,
    suite: Option<Suite>,
    failure: Option<String>,
    /// Of the case whose result is still to come.
    repeated: u64,
}

impl Kunit {
    /// Takes a line; returns the suite when this was its last.
    fn read_line(&mut self, line: &str) -> Result<Option<Suite>> {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let text = &line[indent..];
        match indent {
            0 if line == "1..1" => {
                ensure!(!self.planned, "a second plan");
                self.planned = true;
            }
            0 if text.starts_with('#') => {}
            0 => {
                let Some(verdict) = parse_result(line, 1)? else {
                    // The message of a failed expectation is not even indented.
                    ensure!(
                        self.failure.is_some(),
                        "neither a result, a plan nor a diagnostic"
                    );
                    return Ok(None);
                };
                ensure!(self.planned, "a result before the plan");
                return self.close(verdict).map(Some);
            }
            4 => self.read_indented(text)?,
            // Deeper are the parameters of one case: its own result sums them up.
            _ => {}
        }
        Ok(None)
    }

    fn read_indented(&mut self, text: &str) -> Result<()> {
        if text == "KTAP version 1" {
            ensure!(self.suite.is_none(), "a second KTAP header");
            self.suite = Some(Suite::default());
            return Ok(());
        }
        let suite = self.suite.as_mut().context("no nested KTAP header")?;
        if let Some(name) = text.strip_prefix("# Subtest: ") {
            ensure!(suite.name.is_empty(), "a second name");
            suite.name = name.to_owned();
        } else if let Some(comment) = text.strip_prefix('#') {
            if comment.contains(" FAILED at ") && self.failure.is_none() {
                self.failure = Some(comment.trim().to_owned());
            }
            // Another suite may mean something else by it.
            if let Some((_, tries)) = comment.split_once(": tries: ") {
                self.repeated += parse_tries(tries).unwrap_or(0);
            }
        } else if let Some(plan) = text.strip_prefix("1..") {
            ensure!(suite.planned.is_none(), "a second plan");
            suite.planned = Some(parse_number(plan)?);
        } else if let Some(mut case) = parse_result(text, suite.cases.len() + 1)? {
            let why = self.failure.take();
            case.repetitions = std::mem::take(&mut self.repeated);
            if case.status == Status::Fail {
                case.reason = case.reason.or(why);
            }
            suite.add_case(case)?;
        } else {
            // A failed expectation explains itself in free text.
            ensure!(
                self.failure.is_some(),
                "neither a result, a plan nor a diagnostic"
            );
        }
        Ok(())
    }

    fn close(&mut self, verdict: Case) -> Result<Suite> {
        let Some(suite) = self.suite.take() else {
            ensure!(
                verdict.status == Status::Skip,
                "a suite without cases that is not skipped"
            );
            return Ok(Suite {
                name: verdict.name.clone(),
                planned: Some(1),
                cases: vec![verdict],
                ..Suite::default()
            });
        };
        ensure!(
            suite.name == verdict.name,
            "the result of {:?} ends the suite {:?}",
            verdict.name,
            suite.name
        );
        suite.check_plan_kept()?;
        // An error in the suite's own init or exit fails the suite without failing a case.
        let mut suite = suite;
        if verdict.status == Status::Fail && suite.count(Status::Fail) == 0 {
            suite.planned = suite.planned.map(|n| n + 1);
            suite.cases.push(Case {
                name: "the suite itself".to_owned(),
                ..verdict
            });
        } else {
            ensure!(
                verdict.status != Status::Pass || suite.count(Status::Fail) == 0,
                "the suite passed although a case failed"
            );
        }
        Ok(suite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::made_up::{config, nearly_ktap};
    use proptest::prelude::*;

    const KUNIT: &str = include_str!("../../fixtures/kunit-results.txt");

    #[test]
    fn kunit_results_are_read() {
        let suites = parse_kunit_results(KUNIT).unwrap();
        assert_eq!(suites.len(), 2);
        let first = &suites[0];
        assert_eq!(first.name, "page_alloc_no_locks");
        let count = |s| first.count(s);
        assert_eq!(
            (
                count(Status::Pass),
                count(Status::Fail),
                count(Status::Skip)
            ),
            (2, 1, 1)
        );
        let why = first.cases[1].reason.as_deref().unwrap();
        assert!(why.contains("EXPECTATION FAILED at"), "{why}");
        assert_eq!(suites[1].cases[0].status, Status::Skip);
    }

    #[test]
    fn broken_kunit_results_are_refused() {
        for (from, to, names) in [
            ("1..4", "1..5", "5 cases planned, 4 reported"),
            ("    ok 3", "    ok 5", "result 5 where 3 was due"),
            (
                "not ok 1 page",
                "ok 1 page",
                "passed although a case failed",
            ),
            ("1 page_alloc_no_locks\n", "1 other\n", "ends the suite"),
            ("not ok 1 page_alloc_no_locks\n", "", "cut off"),
            ("    ok 1 no_locks_misuse\n", "    oh\n", "neither a result"),
            ("    KTAP version 1\n", "", "no nested KTAP header"),
            (
                "KTAP version 1\n1..1\n    K",
                "1..1\n    K",
                "no KTAP header before",
            ),
        ] {
            assert!(KUNIT.contains(from), "{from}");
            let text = KUNIT.replacen(from, to, 1);
            let said = format!("{:#}", parse_kunit_results(&text).unwrap_err());
            assert!(said.contains(names), "{from:?} -> {to:?}: {said}");
        }
        assert!(parse_kunit_results("").is_err());
        let cut = &KUNIT[..KUNIT.find("    ok 4").unwrap()];
        assert!(parse_kunit_results(cut).is_err());
    }

    #[test]
    fn what_a_case_did_again_is_its_own() {
        let said = "    # no_locks_misuse: tries: 3\n    # no_locks_misuse: tries: 2\n";
        let text = KUNIT.replacen("    ok 1 no", &format!("{said}    ok 1 no"), 1);
        let suites = parse_kunit_results(&text).unwrap();
        let repetitions = suites[0].cases.iter().map(|c| c.repetitions);
        assert_eq!(Vec::from_iter(repetitions), [3, 0, 0, 0]);
    }

    #[test]
    fn a_suite_that_fails_beside_its_cases_fails() {
        let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    ok 1 a\nnot ok 1 s\n";
        let suites = parse_kunit_results(text).unwrap();
        assert_eq!(suites[0].count(Status::Fail), 1);
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), ".*", nearly_ktap()]) {
            let _ = parse_kunit_results(&text);
        }
    }
}
