// SPDX-License-Identifier: GPL-2.0
//! Finds what a kernel's console says went wrong. What counts is data: `ci/rules/splats.toml`.

use anyhow::{Context, Result, ensure};
use regex::{Regex, RegexSet};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::LazyLock;

/// The BUG or WARN behind a message follows it at once; arm64 decodes the fault in between.
const HEADER_LINES: usize = 24;
/// The longest reports list a trace for each dependency, or for each task that stalls.
const REPORT_LINES: usize = 1000;
/// What follows a report's first line as far as it names locks and functions.
const KEPT_LINES: usize = 30;

/// One report in the console, however many lines it has.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Finding {
    pub rule: String,
    pub line_no: usize,
    pub line: String,
    pub reason: String,
    /// What else the report says, at its beginning.
    #[serde(default)]
    pub report: Vec<String>,
    /// The case of the guest's steps in whose part of the console it begins.
    #[serde(default)]
    pub case: Option<String>,
}

impl Finding {
    pub fn says(&self, pattern: &Regex) -> bool {
        pattern.is_match(&format!("{}\n{}", self.line, self.report.join("\n")))
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Joins {
    Header,
    Report,
    Any,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: String,
    pattern: String,
    reason: String,
    joins: Option<Joins>,
    #[serde(default)]
    single: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    pattern: String,
    reason: String,
    /// Only behind a message of this boot that matches.
    after: Option<String>,
    /// A stack trace follows, which is a part of it.
    #[serde(default)]
    traced: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    frame: String,
    trace: String,
    another: String,
    body: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Truncated {
    id: String,
    begin: String,
    end: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rule: Vec<Rule>,
    allow: Vec<Allow>,
    shape: Shape,
    truncated: Truncated,
}

pub struct Rules {
    file: File,
    rules: RegexSet,
    allowed: Vec<Allowed>,
    shape: Lines,
    body: RegexSet,
    begin: Regex,
    done: Regex,
}

struct Allowed {
    message: Regex,
    /// What has to be said before, in this boot.
    after: Option<Regex>,
    traced: bool,
}

impl Allowed {
    fn parse(allow: &Allow) -> Result<Allowed> {
        Ok(Allowed {
            message: Regex::new(&allow.pattern)?,
            after: allow.after.as_deref().map(Regex::new).transpose()?,
            traced: allow.traced,
        })
    }
}

struct Lines {
    frame: Regex,
    trace: Regex,
    another: Regex,
}

/// A report that is being printed.
struct Open {
    case: Option<String>,
    /// Its place among the findings; none for one that is allowed.
    finding: Option<usize>,
    start: usize,
    traced: bool,
}

impl Open {
    fn new(case: Option<String>, finding: Option<usize>, start: usize) -> Open {
        Open {
            case,
            finding,
            start,
            traced: false,
        }
    }
}

impl Rules {
    pub const TEXT: &str = include_str!("../../rules/splats.toml");

    pub fn builtin() -> Result<Rules> {
        Self::parse(Self::TEXT).context("ci/rules/splats.toml")
    }

    pub fn parse(text: &str) -> Result<Rules> {
        let file: File = toml::from_str(text)?;
        for (i, rule) in file.rule.iter().enumerate() {
            ensure!(
                !file.rule[..i].iter().any(|r| r.id == rule.id),
                "two rules are called {}",
                rule.id
            );
        }
        let reasons = file.rule.iter().map(|r| &r.reason);
        ensure!(
            reasons
                .chain(file.allow.iter().map(|a| &a.reason))
                .all(|r| !r.is_empty()),
            "every rule needs a reason"
        );
        Ok(Rules {
            rules: RegexSet::new(file.rule.iter().map(|r| &r.pattern))?,
            allowed: (file.allow.iter().map(Allowed::parse)).collect::<Result<_>>()?,
            shape: Lines {
                frame: Regex::new(&file.shape.frame)?,
                trace: Regex::new(&file.shape.trace)?,
                another: Regex::new(&file.shape.another)?,
            },
            body: RegexSet::new(&file.shape.body)?,
            begin: Regex::new(&file.truncated.begin)?,
            done: Regex::new(&file.truncated.end)?,
            file,
        })
    }

    #[cfg(test)]
    pub fn has(&self, id: &str) -> bool {
        self.file.rule.iter().any(|r| r.id == id)
    }

    /// Whether the kernel reported it, and the log's end is not all there is to find.
    pub fn is_report(&self, finding: &Finding) -> bool {
        finding.rule != self.file.truncated.id
    }

    /// One finding for each report, named by the rule that describes it best.
    #[cfg(test)]
    pub fn scan(&self, console: &str) -> Vec<Finding> {
        self.scan_parts(&messages(console), &[])
    }

    /// As above. Each part, a range of messages, is a case's own: a report of one case is no part of
    /// another's, nor does it bring one about.
    pub fn scan_parts(
        &self,
        messages: &[(usize, String)],
        parts: &[(Range<usize>, String)],
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let mut open: Option<Open> = None;
        let blank = messages.iter().all(|(_, text)| text.trim().is_empty());
        let (mut begun, mut done, mut last) = (blank, false, (1, ""));
        let at_boot = || self.allowed.iter().map(|a| a.after.is_none()).collect();
        let mut holds: Vec<bool> = at_boot();
        for (i, (line_no, text)) in messages.iter().enumerate() {
            last = (*line_no, text);
            let part = parts.iter().find(|(part, _)| part.contains(&i));
            let case = part.map(|(_, case)| case.clone());
            let is_others = |of: &Option<String>| of.is_some() && case.is_some() && *of != case;
            open = open.filter(|o| !is_others(&o.case));
            if self.begin.is_match(text) {
                (begun, done) = (true, false);
                holds = at_boot();
            }
            done |= self.done.is_match(text);
            for (allowed, holds) in self.allowed.iter().zip(&mut holds) {
                *holds |= allowed.after.as_ref().is_some_and(|a| a.is_match(text));
            }
            let mut held = self.allowed.iter().zip(&holds).filter(|(_, holds)| **holds);
            if let Some((allowed, _)) = held.find(|(a, _)| a.message.is_match(text)) {
                if allowed.traced {
                    open = Some(Open::new(case, None, i));
                }
                continue;
            }
            if let Some(n) = self.rules.matches(text).iter().next() {
                let rule = &self.file.rule[n];
                if !joins(
                    rule.joins,
                    open.as_ref(),
                    i,
                    found.iter().any(|f: &Finding| !is_others(&f.case)),
                ) {
                    found.push(Finding {
                        rule: rule.id.clone(),
                        line_no: *line_no,
                        line: text.clone(),
                        reason: rule.reason.clone(),
                        report: Vec::new(),
                        case: case.clone(),
                    });
                    let finding = Some(found.len() - 1);
                    open = (!rule.single).then(|| Open::new(case, finding, i));
                }
            } else if let Some(o) = &open
                && (self.shape.frame.is_match(text) || o.traced && !self.body.is_match(text))
            {
                open = None;
            }
            if let Some(o) = &mut open {
                if let Some(finding) = o.finding
                    && (1..=KEPT_LINES).contains(&(i - o.start))
                {
                    found[finding].report.push(text.clone());
                }
                o.traced &= !self.shape.another.is_match(text);
                o.traced |= self.shape.trace.is_match(text);
            }
        }
        if begun && !done {
            let cut = &self.file.truncated;
            found.push(Finding {
                rule: cut.id.clone(),
                line_no: last.0,
                line: last.1.to_owned(),
                reason: cut.reason.clone(),
                report: Vec::new(),
                case: None,
            });
        }
        found
    }
}

/// Whether a line that may be a part of a report is a part of the open one.
fn joins(how: Option<Joins>, open: Option<&Open>, now: usize, any: bool) -> bool {
    match (how, open) {
        (Some(Joins::Any), _) => any,
        (Some(Joins::Header), Some(o)) => !o.traced && now - o.start <= HEADER_LINES,
        (Some(Joins::Report), Some(o)) => now - o.start <= REPORT_LINES,
        _ => false,
    }
}

static ESCAPE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]").expect("the pattern is valid"));
static STAMP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?").expect("the pattern is valid")
});

/// What printk says where one CPU took the console from another in the midst of a message.
const REPLAY: &str = "** replaying previous printk message **";

/// The console's messages with their line numbers. A line is cut at every time stamp, because a kernel message
/// may start in the middle of a line that a program was writing. What is replayed counts once.
pub fn messages(console: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for (i, line) in console.lines().enumerate() {
        let line = ESCAPE.replace_all(line.trim_end(), "");
        if let Some(begun) = line.strip_suffix(REPLAY) {
            if begun.is_empty() {
                out.pop();
            }
            continue;
        }
        let mut parts = STAMP.split(&line).peekable();
        parts.next_if(|first| first.is_empty() && STAMP.is_match(&line));
        out.extend(parts.map(|part| (i + 1, part.to_owned())));
    }
    out
}

/// What /proc/lockdep_stats says: lockdep stops looking after its first report.
pub fn debug_locks(lockdep_stats: &str) -> Option<bool> {
    lockdep_stats.lines().find_map(
        |line| match line.trim().strip_prefix("debug_locks:")?.trim() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        },
    )
}

#[cfg(test)]
mod tests;
