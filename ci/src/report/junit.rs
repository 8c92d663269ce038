// SPDX-License-Identifier: GPL-2.0
//! The run for machines that read JUnit.

use crate::report::numbers::{per_call, percent};
use crate::report::run::RunReport;
use crate::verdict::check::{Check, Found};
use anyhow::{Result, anyhow};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::collections::BTreeMap;
use std::time::Duration;

fn find_suite<'a>(suites: &'a mut BTreeMap<String, TestSuite>, name: &str) -> &'a mut TestSuite {
    let new = || TestSuite::new(name.replace(": ", "."));
    suites.entry(name.to_owned()).or_insert_with(new)
}

/// Every check that the closing line counts, by what it is of; and what the lanes' suites measured.
pub fn render_junit(report: &RunReport, checks: &[Check]) -> Result<String> {
    let mut suites = BTreeMap::new();
    for check in checks {
        let (of, name) = check
            .name
            .rsplit_once(": ")
            .unwrap_or(("host", &check.name));
        let status = match &check.found {
            Found::Passed => TestCaseStatus::success(),
            Found::Skipped { why } => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why);
                status
            }
            Found::Failed { why, .. } => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                status.set_message(why).set_description(why);
                status
            }
        };
        find_suite(&mut suites, of).add_test_case(TestCase::new(name, status));
    }
    for lane in &report.lanes {
        for suite in lane.suites() {
            let tests = find_suite(&mut suites, &format!("{}: {}", lane.name, suite.name));
            for s in &suite.stats {
                let name = format!("share.{}.{}", s.context, s.api);
                tests.add_property((name, percent(s.obtained, s.attempts)));
            }
            for l in &suite.locks {
                let name = format!("locks.{}.{}.{}", l.context, l.api, l.op);
                tests.add_property((name, per_call(l)));
            }
        }
        let took = Duration::try_from_secs_f64(lane.duration_s).unwrap_or_default();
        find_suite(&mut suites, &lane.name).set_time(took);
    }
    let mut out = Report::new("nolocks");
    out.add_test_suites(suites.into_values());
    out.to_string().map_err(|e| anyhow!("JUnit: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;
    use crate::report::made_up::{bad, lane, run};
    use crate::verdict::tally::Tally;

    #[test]
    fn junit_counts_what_the_closing_line_counts() {
        let mut tally = Tally::default();
        let why = "no CPU".to_owned();
        tally.take(&[
            Check::case("unit test a::b", Found::Passed),
            Check::failed("ci: clippy", Exit::Test, "why"),
            Check::case("good: nolocks_stress: nmi", Found::Skipped { why }),
        ]);
        let lanes = vec![lane("good"), bad()];
        lanes.iter().for_each(|lane| tally.take(&lane.checks));
        let text = render_junit(&run(lanes), &tally.checks).unwrap();
        let read = Report::deserialize_from_str(&text).unwrap();
        let (all, failed, skipped) = (read.tests, read.failures, read.skipped);
        let passed = all - failed - skipped;
        let closing = format!("{passed} passed, {failed} failed, {skipped} skipped");
        assert_eq!(closing, tally.closing());
    }

    #[test]
    fn a_suite_has_what_it_measured() {
        let text = render_junit(&run(vec![lane("good")]), &[]).unwrap();
        let read = Report::deserialize_from_str(&text).unwrap();
        let mut suites = read.test_suites.iter();
        let suite = suites.find(|s| s.name.as_str() == "good.nolocks_stress");
        let properties = &suite.unwrap().properties;
        for (name, value) in [
            ("share.nmi.no_locks", "99.9"),
            ("share.task.nolock", "100"),
            ("locks.nmi.no_locks.alloc", "1.1"),
        ] {
            let found = properties.iter().find(|p| p.name.as_str() == name);
            assert_eq!(found.unwrap().value.as_str(), value);
        }
    }
}
