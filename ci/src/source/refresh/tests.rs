// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::source::files::tree_hash;
use crate::source::series::tests::{Fixture, fixture, refused, sh};

/// A checkout with patches/ as refresh makes them, which are on the tree.
fn applied() -> Fixture {
    let mut f = fixture(true);
    sh(
        f.dir.path(),
        "git init -q; git config user.name n; git config user.email n@x; echo cover > patches/cover-letter.txt
             git add patches; git commit -qm patches",
    );
    f.series.apply(&f.tree).unwrap();
    f.series.refresh(&patches(&f), &f.tree, None).unwrap();
    f.series = Series::load(&patches(&f)).unwrap();
    sh(f.dir.path(), "git commit -qam refreshed");
    f
}

fn patches(f: &Fixture) -> std::path::PathBuf {
    f.dir.path().join("patches")
}

fn refresh(f: &Fixture, base: Option<&str>) -> Result<String> {
    let series = Series::load(&patches(f)).unwrap();
    series.refresh(&patches(f), &f.tree, base)
}

fn names(f: &Fixture) -> String {
    sh(&patches(f), "ls -A")
}

#[test]
fn apply_and_refresh_leave_every_byte_as_it_was() {
    let f = applied();
    let (before, tree) = (
        tree_hash(&patches(&f)).unwrap(),
        tree_hash(&f.tree).unwrap(),
    );
    let text = fs::read_to_string(&f.series.patches[0].path).unwrap();
    assert!(
        text.starts_with(&format!("From {} ", "0".repeat(40))),
        "{text}"
    );
    assert!(refresh(&f, None).unwrap().ends_with(": as they were"));
    f.series.check_unchanged_by_refresh(&f.tree).unwrap();
    assert_eq!(tree_hash(&f.tree).unwrap(), tree);
    f.series.unapply(&f.tree).unwrap();
    f.series.apply(&f.tree).unwrap();
    for setting in [
        "format.signature x",
        "format.cc a@b.example",
        "format.headers X-A:b",
        "format.subjectPrefix RFC",
        "format.numbered false",
        "format.attach yes",
        "format.coverLetter true",
        "format.from c@d.example",
        "format.thread deep",
        "format.suffix .txt",
        "format.outputDirectory /no/such",
        "format.noprefix true",
        "diff.noprefix true",
        "diff.context 1",
        "diff.algorithm patience",
        "diff.orderFile /no/such",
        "core.abbrev 5",
    ] {
        sh(&f.tree, &format!("git config {setting}"));
    }
    let said = refresh(&f, None).unwrap();
    assert!(said.ends_with(": as they were"), "{said}");
    assert_eq!(tree_hash(&patches(&f)).unwrap(), before);
}

#[test]
fn what_was_done_to_the_tree_is_done_to_patches() {
    let f = applied();
    sh(
        &f.tree,
        "echo more >> mm/new.c; git commit -qam 'mm: three'
             git commit -q --amend -m 'mm: three' -m body; git rebase -q --onto HEAD~2 HEAD~1",
    );
    let said = refresh(&f, None).unwrap();
    assert!(
        said.ends_with("1 as they were\n  new      mm: three\n  gone     mm: two"),
        "{said}"
    );
    let want = "0001-mm-one.patch\n0002-mm-three.patch\ncover-letter.txt\n";
    assert_eq!(names(&f), want);
    sh(
        &f.tree,
        "echo mine >> mm/new.c; git commit -qa --amend -m 'mm: three'",
    );
    let said = refresh(&f, None).unwrap();
    assert!(said.contains("\n  changed  mm: three"), "{said}");
    // What the first refresh wrote was not committed.
    let kept = said.split("git diff HEAD ").nth(1).unwrap();
    let kept = kept.split(' ').next().unwrap();
    let show = format!("git show {kept}:patches/0002-mm-three.patch");
    assert!(!sh(f.dir.path(), &show).contains("mine"));
    assert!(
        Series::load(&patches(&f)).unwrap().state(&f.tree).unwrap()
            == crate::source::series::State::All
    );
}

#[test]
fn a_base_may_be_given() {
    let f = applied();
    sh(
        &f.tree,
        "git reset -q --hard HEAD~2; echo x > mm/x.c; git add -f mm/x.c; git commit -qm 'mm: zero'",
    );
    refused(refresh(&f, None), "BASE=COMMIT");
    assert!(
        refresh(&f, Some("HEAD"))
            .unwrap_err()
            .to_string()
            .contains("BASE=HEAD")
    );
    assert!(
        refresh(&f, Some("no-such"))
            .unwrap_err()
            .to_string()
            .contains("BASE=no-such names no commit of")
    );
    refresh(&f, Some("HEAD~1")).unwrap();
    assert_eq!(names(&f), "0001-mm-zero.patch\ncover-letter.txt\n");
}

#[test]
fn what_is_no_series_of_patches_changes_none() {
    for (script, part) in [
        ("echo x >> mm/new.c", "uncommitted changes"),
        (
            "echo x >> mm/new.c; git commit -qa --fixup=HEAD",
            "--autosquash",
        ),
        (
            "git checkout -q HEAD~1; git merge -q --no-ff -m merge -",
            "a merge",
        ),
        ("git commit -q --allow-empty -m empty", "changes nothing"),
        ("rm -rf .git", "no git tree"),
    ] {
        let f = applied();
        let before = tree_hash(&patches(&f)).unwrap();
        sh(&f.tree, script);
        refused(refresh(&f, None), part);
        assert_eq!(tree_hash(&patches(&f)).unwrap(), before, "{script}");
    }
}
