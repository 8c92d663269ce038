// SPDX-License-Identifier: GPL-2.0
//! Reads KTAP strictly: a plan that is missing or not kept, a wrong number or a stray line is an error, because
//! a test that silently did not run must not pass.

use crate::facts::suite::{
    BurstStat, Case, Ledger, Locks, Note, Objects, Peak, Stat, Status, Suite,
};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, HashMap};

/// The KTAP that a module prints with `prefix_tag: ` before each line; of messages with their line numbers.
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
                .read_line(line.trim_end())
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
    suite.check_plan_kept()?;
    Ok(suite)
}

impl Suite {
    fn read_line(&mut self, line: &str) -> Result<()> {
        if let Some(diagnostic) = line.strip_prefix("# ") {
            return self.read_diagnostic(diagnostic);
        }
        if let Some(plan) = line.strip_prefix("1..") {
            ensure!(self.planned.is_none(), "a second plan");
            ensure!(self.cases.is_empty(), "the plan comes after a case");
            self.planned = Some(parse_number(plan)?);
            return Ok(());
        }
        ensure!(line != "KTAP version 1", "a second KTAP header");
        let Some(mut case) = parse_result(line, self.cases.len() + 1)? else {
            bail!("neither a result, a plan nor a diagnostic");
        };
        let failed = std::mem::take(&mut self.failed).join("; ");
        if !failed.is_empty() {
            ensure!(case.status == Status::Fail, "no failure, after: {failed}");
            case.reason = case.reason.or(Some(failed));
        }
        case.repetitions = std::mem::take(&mut self.repeated);
        self.add_case(case)
    }

    pub fn add_case(&mut self, case: Case) -> Result<()> {
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

    fn read_diagnostic(&mut self, text: &str) -> Result<()> {
        let (key, rest) = text.split_once(": ").unwrap_or((text, ""));
        match key {
            "stat" => {
                let mut f = Fields::parse(rest)?;
                let stat = Stat {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    attempts: parse_number(&f.take("attempts")?)?,
                    obtained: parse_number(&f.take("obtained")?)?,
                };
                f.check_empty()?;
                ensure!(stat.obtained <= stat.attempts, "more obtained than tried");
                let same = |s: &Stat| s.context == stat.context && s.api == stat.api;
                ensure!(!self.stats.iter().any(same), "a second line for these two");
                self.stats.push(stat);
            }
            "burst" => {
                let mut f = Fields::parse(rest)?;
                let burst = BurstStat {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    size: parse_number(&f.take("size")?)?,
                    obtained: parse_number(&f.take("obtained")?)?,
                };
                f.check_empty()?;
                ensure!(burst.obtained <= burst.size, "more obtained than tried");
                self.bursts.push(burst);
            }
            "locks" => {
                let mut f = Fields::parse(rest)?;
                let locks = Locks {
                    context: f.take("context")?,
                    api: f.take("api")?,
                    op: f.take("op")?,
                    calls: parse_number(&f.take("calls")?)?,
                    locks: parse_number(&f.take("locks")?)?,
                    rcu: parse_number(&f.take("rcu")?)?,
                    names: BTreeMap::new(),
                };
                f.check_empty()?;
                let same = |l: &Locks| {
                    (&l.context, &l.api, &l.op) == (&locks.context, &locks.api, &locks.op)
                };
                ensure!(!self.locks.iter().any(same), "a second line for these");
                self.locks.push(locks);
            }
            "lock" => {
                let (n, name) = rest.split_once(" of ").context("not N of NAME")?;
                let (n, last) = (parse_number(n)?, self.locks.last_mut());
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
                self.repeated += parse_tries(rest)?;
            }
            "ledger" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.ledger.is_none(), "a second ledger");
                self.ledger = Some(Ledger {
                    obtained: parse_number(&f.take("obtained")?)?,
                    freed: parse_number(&f.take("freed")?)?,
                });
                f.check_empty()?;
            }
            "peak" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.peak.is_none(), "a second peak");
                let peak = Peak {
                    cpus: parse_number(&f.take("cpus")?)?,
                    pushed: parse_number(&f.take("pushed")?)?,
                    listed: parse_number(&f.take("listed")?)?,
                    ms: parse_number(&f.take("ms")?)?,
                };
                f.check_empty()?;
                ensure!(peak.listed <= peak.pushed, "more listed than pushed");
                self.peak = Some(peak);
            }
            "objects" => {
                let mut f = Fields::parse(rest)?;
                ensure!(self.objects.is_none(), "a second count");
                self.objects = Some(Objects {
                    freed: parse_number(&f.take("freed")?)?,
                    corrupt: parse_number(&f.take("corrupt")?)?,
                });
                f.check_empty()?;
            }
            "seed" => {
                ensure!(self.seed.is_none(), "a second seed");
                self.seed = Some(parse_number(rest)?);
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

    pub fn check_plan_kept(&self) -> Result<()> {
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

    fn check_empty(&self) -> Result<()> {
        match self.0.keys().next() {
            Some(key) => bail!("{key}= does not belong here"),
            None => Ok(()),
        }
    }
}

/// How often something was done again.
pub fn parse_tries(text: &str) -> Result<u64> {
    let tries: u64 = parse_number(text)?;
    ensure!(tries > 1, "one try is no repetition");
    Ok(tries - 1)
}

pub fn parse_number<T: std::str::FromStr>(text: &str) -> Result<T> {
    // parse() would take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(n) if digits => Ok(n),
        _ => bail!("{text:?} is not a number"),
    }
}

/// A result line; None if it is none.
pub fn parse_result(line: &str, expected: usize) -> Result<Option<Case>> {
    let (ok, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Ok(None),
    };
    let (no, rest) = rest.split_once(' ').context("a result without a name")?;
    let no: usize = parse_number(no)?;
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

#[cfg(test)]
mod tests;
