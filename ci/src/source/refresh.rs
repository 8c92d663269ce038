// SPDX-License-Identifier: GPL-2.0
//! `make refresh`, the inverse of `make apply`: the commits of the user's tree become patches/.

use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::source::changes;
use crate::source::git::{Snapshot, check_clean, commit, git, is_git};
use crate::source::series::Series;
use crate::source::version::{check_line_ends, check_supported, version_of};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What would make other patches of the same commits, in the tree's own configuration.
const SETTINGS: &[&str] = &[
    "core.attributesFile=/dev/null",
    "core.quotePath=true",
    "diff.indentHeuristic=true",
    "diff.mnemonicPrefix=false",
    "diff.noprefix=false",
    "diff.relative=false",
    "diff.statGraphWidth=0",
    "diff.statNameWidth=0",
    "diff.suppressBlankEmpty=false",
    "format.encodeEmailHeaders=true",
    "format.forceInBodyFrom=false",
    "format.mboxrd=false",
    "format.numbered=auto",
    "format.signOff=false",
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
    "safe.directory=*",
];

const OPTIONS: &[&str] = &[
    "--abbrev=9",
    "--diff-algorithm=histogram",
    "--filename-max-length=64",
    "--dst-prefix=b/",
    "--find-renames",
    "--inter-hunk-context=0",
    "--no-add-header",
    "--no-attach",
    "--no-base",
    "--no-cc",
    "--no-color",
    "--no-cover-letter",
    "--no-ext-diff",
    "--no-from",
    "--no-notes",
    "--no-signature",
    "--no-textconv",
    "--no-thread",
    "--no-to",
    "--quiet",
    "--src-prefix=a/",
    "--start-number=1",
    "--subject-prefix=PATCH",
    "--suffix=.patch",
    "--unified=3",
    "--zero-commit",
    "-O/dev/null",
];

impl Series {
    /// Replaces this series, which `patches` holds, by the commits of `kdir` on top of `base`: of the commit
    /// below the oldest one that has the subject of a patch, if none is given. `kdir` is only read, and the
    /// cover letter stays.
    pub fn refresh(&self, patches: &Path, kdir: &Path, base: Option<&str>) -> Result<String> {
        let made = tempfile::Builder::new()
            .prefix(".refresh-")
            .tempdir_in(patches)
            .or_exit(Exit::Tree)?;
        let (series, mut said) = self.made_of(kdir, base, made.path())?;
        let (old, new) = (texts(self)?, texts(&series)?);
        if old == new {
            return Ok(format!("{said}: as they were"));
        }
        said += &compared(self, &series)?;
        if let Some(kept) = keep(patches)? {
            said += &format!(
                "\nwhat {0} had, and was not committed, is kept: git diff HEAD {kept} -- {0}",
                patches.display()
            );
        }
        for name in new.keys() {
            fs::rename(made.path().join(name), patches.join(name)).or_exit(Exit::Tree)?;
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            fs::remove_file(patches.join(name)).or_exit(Exit::Tree)?;
        }
        Ok(said)
    }

    /// Of a tree that this series was just put on: whether `refresh` would leave every byte as it is.
    pub fn check_unchanged_by_refresh(&self, kdir: &Path) -> Result<()> {
        let made = tempfile::tempdir()?;
        let (series, _) = self.made_of(kdir, None, made.path())?;
        if texts(self)? != texts(&series)? {
            let what = format!(
                "`make refresh` would change patches/{}",
                compared(self, &series)?
            );
            return Err(fail(Exit::Test, what));
        }
        Ok(())
    }

    /// The patches that the commits of `kdir` make, in the empty folder `into`, and what they are made of.
    fn made_of(&self, kdir: &Path, base: Option<&str>, into: &Path) -> Result<(Series, String)> {
        check_supported(&version_of(kdir)?)?;
        check_line_ends(kdir)?;
        if !is_git(kdir)? {
            let what = format!(
                "{} is no git tree, and patches are made of commits",
                kdir.display()
            );
            return Err(fail(Exit::Tree, what));
        }
        check_clean(kdir)?;
        let (base, subject) = self.base(kdir, base)?;
        let commits = check_commits(kdir, &base)?;
        let files = Snapshot::of(kdir)?;
        output(&mut format_patch(kdir, &base, into)).or_exit(Exit::Tree)?;
        let series = Series::load(into)?;
        let paths = series.paths()?;
        let paths: Vec<&Path> = paths.iter().map(|p| &**p).collect();
        if series.patches.len() != commits || files.patched(&base, &paths)? != files.tree {
            let what = format!(
                "the patches that git format-patch makes of {} do not make its files",
                kdir.display()
            );
            return Err(fail(Exit::Tree, what));
        }
        let said = format!("{commits} patches from {} {subject}", &base[..12]);
        Ok((series, said))
    }

    /// The commit below the series, and its subject.
    fn base(&self, kdir: &Path, given: Option<&str>) -> Result<(String, String)> {
        let log = changes::log(kdir)?;
        let found = match given {
            Some(name) => {
                let id = commit(kdir, name)
                    .with_context(|| format!("BASE={name} names no commit of {}", kdir.display()))
                    .or_exit(Exit::Usage)?;
                log.iter().skip(1).find(|(commit, _)| *commit == id)
            }
            None => changes::oldest(&log, self).and_then(|oldest| log.get(oldest + 1)),
        };
        found.cloned().ok_or_else(|| {
            let (dir, name) = (kdir.display(), given.unwrap_or_default());
            match given {
                Some(_) => fail(
                    Exit::Usage,
                    format!("BASE={name} is no commit below the last one of {dir}"),
                ),
                None => fail(
                    Exit::Tree,
                    format!(
                        "no commit of {dir} has the subject of a patch: BASE=COMMIT says what is below the series"
                    ),
                ),
            }
        })
    }
}

/// How many commits there are on top of `base`, each of which is to be a patch.
fn check_commits(kdir: &Path, base: &str) -> Result<usize> {
    let range = format!("{base}..HEAD");
    let merges = output(git(kdir).args(["rev-list", "--merges", "--abbrev-commit", &range]))?;
    if let Some(merge) = merges.lines().next() {
        let what = format!(
            "{} has a merge on top of the base, {merge}, and no patch can be made of it: rebase",
            kdir.display()
        );
        return Err(fail(Exit::Tree, what));
    }
    let format = "--format=%T %s";
    let log = output(git(kdir).args(["log", "--no-show-signature", format, &range]))?;
    let mut after = output(git(kdir).args(["rev-parse", &format!("{base}^{{tree}}")]))?;
    let mut commits = 0;
    for (tree, subject) in log.lines().rev().filter_map(|l| l.split_once(' ')) {
        if ["fixup! ", "squash! ", "amend! "].map(|w| subject.starts_with(w)) != [false; 3] {
            let what = format!(
                "{0} has {subject:?}: git -C {0} rebase --interactive --autosquash {1}",
                kdir.display(),
                &base[..12]
            );
            return Err(fail(Exit::Tree, what));
        }
        if tree == after.trim() {
            let what = format!(
                "{} has a commit that changes nothing: {subject:?}",
                kdir.display()
            );
            return Err(fail(Exit::Tree, what));
        }
        tree.clone_into(&mut after);
        commits += 1;
    }
    Ok(commits)
}

/// The same whoever runs it: what `git am` puts on a tree comes off it byte for byte.
fn format_patch(kdir: &Path, base: &str, into: &Path) -> Command {
    let mut git = git(kdir);
    for setting in SETTINGS {
        git.args(["-c", setting]);
    }
    git.arg("format-patch")
        .args(OPTIONS)
        .arg("--output-directory")
        .arg(into)
        .arg(format!("{base}..HEAD"))
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_CONFIG_COUNT");
    git
}

fn texts(series: &Series) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let text = |path: &Path| {
        let name = path.file_name().context("a patch has a name")?;
        Ok((name.to_owned(), fs::read(path)?))
    };
    series.patches.iter().map(|p| text(&p.path)).collect()
}

/// By subject, whatever their numbers are.
fn compared(old: &Series, new: &Series) -> Result<String> {
    let text = |path: &Path| -> Result<String> {
        let text = fs::read_to_string(path)?;
        let (before, after) = text.split_once("Subject: [PATCH").context("no subject")?;
        let (_, after) = after.split_once(']').context("no number")?;
        // The first line has a commit's id, or none.
        Ok(before.split_once('\n').unwrap_or_default().1.to_owned() + after)
    };
    let (mut lines, mut same) = (String::new(), 0);
    for patch in &new.patches {
        let before = old.patches.iter().find(|p| p.subject == patch.subject);
        let word = match before {
            Some(before) if text(&before.path)? == text(&patch.path)? => {
                same += 1;
                continue;
            }
            Some(_) => "changed",
            None => "new",
        };
        lines += &format!("\n  {word:8} {}", patch.subject);
    }
    for patch in &old.patches {
        if !new.subjects().any(|subject| subject == patch.subject) {
            lines += &format!("\n  gone     {}", patch.subject);
        }
    }
    Ok(format!(": {same} as they were{lines}"))
}

/// Not those of a folder in it.
const PATCHES: &str = ":(glob)patches/*.patch";

/// What `patches` has that no commit has becomes one that is on no branch.
fn keep(patches: &Path) -> Result<Option<String>> {
    let checkout = patches.parent().context("patches/ lies in the checkout")?;
    if !is_git(checkout)? {
        let what = format!(
            "{} is no git tree, and what is in {} would be lost",
            checkout.display(),
            patches.display()
        );
        return Err(fail(Exit::Tree, what));
    }
    let status = [
        "--no-optional-locks",
        "status",
        "--porcelain",
        "--untracked-files=all",
    ];
    if output(git(checkout).args(status).arg("--").arg(PATCHES))?.is_empty() {
        return Ok(None);
    }
    let scratch = tempfile::tempdir()?;
    let index = scratch.path().join("index");
    let in_index = |args: &[&str]| {
        let mut git = git(checkout);
        git.args([
            "-c",
            "user.name=make refresh",
            "-c",
            "user.email=refresh@localhost",
        ]);
        git.args(["-c", "commit.gpgSign=false"]).args(args);
        let text = output(git.env("GIT_INDEX_FILE", &index)).or_exit(Exit::Tree)?;
        anyhow::Ok(text.trim().to_owned())
    };
    in_index(&["read-tree", "HEAD"])?;
    in_index(&["add", "--all", "--force", "--", PATCHES])?;
    let tree = in_index(&["write-tree"])?;
    let message = "patches/ before make refresh";
    let id = in_index(&["commit-tree", "-p", "HEAD", "-m", message, &tree])?;
    in_index(&["update-ref", "--create-reflog", "refs/nolocks/patches", &id])?;
    Ok(Some(id[..12].to_owned()))
}

#[cfg(test)]
mod tests;
