// SPDX-License-Identifier: GPL-2.0
//! A kernel tree's version, and whether the series is for it.

use crate::base::exit::{Exit, fail};
use crate::base::pins::{PINS, supported};
use anyhow::Result;
use std::fs;
use std::path::Path;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    extra: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{}.{}{}",
            self.major, self.minor, self.patch, self.extra
        )
    }
}

pub fn version_of(dir: &Path) -> Result<Version> {
    let not_kernel = || {
        fail(
            Exit::Tree,
            format!(
                "{} is not a kernel tree: its Makefile has no VERSION and PATCHLEVEL; give the top folder of a {} source tree",
                dir.display(),
                supported()
            ),
        )
    };
    let text = fs::read_to_string(dir.join("Makefile")).map_err(|_| not_kernel())?;
    let field = |name: &str| {
        text.lines().take(20).find_map(|l| {
            let (key, value) = l.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let number = |name: &str| field(name).and_then(|v| v.parse().ok());
    match (
        number("VERSION"),
        number("PATCHLEVEL"),
        number("SUBLEVEL"),
        field("EXTRAVERSION"),
    ) {
        (Some(major), Some(minor), Some(patch), Some(extra))
            if dir.join("mm/page_alloc.c").exists() =>
        {
            Ok(Version {
                major,
                minor,
                patch,
                extra,
            })
        }
        _ => Err(not_kernel()),
    }
}

/// Nothing of the series fits such a tree, and nobody would guess why from the patch that says so.
pub fn check_line_ends(dir: &Path) -> Result<()> {
    check_line_ends_in(dir, dir)
}

/// Of the tree `dir`, whose files are in `copy`. One file that every tree has tells: what turns the ends of
/// lines, git's configuration or an unpacker's, turns those of all.
pub fn check_line_ends_in(copy: &Path, dir: &Path) -> Result<()> {
    let text = fs::read(copy.join("mm/page_alloc.c")).unwrap_or_default();
    if text.windows(2).any(|end| end == b"\r\n") {
        return Err(fail(
            Exit::Tree,
            format!(
                "the lines of {0} end in CR LF, as core.autocrlf makes them, and the series' in LF: git -C {0} config core.autocrlf false, remove the files and check them out again",
                dir.display()
            ),
        ));
    }
    Ok(())
}

pub fn check_supported(v: &Version) -> Result<()> {
    let rc = v.extra.strip_prefix("-rc").map(|r| {
        r.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap_or(0)
    });
    let good = format!("{}.{}", v.major, v.minor) == PINS.kernel.version
        && (v.patch > 0 || rc.is_none_or(|n: u32| n >= PINS.kernel.oldest_rc));
    if !good {
        return Err(fail(
            Exit::Tree,
            format!("the tree is {v}, and the series supports {}", supported()),
        ));
    }
    Ok(())
}
