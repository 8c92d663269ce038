// SPDX-License-Identifier: GPL-2.0
//! A run that is made up, for the tests of what reports it.

use crate::base::exit::Exit;
use crate::facts::scan::Finding;
use crate::facts::suite::{BurstStat, Case, Locks, Note, Objects, Peak, Stat, Status, Suite};
use crate::report::run::{LaneReport, RunReport};
use crate::verdict::check::Check;
use crate::verdict::judge::{BootReport, ControlResult};

fn stat(context: &str, api: &str, attempts: u64, obtained: u64) -> Stat {
    Stat {
        context: context.into(),
        api: api.into(),
        attempts,
        obtained,
    }
}

pub fn taken(context: &str, api: &str, op: &str, calls: u64, locks: u64) -> Locks {
    Locks {
        context: context.into(),
        api: api.into(),
        op: op.into(),
        calls,
        locks,
        rcu: 0,
        names: [("&pcp->lock".to_owned(), locks)].into(),
    }
}

pub fn lane(name: &str) -> LaneReport {
    let case = |name: &str| Case {
        name: name.into(),
        status: Status::Pass,
        reason: None,
        repetitions: 0,
    };
    let burst = |size, obtained| BurstStat {
        context: "task".into(),
        api: "no_locks".into(),
        size,
        obtained,
    };
    let note = |what: &str, key: &str, value: &str| Note {
        what: what.into(),
        fields: vec![(key.into(), value.into())],
    };
    LaneReport {
        name: name.into(),
        arch: "x86_64".into(),
        kernel: "7.3.4".into(),
        accel: "tcg".into(),
        duration_s: 193.4,
        promised: vec!["task".into(), "nmi".into()],
        suite: Some(Suite {
            name: "nolocks_stress".into(),
            planned: Some(2),
            cases: vec![case("task"), case("nmi")],
            stats: vec![
                stat("task", "nolock", 2_000_000, 2_000_000),
                stat("task", "no_locks", 1_234_567, 1_234_567),
                stat("nmi", "no_locks", 1_000_000, 999_999),
                stat("pressure", "no_locks", 2, 1),
            ],
            locks: vec![
                taken("task", "nolock", "refill", 2, 64),
                taken("task", "no_locks", "alloc", 32, 32),
                taken("task", "no_locks", "free", 32, 0),
                taken("nmi", "no_locks", "alloc", 32, 33),
            ],
            bursts: vec![burst(1, 1), burst(4096, 2048), burst(4096, 4096)],
            notes: vec![note("storm", "part", "pop"), note("tick", "late", "7")],
            ..Suite::default()
        }),
        queue: Some(Suite {
            name: "nolocks_queue_stress".into(),
            objects: Some(Objects {
                freed: 1_234_567,
                corrupt: 0,
            }),
            peak: Some(Peak {
                cpus: 4,
                pushed: 1_024_000,
                listed: 3,
                ms: 20_000,
            }),
            ..Suite::default()
        }),
        failing: None,
        kunit: vec![],
        boots: vec![BootReport {
            name: "kunit-numa".into(),
            kunit: vec![Suite {
                name: "k".into(),
                cases: vec![case("node")],
                ..Suite::default()
            }],
            findings: vec![],
            debug_locks: Some(true),
        }],
        controls: vec![ControlResult {
            name: "zone-lock".into(),
            expected: "invalid-wait-context".into(),
            seen: "invalid-wait-context".into(),
            ok: true,
        }],
        findings: vec![],
        debug_locks: Some(true),
        consoles: vec!["main".into(), "control-x".into()],
        decoded: vec!["control-x".into()],
        checks: ["boots without a splat", "debug_locks", "control zone-lock"]
            .map(|what| Check::new(format!("{name}: {what}"), Ok(())))
            .into(),
    }
}

pub fn bad() -> LaneReport {
    let mut bad = lane("bad");
    let suite = bad.suite.as_mut().unwrap();
    suite.cases[1].status = Status::Fail;
    suite.cases[1].reason = Some("<b>31 of 32 & \"none\"</b>".into());
    bad.findings.push(Finding {
        rule: "bad-page".into(),
        line_no: 412,
        line: "BUG: <script>\u{1}".into(),
        reason: "why".into(),
        report: vec![],
        case: None,
    });
    bad.controls[0] = ControlResult {
        seen: String::new(),
        ok: false,
        ..bad.controls[0].clone()
    };
    bad.debug_locks = Some(false);
    bad.checks = [
        (
            "nolocks_stress: nmi",
            Exit::Test,
            "<b>31 of 32 & \"none\"</b>",
        ),
        (
            "bad-page (console line 412)",
            Exit::Splat,
            "BUG: <script>\u{1}",
        ),
        ("debug_locks", Exit::Test, "0: lockdep went silent"),
        ("control zone-lock", Exit::Test, "stayed green"),
    ]
    .map(|(what, exit, why)| Check::failed(format!("bad: {what}"), exit, why))
    .into();
    bad.checks[0].is_case = true;
    bad
}

pub fn run(lanes: Vec<LaneReport>) -> RunReport {
    RunReport {
        lanes,
        metadata: serde_json::json!({ "tree": "</pre>7.3.4" }),
        total_s: 600.0,
        cache: "warm".into(),
        explored: vec!["9 interleavings of the slots".into()],
    }
}
