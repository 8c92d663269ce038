// SPDX-License-Identifier: GPL-2.0
//! The patches: what they are, whether a tree has them, and putting them on and off.

use crate::base::cache::sha256;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::capture;
use crate::source::git::git;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Clone)]
pub struct Patch {
    pub path: PathBuf,
    pub subject: String,
    /// What it adds, by file.
    added: Vec<(PathBuf, String)>,
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
    /// The first so many patches, as they are.
    Some(usize),
    All,
    /// Some of its patches were changed there; those that can be told are true.
    Edited(Vec<bool>),
}

impl Patch {
    fn load(path: &Path) -> Result<Patch> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut files = BTreeSet::new();
        let mut added = Vec::new();
        let mut now = PathBuf::new();
        for line in text.lines() {
            let Some(name) = line
                .strip_prefix("+++ ")
                .or_else(|| line.strip_prefix("--- "))
            else {
                let text = line.strip_prefix('+').map(str::trim);
                if let Some(text) = text.filter(|t| !t.is_empty()) {
                    added.push((now.clone(), text.to_owned()));
                }
                continue;
            };
            let name = name.split('\t').next().unwrap_or(name);
            if let Some(file) = name.strip_prefix("a/").or_else(|| name.strip_prefix("b/")) {
                now = PathBuf::from(file);
                files.insert(now.clone());
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
            added,
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

    /// Of what the patches do, whatever their logs say: that of the kernel that they make.
    pub fn diffs_hash(&self) -> String {
        let texts = self.patches.iter();
        let texts = texts.map(|p| fs::read_to_string(&p.path).unwrap_or_default());
        let diffs = texts.map(|text| {
            text.split_once("\ndiff --git ")
                .map_or_else(String::new, |(_, diff)| diff.to_owned())
        });
        sha256(diffs.collect::<String>())
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
        let found = self.found(tree);
        if 2 * found.iter().filter(|found| **found).count() > found.len() {
            return Ok(State::Edited(found));
        }
        // Neither on nor off: the first refusal says where.
        let scratch = self.scratch(tree)?;
        for p in &self.patches {
            patch(scratch.path(), p, false).map_err(|e| {
                fail(
                    Exit::Tree,
                    format!(
                        "{} does not fit {} (nothing was changed there; `make rebase KDIR=` merges what it can): {e:#}",
                        p.path.display(),
                        tree.display()
                    ),
                )
            })?;
        }
        Ok(State::None)
    }

    /// Which patches' own lines are there, most of them: what a change here and there leaves of a
    /// patch. Short lines stand everywhere, and tell only where there are no others.
    pub fn found(&self, tree: &Path) -> Vec<bool> {
        let lines = |file: &PathBuf| -> HashSet<String> {
            let text = fs::read(tree.join(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().map(|l| l.trim().to_owned()).collect()
        };
        let have: BTreeMap<_, _> = self.files().into_iter().map(|f| (f, lines(f))).collect();
        let there = |(file, line): &&(PathBuf, String)| have[file].contains(line);
        let patches = self.patches.iter();
        patches
            .map(|p| {
                let long = |(_, line): &&(PathBuf, String)| line.len() >= 16;
                let mut lines: Vec<_> = p.added.iter().filter(long).collect();
                if lines.is_empty() {
                    lines = p.added.iter().collect();
                }
                2 * lines.iter().filter(|l| there(l)).count() > lines.len()
            })
            .collect()
    }

    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.patches.iter().map(|p| p.subject.as_str())
    }

    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        let paths = self.patches.iter().map(|p| std::path::absolute(&p.path));
        Ok(paths.collect::<Result<_, _>>()?)
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

    pub fn move_files(&self, tree: &Path, reverse: bool) -> Result<()> {
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
    // Each of these changes what GNU patch looks for, or says.
    for name in [
        "POSIXLY_CORRECT",
        "PATCH_GET",
        "PATCH_VERSION_CONTROL",
        "VERSION_CONTROL",
        "SIMPLE_BACKUP_SUFFIX",
        "QUOTING_STYLE",
    ] {
        command.env_remove(name);
    }
    let out = capture(&mut command, Stdio::null())?;
    if !out.status.success() {
        bail!("{}", String::from_utf8_lossy(&out.stdout).trim());
    }
    Ok(())
}

pub fn patch_id(dir: &Path, text: &[u8]) -> Result<String> {
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
    use crate::base::pins::PINS;
    use crate::base::proc::complete;
    use crate::source::git::forget_repository;

    const BASE: &str = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";

    /// The kernel's Makefile of a release such as 1.2.3-rc4.
    pub fn makefile(release: &str) -> String {
        let (numbers, extra) = match release.split_once('-') {
            Some((numbers, extra)) => (numbers, format!(" -{extra}")),
            None => (release, String::new()),
        };
        let fields = ["VERSION", "PATCHLEVEL", "SUBLEVEL"];
        let lines = fields.iter().zip(numbers.split('.'));
        let lines: String = lines.map(|(field, n)| format!("{field} = {n}\n")).collect();
        format!("{lines}EXTRAVERSION ={extra}\nNAME = x\n")
    }

    /// Of the version that the series is for, with a last number that none has.
    pub fn newer_release() -> String {
        format!("{}.9999", PINS.kernel.version)
    }

    #[test]
    fn a_log_changes_no_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let hashes = |subject: &str, line: &str| {
            let text = format!(
                "Subject: [PATCH 1/1] {subject}\n\nWhy.\n---\n a | 1 +\n\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -0,0 +1 @@\n+{line}\n"
            );
            fs::write(dir.path().join("0001.patch"), text).unwrap();
            let series = Series::load(dir.path()).unwrap();
            (series.hash.clone(), series.diffs_hash())
        };
        let first = hashes("x", "a");
        let (log, diff) = (hashes("y", "a"), hashes("x", "b"));
        assert_ne!(log.0, first.0);
        assert_eq!(log.1, first.1);
        assert_ne!(diff.1, first.1);
    }

    /// A folder that is a kernel tree as far as the runner looks, and two patches for it, the second
    /// on top of the first.
    pub struct Fixture {
        pub dir: tempfile::TempDir,
        pub tree: PathBuf,
        pub series: Series,
    }

    pub fn sh(dir: &Path, script: &str) -> String {
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
        fs::write(tree.join("Makefile"), makefile(&PINS.kernel.base)).unwrap();
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

    pub fn refused(result: Result<String>, part: &str) {
        let e = result.unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree), "{e:#}");
        assert!(e.to_string().contains(part), "{e:#}");
    }

    /// No lane reads this file: kunit.py does, for whoever has the series and not this repository.
    #[test]
    fn the_series_brings_kunit_py_the_options_of_its_suite() {
        let patches = Path::new(env!("CARGO_MANIFEST_DIR")).join("../patches");
        let file = Path::new("mm/tests/.kunitconfig");
        let series = Series::load(&patches).unwrap();
        let of_file = series.patches.iter().flat_map(|p| &p.added);
        let lines: Vec<&str> = of_file
            .filter(|(f, _)| f == file)
            .map(|(_, line)| line.as_str())
            .collect();
        for option in ["CONFIG_KUNIT=y", "CONFIG_PAGE_ALLOC_NO_LOCKS_KUNIT_TEST=y"] {
            assert!(lines.contains(&option), "{option}: {lines:?}");
        }
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
}
