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
    pub kernel: KernelPins,
    pub debian: DebianPins,
    pub toolchain: ToolchainPins,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelPins {
    /// VERSION.PATCHLEVEL.
    pub version: String,
    pub oldest_rc: u32,
    /// The release that patches/ was made on.
    pub base: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianPins {
    /// In the order asked; the first that has the package is used.
    pub suites: Vec<String>,
    pub guest: String,
    pub sparse: String,
    pub herd7: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainPins {
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

/// The text of a kernel.toml that names another base; nothing if it names this one.
pub fn with_base(text: &str, base: &str) -> Result<Option<String>> {
    let old = read(text)?.kernel.base;
    let line = |base: &str| format!("\nbase = {base:?}\n");
    if old == base {
        return Ok(None);
    }
    if text.matches(&line(&old)).count() != 1 {
        let what = format!("kernel.toml has no line {:?}", line(&old).trim());
        return Err(fail(Exit::Config, what));
    }
    Ok(Some(text.replacen(&line(&old), &line(base), 1)))
}

/// What the series is for, in words.
pub fn supported() -> String {
    let KernelPins {
        version, oldest_rc, ..
    } = &PINS.kernel;
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
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn a_mistake_in_kernel_toml_is_told_with_its_line() {
        check().unwrap();
        let e = read(&TEXT.replace("llvm = ", "lvm = ")).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Config));
        assert!(e.to_string().contains("lvm"), "{e}");
    }

    #[test]
    fn another_base_changes_one_line() {
        let base = &PINS.kernel.base;
        assert_eq!(with_base(TEXT, base).unwrap(), None);
        let text = with_base(TEXT, "7.3.99").unwrap().unwrap();
        assert_eq!(read(&text).unwrap().kernel.base, "7.3.99");
        let different = TEXT.lines().zip(text.lines()).filter(|(a, b)| a != b);
        assert_eq!(different.count(), 1);
        assert_eq!(text.lines().count(), TEXT.lines().count());
        let odd = TEXT.replace("base = ", "base  = ");
        assert!(with_base(&odd, "7.3.99").is_err());
    }

    /// A file without what is there for tests only, and the modules of other files that are. As rustfmt has it, an
    /// item ends in a line that is indented as its first.
    fn without_tests(text: &str) -> (String, Vec<&str>) {
        let (mut code, mut modules) = (String::new(), Vec::new());
        let indented = |line: &str| line.len() - line.trim_start().len();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.trim_start() != "#[cfg(test)]" {
                code += &format!("{line}\n");
                continue;
            }
            let is_last =
                |l: &&str| indented(l) == indented(line) && l.trim_end().ends_with([';', '}']);
            let last = lines.find(is_last).unwrap_or_default();
            let module = last.rsplit_once("mod ").map(|(_, name)| name);
            modules.extend(module.and_then(|name| name.strip_suffix(';')));
        }
        (code, modules)
    }

    #[test]
    fn what_is_for_tests_only_is_no_code() {
        let text = "fn a() {}\n#[cfg(test)]\npub mod b;\nimpl C {\n    #[cfg(test)]\n    fn d(\n        e: u8,\n    ) {\n        \
            if f {\n        }\n    }\n    fn g() {}\n}\n#[cfg(test)]\nmod tests {\n    fn h() {}\n}\nconst I: u8 = 1;\n";
        let (code, modules) = without_tests(text);
        assert_eq!(
            code,
            "fn a() {}\nimpl C {\n    fn g() {}\n}\nconst I: u8 = 1;\n"
        );
        assert_eq!(modules, ["b"]);
    }

    /// What stands in a test of the code is no choice, but an example.
    #[test]
    fn no_other_file_chooses_what_kernel_toml_does() {
        let DebianPins {
            suites,
            guest,
            sparse,
            herd7,
        } = &PINS.debian;
        let chosen = [guest, sparse, herd7, &PINS.kernel.version, &LLVM];
        let chosen = chosen.into_iter().chain(suites).map(|c| format!("{c:?}"));
        let chosen = Vec::from_iter(chosen);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let (mut choices, mut of_tests) = (Vec::new(), BTreeSet::new());
        for file in walkdir::WalkDir::new(source) {
            let file = file.unwrap().into_path();
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let (code, modules) = without_tests(&text);
            let folder = match file.ends_with("mod.rs") {
                true => file.parent().unwrap().to_owned(),
                false => file.with_extension(""),
            };
            of_tests.extend(modules.iter().map(|m| folder.join(format!("{m}.rs"))));
            if let Some(choice) = chosen.iter().find(|c| code.contains(&**c)) {
                choices.push((file, choice));
            }
        }
        assert!(of_tests.iter().all(|file| file.exists()), "{of_tests:?}");
        // With what such a module has in a folder of its own.
        let is_below = |file: &Path, test: &Path| file.starts_with(test.with_extension(""));
        choices.retain(|(file, _)| !of_tests.iter().any(|t| file == t || is_below(file, t)));
        assert_eq!(choices, []);
    }

    /// Prose cannot read kernel.toml, so it is held against it.
    #[test]
    fn the_documents_name_the_same_versions() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let KernelPins { version, base, .. } = &PINS.kernel;
        let DebianPins {
            suites,
            sparse,
            herd7,
            ..
        } = &PINS.debian;
        let (last, first) = suites.split_last().unwrap();
        let mut unsaid = String::new();
        for (file, words) in [
            (
                "README.md",
                vec![
                    supported(),
                    format!("for mainline {version}:"),
                    format!("LLVM={}", *LLVM),
                    format!("made on and is tested with {base}"),
                ],
            ),
            (
                "docs/runner.md",
                vec![
                    supported(),
                    source_package(),
                    format!("the first of {} and {last}", first.join(", ")),
                    format!("for a newer {version}.x"),
                    format!("else Debian {sparse}'s"),
                    format!("else Debian {herd7}'s"),
                ],
            ),
            (
                "CONTRIBUTING.md",
                vec![
                    supported(),
                    format!("switch --create nolocks-{version}."),
                    format!("Another version than {version},"),
                ],
            ),
            (
                "Makefile",
                vec![
                    format!("fetch a newer {version}.x"),
                    format!("your {version} tree"),
                    format!("put it on a newer {version}.x"),
                ],
            ),
        ] {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            let text = text.replace('\n', " ");
            for word in words.iter().filter(|word| !text.contains(&**word)) {
                unsaid += &format!("{file} does not say: {word}\n");
            }
        }
        assert!(unsaid.is_empty(), "{unsaid}");
    }
}
