// SPDX-License-Identifier: GPL-2.0
//! `make rebase`: the series on a newer release of the same version, where it need not apply as it is.

use crate::base::exit::{Exit, fail};
use crate::base::pins::PINS;
use crate::base::proc::{complete, output};
use crate::source::apply::{am, refused};
use crate::source::git::{check_clean, commit, git, is_git, on_no_branch, own_file};
use crate::source::series::Series;
use crate::source::version::{check_line_ends, check_supported, version_of};
use anyhow::Result;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// What git says of a three-way merge whose old files it does not have.
const NO_BLOBS: [&str; 2] = ["lacks necessary blobs", "lacking or useless"];

impl Series {
    /// As `apply`, but merges a patch that does not fit. A conflict is left in the tree, in the middle of
    /// `git am`, for whoever asked for this; where there is nothing to edit, the tree is as it was.
    pub fn rebase(&self, kdir: &Path) -> Result<String> {
        let version = version_of(kdir)?;
        check_supported(&version)?;
        check_line_ends(kdir)?;
        let dir = kdir.display();
        if !is_git(kdir)? {
            let what = format!(
                "{dir} is no git tree, and a merge needs the files that the patches were made on: take a clone of the stable tree, which has both releases"
            );
            return Err(fail(Exit::Tree, what));
        }
        check_clean(kdir)?;
        // A patch that does not fit is an error there, and what this is for.
        if let Ok(state) = self.state(kdir) {
            self.refuse_if_there(&state, kdir)?;
        }
        let before = commit(kdir, "HEAD")?;
        // Where that is not possible, git am says whether it was needed.
        let _ = self.put_on_base(kdir);
        let Err(why) = am(kdir, &["--3way"], self)? else {
            return Ok(format!(
                "{} commits added to {dir}, which is {version}{}\nnow: make stress KDIR={dir}, and make refresh KDIR={dir}",
                self.patches.len(),
                on_no_branch(kdir),
            ));
        };
        let unmerged = ["diff", "--name-only", "--diff-filter=U", "--relative"];
        let unmerged = output(git(kdir).args(unmerged)).unwrap_or_default();
        if unmerged.is_empty() {
            let _ = complete(git(kdir).args(["am", "--abort"]));
            let said = format!("{why:#}");
            let why = if NO_BLOBS.iter().any(|words| said.contains(words)) {
                why.context(format!(
                    "{dir} does not have the files that the patches were made on, those of {}: fetch that release into it (git fetch REMOTE tag v{}), and run this again",
                    PINS.kernel.base, PINS.kernel.base
                ))
            } else {
                why
            };
            return Err(refused("git am --3way", kdir, &before, &why));
        }
        let next = fs::read_to_string(own_file(kdir, "rebase-apply/next")?).unwrap_or_default();
        let at = next.trim().parse().unwrap_or(1);
        let subject = self.subjects().nth(at - 1).unwrap_or_default();
        let files: String = unmerged.lines().map(|f| format!("\n  {f}")).collect();
        Err(fail(
            Exit::Tree,
            format!(
                "patch {at} of {}, {subject:?}, conflicts with {dir}, which is {version}, in:{files}\n\
                 {dir} is in the middle of git am. Edit these files, and then\n  \
                 git -C {dir} add --update && git -C {dir} am --continue\n\
                 until git am has gone through all patches; after it: make refresh KDIR={dir}\n\
                 To have the tree back as it was: git -C {dir} am --abort",
                self.patches.len(),
            ),
        ))
    }
}

impl Series {
    /// A three-way merge of a patch begins with its files as the patches below it leave them on the old
    /// release, which nobody has but whoever made the series. An index of its own, which is thrown away,
    /// puts them into the repository; no branch has them.
    fn put_on_base(&self, kdir: &Path) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        let in_index = |words: &[&OsStr]| {
            let mut git = git(kdir);
            git.args(words)
                .env("GIT_INDEX_FILE", scratch.path().join("index"));
            output(&mut git)
        };
        let base = commit(kdir, &format!("v{}", PINS.kernel.base))?;
        in_index(&["read-tree", &base].map(OsStr::new))?;
        for patch in self.paths()? {
            let apply = ["apply", "--cached", "--whitespace=nowarn"].map(OsStr::new);
            in_index(&[&apply[..], &[patch.as_os_str()]].concat())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::series::tests::{Fixture, fixture, makefile, newer_release, refused, sh};
    use crate::source::series::{Series, State};

    /// A newer release, with a change of its own.
    fn newer(change: &str) -> Fixture {
        let f = fixture(true);
        let (base, newer) = (&PINS.kernel.base, newer_release());
        let makefile = makefile(&newer);
        // As a clone has it: without what the series' author has left there.
        sh(
            &f.tree,
            &format!(
                "git tag v{base}; git reflog expire --expire=now --all; git gc --quiet --prune=now
                 printf '{makefile}' > Makefile; {change}; git commit -qam 'Linux {newer}'"
            ),
        );
        f
    }

    fn refreshed(f: &Fixture) -> Series {
        let patches = f.dir.path().join("patches");
        sh(
            f.dir.path(),
            "git init -q; git config user.name n; git config user.email n@x; git add patches; git commit -qm patches",
        );
        f.series.refresh(&patches, &f.tree, None).unwrap();
        Series::load(&patches).unwrap()
    }

    #[test]
    fn a_patch_whose_context_changed_is_merged_and_refreshed() {
        // The second patch changes the line h.
        let f = newer("sed -i s/^f$/F/ mm/page_alloc.c");
        refused(f.series.apply(&f.tree), "0002-mm-two.patch does not fit");
        let said = f.series.rebase(&f.tree).unwrap();
        assert!(
            said.contains(&newer_release()) && said.contains("make refresh"),
            "{said}"
        );
        let text = fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap();
        assert!(text.contains("B\n") && text.contains("F\ng\nH\n"), "{text}");
        let series = refreshed(&f);
        assert_eq!(series.state(&f.tree).unwrap(), State::All);
        refused(series.rebase(&f.tree), "already has the series");
        series.unapply(&f.tree).unwrap();
        series.apply(&f.tree).unwrap();
    }

    #[test]
    fn a_conflict_is_left_to_be_edited_and_the_message_says_how_to_go_on() {
        let f = newer("sed -i s/^h$/other/ mm/page_alloc.c");
        let head = sh(&f.tree, "git rev-parse HEAD");
        let e = f.series.rebase(&f.tree).unwrap_err().to_string();
        for part in [
            "patch 2 of 2, \"mm: two\"",
            "\n  mm/page_alloc.c\n",
            "am --continue",
            "make refresh KDIR=",
        ] {
            assert!(e.contains(part), "{e}");
        }
        let text = fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap();
        assert!(text.contains("<<<<<<<"), "{text}");
        for half_way in [
            f.series.rebase(&f.tree),
            f.series
                .refresh(&f.dir.path().join("patches"), &f.tree, None),
        ] {
            refused(half_way, "in the middle of git am");
        }
        // As the message says, both ways.
        sh(&f.tree, "git am --abort");
        assert_eq!(sh(&f.tree, "git rev-parse HEAD"), head);
        f.series.rebase(&f.tree).unwrap_err();
        sh(
            &f.tree,
            "sed -i -e '/^[<=>|]/d' -e /^other$/d mm/page_alloc.c; git add --update; git am --continue",
        );
        let text = fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap();
        assert!(text.contains("g\nH\ni\n"), "{text}");
        assert_eq!(refreshed(&f).state(&f.tree).unwrap(), State::All);
    }

    #[test]
    fn a_tree_without_the_older_release_is_left_as_it_was() {
        let f = newer("sed -i s/^f$/F/ mm/page_alloc.c");
        sh(
            &f.tree,
            "rm -rf .git; git init -q; git config user.name n; git config user.email n@x; git add -f .; git commit -qm newer",
        );
        let head = sh(&f.tree, "git rev-parse HEAD");
        let e = f.series.rebase(&f.tree).unwrap_err().to_string();
        assert!(
            e.contains("fetch that release") && e.contains("is as it was"),
            "{e}"
        );
        assert_eq!(
            sh(&f.tree, "git rev-parse HEAD; git status --porcelain -uno"),
            head
        );
    }

    #[test]
    fn what_cannot_be_merged_into_is_refused_and_stays_as_it_is() {
        let f = fixture(false);
        refused(f.series.rebase(&f.tree), "is no git tree");
        let f = newer("true");
        fs::write(f.tree.join("mm/page_alloc.c"), "mine\n").unwrap();
        refused(f.series.rebase(&f.tree), "uncommitted changes");
        assert_eq!(
            fs::read_to_string(f.tree.join("mm/page_alloc.c")).unwrap(),
            "mine\n"
        );
        let f = newer("true");
        f.series.prefix(1).apply(&f.tree).unwrap();
        refused(f.series.rebase(&f.tree), "already has 1 of the 2 patches");
    }
}
