// SPDX-License-Identifier: GPL-2.0
//! The run for machines that read JUnit.

use crate::facts::suite::Status;
use crate::report::numbers::{per_call, percent};
use crate::report::run::RunReport;
use crate::verdict::check::Found;
use anyhow::{Result, anyhow};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

fn failed(message: &str, text: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(message).set_description(text);
    status
}

/// For machines that read JUnit: every case, every other check of the lane, and what they come to.
pub fn render_junit(report: &RunReport) -> Result<String> {
    let mut out = Report::new("nolocks");
    for lane in &report.lanes {
        for (boot, suite) in lane.all_suites() {
            let boot = boot.map(|b| format!(".{b}")).unwrap_or_default();
            let mut tests = TestSuite::new(format!("{}{boot}.{}", lane.name, suite.name));
            for case in &suite.cases {
                let reason = case.reason.as_deref().unwrap_or("no reason given");
                let status = match case.status {
                    Status::Pass => TestCaseStatus::success(),
                    Status::Fail => failed(reason, reason),
                    Status::Skip => {
                        let mut status = TestCaseStatus::skipped();
                        status.set_message(reason);
                        status
                    }
                };
                tests.add_test_case(TestCase::new(case.name.as_str(), status));
            }
            for s in &suite.stats {
                let name = format!("share.{}.{}", s.context, s.api);
                tests.add_property((name, percent(s.obtained, s.attempts)));
            }
            for l in &suite.locks {
                let name = format!("locks.{}.{}.{}", l.context, l.api, l.op);
                tests.add_property((name, per_call(l)));
            }
            out.add_test_suite(tests);
        }
        let mut tests = TestSuite::new(format!("{}.boot", lane.name));
        tests.set_time(Duration::try_from_secs_f64(lane.duration_s).unwrap_or_default());
        let prefix = format!("{}: ", lane.name);
        for check in lane.checks.iter().filter(|c| !c.is_case) {
            let status = match &check.found {
                Found::Passed => TestCaseStatus::success(),
                Found::Skipped => TestCaseStatus::skipped(),
                Found::Failed { why, .. } => failed(why, why),
            };
            let name = check.name.strip_prefix(&prefix).unwrap_or(&check.name);
            tests.add_test_case(TestCase::new(name, status));
        }
        let status = match lane.problems().join("; ") {
            why if why.is_empty() => TestCaseStatus::success(),
            why => failed(&why, &why),
        };
        tests.add_test_case(TestCase::new("verdict", status));
        out.add_test_suite(tests);
    }
    out.to_string().map_err(|e| anyhow!("JUnit: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{bad, lane, run};

    #[test]
    fn junit_counts_what_failed() {
        let read = |r: &RunReport| Report::deserialize_from_str(&render_junit(r).unwrap()).unwrap();
        let good = read(&run(vec![lane("good")]));
        assert_eq!((good.tests, good.failures), (7, 0));
        let properties = &good.test_suites[0].properties;
        for (name, value) in [
            ("share.nmi.no_locks", "99.9"),
            ("share.task.nolock", "100"),
            ("locks.nmi.no_locks.alloc", "1.1"),
        ] {
            let found = properties.iter().find(|p| p.name.as_str() == name);
            assert_eq!(found.unwrap().value.as_str(), value);
        }
        // A case, the splat, debug_locks, the control and the verdict.
        assert_eq!(read(&run(vec![lane("good"), bad()])).failures, 5);
    }
}
