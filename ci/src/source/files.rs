// SPDX-License-Identifier: GPL-2.0
//! The files of a tree: what they come to, and making one tree equal to another.

use crate::base::cache::sha256;
use anyhow::{Context, Result};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use walkdir::WalkDir;

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
pub fn sync(from: &Path, to: &Path) -> Result<usize> {
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
