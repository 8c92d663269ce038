// SPDX-License-Identifier: GPL-2.0
//! The files of lanes, and the lines of them that are TOML.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The lanes, machines or fragments of a folder.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .with_context(|| format!("cannot list {}", dir.display()))?
        .filter_map(|e| {
            e.ok()?
                .file_name()
                .to_str()?
                .strip_suffix(".config")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    Ok(names)
}

/// The TOML of a lane's text. Every other line becomes an empty one, so that line numbers are the file's.
pub fn header(text: &str) -> String {
    let lines = text.lines();
    lines
        .map(|l| l.strip_prefix("#:").unwrap_or("").to_owned() + "\n")
        .collect()
}

/// The line of a place in a header, and what is wrong with it.
pub fn complaint(header: &str, e: &toml::de::Error) -> (usize, String) {
    let at = e.span().map_or(0, |s| s.start.min(header.len()));
    (line(header, at), e.message().to_owned())
}

pub fn line(header: &str, at: usize) -> usize {
    header[..at].matches('\n').count() + 1
}
