// SPDX-License-Identifier: GPL-2.0
//! Kernel trees: Debian's packaged one, or the user's own, of which only a copy is ever built.

use crate::base::cache::{self, Cache, Lock, remove_dir, sha256, write_atomic, write_json};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::output;
use crate::base::progress::Progress;
use crate::source::changes::{self, Changes};
use crate::source::files::{sync, tree_hash};
use crate::source::git::{Snapshot, is_git};
use crate::source::series::{Series, State};
use crate::source::version::{check_line_ends, check_line_ends_in, check_supported, version_of};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

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

pub fn open_users_tree(dir: &Path) -> Result<Tree> {
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
        let (done, changes) = self.patched(&next, series, |what| progress.say(what))?;
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
        say: impl FnOnce(&str),
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
            say("applying the series");
            series.apply_files(copy)?;
        } else {
            say("taking the tree as it is");
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
            (Some(_), Some(_)) => "not needed: the tree has it, changed",
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
            Source::Git(dir, files) => {
                fs::create_dir_all(to)?;
                files.export(to)?;
                check_line_ends_in(to, dir)?;
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

#[cfg(test)]
pub mod tests;
