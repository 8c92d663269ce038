// SPDX-License-Identifier: GPL-2.0
//! The form of the patches and of their cover letter.

use crate::base::proc::capture;
use crate::source::series::Series;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// `root` is a kernel tree, whose checkpatch is asked.
pub fn check(series: &Series, patches: &Path, root: &Path, tally: &mut Tally) -> Result<()> {
    for patch in &series.patches {
        let name = patch
            .path
            .file_name()
            .context("a patch has a name")?
            .to_string_lossy()
            .into_owned();
        tally.check(&format!("{name}: form"), form(&patch.path))?;
        tally.check(
            &format!("{name}: checkpatch --strict"),
            checkpatch(root, &patch.path),
        )?;
    }
    tally.check("cover letter", cover(patches, series.patches.len()))?;
    Ok(())
}

fn form(patch: &Path) -> Result<()> {
    let text = fs::read_to_string(patch)?;
    let field = |name: &str| {
        text.lines()
            .take_while(|l| *l != "---")
            .find_map(|l| l.strip_prefix(name).map(str::trim))
    };
    ensure!(
        field("Subject: [PATCH").is_some(),
        "no [PATCH] in the subject: make it with git format-patch"
    );
    let from = Regex::new(r"<(.+)>")?;
    let header = text.split("\n\n").next().unwrap_or_default();
    let author = header
        .split("\nFrom: ")
        .nth(1)
        .and_then(|f| {
            from.captures(f.split("\nDate:").next()?)
                .map(|c| c[1].to_owned())
        })
        .context("no author")?;
    ensure!(
        text.split("\n---\n")
            .next()
            .unwrap_or_default()
            .lines()
            .any(|l| l.starts_with("Signed-off-by: ") && l.contains(&author)),
        "not signed off by its author {author}"
    );
    Ok(())
}

fn checkpatch(root: &Path, patch: &Path) -> Result<()> {
    let mut perl = Command::new("perl");
    perl.arg(root.join("scripts/checkpatch.pl"))
        .args([
            "--strict",
            "--color=never",
            "--summary-file",
            "--show-types",
            // The commits that a Fixes: names are in no history that is here.
            "--ignore=UNKNOWN_COMMIT_ID",
        ])
        .arg(format!("--root={}", root.display()))
        .arg(patch);
    let out = capture(&mut perl, Stdio::null())?;
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.success() && text.contains("total: 0 errors, 0 warnings, 0 checks"),
        "{}",
        text.lines()
            .filter(|l| !l.is_empty())
            .take(30)
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}

fn cover(patches: &Path, count: usize) -> Result<()> {
    let path = patches.join("cover-letter.txt");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        Regex::new(&format!(r"(?m)^Subject: \[PATCH[^\]]* 0+/0*{count}\] \S"))?.is_match(&text),
        "{}: its subject must say [PATCH 0/{count}]",
        path.display()
    );
    ensure!(
        !text.contains("*** "),
        "{} still has format-patch's placeholders",
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "From 0 Mon\nFrom: A B\n <a@b.example>\nDate: x\nSubject: [PATCH 1/1] s\n\nbody\n\nSigned-off-by: A B <a@b.example>\n---\n f | 1 +\n";

    #[test]
    fn a_patch_needs_its_authors_sign_off() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.patch");
        for (text, good) in [
            (PATCH.to_owned(), true),
            (PATCH.replace("by: A B <a@", "by: C <c@"), false),
            (PATCH.replace("Signed-off-by", "Acked-by"), false),
            (PATCH.replace("[PATCH 1/1] ", ""), false),
        ] {
            fs::write(&file, &text).unwrap();
            assert_eq!(form(&file).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_cover_letter_counts_the_patches() {
        let dir = tempfile::tempdir().unwrap();
        let letter = "Subject: [PATCH 0/6] mm: x\n\nbody\n";
        fs::write(dir.path().join("cover-letter.txt"), letter).unwrap();
        cover(dir.path(), 6).unwrap();
        assert!(cover(dir.path(), 7).is_err());
        fs::write(
            dir.path().join("cover-letter.txt"),
            "Subject: [PATCH 0/6] *** SUBJECT HERE ***\n",
        )
        .unwrap();
        assert!(cover(dir.path(), 6).is_err());
    }
}
