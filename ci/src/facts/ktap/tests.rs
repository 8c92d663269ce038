// SPDX-License-Identifier: GPL-2.0
use super::*;
use crate::facts::made_up::{config, nearly_ktap, suites};
use crate::facts::scan::messages;
use proptest::prelude::*;

fn parse_console(console: &str, prefix_tag: &str) -> Result<Suite> {
    parse_messages(&messages(console), prefix_tag)
}

const RUN: &str = "\
[    9.100000] nolocks_stress: loading out-of-tree module taints kernel.
[    9.200000][    T1] nolocks_stress: KTAP version 1
[    9.200001][    T1] nolocks_stress: 1..3
[    9.200002][    C0] clocksource: something else
[    9.300000][    T1] nolocks_stress: # seed: 7
nolocks_stress: # stat: context=task api=no_locks attempts=10 obtained=9
nolocks_stress: # stat: context=task api=nolock attempts=10 obtained=10
nolocks_stress: # burst: context=raw api=no_locks size=64 obtained=64
nolocks_stress: # locks: context=task api=no_locks op=alloc calls=32 locks=33 rcu=1
nolocks_stress: # lock: 32 of &pcp->lock
nolocks_stress: # locks: context=task api=no_locks op=free calls=32 locks=0 rcu=0
nolocks_stress: # any other remark
nolocks_stress: # readers: reads=64 stale=0 Stats { pushed: 9 }
nolocks_stress: ok 1 task
nolocks_stress: # failed: hardirq: 8 pages in a burst of 9
nolocks_stress: # failed: 2 visits were not in the context asked for
nolocks_stress: not ok 2 hardirq
nolocks_stress: ok 3 nmi # SKIP no NMI source
nolocks_stress: # ledger: obtained=83 freed=83
nolocks_stress: # peak: cpus=4 pushed=1000 listed=1 ms=20
nolocks_stress: # objects: freed=1234 corrupt=0
";

#[test]
fn repetitions_are_counted_for_the_case_that_they_are_in() {
    let tries = |n: &str| format!("nolocks_stress: # tries: {n}\n");
    let at = |case: &str, lines: &str| RUN.replace(case, &format!("{lines}{case}"));
    let (first, third) = ("nolocks_stress: ok 1", "nolocks_stress: ok 3");
    let run = at(first, &(tries("2") + &tries("3"))).replace(third, &(tries("2") + third));
    let suite = parse_console(&run, "nolocks_stress").unwrap();
    let counts: Vec<u64> = suite.cases.iter().map(|c| c.repetitions).collect();
    assert_eq!(counts, [3, 0, 1]);
    for wrong in [
        at(first, &tries("1")),
        at(first, &tries("x")),
        RUN.to_owned() + &tries("2"),
    ] {
        parse_console(&wrong, "nolocks_stress").unwrap_err();
    }
}

fn error(console: &str) -> String {
    format!(
        "{:#}",
        parse_console(console, "nolocks_stress").unwrap_err()
    )
}

#[test]
fn a_run_is_read() {
    let suite = parse_console(RUN, "nolocks_stress").unwrap();
    assert_eq!((suite.planned, suite.seed), (Some(3), Some(7)));
    let status: Vec<_> = suite.cases.iter().map(|c| c.status).collect();
    assert_eq!(status, [Status::Pass, Status::Fail, Status::Skip]);
    assert_eq!(suite.cases[2].reason.as_deref(), Some("no NMI source"));
    assert_eq!(suite.stats[0].obtained, 9);
    let why = "hardirq: 8 pages in a burst of 9; 2 visits were not in the context asked for";
    assert_eq!(suite.cases[1].reason.as_deref(), Some(why));
    let counts = |l: &Locks| (l.calls, l.locks, l.rcu, l.names.len());
    assert_eq!(counts(&suite.locks[0]), (32, 33, 1, 1));
    assert_eq!(suite.locks[0].names["&pcp->lock"], 32);
    assert_eq!(counts(&suite.locks[1]), (32, 0, 0, 0));
    assert_eq!(suite.bursts[0].size, 64);
    let ledger = Ledger {
        obtained: 83,
        freed: 83,
    };
    assert_eq!(suite.ledger, Some(ledger));
    let fields = [("reads", "64"), ("stale", "0")];
    assert_eq!(suite.notes[0].what, "readers");
    assert_eq!(
        suite.notes[0].fields,
        fields.map(|(k, v)| (k.to_owned(), v.to_owned()))
    );
}

/// Each edit of the good run, and what the error must name.
#[test]
fn a_broken_run_is_refused_with_its_line() {
    for (from, to, names) in [
        ("1..3\n", "2..3\n", "neither a result"),
        ("nolocks_stress: 1..3\n", "other: 1..3\n", "before the plan"),
        (
            "1..3",
            "1..4",
            "4 cases planned, 3 reported; the last was nmi",
        ),
        ("1..3", "1..2", "more cases than the 2 planned"),
        ("1..3", "1..x", "\"x\" is not a number"),
        ("1..3", "1..+3", "is not a number"),
        ("ok 3", "ok 4", "result 4 where 3 was due"),
        ("not ok 2", "not ok 1", "result 1 where 2 was due"),
        ("ok 1 task\n", "ok 1\n", "without a name"),
        (
            "ok 1 task\n",
            "ok 1 task\nnolocks_stress: 1..3\n",
            "a second plan",
        ),
        (
            "ok 1 task\n",
            "ok 1 task\nnolocks_stress: KTAP version 1\n",
            "a second KTAP",
        ),
        (
            "ok 1 task\n",
            "ok 1 task\nnolocks_stress: oh\n",
            "nolocks_stress: oh",
        ),
        ("ok 3 nmi", "not ok 3 nmi", "failed and skipped"),
        ("2 hardirq", "2 task", "a second case of this name"),
        ("KTAP version 1", "KTAP version 2", "printed no KTAP"),
        ("obtained=9", "obtained=11", "more obtained than tried"),
        ("size=64", "size=63", "more obtained than tried"),
        (
            "api=nolock ",
            "api=no_locks ",
            "a second line for these two",
        ),
        ("api=nolock ", "", "no api="),
        ("locks=33", "locks=33 lock=1", "lock= does not belong here"),
        ("locks=33", "locks=31", "more than were counted"),
        ("op=free", "op=alloc", "a second line for these"),
        ("32 of &pcp", "32 &pcp", "not N of NAME"),
        (
            "# locks: context=task api=no_locks op=alloc",
            "#",
            "a lock before the count",
        ),
        ("not ok 2", "ok 2", "no failure, after: hardirq: 8 pages"),
        (
            "freed=83",
            "freed=83\nnolocks_stress: # failed: x",
            "x: of no case",
        ),
        ("freed=83", "freed=-1", "is not a number"),
        (
            "seed: 7",
            "seed: 7\nnolocks_stress: # seed: 7",
            "a second seed",
        ),
    ] {
        assert!(RUN.contains(from), "{from}");
        let said = error(&RUN.replacen(from, to, 1));
        assert!(said.contains(names), "{from:?} -> {to:?}: {said}");
    }
}

#[test]
fn a_module_that_refused_its_parameters_is_quoted() {
    let said = error("[    1.000000] nolocks_stress: threads=9999 is above 64\n");
    assert!(said.contains("threads=9999 is above 64"), "{said}");
    assert!(error("[    1.000000] other: ok 1 a\n").contains("printed nothing"));
}

fn render(s: &Suite) -> String {
    let mut lines = vec!["KTAP version 1".to_owned(), format!("1..{}", s.cases.len())];
    lines.extend(s.seed.map(|n| format!("# seed: {n}")));
    for t in &s.stats {
        lines.push(format!(
            "# stat: context={} api={} attempts={} obtained={}",
            t.context, t.api, t.attempts, t.obtained
        ));
    }
    for b in &s.bursts {
        lines.push(format!(
            "# burst: context={} api={} size={} obtained={}",
            b.context, b.api, b.size, b.obtained
        ));
    }
    for l in &s.locks {
        lines.push(format!(
            "# locks: context={} api={} op={} calls={} locks={} rcu={}",
            l.context, l.api, l.op, l.calls, l.locks, l.rcu
        ));
        lines.extend(
            l.names
                .iter()
                .map(|(name, n)| format!("# lock: {n} of {name}")),
        );
    }
    for (i, c) in s.cases.iter().enumerate() {
        let ok = if c.status == Status::Fail {
            "not ok"
        } else {
            "ok"
        };
        let skip = if c.status == Status::Skip {
            "SKIP "
        } else {
            ""
        };
        let why = c
            .reason
            .as_ref()
            .map_or(String::new(), |r| format!(" # {skip}{r}"));
        lines.push(format!("{ok} {} {}{why}", i + 1, c.name));
    }
    let ledger = |l: &Ledger| format!("# ledger: obtained={} freed={}", l.obtained, l.freed);
    lines.extend(s.ledger.as_ref().map(ledger));
    lines
        .iter()
        .map(|l| format!("[   12.345678][    T1] nolocks_stress: {l}\r\n"))
        .collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_rendered_suite_parses_back(suite in suites()) {
        prop_assert_eq!(parse_console(&render(&suite), "nolocks_stress").unwrap(), suite);
    }

    #[test]
    fn a_run_without_one_of_its_results_is_refused(suite in suites(), n in any::<prop::sample::Index>()) {
        let text = render(&suite);
        let is_result = |l: &&str| l.contains(": ok ") || l.contains(": not ok ");
        let gone = n.get(&text.lines().filter(is_result).collect::<Vec<_>>()).to_owned();
        let text: String = text.lines().filter(|l| *l != gone).map(|l| format!("{l}\n")).collect();
        prop_assert!(parse_console(&text, "nolocks_stress").is_err());
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![any::<String>(), ".*", nearly_ktap()]) {
        let _ = parse_console(&text, "nolocks_stress");
    }
}
