// SPDX-License-Identifier: GPL-2.0
//! What the user's tree has beside the series as patches/ has it: told on the screen and recorded with
//! each run, so that nobody takes the run for one of patches/.

use crate::base::cache::sha256;
use crate::base::proc::output;
use crate::source::git::{PLAIN_DIFF, Snapshot, git};
use crate::source::series::{Series, patch_id};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

/// How far back the series is looked for.
const DEPTH: &str = "1000";

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Changes {
    /// Whether the tree had the series; otherwise patches/ was put on the copy.
    pub had_series: bool,
    /// The commit below the series, where git knows one.
    pub base: Option<String>,
    /// On top of it, the oldest first.
    pub commits: Vec<Commit>,
    /// Subjects of patches/ that the tree does not have.
    pub absent: Vec<String>,
    /// As `git status` tells them.
    pub uncommitted: Vec<String>,
    /// What the diff in the run's folder is a difference from.
    pub diff_from: String,
    pub diff_sha256: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Commit {
    pub id: String,
    pub subject: String,
    pub is: Is,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Is {
    /// A patch of patches/ as it is there.
    Same,
    /// One of the same subject.
    Changed,
    /// None of patches/.
    New,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.had_series {
            writeln!(
                f,
                "the series is in this tree with changes; the tree is built as it is, and patches/ is not used"
            )?;
        } else {
            writeln!(f, "patches/ on top of work that is not committed")?;
        }
        if let Some(base) = &self.base {
            writeln!(f, "  base         {base}")?;
        }
        let count = |is: Is| self.commits.iter().filter(|c| c.is == is).count();
        if !self.commits.is_empty() {
            writeln!(
                f,
                "  commits      {} as in patches/, {} changed, {} new",
                count(Is::Same),
                count(Is::Changed),
                count(Is::New)
            )?;
        }
        let other = self.commits.iter().filter(|c| c.is != Is::Same);
        let words = |is: Is| if is == Is::New { "new    " } else { "changed" };
        for commit in other.take(12) {
            writeln!(
                f,
                "    {}  {} {}",
                words(commit.is),
                &commit.id[..12],
                commit.subject
            )?;
        }
        for subject in &self.absent {
            writeln!(f, "    absent   {subject}")?;
        }
        if !self.uncommitted.is_empty() {
            let first: Vec<&str> = self.uncommitted.iter().take(6).map(|l| &**l).collect();
            let rest = self.uncommitted.len() - first.len();
            let rest = if rest > 0 {
                format!(", and {rest} more")
            } else {
                String::new()
            };
            writeln!(f, "  uncommitted  {}{rest}", first.join(", "))?;
        }
        write!(
            f,
            "  difference   from {}, SHA-256 {}",
            self.diff_from,
            &self.diff_sha256[..12]
        )
    }
}

/// First-parent commits, the newest first: id and subject.
pub fn log(dir: &Path) -> Result<Vec<(String, String)>> {
    let text = output(git(dir).args([
        "log",
        "--first-parent",
        "--no-show-signature",
        "--max-count",
        DEPTH,
        "--format=%H %s",
    ]))?;
    let lines = text.lines().filter_map(|l| l.split_once(' '));
    Ok(lines.map(|(id, s)| (id.to_owned(), s.to_owned())).collect())
}

/// Where in the log the oldest commit of the series is, by subject.
pub fn oldest(log: &[(String, String)], series: &Series) -> Option<usize> {
    log.iter()
        .rposition(|(_, subject)| series.subjects().any(|s| s == subject))
}

/// What a commit is to patches/.
pub fn compare(dir: &Path, id: &str, subject: &str, series: &Series) -> Result<Is> {
    let Some(patch) = series.patches.iter().find(|p| p.subject == subject) else {
        return Ok(Is::New);
    };
    let theirs = output(git(dir).args(PLAIN_DIFF).arg(id))?;
    // A commit that changes nothing has no id.
    let same = patch_id(dir, theirs.as_bytes()).ok() == patch_id(dir, &fs::read(&patch.path)?).ok();
    Ok(if same { Is::Same } else { Is::Changed })
}

fn absent(series: &Series, there: impl Fn(usize, &str) -> bool) -> Vec<String> {
    let subjects = series.subjects().enumerate();
    subjects
        .filter(|(i, s)| !there(*i, s))
        .map(|(_, s)| s.to_owned())
        .collect()
}

/// `found` says which patches' lines are there; `None` where patches/ was put on the copy.
pub fn of_git(
    dir: &Path,
    files: &Snapshot,
    series: &Series,
    found: Option<&[bool]>,
) -> Result<Option<(Changes, String)>> {
    let log = log(dir)?;
    let first = found.and_then(|_| oldest(&log, series));
    let base = first.and_then(|i| log.get(i + 1));
    let mut commits = Vec::new();
    for (id, subject) in log[..first.map_or(0, |i| i + 1)].iter().rev() {
        commits.push(Commit {
            is: compare(dir, id, subject, series)?,
            id: id.clone(),
            subject: subject.clone(),
        });
    }
    let named = |commit: &(String, String)| format!("{} {}", &commit.0[..12], commit.1);
    let paths = series.paths()?;
    let paths: Vec<&Path> = paths.iter().map(|p| &**p).collect();
    let (from, diff_from) = match base {
        None => (files.head.clone(), "the last commit".to_owned()),
        Some(base) => match files.patched(&base.0, &paths) {
            Ok(tree) => (tree, "the base with patches/ on it".to_owned()),
            Err(_) => (
                base.0.clone(),
                "the base, which patches/ does not fit".to_owned(),
            ),
        },
    };
    let diff = files.diff(&from, &files.tree)?;
    if diff.is_empty() {
        return Ok(None);
    }
    let in_log = |s: &str| commits.iter().any(|c| c.subject == s);
    let changes = Changes {
        had_series: found.is_some(),
        base: if found.is_some() {
            base.map(named)
        } else {
            log.first().map(named)
        },
        absent: found.map_or(Vec::new(), |found| {
            absent(series, |i, s| found[i] || in_log(s))
        }),
        commits,
        uncommitted: files.uncommitted.clone(),
        diff_from,
        diff_sha256: sha256(&diff),
    };
    Ok(Some((changes, diff)))
}

/// Without git, only a source that is known to be what the folder was made from tells more than that
/// it was changed; `reference` is one of the same version.
pub fn of_folder(
    copy: &Path,
    series: &Series,
    found: &[bool],
    reference: Option<&Path>,
) -> Result<(Changes, String)> {
    let wanted = match reference {
        Some(dir) => series.scratch(dir)?,
        None => tempfile::tempdir()?,
    };
    let fits = reference.is_some() && series.apply_files(wanted.path()).is_ok();
    let have = series.scratch(copy)?;
    let mut diff = String::new();
    for file in series.files() {
        let name = |top: &Path| {
            let path = top.join(file);
            if path.exists() {
                path
            } else {
                "/dev/null".into()
            }
        };
        let (old, new) = (name(wanted.path()), name(have.path()));
        if fs::read(&old).ok() == fs::read(&new).ok() {
            continue;
        }
        let label = file.display();
        let mut command = std::process::Command::new("diff");
        command
            .args(["--unified", "--label", &format!("a/{label}")])
            .args(["--label", &format!("b/{label}")])
            .args([old, new]);
        let out = crate::base::proc::capture(&mut command, std::process::Stdio::null())?;
        diff += &String::from_utf8_lossy(&out.stdout);
    }
    let changes = Changes {
        had_series: true,
        base: None,
        commits: Vec::new(),
        absent: absent(series, |i, _| found[i]),
        uncommitted: Vec::new(),
        diff_from: match (fits, reference) {
            (true, _) => "Debian's source of the same version with patches/ on it",
            (false, Some(_)) => "Debian's source of the same version, which patches/ does not fit",
            (false, None) => "nothing: what the folder was made from is not known",
        }
        .to_owned(),
        diff_sha256: sha256(&diff),
    };
    Ok((changes, diff))
}
