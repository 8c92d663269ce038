// SPDX-License-Identifier: GPL-2.0
//! Copies of the source, of which a file may be changed.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Leaves alone what is as it should be, so that make does not compile it again.
pub fn write_changed(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// With `change` where a file is not to be as it is.
pub fn copy_tree(
    from: &Path,
    to: &Path,
    change: impl Fn(&Path, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry?;
        let inside = entry.path().strip_prefix(from)?;
        let path = to.join(inside);
        if entry.file_type().is_dir() {
            fs::create_dir_all(path)?;
        } else {
            write_changed(&path, &change(inside, fs::read(entry.path())?)?)?;
        }
    }
    Ok(())
}
