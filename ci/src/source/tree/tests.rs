// SPDX-License-Identifier: GPL-2.0

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
        let done = open_users_tree(&f.tree)
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
    let done = open_users_tree(&f.tree)
        .unwrap()
        .prepare(&cache, &f.series, "")
        .unwrap();
    assert!(
        fs::read_to_string(done.dir.join("mm/page_alloc.c"))
            .unwrap()
            .contains("B\n")
    );
}

#[test]
fn only_a_tree_without_the_series_is_said_to_get_it() {
    let f = fixture(true);
    let said = || {
        let mut said = String::new();
        let tree = open_users_tree(&f.tree).unwrap();
        let copy = tempfile::tempdir().unwrap();
        tree.export(copy.path()).unwrap();
        tree.patched(copy.path(), &f.series, |what| said += what)
            .unwrap();
        said
    };
    assert_eq!(said(), "applying the series");
    f.series.apply(&f.tree).unwrap();
    sh(&f.tree, "echo mine >> Makefile");
    assert_eq!(said(), "taking the tree as it is");
}

fn built(f: &Fixture) -> (Prepared, String, tempfile::TempDir) {
    let (dir, cache) = cache();
    let before = tree_hash(&f.tree).unwrap();
    let done = open_users_tree(&f.tree)
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
    let reference = Tree::debian(
        f.dir.path().join("pristine"),
        open_users_tree(&f.tree).unwrap().origin,
    );
    sh(f.dir.path(), "cp -r linux pristine");
    f.series.apply(&f.tree).unwrap();
    sh(
        &f.tree,
        "sed -i 's/^B$/B\\n\\/\\/ a comment/' mm/page_alloc.c",
    );
    for (reference, lines) in [(Some(&reference), 1), (None, 12)] {
        let done = open_users_tree(&f.tree)
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
    let e = open_users_tree(&f.tree).err().unwrap();
    assert_eq!(stage(&e), Some(Exit::Tree));
    assert!(e.to_string().contains("in mm/page_alloc.c"), "{e}");
}

#[test]
fn line_ends_that_no_patch_fits_are_named_with_the_tree() {
    for git in [false, true] {
        let f = fixture(git);
        let (_dir, cache) = cache();
        sh(&f.tree, "sed -i 's/$/\\r/' mm/page_alloc.c");
        let opened = open_users_tree(&f.tree);
        let e = opened
            .and_then(|tree| tree.prepare(&cache, &f.series, ""))
            .unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree));
        let named = format!("the lines of {} end in CR LF", f.tree.display());
        assert!(format!("{e:#}").contains(&named), "{e:#}");
    }
}

#[test]
fn a_repository_that_git_refuses_is_no_plain_folder() {
    let f = fixture(true);
    let before = fs::read(f.tree.join("mm/page_alloc.c")).unwrap();
    fs::remove_dir_all(f.tree.join(".git")).unwrap();
    fs::write(f.tree.join(".git"), "gitdir: /no/such/repository\n").unwrap();
    for e in [
        open_users_tree(&f.tree).err().unwrap(),
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
    let one = open_users_tree(&f.tree)
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
    let two = open_users_tree(&f.tree)
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
    open_users_tree(&f.tree)
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
    let dir = open_users_tree(&f.tree)
        .unwrap()
        .prepare(&cache, &f.series, "")
        .unwrap()
        .dir;
    // Killed between the first file and the last: the record is gone and files are missing.
    fs::remove_file(dir.with_extension("json")).unwrap();
    fs::remove_file(dir.join("mm/new.c")).unwrap();
    fs::create_dir_all(dir.with_extension("next").join("junk")).unwrap();
    let again = open_users_tree(&f.tree)
        .unwrap()
        .prepare(&cache, &f.series, "")
        .unwrap();
    assert!(again.dir.join("mm/new.c").exists());
}
