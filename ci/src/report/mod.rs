// SPDX-License-Identifier: GPL-2.0
//! What a run found, for people (one screen, one page) and for machines (JSON by serde, JUnit).

pub mod junit;
pub mod latency;
#[cfg(test)]
pub mod made_up;
pub mod numbers;
pub mod page;
pub mod pictures;
pub mod results;
pub mod run;
pub mod screen;
pub mod table;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::made_up::{config, suites};
    use proptest::prelude::*;
    use run::{LaneReport, RunReport};

    #[test]
    fn a_report_survives_json() {
        let report = made_up::run(vec![made_up::lane("good"), made_up::bad()]);
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&json).unwrap(), report);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..config() })]
        #[test]
        fn any_suite_can_be_reported(suite in suites(), name in ".*", seconds in any::<f64>()) {
            let lane = LaneReport { suite: Some(suite), name, duration_s: seconds, ..made_up::bad() };
            let report = made_up::run(vec![lane]);
            screen::render_screen(&report);
            page::render_page(&report).unwrap();
            let junit = junit::render_junit(&report, &report.lanes[0].checks).unwrap();
            quick_junit::Report::deserialize_from_str(&junit).unwrap();
        }
    }
}
