// SPDX-License-Identifier: GPL-2.0
//! A boot's folder, read once: everything that it is judged and reported by.

use crate::base::cache;
use crate::facts::ending::Ending;
use crate::facts::ktap::parse_messages;
use crate::facts::kunit::parse_kunit_results;
use crate::facts::scan::{Finding, Rules, debug_locks, messages};
use crate::facts::suite::Suite;
use anyhow::{Context, Result};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// How the boot ended, which its console does not say in full.
pub const ENDING: &str = "ending.json";

#[derive(Debug, Deserialize, Serialize)]
pub struct Ended {
    pub ending: Ending,
    pub took_s: f64,
}

pub struct BootFacts {
    pub ending: Ending,
    pub took_s: f64,
    pub findings: Vec<Finding>,
    /// In the order of the guest's steps.
    pub cases: Vec<CaseFacts>,
    pub debug_locks: Option<bool>,
    /// No suites where KUnit left nothing; an error where it cannot be read.
    pub kunit: Result<Vec<Suite>, String>,
    /// None if kmemleak could not be asked.
    pub kmemleak: Option<String>,
}

/// A step of the guest's that began.
pub struct CaseFacts {
    pub name: String,
    /// None if it did not end.
    pub rc: Option<String>,
    /// All that was said in its part, without the kernel's time.
    pub said: String,
    /// What its module printed, without the module's name.
    pub printed: String,
    pub suite: Result<Suite, String>,
}

impl BootFacts {
    pub fn read(folder: &Path, rules: &Rules) -> Result<BootFacts> {
        let console = folder.join("console.txt");
        let console = fs::read_to_string(&console)
            .with_context(|| format!("cannot read {}", console.display()))?;
        let ended = cache::read_json(&folder.join(ENDING)).unwrap_or(Ended {
            ending: Ending::by_console(&console),
            took_s: 0.0,
        });
        let left = |name: &str| fs::read_to_string(folder.join("out").join(name)).ok();
        let steps = fs::read_to_string(folder.join("plan")).unwrap_or_default();
        let messages = messages(&console);
        let cases = cut_into_cases(&messages, &steps);
        let ended_cases = cases.iter().filter(|c| c.facts.rc.is_some());
        let parts: Vec<_> = ended_cases
            .map(|c| (c.first..c.last, c.facts.name.clone()))
            .collect();
        let kunit = left("kunit.txt").unwrap_or_default();
        Ok(BootFacts {
            ending: ended.ending,
            took_s: ended.took_s,
            findings: rules.scan_parts(&messages, &parts),
            cases: cases.into_iter().map(|c| c.facts).collect(),
            debug_locks: left("lockdep_stats").and_then(|t| debug_locks(&t)),
            kunit: match kunit.trim() {
                "" => Ok(Vec::new()),
                _ => parse_kunit_results(&kunit).map_err(|e| format!("{e:#}")),
            },
            kmemleak: left("kmemleak"),
        })
    }

    pub fn case(&self, name: &str) -> Option<&CaseFacts> {
        self.cases.iter().find(|c| c.name == name)
    }

    /// What is not said in the parts of these cases. A report outside all parts is nobody's.
    pub fn findings_without(&self, cases: &[&str]) -> Vec<Finding> {
        let is_others = |f: &&Finding| f.case.as_deref().is_none_or(|case| !cases.contains(&case));
        self.findings.iter().filter(is_others).cloned().collect()
    }
}

struct CasePart {
    first: usize,
    last: usize,
    facts: CaseFacts,
}

/// Between two lines of the guest's own. A case that did not end has all that follows.
fn cut_into_cases(messages: &[(usize, String)], steps: &str) -> Vec<CasePart> {
    let begin = Regex::new(r"NOLOCKS: case (\S+) begin").expect("a constant pattern");
    let mut parts: Vec<CasePart> = Vec::new();
    for (i, (_, text)) in messages.iter().enumerate() {
        let Some(name) = begin.captures(text).map(|c| c[1].to_owned()) else {
            continue;
        };
        if parts.iter().any(|p| p.facts.name == name) {
            continue;
        }
        let end = format!("NOLOCKS: case {name} rc=");
        let ends = messages[i + 1..].iter().enumerate();
        let (last, rc) = ends
            .filter_map(|(n, (_, text))| Some((i + 1 + n, text.split_once(&end)?.1)))
            .map(|(last, rc)| (last, Some(rc.trim().to_owned())))
            .next()
            .unwrap_or((messages.len(), None));
        let module = steps.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next() == Some(&name)).then(|| words.next())?
        });
        let module = module.unwrap_or_default().trim_end_matches(".ko");
        let inside = &messages[i + 1..last];
        let prefix = format!("{module}: ");
        let lines = inside.iter().filter_map(|(_, t)| t.strip_prefix(&prefix));
        parts.push(CasePart {
            first: i + 1,
            last,
            facts: CaseFacts {
                said: inside.iter().map(|(_, text)| format!("{text}\n")).collect(),
                printed: lines.map(|l| format!("{l}\n")).collect(),
                suite: parse_messages(inside, module).map_err(|e| format!("{e:#}")),
                name,
                rc,
            },
        });
    }
    parts
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of a boot that left this console, and nothing else.
    pub fn boot_facts(console: &str) -> BootFacts {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("console.txt"), console).unwrap();
        BootFacts::read(dir.path(), &Rules::builtin().unwrap()).unwrap()
    }

    /// What a console has of a case.
    pub fn case_part(name: &str, said: &str) -> String {
        format!("[ 1.0] NOLOCKS: case {name} begin\n{said}\n[ 1.1] NOLOCKS: case {name} rc=0\n")
    }
}
