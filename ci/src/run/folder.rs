// SPDX-License-Identifier: GPL-2.0
//! The folder that each run leaves.

use crate::base::exit::{Exit, OrExit};
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Two runs may begin within a second.
pub fn new_folder(parent: &Path, name: &str) -> Result<PathBuf> {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    for name in std::iter::once(name.to_owned()).chain(numbered) {
        let folder = parent.join(name);
        match fs::create_dir(&folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            made => {
                return made
                    .with_context(|| format!("cannot create {}", folder.display()))
                    .or_exit(Exit::Setup)
                    .map(|()| folder);
            }
        }
    }
    unreachable!("the numbers do not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_second_have_folders_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let names = [(); 3].map(|()| new_folder(dir.path(), "t-stress").unwrap());
        let want = ["t-stress", "t-stress-2", "t-stress-3"].map(|n| dir.path().join(n));
        assert_eq!(names, want);
        let e = new_folder(&dir.path().join("none"), "x").unwrap_err();
        assert_eq!(crate::base::exit::stage(&e), Some(Exit::Setup));
    }
}
