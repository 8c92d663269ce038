// SPDX-License-Identifier: GPL-2.0
//! Reads KTAP strictly: a plan that is missing or not kept, a wrong number or a stray line is an error, because
//! a test that silently did not run must not pass.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pass,
    Fail,
    Skip,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Case {
    pub name: String,
    pub status: Status,
    pub reason: Option<String>,
    /// How often something in it was done again, because somebody else may have spoilt it.
    #[serde(default)]
    pub repetitions: u64,
}

/// A remark in key=value that nothing is judged by.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Note {
    pub what: String,
    pub fields: Vec<(String, String)>,
}

/// Pages asked for and obtained in a context through an API.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stat {
    pub context: String,
    pub api: String,
    pub attempts: u64,
    pub obtained: u64,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Burst {
    pub context: String,
    pub api: String,
    pub size: u64,
    pub obtained: u64,
}

/// Locks that `calls` calls of an operation took; those of RCU, for which nobody waits, are apart.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Locks {
    pub context: String,
    pub api: String,
    pub op: String,
    pub calls: u64,
    pub locks: u64,
    pub rcu: u64,
    #[serde(default)]
    pub names: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Ledger {
    pub obtained: u64,
    pub freed: u64,
}

/// What all CPUs pushed to the queue without a pause, and what of it found no block.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Peak {
    pub cpus: u64,
    pub pushed: u64,
    pub listed: u64,
    pub ms: u64,
}

/// Objects that the queue freed, and those that it freed twice.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Objects {
    pub freed: u64,
    pub corrupt: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Suite {
    pub name: String,
    pub planned: Option<usize>,
    pub cases: Vec<Case>,
    #[serde(default)]
    pub stats: Vec<Stat>,
    #[serde(default)]
    pub bursts: Vec<Burst>,
    #[serde(default)]
    pub locks: Vec<Locks>,
    #[serde(default)]
    pub ledger: Option<Ledger>,
    #[serde(default)]
    pub peak: Option<Peak>,
    #[serde(default)]
    pub objects: Option<Objects>,
    #[serde(default)]
    pub seed: Option<u64>,
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Why the case that has not ended yet failed.
    #[serde(skip)]
    pub failed: Vec<String>,
    /// What the case that has not ended yet did again.
    #[serde(skip)]
    pub repeated: u64,
}

impl Suite {
    pub fn count(&self, status: Status) -> usize {
        self.cases.iter().filter(|c| c.status == status).count()
    }
}

/// The KTAP that a module prints with `prefix_tag: ` before each line.
#[cfg(test)]
pub fn parse_console(console: &str, prefix_tag: &str) -> Result<Suite> {
    parse_messages(&crate::facts::scan::messages(console), prefix_tag)
}

/// As above, of messages with their line numbers.
pub fn parse_messages(messages: &[(usize, String)], prefix_tag: &str) -> Result<Suite> {
    let prefix = format!("{prefix_tag}: ");
    let mut suite = Suite {
        name: prefix_tag.to_owned(),
        ..Suite::default()
    };
    let (mut started, mut before) = (false, None);
    for (no, text) in messages {
        let Some(line) = text.strip_prefix(&prefix) else {
            continue;
        };
        if started {
            suite
                .line(line.trim_end())
                .with_context(|| format!("console line {no}: {text:?}"))?;
        } else if line.trim_end() == "KTAP version 1" {
            started = true;
        } else {
            // The kernel itself says things about a module under its name, such as that it taints.
            before = Some(text);
        }
    }
    if !started {
        match before {
            Some(said) => bail!("{prefix_tag} printed no KTAP; the last that it said: {said:?}"),
            None => bail!("{prefix_tag} printed nothing: was the module loaded?"),
        }
    }
    suite.finish()?;
    Ok(suite)
}

impl Suite {
    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(diagnostic) = line.strip_prefix("# ") {
            return self.diagnostic(diagnostic);
        }
        if let Some(plan) = line.strip_prefix("1..") {
            ensure!(self.planned.is_none(), "a second plan");
            ensure!(self.cases.is_empty(), "the plan comes after a case");
            self.planned = Some(number(plan)?);
            return Ok(());
        }
        ensure!(line != "KTAP version 1", "a second KTAP header");
        let Some(mut case) = result(line, self.cases.len() + 1)? else {
            bail!("neither a result, a plan nor a diagnostic");
        };
        let failed = std::mem::take(&mut self.failed).join("; ");
        if !failed.is_empty() {
            ensure!(case.status == Status::Fail, "no failure, after: {failed}");
            case.reason = case.reason.or(Some(failed));
        }
        case.repetitions = std::mem::take(&mut self.repeated);
        self.add(case)
    }

    fn add(&mut self, case: Case) -> Result<()> {
        let planned = self.planned.context("a result before the plan")?;
        ensure!(
            self.cases.len() < planned,
            "more cases than the {planned} planned"
        );
        ensure!(
            !self.cases.iter().any(|c| c.name == case.name),
            "a second case of this name"
        );
        self.cases.push(case);
        Ok(())
    }

    fn diagnostic(&mut self, text: &str) -> Result<()> {
        let (key, rest) = text.split_once(": ").unwrap_or((text, ""));
        match key {
            "stat" => {
                let mut f = Fields::parse(rest)?;
                let stat = Stat {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    attempts: number(&f.take("attempts")?)?,
                    obtained: number(&f.take("obtained")?)?,
                };
                f.empty()?;
                ensure!(stat.obtained <= stat.attempts, "more obtained than tried");
                let same = |s: &Stat| s.context == stat.context && s.api == stat.api;
                ensure!(!self.stats.iter().any(same), "a second line for these two");
                self.stats.push(stat);
            }
            "burst" => {
                let mut f = Fields::parse(rest)?;
                let burst = Burst {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    size: number(&f.take("size")?)?,
                    obtained: number(&f.take("obtained")?)?,
                };
                f.empty()?;
                ensure!(burst.obtained <= burst.size, "more obtained than tried");
                self.bursts.push(burst);
            }
            "locks" => {
                let mut f = Fields::parse(rest)?;
                let locks = Locks {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    op: f.take("op")?,
                    calls: number(&f.take("calls")?)?,
                    locks: number(&f.take("locks")?)?,
                    rcu: number(&f.take("rcu")?)?,
                    names: BTreeMap::new(),
                };
                f.empty()?;
                let same = |l: &Locks| {
                    (&l.context, &l.api, &l.op) == (&locks.context, &locks.api, &locks.op)
                };
                ensure!(!self.locks.iter().any(same), "a second line for these");
                self.locks.push(locks);
            }
            "lock" => {
                let (n, name) = rest.split_once(" of ").context("not N of NAME")?;
                let (n, last) = (number(n)?, self.locks.last_mut());
                let last = last.context("a lock before the count that it is part of")?;
                let known = last.names.insert(name.to_owned(), n);
                ensure!(known.is_none(), "a second line for this lock");
                let named = last
                    .names
                    .values()
                    .try_fold(0u64, |sum, n| sum.checked_add(*n));
                ensure!(
                    named.is_some_and(|n| n <= last.locks),
                    "more than were counted"
                );
            }
            "failed" => self.failed.push(rest.to_owned()),
            "tries" => {
                let tries: u64 = number(rest)?;
                ensure!(tries > 1, "one try is no repetition");
                self.repeated += tries - 1;
            }
            "ledger" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.ledger.is_none(), "a second ledger");
                self.ledger = Some(Ledger {
                    obtained: number(&f.take("obtained")?)?,
                    freed: number(&f.take("freed")?)?,
                });
                f.empty()?;
            }
            "peak" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.peak.is_none(), "a second peak");
                let peak = Peak {
                    cpus: number(&f.take("cpus")?)?,
                    pushed: number(&f.take("pushed")?)?,
                    listed: number(&f.take("listed")?)?,
                    ms: number(&f.take("ms")?)?,
                };
                f.empty()?;
                ensure!(peak.listed <= peak.pushed, "more listed than pushed");
                self.peak = Some(peak);
            }
            "objects" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.objects.is_none(), "a second count");
                self.objects = Some(Objects {
                    freed: number(&f.take("freed")?)?,
                    corrupt: number(&f.take("corrupt")?)?,
                });
                f.empty()?;
            }
            "seed" => {
                ensure!(self.seed.is_none(), "a second seed");
                self.seed = Some(number(rest)?);
            }
            // For the report alone, so that a module may say more without a word here.
            "storm" | "tick" | "push" | "readers" | "latency" => {
                let words = rest.split_whitespace();
                let fields = words.filter_map(|w| w.split_once('='));
                self.notes.push(Note {
                    what: key.to_owned(),
                    fields: fields.map(|(k, v)| (k.into(), v.into())).collect(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let planned = self
            .planned
            .with_context(|| format!("{}: no plan (1..N)", self.name))?;
        ensure!(planned > 0, "{}: the plan is empty", self.name);
        let failed = self.failed.join("; ");
        ensure!(failed.is_empty(), "{}: {failed}: of no case", self.name);
        ensure!(self.repeated == 0, "{}: tries of no case", self.name);
        ensure!(
            self.cases.len() == planned,
            "{}: {planned} cases planned, {} reported; the last was {}",
            self.name,
            self.cases.len(),
            self.cases.last().map_or("none", |c| &c.name)
        );
        Ok(())
    }
}

struct Fields(HashMap<String, String>);

impl Fields {
    fn parse(text: &str) -> Result<Fields> {
        let mut map = HashMap::new();
        for word in text.split_whitespace() {
            let (key, value) = word
                .split_once('=')
                .with_context(|| format!("{word:?} is not key=value"))?;
            let old = map.insert(key.to_owned(), value.to_owned());
            ensure!(old.is_none(), "{key} is there twice");
        }
        Ok(Fields(map))
    }

    fn take(&mut self, key: &str) -> Result<String> {
        let value = self.0.remove(key).with_context(|| format!("no {key}="))?;
        ensure!(!value.is_empty(), "{key}= is empty");
        Ok(value)
    }

    fn empty(&self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => bail!("{key}= does not belong here"),
            None => Ok(()),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    // parse() would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(n) if digits => Ok(n),
        _ => bail!("{text:?} is not a number"),
    }
}

/// A result line; None if it is none.
fn result(line: &str, expected: usize) -> Result<Option<Case>> {
    let (ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Ok(None),
    };
    let (no, rest) = rest.split_once(' ').context("a result without a name")?;
    let no: usize = number(no)?;
    ensure!(no == expected, "result {no} where {expected} was due");
    let (name, directive) = match rest.split_once(" # ") {
        Some((name, directive)) => (name, Some(directive.trim())),
        None => (rest.strip_suffix(" #").unwrap_or(rest), None),
    };
    let name = name.strip_prefix("- ").unwrap_or(name).trim();
    ensure!(!name.is_empty(), "a result without a name");
    let skip = directive.and_then(|d| match d.split_once(' ') {
        Some(("SKIP", why)) => Some(why.trim()),
        _ => (d == "SKIP").then_some(""),
    });
    ensure!(ok || skip.is_none(), "failed and skipped at once");
    let reason = skip.or(directive).filter(|r| !r.is_empty());
    Ok(Some(Case {
        name: name.to_owned(),
        status: match (ok, skip) {
            (true, Some(_)) => Status::Skip,
            (true, None) => Status::Pass,
            (false, _) => Status::Fail,
        },
        reason: reason.map(str::to_owned),
        repetitions: 0,
    }))
}

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
            if let Some(suite) = kunit.line(line).with_context(at)? {
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
}

impl Kunit {
    /// Takes a line; returns the suite when this was its last.
    fn line(&mut self, line: &str) -> Result<Option<Suite>> {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let text = &line[indent..];
        match indent {
            0 if line == "1..1" => {
                ensure!(!self.planned, "a second plan");
                self.planned = true;
            }
            0 if text.starts_with('#') => {}
            0 => {
                let Some(verdict) = result(line, 1)? else {
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
            4 => self.case(text)?,
            // Deeper are the parameters of one case: its own result sums them up.
            _ => {}
        }
        Ok(None)
    }

    fn case(&mut self, text: &str) -> Result<()> {
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
        } else if let Some(plan) = text.strip_prefix("1..") {
            ensure!(suite.planned.is_none(), "a second plan");
            suite.planned = Some(number(plan)?);
        } else if let Some(mut case) = result(text, suite.cases.len() + 1)? {
            let why = self.failure.take();
            if case.status == Status::Fail {
                case.reason = case.reason.or(why);
            }
            suite.add(case)?;
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
        suite.finish()?;
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
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    const KUNIT: &str = include_str!("../../fixtures/kunit-results.txt");
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
    fn a_suite_that_fails_beside_its_cases_fails() {
        let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..1\n    ok 1 a\nnot ok 1 s\n";
        let suites = parse_kunit_results(text).unwrap();
        assert_eq!(suites[0].count(Status::Fail), 1);
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

    pub fn suites() -> impl Strategy<Value = Suite> {
        let name = "[a-z][a-z0-9_]{0,12}";
        let status = prop_oneof![Just(Status::Pass), Just(Status::Fail), Just(Status::Skip)];
        let case = (status, "[A-RT-Za-z0-9][A-Za-z0-9 ]{0,20}[a-z]");
        let cases = prop::collection::btree_map(name, case, 1..20);
        let stat = (any::<u64>(), any::<u64>());
        let stats = prop::collection::btree_map((name, name), stat, 0..8);
        let burst = (name, name, any::<u64>(), any::<u64>());
        let bursts = prop::collection::vec(burst, 0..8);
        let taken = prop::collection::btree_map("[&a-z][a-z>. -]{0,8}[a-z]", any::<u32>(), 0..4);
        let lock = (any::<u64>(), any::<u32>(), any::<u64>(), taken);
        let locks = prop::collection::btree_map((name, name, name), lock, 0..8);
        let ledger = any::<Option<(u64, u64)>>();
        let seed = any::<Option<u64>>();
        (cases, stats, bursts, locks, ledger, seed).prop_map(
            |(cases, stats, bursts, locks, ledger, seed)| Suite {
                name: "nolocks_stress".to_owned(),
                planned: Some(cases.len()),
                cases: cases
                    .into_iter()
                    .map(|(name, (status, reason))| Case {
                        name,
                        status,
                        reason: (status != Status::Pass).then_some(reason),
                        repetitions: 0,
                    })
                    .collect(),
                stats: stats
                    .into_iter()
                    .map(|((context, api), (a, b))| Stat {
                        context,
                        api,
                        attempts: a.max(b),
                        obtained: a.min(b),
                    })
                    .collect(),
                bursts: bursts
                    .into_iter()
                    .map(|(context, api, a, b)| Burst {
                        context,
                        api,
                        size: a.max(b),
                        obtained: a.min(b),
                    })
                    .collect(),
                locks: locks
                    .into_iter()
                    .map(|((context, api, op), (calls, unnamed, rcu, names))| Locks {
                        context,
                        api,
                        op,
                        calls,
                        locks: u64::from(unnamed)
                            + names.values().map(|n| u64::from(*n)).sum::<u64>(),
                        rcu,
                        names: names.into_iter().map(|(k, n)| (k, n.into())).collect(),
                    })
                    .collect(),
                ledger: ledger.map(|(obtained, freed)| Ledger { obtained, freed }),
                peak: None,
                objects: None,
                seed,
                notes: Vec::new(),
                repeated: 0,
                failed: Vec::new(),
            },
        )
    }

    /// Text that comes close to KTAP, so that the parsers get past the first line.
    fn nearly_ktap() -> impl Strategy<Value = String> {
        let words = prop::sample::select(vec![
            "nolocks_stress: ",
            "KTAP version 1",
            "1..",
            "1",
            "2",
            "99999999999999999999",
            "ok ",
            "not ok ",
            " ",
            "    ",
            "# ",
            "#",
            "SKIP",
            "stat: ",
            "burst: ",
            "ledger: ",
            "locks: ",
            "lock: ",
            "failed: ",
            " of ",
            "seed: ",
            "context=",
            "api=",
            "attempts=",
            "obtained=",
            "Subtest: ",
            "\n",
            "\n",
            "\n",
            "é",
            "[    1.000000] ",
            "-",
            "=",
        ]);
        prop::collection::vec(words, 0..60).prop_map(|w| w.concat())
    }

    /// A failure prints its case; nothing is written into the checkout.
    pub fn config() -> ProptestConfig {
        ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        }
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
        fn no_text_makes_a_parser_panic(text in prop_oneof![any::<String>(), ".*", nearly_ktap()]) {
            let _ = parse_console(&text, "nolocks_stress");
            let _ = parse_kunit_results(&text);
        }
    }
}
