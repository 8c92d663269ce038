// SPDX-License-Identifier: GPL-2.0
//! git in somebody's kernel tree: asked so that neither the configuration nor the environment of
//! whoever runs it changes the answer, and so that reading changes nothing.

use crate::base::exit::{Exit, fail};
use crate::base::proc::{check_interrupt, complete, output};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir);
    forget_repository(&mut git);
    // Nobody sees a question.
    git.env("GIT_TERMINAL_PROMPT", "0")
        .env("SSH_ASKPASS_REQUIRE", "never");
    git
}

/// A git hook's environment names the repository that it runs for, and git would act on that one
/// whatever the folder. The others change what git prints or matches.
const STEERING: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_SHALLOW_FILE",
    "GIT_GRAFT_FILE",
    "GIT_REPLACE_REF_BASE",
    "GIT_TEMPLATE_DIR",
    "GIT_ATTR_SOURCE",
    "GIT_DIFF_OPTS",
    "GIT_EXTERNAL_DIFF",
    "GIT_LITERAL_PATHSPECS",
    "GIT_GLOB_PATHSPECS",
    "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS",
];

pub fn forget_repository(command: &mut Command) {
    for name in STEERING {
        command.env_remove(name);
    }
}

/// A folder inside somebody else's repository is no git tree of its own: git would act on the
/// outer one. One with a .git that git does not take is nothing to guess about.
pub fn is_git(dir: &Path) -> Result<bool> {
    let why = match output(git(dir).args(["rev-parse", "--show-toplevel"])) {
        Ok(top) => {
            let top = PathBuf::from(top.trim_end_matches('\n'));
            if fs::canonicalize(&top)? == fs::canonicalize(dir)? {
                return Ok(true);
            }
            format!("git takes {} for its top folder", top.display())
        }
        Err(e) => format!("{e:#}"),
    };
    check_interrupt()?;
    if dir.join(".git").symlink_metadata().is_ok() {
        let what = format!("{} has a .git, and git cannot use it: {why}", dir.display());
        return Err(fail(Exit::Tree, what));
    }
    Ok(false)
}

/// A file of git's own, wherever this working tree keeps it.
pub fn own_file(dir: &Path, name: &str) -> Result<PathBuf> {
    // Also asked after Ctrl-C.
    let path = complete(git(dir).args(["rev-parse", "--git-path", name]))?;
    Ok(dir.join(path.trim_end_matches('\n')))
}

pub fn commit(dir: &Path, name: &str) -> Result<String> {
    let name = format!("{name}^{{commit}}");
    let id = output(git(dir).args(["rev-parse", "--verify", "--end-of-options", &name]))?;
    Ok(id.trim().to_owned())
}

/// What to do lest the commits just made be lost, if no branch has them.
pub fn on_no_branch(dir: &Path) -> String {
    match output(git(dir).args(["symbolic-ref", "--quiet", "HEAD"])) {
        Ok(_) => String::new(),
        Err(_) => format!(
            "\nno branch has them: git -C {} switch --create NAME gives them one",
            dir.display()
        ),
    }
}

/// What the index's lock means, if it is there.
pub fn locked(dir: &Path) -> Result<Option<String>> {
    let lock = own_file(dir, "index.lock")?;
    Ok(lock.exists().then(|| {
        format!(
            "{0} exists: another git works in {1}, or was killed there; wait for it, or remove {0} if there is none",
            lock.display(),
            dir.display()
        )
    }))
}

/// Refuses a git tree with changes, or in the middle of something.
pub fn check_clean(dir: &Path) -> Result<()> {
    if let Some(what) = locked(dir)? {
        return Err(fail(Exit::Tree, what));
    }
    for (name, what, ends) in [
        ("rebase-apply/applying", "am", "--continue or --abort"),
        ("rebase-apply", "rebase", "--continue or --abort"),
        ("rebase-merge", "rebase", "--continue or --abort"),
        ("MERGE_HEAD", "merge", "--continue or --abort"),
        ("CHERRY_PICK_HEAD", "cherry-pick", "--continue or --abort"),
        ("REVERT_HEAD", "revert", "--continue or --abort"),
        ("BISECT_LOG", "bisect", "reset"),
    ] {
        if own_file(dir, name)?.exists() {
            let dir = dir.display();
            let what = format!(
                "{dir} is in the middle of git {what}: end that first (git -C {dir} {what} {ends})"
            );
            return Err(fail(Exit::Tree, what));
        }
    }
    let changed = changed(dir, "no")?;
    if !changed.is_empty() {
        let first: Vec<&str> = changed.iter().take(5).map(String::as_str).collect();
        return Err(fail(
            Exit::Tree,
            format!(
                "{} has uncommitted changes: commit or stash them first\n  {}",
                dir.display(),
                first.join("\n  ")
            ),
        ));
    }
    Ok(())
}

/// `git status`, a line for each file.
pub fn changed(dir: &Path, untracked: &str) -> Result<Vec<String>> {
    let status = output(git(dir).args([
        "--no-optional-locks",
        "-c",
        "core.fsmonitor=false",
        "status",
        "--porcelain",
        "--no-renames",
        "-z",
        &format!("--untracked-files={untracked}"),
    ]))?;
    let lines = status.split('\0').filter(|l| !l.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// The .gitignore of Debian's package hides everything that was not added by force, a new source
/// file too: it would be missing in what is built, and in the series.
pub fn check_hidden(dir: &Path) -> Result<()> {
    let probe = ["check-ignore", "--quiet", "mm/no-such-file.c"];
    if output(git(dir).args(probe)).is_err() {
        return check_interrupt();
    }
    let hidden = output(git(dir).args([
        "ls-files",
        "-z",
        "--others",
        "--ignored",
        "--exclude-standard",
        "--",
        "mm/*.[chS]",
        "include/linux/*.h",
    ]))?;
    let names: Vec<&str> = hidden.split('\0').filter(|n| !n.is_empty()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(fail(
        Exit::Tree,
        format!(
            "{0}/.gitignore hides every new file from git, and these would be missing: git -C {0} add --force {1}",
            dir.display(),
            names.join(" ")
        ),
    ))
}

/// A git tree's files as they are now, committed or not. What is not committed is written to a
/// folder of its own, never to the user's repository.
pub struct Snapshot {
    dir: PathBuf,
    scratch: tempfile::TempDir,
    objects: PathBuf,
    /// The commit that is checked out.
    pub head: String,
    /// git's id of the files.
    pub tree: String,
    pub uncommitted: Vec<String>,
}

impl Snapshot {
    pub fn of(dir: &Path) -> Result<Snapshot> {
        check_hidden(dir)?;
        let unmerged = output(git(dir).args(["ls-files", "--unmerged"]))?;
        if !unmerged.is_empty() {
            let name = unmerged.lines().next().and_then(|l| l.split('\t').nth(1));
            let what = format!(
                "{} has conflicts that are not resolved, in {}",
                dir.display(),
                name.unwrap_or_default()
            );
            return Err(fail(Exit::Tree, what));
        }
        let head = commit(dir, "HEAD")?;
        let scratch = tempfile::tempdir()?;
        fs::create_dir(scratch.path().join("objects"))?;
        let mut snapshot = Snapshot {
            objects: fs::canonicalize(own_file(dir, "objects")?)?,
            tree: output(git(dir).args(["rev-parse", "HEAD^{tree}"]))?
                .trim()
                .to_owned(),
            uncommitted: changed(dir, "all")?,
            dir: dir.to_owned(),
            scratch,
            head,
        };
        if !snapshot.uncommitted.is_empty() {
            // With git's own knowledge of which files are as they were.
            fs::copy(own_file(dir, "index")?, snapshot.index("files"))?;
            output(snapshot.git("files").args(["add", "--all", "."]))?;
            let tree = output(snapshot.git("files").arg("write-tree"))?;
            snapshot.tree = tree.trim().to_owned();
        }
        Ok(snapshot)
    }

    fn index(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Reads the user's objects, and writes only here. A file's bytes come out as they were committed.
    pub fn git(&self, index: &str) -> Command {
        let mut git = git(&self.dir);
        for setting in [
            "core.fsmonitor=false",
            "core.untrackedCache=false",
            "core.splitIndex=false",
            "core.safecrlf=false",
            "apply.whitespace=nowarn",
            "apply.ignoreWhitespace=no",
            "tar.umask=0002",
        ] {
            git.args(["-c", setting]);
        }
        git.env("GIT_INDEX_FILE", self.index(index))
            .env("GIT_OBJECT_DIRECTORY", self.scratch.path().join("objects"))
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", &self.objects);
        git
    }

    /// Unpacks the files into the empty folder `to`.
    pub fn export(&self, to: &Path) -> Result<()> {
        let tar = tempfile::NamedTempFile::new_in(to.parent().context("a folder lies in one")?)?;
        output(
            self.git("none")
                .args(["-c", "core.autocrlf=false", "-c", "core.eol=lf"])
                .args(["archive", "--format=tar", "--output"])
                .arg(tar.path())
                .arg(&self.tree),
        )?;
        output(
            Command::new("tar")
                .arg("--extract")
                .arg("--file")
                .arg(tar.path())
                .arg("-C")
                .arg(to)
                .env_remove("TAR_OPTIONS"),
        )
        .map(drop)
    }

    /// The files of `commit` with `patches` on them, as git's tree id.
    pub fn patched(&self, commit: &str, patches: &[&Path]) -> Result<String> {
        output(self.git("patched").args(["read-tree", commit]))?;
        output(
            self.git("patched")
                .args(["apply", "--cached"])
                .args(patches),
        )?;
        let tree = output(self.git("patched").arg("write-tree"))?;
        Ok(tree.trim().to_owned())
    }

    pub fn diff(&self, from: &str, to: &str) -> Result<String> {
        output(self.git("none").args(PLAIN_DIFF).args([from, to]))
    }
}

/// No setting of anybody's changes this one.
pub const PLAIN_DIFF: &[&str] = &[
    "diff-tree",
    "-r",
    "-p",
    "--binary",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
];

#[cfg(test)]
mod tests;
