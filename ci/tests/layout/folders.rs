// SPDX-License-Identifier: GPL-2.0
//! Folders of the runner. One uses another if a file in it does, with all that is below.

use super::{Crate, TREE, Uses, checkout, circles, made_up, read};
use std::path::{Path, PathBuf};

/// The folder right below the crate's, of a file that is in one.
fn folder_of(file: &Path, below: &Path) -> Option<PathBuf> {
    let mut parts = file.strip_prefix(below).ok()?.components();
    let folder = parts.next()?;
    parts.next().map(|_| below.join(folder))
}

fn uses_of_folders(files: &Uses, below: &Path) -> Uses {
    let mut uses = Uses::new();
    for (file, used) in files {
        let Some(folder) = folder_of(file, below) else {
            continue;
        };
        let others = used.iter().filter_map(|file| folder_of(file, below));
        let others = others.filter(|other| *other != folder);
        let others = Vec::from_iter(others);
        uses.entry(folder).or_default().extend(others);
    }
    uses
}

#[test]
fn no_circle_of_folders() {
    let below = checkout().join("ci/src");
    let files = Crate::load(&below.join("main.rs"), &read).uses();
    let uses = uses_of_folders(&files, &below);
    assert!(uses.len() > 5, "{uses:?}");
    let found = circles(&uses, &below).join("\n");
    assert!(found.is_empty(), "circles of folders:\n{found}");
}

/// Of files that have none.
#[test]
fn a_circle_of_folders_is_found() {
    for (file, line, told) in [
        ("main.rs", "use b::E;", &[][..]),
        ("x/b/tests.rs", "use crate::X;", &[]),
        ("x/b/tests.rs", "use crate::a::f;", &["a -> x -> a"]),
    ] {
        let text = TREE.map(|(name, text)| match name == file {
            true => (name, format!("{text}{line}\n")),
            false => (name, text.to_owned()),
        });
        let files = made_up(&text.each_ref().map(|(name, text)| (*name, text.as_str())));
        let below = Path::new("");
        assert_eq!(circles(&files, below), [""; 0], "{line}");
        let found = circles(&uses_of_folders(&files, below), below);
        assert_eq!(found, told, "{line}");
    }
}
