// SPDX-License-Identifier: GPL-2.0
//! The run on one screen of plain text.

use crate::facts::suite::Suite;
use crate::report::numbers::{per_call, percent, thousands, time};
use crate::report::run::{APIS, LaneReport, OPS, RunReport};
use crate::report::table::table;

/// The screen must stay one screen; the files have the rest.
const PROBLEMS: usize = 10;

pub fn list_shares(lane: &LaneReport, context: &str) -> Vec<String> {
    let share = |api| {
        let stat = lane.stat(context, api);
        stat.map_or("–".to_owned(), |s| percent(s.obtained, s.attempts))
    };
    APIS.map(share).to_vec()
}

fn list_locks(lane: &LaneReport, context: &str) -> Vec<String> {
    let taken = |op| {
        let mut locks = lane.locks();
        let locks = locks.find(|l| l.context == context && l.op == op);
        locks.map_or("–".to_owned(), per_call)
    };
    OPS.map(taken).to_vec()
}

/// Contexts down, lanes across, the values side by side in each cell.
fn lay_out_grid(
    report: &RunReport,
    contexts: &[&str],
    values: fn(&LaneReport, &str) -> Vec<String>,
) -> String {
    let mut header = vec!["context".to_owned()];
    header.extend(report.lanes.iter().map(|l| l.name.clone()));
    let row = |context: &&str| {
        let cell = |lane: &LaneReport| {
            let aligned = values(lane, context).into_iter().map(|v| format!("{v:>4}"));
            aligned.collect::<Vec<_>>().join(" / ")
        };
        let mut row = vec![(*context).to_owned()];
        row.extend(report.lanes.iter().map(cell));
        row
    };
    table(header, contexts.iter().map(row).collect(), 1)
}

/// What the queue's stress module saw, in a line.
pub fn say_queue(suite: &Suite) -> String {
    let freed = suite.objects.as_ref().map_or(0, |o| o.freed);
    let mut text = format!("{} freed", thousands(freed));
    if let Some(peak) = &suite.peak {
        text += &format!(
            "; without a pause {} a second on {} CPUs, {} of {} without a block",
            thousands(peak.pushed * 1000 / peak.ms.max(1)),
            peak.cpus,
            thousands(peak.listed),
            thousands(peak.pushed)
        );
    }
    text
}

/// All that the user waited for, unit tests and builds too.
pub fn say_total(total_s: f64, cache: &str) -> String {
    format!("total {}, cache {cache}", time(total_s))
}

/// What was gone through on the host, in a run that did.
pub fn say_models(report: &RunReport) -> Option<String> {
    let explored = report.explored.join(", ");
    (!explored.is_empty()).then(|| format!("models without a bug found: {explored}"))
}

/// The run on one screen of plain text.
pub fn render_screen(report: &RunReport) -> String {
    let header = [
        "lane",
        "verdict",
        "cases",
        "pages obtained",
        "controls",
        "splats",
        "lockdep",
        "boots",
        "their time",
    ];
    let rows = report.lanes.iter().map(|l| {
        vec![
            l.name.clone(),
            if l.has_passed() { "pass" } else { "FAIL" }.to_owned(),
            l.say_cases(),
            thousands(l.obtained()),
            l.say_controls_caught(),
            l.all_findings().count().to_string(),
            l.say_lockdep().to_owned(),
            l.consoles.len().to_string(),
            time(l.duration_s),
        ]
    });
    let mut out = table(header.map(str::to_owned).to_vec(), rows.collect(), 3);
    let (contexts, lock_contexts) = (report.contexts(), report.lock_contexts());
    if !contexts.is_empty() {
        out += &format!(
            "\nshare of pages obtained where they are promised, %: {}\n{}",
            APIS.join(" / "),
            lay_out_grid(report, &contexts, list_shares)
        );
    }
    if !lock_contexts.is_empty() {
        out += &format!(
            "\nlocks that a call of {} takes: {}\n{}",
            APIS[0],
            OPS.join(" / "),
            lay_out_grid(report, &lock_contexts, list_locks)
        );
    }
    // Of a few cases none may have pushed anything.
    let has_pushed =
        |s: &&Suite| s.peak.is_some() || s.objects.as_ref().is_some_and(|o| o.freed > 0);
    let queue = |l: &LaneReport| {
        let suite = l.queue.as_ref().filter(has_pushed)?;
        Some(vec![l.name.clone(), say_queue(suite)])
    };
    let queues: Vec<_> = report.lanes.iter().filter_map(queue).collect();
    if !queues.is_empty() {
        out += &format!(
            "\n{}",
            table(vec!["queue".to_owned(), "objects".to_owned()], queues, 2)
        );
    }
    let problem = |l: &LaneReport| {
        l.problems()
            .into_iter()
            .map(|p| format!("{}: {p}", l.name))
            .collect::<Vec<_>>()
    };
    let problems: Vec<_> = report.lanes.iter().flat_map(problem).collect();
    if !problems.is_empty() {
        out.push('\n');
    }
    for p in problems.iter().take(PROBLEMS) {
        out += &format!("FAIL {p}\n");
    }
    for l in &report.lanes {
        if let Some(note) = l.say_repetitions() {
            out += &format!("NOTE {}: {note}\n", l.name);
        }
    }
    if problems.len() > PROBLEMS {
        out += &format!("and {} more: see report.html\n", problems.len() - PROBLEMS);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::Exit;
    use crate::facts::suite::Status;
    use crate::report::made_up::{bad, lane, run};
    use crate::verdict::check::Check;

    #[test]
    fn the_screen_says_what_was_obtained_and_is_aligned() {
        let text = render_screen(&run(vec![lane("good"), bad()]));
        let line = |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap();
        for part in ["pass", "3 ok", "2,234,567", "1/1 red", "on", "3 min 13 s"] {
            assert!(line("good").contains(part), "{part}: {text}");
        }
        for part in ["FAIL", "2 ok, 1 failed", "0/1 red", "OFF"] {
            assert!(line("bad").contains(part), "{part}: {text}");
        }
        assert_eq!(
            line("task")
                .split_whitespace()
                .skip(1)
                .take(5)
                .collect::<String>(),
            "100/100/–"
        );
        assert!(line("nmi").contains("99.9 /    – /    –"), "{text}");
        let grid: Vec<_> = text
            .lines()
            .filter(|l| l.contains(" / ") && !l.contains(':'))
            .collect();
        // Under pressure nothing is promised.
        assert_eq!(grid.len(), 4, "{text}");
        assert!(grid[2].contains("1 /    0"), "{text}");
        assert!(grid[3].contains("1.1 /    –"), "{text}");
        let slashes = |l: &str| {
            l.chars()
                .enumerate()
                .filter(|c| c.1 == '/')
                .map(|c| c.0)
                .collect::<Vec<_>>()
        };
        for pair in [[0, 1], [2, 3]] {
            assert_eq!(slashes(grid[pair[0]]), slashes(grid[pair[1]]), "{text}");
        }
        for part in [
            "31 of 32",
            "bad-page (console line 412): BUG: ",
            "debug_locks: 0",
            "control zone-lock: stayed green",
        ] {
            assert!(
                text.lines()
                    .any(|l| l.starts_with("FAIL bad: ") && l.contains(part)),
                "{part}: {text}"
            );
        }
    }

    #[test]
    fn what_another_boot_shows_counts() {
        let mut lane = lane("l");
        lane.boots[0].debug_locks = Some(false);
        lane.boots[0].findings = bad().findings;
        lane.boots[0].kunit[0].cases[0].status = Status::Fail;
        let text = render_screen(&run(vec![lane.clone()]));
        for part in ["2 ok, 1 failed", " OFF "] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn the_total_says_what_was_there_before() {
        assert_eq!(say_total(600.0, "warm"), "total 10 min 00 s, cache warm");
    }

    #[test]
    fn many_problems_stay_on_the_screen() {
        let mut noisy = bad();
        noisy.checks = vec![noisy.checks[1].clone(); 53];
        let text = render_screen(&run(vec![noisy]));
        assert_eq!(
            text.lines().filter(|l| l.starts_with("FAIL")).count(),
            PROBLEMS
        );
        assert!(text.contains("and 43 more"), "{text}");
    }

    #[test]
    fn a_lane_says_what_it_did_again_and_why_it_failed_before_its_tests() {
        let mut again = lane("again");
        again.suite.as_mut().unwrap().cases[0].repetitions = 2;
        assert!(render_screen(&run(vec![again])).contains("repeated inside a case: "));
        let mut hung = lane("hung");
        hung.suite = None;
        hung.checks = vec![Check::failed("hung", Exit::Hang, "boot hung")];
        assert!(render_screen(&run(vec![hung])).contains("FAIL hung: boot hung"));
    }

    #[test]
    fn a_queue_that_nothing_was_pushed_to_has_no_row() {
        let mut idle = lane("idle");
        let queue = idle.queue.as_mut().unwrap();
        (queue.peak, queue.objects) = (None, None);
        assert!(!render_screen(&run(vec![idle])).contains("\nqueue "));
        assert!(render_screen(&run(vec![lane("busy")])).contains("\nqueue "));
    }
}
