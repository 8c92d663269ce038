// SPDX-License-Identifier: GPL-2.0
//! Kernel trees: Debian's packaged one, or the user's own, of which only a copy is ever built.

use crate::base::cache::{self, Cache, Lock, remove_dir, sha256, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::base::progress::Progress;
use crate::source::changes::{self, Changes};
use crate::source::git::{Snapshot, is_git};
use crate::source::series::{Series, State};
use crate::source::version::{check_line_ends, check_supported, version_of};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use walkdir::WalkDir;

/// In a run's folder of a lane: where the user's own tree differs from patches/.
pub const DIFFERENCE: &str = "local.diff";

/// What a tree is, for metadata.json.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Origin {
    pub version: String,
    /// Where it came from: a Debian package version, or the user's folder.
    pub from: String,
    /// SHA-256 of the tarball, git's tree id, or a SHA-256 over all files.
    pub id: String,
}

pub struct Tree {
    pub origin: Origin,
    slot: String,
    source: Source,
}

enum Source {
    Pristine(PathBuf),
    Git(PathBuf, Box<Snapshot>),
    Folder {
        dir: PathBuf,
        /// What it may have been made from.
        reference: Option<PathBuf>,
    },
}

/// A tree with the series on it, in the cache, ready to be built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    pub dir: PathBuf,
    pub origin: Origin,
    /// SHA-256 of the patches that it has; of the difference from them where there is one.
    pub series: String,
    #[serde(default)]
    pub changes: Option<Changes>,
    /// Of the patches that were asked for.
    #[serde(default)]
    asked: String,
    /// Of the user's tree.
    #[serde(default)]
    head: Option<String>,
    /// No other run may put another series on it while this one builds.
    #[serde(skip)]
    _hold: Option<Arc<Lock>>,
}

/// Products of a build inside the tree, which would make an O= build refuse the copy.
const PRODUCTS: &[&str] = &[
    "*.o",
    "*.ko",
    "*.a",
    "*.cmd",
    "*.mod",
    "*.mod.c",
    "*.order",
    "*.so",
    "*.rmeta",
    "*.symvers",
    "*.dtb",
    "/.config",
    "/.config.old",
    "/vmlinux*",
    "/System.map",
    "/include/config",
    "/include/generated",
    "/arch/*/include/generated",
    "/.tmp*",
    "/.git",
    "/modules.builtin*",
    "/.nolocks*",
];

pub fn own(dir: &Path) -> Result<Tree> {
    let dir = fs::canonicalize(dir)
        .map_err(|e| fail(Exit::Tree, format!("KDIR={}: {e}", dir.display())))?;
    let version = version_of(&dir)?;
    check_supported(&version)?;
    let slot = format!("kdir-{}", &sha256(dir.as_os_str().as_encoded_bytes())[..12]);
    let (source, id) = if is_git(&dir)? {
        let files = Snapshot::of(&dir).or_exit(Exit::Tree)?;
        let id = files.tree.clone();
        (Source::Git(dir.clone(), Box::new(files)), id)
    } else {
        check_line_ends(&dir)?;
        let folder = Source::Folder {
            dir: dir.clone(),
            reference: None,
        };
        (folder, String::new())
    };
    let origin = Origin {
        version: version.to_string(),
        from: dir.display().to_string(),
        id,
    };
    Ok(Tree {
        origin,
        slot,
        source,
    })
}

// ---- the copy that is built ---------------------------------------------------------------------

impl Prepared {
    /// What `changes` tells of, where there are any.
    pub fn diff(&self) -> PathBuf {
        self.dir.with_extension("diff")
    }
}

impl Tree {
    pub fn debian(dir: PathBuf, origin: Origin) -> Tree {
        Tree {
            slot: "debian".into(),
            source: Source::Pristine(dir),
            origin,
        }
    }

    /// With a source that the user's folder may have been made from; git knows better.
    pub fn compared_with(mut self, other: Option<&Tree>) -> Tree {
        let other = other.filter(|o| o.origin.version == self.origin.version);
        if let (Source::Folder { reference, .. }, Some(other)) = (&mut self.source, other) {
            *reference = other.pristine().ok();
        }
        self
    }

    fn head(&self) -> Option<&str> {
        match &self.source {
            Source::Git(_, files) => Some(&files.head),
            _ => None,
        }
    }

    /// The unpatched tree as it was fetched, to be read only.
    pub fn pristine(&self) -> Result<PathBuf> {
        match &self.source {
            Source::Pristine(dir) => Ok(dir.clone()),
            Source::Git(..) | Source::Folder { .. } => {
                Err(fail(Exit::Tree, "the user's tree is not the pristine one"))
            }
        }
    }

    /// Puts the tree with `series` on it into its place in the cache. Files that are the same as
    /// before keep their times, so that make builds only what a new series touches.
    pub fn prepare(mut self, cache: &Cache, series: &Series, use_: &str) -> Result<Prepared> {
        let slot = format!("{}{use_}", self.slot);
        let lock = format!("src-{slot}");
        loop {
            let hold = cache.share(&lock)?;
            let base = cache.dir("src")?;
            let done: Option<Prepared> = cache::read_json(&base.join(format!("{slot}.json")));
            if let Some(done) = done
                && !self.origin.id.is_empty()
                && done.origin == self.origin
                && done.asked == series.hash
                && done.head.as_deref() == self.head()
                && done.dir == base.join(&slot)
                && done.dir.is_dir()
            {
                if let Some(changes) = &done.changes {
                    eprintln!("{}: {changes}", self.origin.from);
                }
                return Ok(Prepared {
                    _hold: Some(Arc::new(hold)),
                    ..done
                });
            }
            drop(hold);
            // Between this lock and the next one another run may change the copy again: hence the loop.
            let _alone = cache.lock(&lock)?;
            self.write(cache, series, &base, &slot)?;
        }
    }

    fn write(&mut self, cache: &Cache, series: &Series, base: &Path, slot: &str) -> Result<()> {
        let dir = base.join(slot);
        let record = base.join(format!("{slot}.json"));
        cache.need_space("a copy of the kernel source", 2500)?;
        let mut progress = Progress::new(format!("source {}", self.origin.version), 0);
        let next = base.join(format!("{slot}.next"));
        remove_dir(&next)?;
        progress.say("copying");
        self.export(&next).or_exit(Exit::Tree)?;
        if self.origin.id.is_empty() {
            self.origin.id = tree_hash(&next)?;
        }
        progress.say("applying the series");
        let (done, changes) = self.patched(&next, series)?;
        progress.say("comparing with the last copy");
        // From here to the end the copy is neither the old one nor the new.
        let _ = fs::remove_file(&record);
        let diff = dir.with_extension("diff");
        let _ = fs::remove_file(&diff);
        let (changes, text) = changes.unzip();
        if let Some(text) = text {
            write_atomic(&diff, &text)?;
        }
        let changed = if dir.exists() {
            format!("{} files differ from the last copy", sync(&next, &dir)?)
        } else {
            fs::rename(&next, &dir)?;
            "a new copy".to_owned()
        };
        remove_dir(&next)?;
        let prepared = Prepared {
            dir,
            origin: self.origin.clone(),
            series: match &changes {
                Some(changes) if changes.had_series => changes.diff_sha256.clone(),
                _ => series.hash.clone(),
            },
            changes,
            asked: series.hash.clone(),
            head: self.head().map(str::to_owned),
            _hold: None,
        };
        write_json(&record, &prepared)?;
        progress.finish(&format!("series {} {done}, {changed}", &series.hash[..12]));
        Ok(())
    }

    /// Puts the series on the copy if it is not there; the user's own version of it stays.
    fn patched(
        &self,
        copy: &Path,
        series: &Series,
    ) -> Result<(&'static str, Option<(Changes, String)>)> {
        let mut state = series.state(copy);
        if let (Source::Git(dir, _), Err(_)) = (&self.source, &state)
            && changes::oldest(&changes::log(dir)?, series).is_some()
        {
            // Changed beyond what its lines tell, and still there by the subjects of the commits.
            state = Ok(State::Edited(series.found(copy)));
        }
        let found = match state? {
            State::None => None,
            State::Some(n) => Some((0..series.patches.len()).map(|i| i < n).collect()),
            State::All => Some(vec![true; series.patches.len()]),
            State::Edited(found) => Some(found),
        };
        let all = found.as_ref().is_some_and(|f| f.iter().all(|f| *f));
        if found.is_none() {
            series.apply_files(copy)?;
        }
        let changes = match (&self.source, &found) {
            (Source::Git(dir, files), _) => changes::of_git(dir, files, series, found.as_deref())?,
            (Source::Folder { reference, .. }, Some(found))
                if !all || series.state(copy)? != State::All =>
            {
                let reference = reference.as_deref();
                Some(changes::of_folder(copy, series, found, reference)?)
            }
            _ => None,
        };
        let done = match (&found, &changes) {
            (None, _) => "applied",
            (Some(_), None) => "there already",
            (Some(_), Some(_)) => "not applied: the tree has its own",
        };
        Ok((done, changes))
    }

    fn export(&self, to: &Path) -> Result<()> {
        match &self.source {
            Source::Pristine(from) => {
                output(
                    Command::new("cp")
                        .args(["--archive", "--link"])
                        .arg(from)
                        .arg(to),
                )?;
            }
            Source::Git(_, files) => {
                fs::create_dir_all(to)?;
                files.export(to)?;
                check_line_ends(to)?;
            }
            Source::Folder { dir: from, .. } => {
                let mut rsync = Command::new("rsync");
                rsync.arg("--archive");
                for pattern in PRODUCTS {
                    rsync.arg(format!("--exclude={pattern}"));
                }
                output(rsync.arg(format!("{}/", from.display())).arg(to))?;
            }
        }
        Ok(())
    }
}

fn files(dir: &Path) -> impl Iterator<Item = Result<walkdir::DirEntry>> {
    WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .filter(|e| !e.as_ref().is_ok_and(|e| e.file_type().is_dir()))
        .map(|e| Ok(e?))
}

fn content(path: &Path) -> Result<Vec<u8>> {
    let text = if path.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else {
        fs::read(path)?
    };
    Ok(text)
}

pub fn tree_hash(dir: &Path) -> Result<String> {
    let mut list = Vec::new();
    for entry in files(dir) {
        let entry = entry?;
        let name = entry.path().strip_prefix(dir)?;
        writeln!(
            list,
            "{} {}",
            sha256(content(entry.path())?),
            name.display()
        )?;
    }
    Ok(sha256(list))
}

/// Makes `to` equal to `from`; what differs gets a new time, what does not keeps its own.
fn sync(from: &Path, to: &Path) -> Result<usize> {
    let mut changed = 0;
    for entry in files(from) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from)?);
        if let Ok(old) = fs::symlink_metadata(&target) {
            let new = entry.path().symlink_metadata()?;
            let same_inode = (old.dev(), old.ino()) == (new.dev(), new.ino());
            let same = old.file_type() == new.file_type()
                && old.mode() == new.mode()
                && (same_inode
                    || (old.len() == new.len() && content(&target)? == content(entry.path())?));
            if same {
                continue;
            }
            if old.is_dir() {
                fs::remove_dir_all(&target)?;
            } else {
                // Not written in place: other copies may share the file by a hard link.
                fs::remove_file(&target)?;
            }
        }
        changed += 1;
        fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
        if entry.path_is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    for entry in files(to) {
        let entry = entry?;
        if !from.join(entry.path().strip_prefix(to)?).exists() && !entry.path_is_symlink() {
            changed += 1;
            fs::remove_file(entry.path())?;
        }
    }
    Ok(changed)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::source::changes::Is;
    use crate::source::series::tests::{Fixture, fixture, sh};

    pub fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        (dir, cache)
    }

    #[test]
    fn the_users_tree_is_only_copied() {
        for git in [false, true] {
            let f = fixture(git);
            let (_dir, cache) = cache();
            fs::write(f.tree.join("mm/x.o"), "product").unwrap();
            let before = tree_hash(&f.tree).unwrap();
            let done = own(&f.tree)
                .unwrap()
                .prepare(&cache, &f.series, "")
                .unwrap();
            assert_eq!(tree_hash(&f.tree).unwrap(), before);
            let text = fs::read_to_string(done.dir.join("mm/page_alloc.c")).unwrap();
            assert!(text.contains("B\n") && text.contains("H\n"));
            assert!(!done.dir.join("mm/x.o").exists());
            assert!(!done.origin.id.is_empty());
        }
    }

    #[test]
    fn a_tree_that_has_the_series_is_taken_as_it_is() {
        let f = fixture(true);
        let (_dir, cache) = cache();
        f.series.apply(&f.tree).unwrap();
        let done = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap();
        assert!(
            fs::read_to_string(done.dir.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
    }

    fn built(f: &Fixture) -> (Prepared, String, tempfile::TempDir) {
        let (dir, cache) = cache();
        let before = tree_hash(&f.tree).unwrap();
        let done = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap();
        assert_eq!(tree_hash(&f.tree).unwrap(), before);
        let diff = fs::read_to_string(done.diff()).unwrap_or_default();
        (done, diff, dir)
    }

    #[test]
    fn work_without_the_series_gets_it_in_the_copy() {
        let f = fixture(true);
        sh(&f.tree, "echo mine >> Makefile");
        let (done, diff, _dir) = built(&f);
        let changes = done.changes.unwrap();
        assert!(!changes.had_series && changes.uncommitted == [" M Makefile"]);
        assert!(diff.contains("+mine\n") && !diff.contains("+B\n"), "{diff}");
        let text = fs::read_to_string(done.dir.join("mm/page_alloc.c")).unwrap();
        assert!(text.contains("B\n") && text.contains("H\n"), "{text}");
        let text = fs::read_to_string(done.dir.join("Makefile")).unwrap();
        assert!(text.ends_with("mine\n"), "{text}");
        assert_eq!(done.series, f.series.hash);
    }

    #[test]
    fn the_series_with_changes_is_built_as_it_is_and_told() {
        // Changed in place, committed or not, and with a commit of one's own above it and below.
        for (script, commits, uncommitted) in [
            ("sed -i 's/^B$/B\\n\\/\\/ a comment/' mm/page_alloc.c", 2, 1),
            (
                "sed -i s/^c$/C/ mm/page_alloc.c; git commit -qam 'mm: mine'",
                3,
                0,
            ),
            (
                "sed -i s/^H$/HH/ mm/page_alloc.c; git commit -qa --amend --no-edit",
                2,
                0,
            ),
            ("echo mine > Kbuild; git add -f Kbuild", 2, 1),
        ] {
            let f = fixture(true);
            f.series.apply(&f.tree).unwrap();
            let base = sh(&f.tree, "git rev-parse HEAD~2");
            sh(&f.tree, script);
            let (done, diff, _dir) = built(&f);
            let changes = done.changes.unwrap();
            assert!(changes.had_series, "{script}");
            assert_eq!(changes.base.unwrap()[..12], base[..12], "{script}");
            assert_eq!(changes.commits.len(), commits, "{script}");
            assert_eq!(changes.uncommitted.len(), uncommitted, "{script}");
            assert!(changes.absent.is_empty(), "{script}");
            // Only what differs from patches/, and the whole of it.
            let own = diff
                .lines()
                .filter(|l| l.starts_with('+') && !l.starts_with("+++"));
            assert_eq!(own.count(), 1, "{script}\n{diff}");
            assert_eq!(done.series, sha256(&diff));
            let text = fs::read_to_string(done.dir.join("mm/page_alloc.c")).unwrap();
            let want = fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap();
            assert_eq!(text, want);
        }
    }

    #[test]
    fn a_commit_says_what_it_is_to_the_series() {
        let f = fixture(true);
        f.series.apply(&f.tree).unwrap();
        sh(
            &f.tree,
            "sed -i s/^H$/HH/ mm/page_alloc.c; git commit -qa --amend --no-edit; git commit -q --allow-empty -m mine",
        );
        let changes = built(&f).0.changes.unwrap();
        let is: Vec<Is> = changes.commits.iter().map(|c| c.is).collect();
        assert_eq!(is, [Is::Same, Is::Changed, Is::New]);
        let text = changes.to_string();
        for part in [
            "built as it is",
            "1 as in patches/, 1 changed, 1 new",
            "mm: two",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_patch_that_was_taken_out_is_told() {
        let f = fixture(true);
        f.series.prefix(1).apply(&f.tree).unwrap();
        let (done, _, _dir) = built(&f);
        assert_eq!(done.changes.unwrap().absent, ["mm: two"]);
        assert!(
            !fs::read_to_string(done.dir.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
    }

    #[test]
    fn the_same_series_in_a_tree_is_no_change() {
        let f = fixture(true);
        f.series.apply(&f.tree).unwrap();
        let (done, _, _dir) = built(&f);
        assert_eq!((done.changes, done.series), (None, f.series.hash.clone()));
    }

    #[test]
    fn without_git_the_lines_tell() {
        let f = fixture(false);
        let (_dir, cache) = cache();
        let reference = Tree::debian(f.dir.path().join("pristine"), own(&f.tree).unwrap().origin);
        sh(f.dir.path(), "cp -r linux pristine");
        f.series.apply(&f.tree).unwrap();
        sh(
            &f.tree,
            "sed -i 's/^B$/B\\n\\/\\/ a comment/' mm/page_alloc.c",
        );
        for (reference, lines) in [(Some(&reference), 1), (None, 12)] {
            let done = own(&f.tree)
                .unwrap()
                .compared_with(reference)
                .prepare(&cache, &f.series, if lines == 1 { "" } else { "-x" })
                .unwrap();
            assert!(done.changes.as_ref().unwrap().had_series);
            let diff = fs::read_to_string(done.diff()).unwrap();
            let own = diff
                .lines()
                .filter(|l| l.starts_with('+') && !l.starts_with("+++"));
            assert_eq!(own.count(), lines, "{diff}");
            let text = fs::read_to_string(done.dir.join("mm/page_alloc.c")).unwrap();
            assert!(text.contains("// a comment"));
        }
    }

    #[test]
    fn a_tree_in_the_middle_of_a_conflict_is_not_built() {
        let f = fixture(true);
        sh(
            &f.tree,
            "sed -i s/^b$/q/ mm/page_alloc.c; git commit -qam mine; git am -q -3 ../patches/* || true",
        );
        let e = own(&f.tree).err().unwrap();
        assert_eq!(stage(&e), Some(Exit::Tree));
        assert!(e.to_string().contains("in mm/page_alloc.c"), "{e}");
    }

    #[test]
    fn a_repository_that_git_refuses_is_no_plain_folder() {
        let f = fixture(true);
        let before = fs::read(f.tree.join("mm/page_alloc.c")).unwrap();
        fs::remove_dir_all(f.tree.join(".git")).unwrap();
        fs::write(f.tree.join(".git"), "gitdir: /no/such/repository\n").unwrap();
        for e in [
            own(&f.tree).err().unwrap(),
            f.series.apply(&f.tree).unwrap_err(),
            f.series.unapply(&f.tree).unwrap_err(),
        ] {
            assert_eq!(stage(&e), Some(Exit::Tree));
            assert!(e.to_string().contains("/no/such/repository"), "{e}");
        }
        assert_eq!(fs::read(f.tree.join("mm/page_alloc.c")).unwrap(), before);
    }

    #[test]
    fn another_series_touches_only_what_differs() {
        let f = fixture(false);
        let (_dir, cache) = cache();
        let time = |d: &Path, name: &str| fs::metadata(d.join(name)).unwrap().modified().unwrap();
        let one = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series.prefix(1), "")
            .unwrap()
            .dir;
        assert!(
            !fs::read_to_string(one.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        for name in ["Makefile", "mm/new.c", "mm/page_alloc.c"] {
            fs::File::options()
                .append(true)
                .open(one.join(name))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        let two = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap()
            .dir;
        assert_eq!(one, two);
        assert_eq!((time(&two, "Makefile"), time(&two, "mm/new.c")), (old, old));
        assert!(time(&two, "mm/page_alloc.c") > old);
        assert!(
            fs::read_to_string(two.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
        own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series.prefix(1), "")
            .unwrap();
        assert!(
            !fs::read_to_string(two.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
    }

    #[test]
    fn an_interrupted_copy_is_finished() {
        let f = fixture(true);
        let (_dir, cache) = cache();
        let dir = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap()
            .dir;
        // Killed between the first file and the last: the record is gone and files are missing.
        fs::remove_file(dir.with_extension("json")).unwrap();
        fs::remove_file(dir.join("mm/new.c")).unwrap();
        fs::create_dir_all(dir.with_extension("next").join("junk")).unwrap();
        let again = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap();
        assert!(again.dir.join("mm/new.c").exists());
    }
}
