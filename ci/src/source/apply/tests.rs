// SPDX-License-Identifier: GPL-2.0

use super::*;
use crate::base::pins::{KernelPins, PINS};
use crate::base::proc::tests::{alone, alone_with};
use crate::source::files::tree_hash;
use crate::source::series::tests::{Fixture, fixture, makefile, refused, sh};

const BASE: &str = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";

#[test]
fn on_and_off_without_git() {
    let f = fixture(false);
    let before = tree_hash(&f.tree).unwrap();
    f.series.apply(&f.tree).unwrap();
    assert_eq!(f.series.state(&f.tree).unwrap(), State::All);
    assert_eq!(
        fs::read_to_string(f.tree.join("mm/new.c")).unwrap(),
        "new\n"
    );
    refused(f.series.apply(&f.tree), "already has the series");
    f.series.unapply(&f.tree).unwrap();
    assert_eq!(tree_hash(&f.tree).unwrap(), before);
    refused(f.series.unapply(&f.tree), "does not have the series");
}

#[test]
fn on_and_off_with_git() {
    let f = fixture(true);
    let head = sh(&f.tree, "git rev-parse HEAD");
    f.series.apply(&f.tree).unwrap();
    assert_eq!(sh(&f.tree, "git log --format=%s -2"), "mm: two\nmm: one\n");
    refused(f.series.apply(&f.tree), "already has the series");
    sh(&f.tree, "git commit -q --allow-empty -m mine");
    refused(f.series.unapply(&f.tree), "nothing was changed");
    sh(&f.tree, "git reset -q --hard HEAD~1");
    f.series.unapply(&f.tree).unwrap();
    assert_eq!(sh(&f.tree, "git rev-parse HEAD"), head);
}

#[test]
fn a_dirty_tree_is_refused_and_stays_as_it_is() {
    let f = fixture(true);
    fs::write(f.tree.join("mm/page_alloc.c"), BASE.replace('j', "mine")).unwrap();
    let before = tree_hash(&f.tree).unwrap();
    refused(f.series.apply(&f.tree), "uncommitted changes");
    refused(f.series.unapply(&f.tree), "uncommitted changes");
    assert_eq!(tree_hash(&f.tree).unwrap(), before);
}

#[test]
fn a_tree_in_the_middle_of_am_is_refused() {
    let f = fixture(true);
    sh(
        &f.tree,
        "echo x >> mm/page_alloc.c; sed -i s/^b$/q/ mm/page_alloc.c; git commit -qam mine; git am ../patches/* || true",
    );
    refused(f.series.apply(&f.tree), "in the middle of git am");
    assert!(f.tree.join(".git/rebase-apply").exists());
}

#[test]
fn a_tree_in_the_middle_of_rebase_is_refused_with_the_way_out() {
    let f = fixture(true);
    f.series.apply(&f.tree).unwrap();
    let begin = "GIT_SEQUENCE_EDITOR='sed -i 1s/pick/edit/' git rebase -q -i HEAD~2";
    sh(&f.tree, begin);
    let dir = f.tree.display();
    let ends = format!("(git -C {dir} rebase --continue or --abort)");
    refused(f.series.unapply(&f.tree), &ends);
    sh(&f.tree, "git rebase --abort");
    f.series.unapply(&f.tree).unwrap();
}

#[test]
fn commits_that_no_branch_has_are_told() {
    let f = fixture(true);
    let said = f.series.apply(&f.tree).unwrap();
    assert!(!said.contains("branch"), "{said}");
    f.series.unapply(&f.tree).unwrap();
    sh(&f.tree, "git checkout -q --detach");
    let said = f.series.apply(&f.tree).unwrap();
    assert!(said.contains("switch --create NAME"), "{said}");
}

#[test]
fn what_cannot_be_taken_off_is_told_by_what_is_there() {
    let f = fixture(true);
    refused(f.series.unapply(&f.tree), "does not have the series");
    f.series.apply(&f.tree).unwrap();
    sh(
        &f.tree,
        "echo x >> mm/page_alloc.c; git commit -qa --amend --no-edit",
    );
    refused(f.series.unapply(&f.tree), "`make refresh KDIR=` brings");
}

#[test]
fn a_conflict_changes_nothing_with_or_without_git() {
    for git in [false, true] {
        let f = fixture(git);
        fs::write(
            f.tree.join("mm/page_alloc.c"),
            BASE.replace("h\n", "other\n"),
        )
        .unwrap();
        if git {
            sh(&f.tree, "git commit -qam mine");
        }
        let before = tree_hash(&f.tree.join("mm")).unwrap();
        refused(f.series.apply(&f.tree), "0002-mm-two.patch does not fit");
        assert_eq!(tree_hash(&f.tree.join("mm")).unwrap(), before);
    }
}

/// A tree whose git am comes to this at the second patch.
fn stopped_at_the_second(hook: &str) -> Fixture {
    let f = fixture(true);
    let script =
        format!("#!/bin/sh\n[ -e mm/new.c ] && grep -q H mm/page_alloc.c || exit 0\n{hook}\n");
    let file = f.tree.join(".git/hooks/pre-applypatch");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, script).unwrap();
    sh(&f.tree, "chmod +x .git/hooks/pre-applypatch");
    f
}

#[test]
fn ctrl_c_leaves_no_half_series() {
    alone("source::apply::tests::ctrl_c_leaves_no_half_series", || {
        crate::base::proc::install_handler().unwrap();
        let hook = format!("kill -INT {}; sleep 0.3; exit 1", std::process::id());
        let f = stopped_at_the_second(&hook);
        let head = sh(&f.tree, "git rev-parse HEAD");
        refused(f.series.apply(&f.tree), "is as it was");
        assert!(crate::base::proc::interrupted());
        assert_eq!(sh(&f.tree, "git rev-parse HEAD"), head);
        assert!(!f.tree.join(".git/rebase-apply").exists());
    });
}

#[test]
fn a_tree_that_is_not_as_it_was_says_how_to_bring_it_back() {
    // git am --abort leaves a HEAD alone that was moved meanwhile.
    let f =
        stopped_at_the_second("git update-ref HEAD $(git commit-tree -m x HEAD^{tree}); exit 1");
    let head = sh(&f.tree, "git rev-parse HEAD");
    let e = f.series.apply(&f.tree).unwrap_err().to_string();
    assert!(!e.contains("is as it was"), "{e}");
    let (_, line) = e.split_once("brings it back: ").unwrap();
    sh(&f.tree, line.split(": ").next().unwrap());
    assert_eq!(
        sh(&f.tree, "git rev-parse HEAD; git status --porcelain -uno"),
        head
    );
    assert!(!f.tree.join(".git/rebase-apply").exists());
}

#[test]
fn fuzz_is_no_fit() {
    let f = fixture(false);
    fs::write(f.tree.join("mm/page_alloc.c"), BASE.replace("a\n", "A\n")).unwrap();
    refused(f.series.apply(&f.tree), "0001-mm-one.patch does not fit");
}

#[test]
fn half_a_series_is_named() {
    for git in [false, true] {
        let f = fixture(git);
        f.series.prefix(1).apply(&f.tree).unwrap();
        assert_eq!(f.series.state(&f.tree).unwrap(), State::Some(1));
        refused(f.series.apply(&f.tree), "already has 1 of the 2 patches");
    }
}

#[test]
fn another_version_is_refused_and_stays_as_it_is() {
    let KernelPins {
        version, oldest_rc, ..
    } = &PINS.kernel;
    let candidate = |rc: u32| format!("{version}.0-rc{rc}");
    let older = candidate(oldest_rc - 1);
    for (makefile, part) in [
        (makefile("1.2.3"), "the tree is 1.2.3"),
        (makefile(&older), &*older),
        ("all:\n".to_owned(), "is not a kernel tree"),
    ] {
        let f = fixture(false);
        fs::write(f.tree.join("Makefile"), makefile).unwrap();
        let before = tree_hash(&f.tree).unwrap();
        refused(f.series.apply(&f.tree), part);
        refused(f.series.unapply(&f.tree), part);
        assert_eq!(tree_hash(&f.tree).unwrap(), before);
    }
    let f = fixture(false);
    let oldest = makefile(&candidate(*oldest_rc));
    fs::write(f.tree.join("Makefile"), oldest).unwrap();
    f.series.apply(&f.tree).unwrap();
}

#[test]
fn a_folder_inside_another_repository_is_treated_as_files() {
    let f = fixture(false);
    sh(f.dir.path(), "git init -q; echo '/*' > .gitignore");
    assert!(!is_git(&f.tree).unwrap());
    f.series.apply(&f.tree).unwrap();
    assert!(
        fs::read_to_string(f.tree.join("mm/page_alloc.c"))
            .unwrap()
            .contains("B\n")
    );
}

#[test]
fn a_signature_is_not_asked_for() {
    let f = fixture(true);
    sh(
        &f.tree,
        "git config commit.gpgsign true; git config gpg.format ssh; git config user.signingkey x
             git config gpg.ssh.program false",
    );
    f.series.apply(&f.tree).unwrap();
}

#[test]
fn a_hook_that_leaves_something_running_is_not_waited_for() {
    let f = stopped_at_the_second("sleep 60 & exit 0");
    let start = std::time::Instant::now();
    f.series.apply(&f.tree).unwrap();
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn a_failure_begins_with_its_cause() {
    let f = stopped_at_the_second("echo 'the hook says no' >&2; exit 1");
    let e = f.series.apply(&f.tree).unwrap_err().to_string();
    assert!(e.starts_with("git am failed: the hook says no"), "{e}");
    assert!(e.contains("is as it was"), "{e}");
}

#[test]
fn a_locked_index_is_no_reason_to_reset_a_tree() {
    let f = fixture(true);
    fs::write(f.tree.join(".git/index.lock"), "").unwrap();
    let e = f.series.apply(&f.tree).unwrap_err().to_string();
    assert!(
        e.contains("index.lock exists") && !e.contains("reset"),
        "{e}"
    );
    // As one that another git takes meanwhile.
    fs::remove_file(f.tree.join(".git/index.lock")).unwrap();
    let before = sh(&f.tree, "git rev-parse HEAD").trim().to_owned();
    fs::create_dir(f.tree.join(".git/rebase-apply")).unwrap();
    fs::write(f.tree.join(".git/index.lock"), "").unwrap();
    let e = super::refused("git am", &f.tree, &before, &anyhow::anyhow!("x")).to_string();
    assert!(e.contains("am --quit") && !e.contains("reset"), "{e}");
    assert!(e.contains("index.lock exists"), "{e}");
}

#[test]
fn line_ends_are_named() {
    for git in [false, true] {
        let f = fixture(git);
        sh(&f.tree, "sed -i 's/$/\\r/' mm/page_alloc.c");
        if git {
            sh(&f.tree, "git commit -qam crlf");
        }
        refused(f.series.apply(&f.tree), "CR LF");
        refused(f.series.unapply(&f.tree), "CR LF");
    }
}

#[test]
fn variables_of_the_shell_change_nothing() {
    const NAME: &str = "source::apply::tests::variables_of_the_shell_change_nothing";
    let variables = [
        ("GIT_DIFF_OPTS", "-u0"),
        ("GIT_EXTERNAL_DIFF", "false"),
        ("POSIXLY_CORRECT", "1"),
        ("QUOTING_STYLE", "c"),
    ];
    alone_with(NAME, &variables, || {
        for git in [false, true] {
            let f = fixture(git);
            f.series.apply(&f.tree).unwrap();
            assert_eq!(f.series.state(&f.tree).unwrap(), State::All);
            f.series.unapply(&f.tree).unwrap();
            assert_eq!(f.series.state(&f.tree).unwrap(), State::None);
        }
    });
}
