// SPDX-License-Identifier: GPL-2.0
//! The patches: what they are, whether a tree has them, and putting them on and off.

use crate::base::cache::sha256;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::{capture, complete, output};
use crate::source::tree::{check_clean, check_supported, git, is_git, version_of};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Clone)]
pub struct Patch {
    pub path: PathBuf,
    pub subject: String,
    /// Every path that the patch names, those it creates or deletes included.
    files: BTreeSet<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Series {
    pub patches: Vec<Patch>,
    pub hash: String,
}

/// How much of the series a tree has.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    None,
    Some(usize),
    All,
}

impl Patch {
    fn load(path: &Path) -> Result<Patch> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut files = BTreeSet::new();
        for line in text.lines() {
            let Some(name) = line
                .strip_prefix("+++ ")
                .or_else(|| line.strip_prefix("--- "))
            else {
                continue;
            };
            let name = name.split('\t').next().unwrap_or(name);
            if let Some(file) = name.strip_prefix("a/").or_else(|| name.strip_prefix("b/")) {
                files.insert(PathBuf::from(file));
            }
        }
        if files.is_empty() {
            return Err(fail(
                Exit::Tree,
                format!("{} changes no file", path.display()),
            ));
        }
        Ok(Patch {
            path: path.to_owned(),
            subject: subject(&text),
            files,
        })
    }
}

/// The subject without its `[PATCH n/m]`, folded lines joined, as `git am` makes it.
fn subject(text: &str) -> String {
    let mut lines = text.lines().skip_while(|l| !l.starts_with("Subject: "));
    let first = lines
        .next()
        .and_then(|l| l.strip_prefix("Subject: "))
        .unwrap_or("");
    let folded = lines.take_while(|l| l.starts_with(' '));
    let subject = std::iter::once(first).chain(folded).collect::<String>();
    match subject.strip_prefix('[').and_then(|s| s.split_once("] ")) {
        Some((_, rest)) => rest.to_owned(),
        None => subject,
    }
}

impl Series {
    pub fn load(dir: &Path) -> Result<Series> {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)
            .with_context(|| format!("cannot list {}", dir.display()))
            .or_exit(Exit::Tree)?
            .flatten()
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "patch"))
            .collect();
        paths.sort();
        if paths.is_empty() {
            return Err(fail(
                Exit::Tree,
                format!("{} holds no *.patch", dir.display()),
            ));
        }
        let patches = paths
            .iter()
            .map(|p| Patch::load(p))
            .collect::<Result<Vec<_>>>()?;
        Ok(Series::of(patches))
    }

    fn of(patches: Vec<Patch>) -> Series {
        let texts: Vec<u8> = patches
            .iter()
            .flat_map(|p| fs::read(&p.path).unwrap_or_default())
            .collect();
        Series {
            hash: sha256(texts),
            patches,
        }
    }

    /// The first `n` patches.
    pub fn prefix(&self, n: usize) -> Series {
        Series::of(self.patches[..n].to_vec())
    }

    pub fn files(&self) -> BTreeSet<&PathBuf> {
        self.patches.iter().flat_map(|p| &p.files).collect()
    }

    /// The files that the series touches, copied to where a trial may spoil them.
    pub fn scratch(&self, tree: &Path) -> Result<tempfile::TempDir> {
        let scratch = tempfile::tempdir()?;
        for file in self.files() {
            let from = tree.join(file);
            if from.exists() {
                let to = scratch.path().join(file);
                fs::create_dir_all(to.parent().context("a file lies in a folder")?)?;
                fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            }
        }
        Ok(scratch)
    }

    pub fn state(&self, tree: &Path) -> Result<State> {
        let forward = self.scratch(tree)?;
        if self
            .patches
            .iter()
            .all(|p| patch(forward.path(), p, false).is_ok())
        {
            return Ok(State::None);
        }
        for n in (1..=self.patches.len()).rev() {
            let scratch = self.scratch(tree)?;
            if self.patches[..n]
                .iter()
                .rev()
                .all(|p| patch(scratch.path(), p, true).is_ok())
            {
                return Ok(if n == self.patches.len() {
                    State::All
                } else {
                    State::Some(n)
                });
            }
        }
        // Neither on nor off: the first refusal says where.
        let scratch = self.scratch(tree)?;
        for p in &self.patches {
            patch(scratch.path(), p, false).map_err(|e| {
                fail(
                    Exit::Tree,
                    format!(
                        "{} does not fit {} (nothing was changed there): {e:#}",
                        p.path.display(),
                        tree.display()
                    ),
                )
            })?;
        }
        Ok(State::None)
    }

    pub fn half(&self, n: usize, tree: &Path) -> anyhow::Error {
        fail(
            Exit::Tree,
            format!(
                "{} already has {n} of the {} patches: take those off first (the last is {:?})",
                tree.display(),
                self.patches.len(),
                self.patches[n - 1].subject
            ),
        )
    }

    /// On a tree that git does not watch over: tried in a scratch folder, then moved into place.
    pub fn apply_files(&self, tree: &Path) -> Result<()> {
        self.move_files(tree, false)
    }

    fn move_files(&self, tree: &Path, reverse: bool) -> Result<()> {
        let scratch = self.scratch(tree)?;
        let mut patches: Vec<&Patch> = self.patches.iter().collect();
        if reverse {
            patches.reverse();
        }
        for p in patches {
            patch(scratch.path(), p, reverse).or_exit(Exit::Tree)?;
        }
        // Everything is written beside its place before the first file is replaced, so that a full
        // disk changes nothing.
        let mut staged = Vec::new();
        for file in self.files() {
            let (from, to) = (scratch.path().join(file), tree.join(file));
            if !from.exists() {
                staged.push((None, to));
                continue;
            }
            if to.exists() && fs::read(&from)? == fs::read(&to)? {
                bail!("the series left {} as it was", to.display());
            }
            let dir = to.parent().context("a file lies in a folder")?;
            fs::create_dir_all(dir)?;
            let temp = tempfile::NamedTempFile::new_in(dir)?;
            fs::copy(&from, temp.path())
                .with_context(|| format!("cannot write {}", to.display()))?;
            let like = if to.exists() { &to } else { &from };
            fs::set_permissions(temp.path(), fs::metadata(like)?.permissions())?;
            staged.push((Some(temp), to));
        }
        for (temp, to) in staged {
            match temp {
                Some(temp) => drop(temp.persist(&to)?),
                None => fs::remove_file(&to)?,
            }
        }
        Ok(())
    }

    /// `make apply`: the only command, with `unapply`, that changes the user's tree.
    pub fn apply(&self, kdir: &Path) -> Result<String> {
        check_supported(&version_of(kdir)?)?;
        let in_git = is_git(kdir)?;
        if in_git {
            check_clean(kdir)?;
        }
        match self.state(kdir)? {
            State::None => {}
            State::Some(n) => return Err(self.half(n, kdir)),
            State::All => {
                return Err(fail(
                    Exit::Tree,
                    format!("{} already has the series", kdir.display()),
                ));
            }
        }
        if !in_git {
            self.apply_files(kdir).or_exit(Exit::Tree)?;
            return Ok(format!(
                "{} patches applied to {}",
                self.patches.len(),
                kdir.display()
            ));
        }
        let paths: Vec<PathBuf> = self
            .patches
            .iter()
            .map(|p| std::path::absolute(&p.path))
            .collect::<Result<_, _>>()?;
        let before = head(kdir)?;
        let mut am = git(kdir);
        am.args(["am", "--quiet", "--keep-non-patch"]).args(paths);
        if let Err(e) = complete(&mut am) {
            let _ = complete(git(kdir).args(["am", "--abort"]));
            return Err(refused("git am", kdir, &before, &e));
        }
        Ok(format!(
            "{} commits added to {}",
            self.patches.len(),
            kdir.display()
        ))
    }

    pub fn unapply(&self, kdir: &Path) -> Result<String> {
        check_supported(&version_of(kdir)?)?;
        let n = self.patches.len();
        if !is_git(kdir)? {
            return match self.state(kdir)? {
                State::All => {
                    self.move_files(kdir, true).or_exit(Exit::Tree)?;
                    Ok(format!("{n} patches taken off {}", kdir.display()))
                }
                _ => Err(fail(
                    Exit::Tree,
                    format!("{} does not have the series", kdir.display()),
                )),
            };
        }
        check_clean(kdir)?;
        let not_top = |why: String| {
            fail(
                Exit::Tree,
                format!(
                    "the last {n} commits of {} are not the series ({why}): nothing was changed",
                    kdir.display()
                ),
            )
        };
        for (i, patch) in self.patches.iter().rev().enumerate() {
            let show = output(git(kdir).args(["diff-tree", "-p", &format!("HEAD~{i}")]))
                .map_err(|e| not_top(format!("{e:#}")))?;
            // An empty commit has no id, and is not ours.
            let theirs = patch_id(kdir, show.as_bytes()).ok();
            if theirs != Some(patch_id(kdir, &fs::read(&patch.path)?)?) {
                return Err(not_top(format!("HEAD~{i} is not {:?}", patch.subject)));
            }
        }
        let before = head(kdir)?;
        complete(git(kdir).args(["reset", "--quiet", "--keep", &format!("HEAD~{n}")]))
            .map_err(|e| refused("git reset", kdir, &before, &e))?;
        Ok(format!("{n} commits taken off {}", kdir.display()))
    }
}

fn head(kdir: &Path) -> Result<String> {
    let head = complete(git(kdir).args(["rev-parse", "HEAD"])).or_exit(Exit::Tree)?;
    Ok(head.trim().to_owned())
}

/// What is said of a tree that had no changes and the commit `before`, after a command that failed.
fn refused(what: &str, kdir: &Path, before: &str, why: &anyhow::Error) -> anyhow::Error {
    let begun = complete(git(kdir).args(["rev-parse", "--git-path", "rebase-apply"]))
        .map_or(true, |path| kdir.join(path.trim_end()).exists());
    let kept = ["status", "--porcelain", "--untracked-files=no"];
    let whole = !begun
        && head(kdir).is_ok_and(|now| now == before)
        && complete(git(kdir).args(kept)).is_ok_and(|changes| changes.is_empty());
    let dir = kdir.display();
    let state = if whole {
        format!("{dir} is as it was")
    } else {
        let abort = if begun {
            format!("git -C {dir} am --quit && ")
        } else {
            String::new()
        };
        format!(
            "{dir} is NOT as it was; this brings it back: {abort}git -C {dir} reset --hard {before}"
        )
    };
    fail(Exit::Tree, format!("{what} failed, and {state}: {why:#}"))
}

/// Without fuzz, so that a patch never lands where it was not meant to. Not `git apply`, which
/// skips paths in silence when an enclosing repository's .gitignore or sub-folder gets in its way.
fn patch(dir: &Path, patch: &Patch, reverse: bool) -> Result<()> {
    let mut command = Command::new("patch");
    command
        .args([
            "--strip=1",
            "--fuzz=0",
            "--quiet",
            "--no-backup-if-mismatch",
            "--reject-file=-",
        ])
        // Not --batch, which turns a patch round when it thinks that was meant.
        .arg("--force")
        .args(reverse.then_some("--reverse"))
        .arg(format!(
            "--input={}",
            std::path::absolute(&patch.path)?.display()
        ))
        .current_dir(dir);
    let out = capture(&mut command, Stdio::null())?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stdout).trim());
    }
    Ok(())
}

fn patch_id(dir: &Path, text: &[u8]) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, text)?;
    std::io::Seek::rewind(&mut file)?;
    let out = capture(git(dir).args(["patch-id", "--stable"]), file)?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace()
        .next()
        .map(str::to_owned)
        .context("git patch-id says nothing")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::base::proc::tests::alone;
    use crate::source::tree::{forget_repository, tree_hash};

    pub const MAKEFILE: &str =
        "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\nNAME = x\n";
    const BASE: &str = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";

    /// A folder that is a kernel tree as far as the runner looks, and two patches for it, the second
    /// on top of the first.
    pub struct Fixture {
        pub dir: tempfile::TempDir,
        pub tree: PathBuf,
        pub series: Series,
    }

    fn sh(dir: &Path, script: &str) -> String {
        let mut sh = Command::new("sh");
        sh.args(["-ec", script])
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        forget_repository(&mut sh);
        complete(&mut sh).unwrap()
    }

    pub fn fixture(git: bool) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("linux");
        fs::create_dir_all(tree.join("mm")).unwrap();
        fs::write(tree.join("Makefile"), MAKEFILE).unwrap();
        fs::write(tree.join("mm/page_alloc.c"), BASE).unwrap();
        // The trap in Debian's tarball: git sees no file that is not forced on it.
        fs::write(tree.join(".gitignore"), "/*\n").unwrap();
        let work = dir.path().join("work");
        sh(
            dir.path(),
            "cp -r linux work; cd work; git init -q; git config user.name n; git config user.email n@x
             git add -f .; git commit -qm base
             sed -i s/^b$/B/ mm/page_alloc.c; echo new > mm/new.c; git add -f .; git commit -qm 'mm: one'
             sed -i s/^h$/H/ mm/page_alloc.c; git commit -qam 'mm: two'
             git format-patch -q -o ../patches HEAD~2",
        );
        if git {
            sh(
                &work,
                "git reset -q --hard HEAD~2; rm -rf ../linux; mv ../work ../linux",
            );
        }
        let series = Series::load(&dir.path().join("patches")).unwrap();
        Fixture { dir, tree, series }
    }

    fn refused(result: Result<String>, part: &str) {
        let e = result.unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree), "{e:#}");
        assert!(e.to_string().contains(part), "{e:#}");
    }

    #[test]
    fn the_series_is_read_as_git_am_reads_it() {
        let f = fixture(false);
        let subjects: Vec<&str> = f
            .series
            .patches
            .iter()
            .map(|p| p.subject.as_str())
            .collect();
        assert_eq!(subjects, ["mm: one", "mm: two"]);
        assert_eq!(f.series.files().len(), 2);
        assert_eq!(subject("Subject: [PATCH v2 1/2] a\n b\nX"), "a b");
        refused(Series::load(&f.tree).map(|_| String::new()), "no *.patch");
    }

    #[test]
    fn on_and_off_without_git() {
        let f = fixture(false);
        let before = tree_hash(&f.tree).unwrap();
        f.series.apply(&f.tree).unwrap();
        assert_eq!(f.series.state(&f.tree).unwrap(), State::All);
        assert_eq!(
            fs::read_to_string(f.tree.join("mm/new.c")).unwrap(),
            "new\n"
        );
        refused(f.series.apply(&f.tree), "already has the series");
        f.series.unapply(&f.tree).unwrap();
        assert_eq!(tree_hash(&f.tree).unwrap(), before);
        refused(f.series.unapply(&f.tree), "does not have the series");
    }

    #[test]
    fn on_and_off_with_git() {
        let f = fixture(true);
        let head = sh(&f.tree, "git rev-parse HEAD");
        f.series.apply(&f.tree).unwrap();
        assert_eq!(sh(&f.tree, "git log --format=%s -2"), "mm: two\nmm: one\n");
        refused(f.series.apply(&f.tree), "already has the series");
        sh(&f.tree, "git commit -q --allow-empty -m mine");
        refused(f.series.unapply(&f.tree), "nothing was changed");
        sh(&f.tree, "git reset -q --hard HEAD~1");
        f.series.unapply(&f.tree).unwrap();
        assert_eq!(sh(&f.tree, "git rev-parse HEAD"), head);
    }

    #[test]
    fn a_dirty_tree_is_refused_and_stays_as_it_is() {
        let f = fixture(true);
        fs::write(f.tree.join("mm/page_alloc.c"), BASE.replace('j', "mine")).unwrap();
        let before = tree_hash(&f.tree).unwrap();
        refused(f.series.apply(&f.tree), "uncommitted changes");
        refused(f.series.unapply(&f.tree), "uncommitted changes");
        assert_eq!(tree_hash(&f.tree).unwrap(), before);
    }

    #[test]
    fn a_tree_in_the_middle_of_am_is_refused() {
        let f = fixture(true);
        sh(
            &f.tree,
            "echo x >> mm/page_alloc.c; sed -i s/^b$/q/ mm/page_alloc.c; git commit -qam mine; git am ../patches/* || true",
        );
        refused(f.series.apply(&f.tree), "in the middle of git am");
        assert!(f.tree.join(".git/rebase-apply").exists());
    }

    #[test]
    fn a_conflict_changes_nothing_with_or_without_git() {
        for git in [false, true] {
            let f = fixture(git);
            fs::write(
                f.tree.join("mm/page_alloc.c"),
                BASE.replace("h\n", "other\n"),
            )
            .unwrap();
            if git {
                sh(&f.tree, "git commit -qam mine");
            }
            let before = tree_hash(&f.tree.join("mm")).unwrap();
            refused(f.series.apply(&f.tree), "0002-mm-two.patch does not fit");
            assert_eq!(tree_hash(&f.tree.join("mm")).unwrap(), before);
        }
    }

    /// A tree whose git am comes to this at the second patch.
    fn stopped_at_the_second(hook: &str) -> Fixture {
        let f = fixture(true);
        let script =
            format!("#!/bin/sh\n[ -e mm/new.c ] && grep -q H mm/page_alloc.c || exit 0\n{hook}\n");
        let file = f.tree.join(".git/hooks/pre-applypatch");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, script).unwrap();
        sh(&f.tree, "chmod +x .git/hooks/pre-applypatch");
        f
    }

    #[test]
    fn ctrl_c_leaves_no_half_series() {
        alone(
            "source::series::tests::ctrl_c_leaves_no_half_series",
            || {
                crate::base::proc::install_handler().unwrap();
                let hook = format!("kill -INT {}; sleep 0.3; exit 1", std::process::id());
                let f = stopped_at_the_second(&hook);
                let head = sh(&f.tree, "git rev-parse HEAD");
                refused(f.series.apply(&f.tree), "is as it was");
                assert!(crate::base::proc::interrupted());
                assert_eq!(sh(&f.tree, "git rev-parse HEAD"), head);
                assert!(!f.tree.join(".git/rebase-apply").exists());
            },
        );
    }

    #[test]
    fn a_tree_that_is_not_as_it_was_says_how_to_bring_it_back() {
        // git am --abort leaves a HEAD alone that was moved meanwhile.
        let f = stopped_at_the_second(
            "git update-ref HEAD $(git commit-tree -m x HEAD^{tree}); exit 1",
        );
        let head = sh(&f.tree, "git rev-parse HEAD");
        let e = f.series.apply(&f.tree).unwrap_err().to_string();
        assert!(!e.contains("is as it was"), "{e}");
        let (_, line) = e.split_once("brings it back: ").unwrap();
        sh(&f.tree, line.split(": ").next().unwrap());
        assert_eq!(
            sh(&f.tree, "git rev-parse HEAD; git status --porcelain -uno"),
            head
        );
        assert!(!f.tree.join(".git/rebase-apply").exists());
    }

    #[test]
    fn fuzz_is_no_fit() {
        let f = fixture(false);
        fs::write(f.tree.join("mm/page_alloc.c"), BASE.replace("a\n", "A\n")).unwrap();
        refused(f.series.apply(&f.tree), "0001-mm-one.patch does not fit");
    }

    #[test]
    fn half_a_series_is_named() {
        for git in [false, true] {
            let f = fixture(git);
            f.series.prefix(1).apply(&f.tree).unwrap();
            assert_eq!(f.series.state(&f.tree).unwrap(), State::Some(1));
            refused(f.series.apply(&f.tree), "already has 1 of the 2 patches");
        }
    }

    #[test]
    fn another_version_is_refused_and_stays_as_it_is() {
        for (makefile, part) in [
            (
                MAKEFILE.replace("LEVEL = 3", "LEVEL = 2"),
                "the tree is 7.2.4",
            ),
            (
                MAKEFILE
                    .replace("SUBLEVEL = 4", "SUBLEVEL = 0")
                    .replace("SION =\n", "SION = -rc6\n"),
                "7.3.0-rc6",
            ),
            ("all:\n".to_owned(), "is not a kernel tree"),
        ] {
            let f = fixture(false);
            fs::write(f.tree.join("Makefile"), makefile).unwrap();
            let before = tree_hash(&f.tree).unwrap();
            refused(f.series.apply(&f.tree), part);
            refused(f.series.unapply(&f.tree), part);
            assert_eq!(tree_hash(&f.tree).unwrap(), before);
        }
        let f = fixture(false);
        let rc7 = MAKEFILE
            .replace("SUBLEVEL = 4", "SUBLEVEL = 0")
            .replace("SION =\n", "SION = -rc7\n");
        fs::write(f.tree.join("Makefile"), rc7).unwrap();
        f.series.apply(&f.tree).unwrap();
    }

    #[test]
    fn a_folder_inside_another_repository_is_treated_as_files() {
        let f = fixture(false);
        sh(f.dir.path(), "git init -q; echo '/*' > .gitignore");
        assert!(!is_git(&f.tree).unwrap());
        f.series.apply(&f.tree).unwrap();
        assert!(
            fs::read_to_string(f.tree.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
    }
}
