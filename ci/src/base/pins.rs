// SPDX-License-Identifier: GPL-2.0
//! kernel.toml: the versions that the repository means.

use crate::base::exit::{Exit, fail};
use anyhow::Result;
use serde::Deserialize;
use std::sync::LazyLock;

const TEXT: &str = include_str!("../../../kernel.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    pub kernel: Kernel,
    pub debian: Debian,
    pub toolchain: Toolchain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// VERSION.PATCHLEVEL.
    pub version: String,
    pub oldest_rc: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// In the order asked; the first that has the package is used.
    pub suites: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    pub llvm: u32,
    /// The oldest that the kernel takes.
    pub rustc: String,
    pub bindgen: String,
}

pub static PINS: LazyLock<Pins> = LazyLock::new(|| read(TEXT).expect("check() was asked first"));

/// For the start of the runner, where an error still has somebody to tell it to.
pub fn check() -> Result<()> {
    read(TEXT).map(drop)
}

fn read(text: &str) -> Result<Pins> {
    toml::from_str(text).map_err(|e| fail(Exit::Config, format!("kernel.toml: {e}")))
}

/// What the series is for, in words.
pub fn supported() -> String {
    let Kernel { version, oldest_rc } = &PINS.kernel;
    format!("{version}-rc{oldest_rc} to {version}.x")
}

/// Debian's package of the kernel source.
pub fn source_package() -> String {
    format!("linux-source-{}", PINS.kernel.version)
}

/// As in LLVM=, and behind the names of the programs.
pub static LLVM: LazyLock<String> = LazyLock::new(|| format!("-{}", PINS.toolchain.llvm));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    #[test]
    fn a_mistake_in_kernel_toml_is_told_with_its_line() {
        check().unwrap();
        let e = read(&TEXT.replace("llvm = ", "lvm = ")).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Config));
        assert!(e.to_string().contains("lvm"), "{e}");
    }

    /// Prose cannot read kernel.toml, so it is held against it.
    #[test]
    fn the_documents_name_the_same_versions() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, words) in [
            ("README.md", vec![supported(), format!("LLVM={}", *LLVM)]),
            ("docs/runner.md", vec![supported(), source_package()]),
        ] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            for word in words {
                assert!(text.contains(&word), "{file} does not say {word}");
            }
        }
    }
}
