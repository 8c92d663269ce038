// SPDX-License-Identifier: GPL-2.0
//! The two commands that put the series on the user's tree and take it off.

use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::{complete, output};
use crate::source::git::{
    PLAIN_DIFF, check_clean, commit, git, is_git, locked, on_no_branch, own_file,
};
use crate::source::series::{Series, State, patch_id};
use crate::source::version::{check_line_ends, check_supported, version_of};
use anyhow::Result;
use std::fs;
use std::path::Path;

impl Series {
    pub fn apply(&self, kdir: &Path) -> Result<String> {
        check_supported(&version_of(kdir)?)?;
        check_line_ends(kdir)?;
        let in_git = is_git(kdir)?;
        if in_git {
            check_clean(kdir)?;
        }
        self.refuse_if_there(&self.state(kdir)?, kdir)?;
        if !in_git {
            self.apply_files(kdir).or_exit(Exit::Tree)?;
            return Ok(format!(
                "{} patches applied to {}",
                self.patches.len(),
                kdir.display()
            ));
        }
        let before = commit(kdir, "HEAD").or_exit(Exit::Tree)?;
        if let Err(e) = am(kdir, &[], self)? {
            let _ = complete(git(kdir).args(["am", "--abort"]));
            return Err(refused("git am", kdir, &before, &e));
        }
        Ok(format!(
            "{} commits added to {}{}",
            self.patches.len(),
            kdir.display(),
            on_no_branch(kdir)
        ))
    }

    /// For whoever would put it on once more.
    pub fn refuse_if_there(&self, state: &State, kdir: &Path) -> Result<()> {
        let what = match state {
            State::None => return Ok(()),
            State::Some(n) => return Err(self.half(*n, kdir)),
            State::All => format!("{} already has the series", kdir.display()),
            State::Edited(_) => format!(
                "{} already has the series, with changes of its own: `make stress KDIR=` builds it as it is, and `make refresh KDIR=` brings the changes into patches/",
                kdir.display()
            ),
        };
        Err(fail(Exit::Tree, what))
    }

    pub fn unapply(&self, kdir: &Path) -> Result<String> {
        check_supported(&version_of(kdir)?)?;
        check_line_ends(kdir)?;
        let n = self.patches.len();
        if !is_git(kdir)? {
            return match self.state(kdir)? {
                State::All => {
                    self.move_files(kdir, true).or_exit(Exit::Tree)?;
                    Ok(format!("{n} patches taken off {}", kdir.display()))
                }
                _ => Err(fail(
                    Exit::Tree,
                    format!(
                        "{} does not have the series as patches/ has it",
                        kdir.display()
                    ),
                )),
            };
        }
        check_clean(kdir)?;
        let not_top = |why: String| {
            let (state, kdir) = (self.state(kdir), kdir.display());
            let what = match state {
                Ok(State::None) => format!("{kdir} does not have the series: nothing was changed"),
                _ => format!(
                    "the last {n} commits of {kdir} are not the series as patches/ has it ({why}): nothing was changed. \
                     `make refresh KDIR=` brings them into patches/, and then they can be taken off"
                ),
            };
            fail(Exit::Tree, what)
        };
        for (i, patch) in self.patches.iter().rev().enumerate() {
            let show = output(git(kdir).args(PLAIN_DIFF).arg(format!("HEAD~{i}")))
                .map_err(|e| not_top(format!("{e:#}")))?;
            // An empty commit has no id, and is not ours.
            let theirs = patch_id(kdir, show.as_bytes()).ok();
            if theirs != Some(patch_id(kdir, &fs::read(&patch.path)?)?) {
                return Err(not_top(format!(
                    "HEAD~{i} has another change than the patch {:?}",
                    patch.subject
                )));
            }
        }
        let before = commit(kdir, "HEAD").or_exit(Exit::Tree)?;
        complete(git(kdir).args(["reset", "--quiet", "--keep", &format!("HEAD~{n}")]))
            .map_err(|e| refused("git reset", kdir, &before, &e))?;
        Ok(format!("{n} commits taken off {}", kdir.display()))
    }
}

/// `git am`, whatever the user's configuration says of it: without a signature, which nobody could be
/// asked a passphrase for. The inner error is git's own.
pub fn am(kdir: &Path, options: &[&str], series: &Series) -> Result<Result<String>> {
    let mut am = git(kdir);
    am.args([
        "-c",
        "apply.whitespace=nowarn",
        "-c",
        "apply.ignoreWhitespace=no",
    ])
    .args(["am", "--quiet", "--keep-non-patch", "--no-gpg-sign"])
    .args([
        "--no-keep-cr",
        "--no-scissors",
        "--no-message-id",
        "--no-3way",
    ])
    .args(options)
    .args(series.paths()?);
    Ok(complete(&mut am))
}

/// What is said of a tree that had no changes and the commit `before`, after a command that failed.
pub fn refused(what: &str, kdir: &Path, before: &str, why: &anyhow::Error) -> anyhow::Error {
    let begun = own_file(kdir, "rebase-apply").map_or(true, |path| path.exists());
    let kept = ["status", "--porcelain", "--untracked-files=no"];
    let whole = head(kdir).is_ok_and(|now| now == before)
        && complete(git(kdir).arg("--no-optional-locks").args(kept))
            .is_ok_and(|changes| changes.is_empty());
    let dir = kdir.display();
    let lock = locked(kdir).ok().flatten();
    let state = match (whole, begun) {
        (true, false) => format!("{dir} is as it was"),
        (true, true) => format!(
            "no file of {dir} was changed, but git am is still open there; this ends it: git -C {dir} am --quit"
        ),
        (false, begun) => format!(
            "{dir} is NOT as it was; this brings it back: {}git -C {dir} reset --hard {before}",
            if begun {
                format!("git -C {dir} am --quit && ")
            } else {
                String::new()
            }
        ),
    };
    let lock = lock.map(|what| format!("\n{what}")).unwrap_or_default();
    fail(Exit::Tree, format!("{what} failed: {why:#}\n{state}{lock}"))
}

fn head(kdir: &Path) -> Result<String> {
    let head = complete(git(kdir).args(["rev-parse", "HEAD"]))?;
    Ok(head.trim().to_owned())
}

#[cfg(test)]
mod tests;
