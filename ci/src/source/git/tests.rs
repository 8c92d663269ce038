// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::base::exit::stage;
use crate::source::files::tree_hash;
use crate::source::series::tests::{fixture, sh};

#[test]
fn a_hooks_repository_is_forgotten() {
    let git = git(Path::new("/x"));
    for name in [
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_WORK_TREE",
        "GIT_DIFF_OPTS",
    ] {
        assert!(git.get_envs().any(|e| e == (name.as_ref(), None)), "{name}");
    }
}

#[test]
fn a_snapshot_holds_what_is_not_committed_and_touches_nothing() {
    let f = fixture(true);
    let clean = Snapshot::of(&f.tree).unwrap();
    assert_eq!(clean.uncommitted.len(), 0);
    sh(
        &f.tree,
        "git rm -q --cached .gitignore; rm .gitignore; git commit -qm x",
    );
    sh(
        &f.tree,
        "echo mine >> mm/page_alloc.c; echo new > mm/other.c; git add -N mm/other.c",
    );
    let before = tree_hash(&f.tree).unwrap();
    let snapshot = Snapshot::of(&f.tree).unwrap();
    assert_eq!(tree_hash(&f.tree).unwrap(), before);
    assert_ne!(snapshot.tree, clean.tree);
    assert_eq!(snapshot.uncommitted.len(), 2, "{:?}", snapshot.uncommitted);
    let to = f.dir.path().join("to");
    fs::create_dir(&to).unwrap();
    snapshot.export(&to).unwrap();
    assert_eq!(fs::read_to_string(to.join("mm/other.c")).unwrap(), "new\n");
    let text = fs::read_to_string(to.join("mm/page_alloc.c")).unwrap();
    assert!(text.ends_with("mine\n"), "{text}");
    assert!(!to.join(".git").exists());
}

#[test]
fn a_new_file_that_gitignore_hides_is_named() {
    let f = fixture(true);
    fs::write(f.tree.join("mm/mine.c"), "x\n").unwrap();
    let e = Snapshot::of(&f.tree).err().unwrap();
    assert_eq!(stage(&e), Some(Exit::Tree));
    assert!(e.to_string().ends_with("add --force mm/mine.c"), "{e}");
}

#[test]
fn a_checkout_with_crlf_is_exported_as_it_was_committed() {
    let f = fixture(true);
    sh(
        &f.tree,
        "git config core.autocrlf true; rm mm/page_alloc.c; git checkout -q .",
    );
    let text = fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap();
    assert!(text.contains("\r\n"));
    let to = f.dir.path().join("to");
    fs::create_dir(&to).unwrap();
    Snapshot::of(&f.tree).unwrap().export(&to).unwrap();
    let text = fs::read_to_string(to.join("mm/page_alloc.c")).unwrap();
    assert!(!text.contains('\r'));
}
