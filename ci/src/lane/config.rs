// SPDX-License-Identifier: GPL-2.0
//! Kconfig: what was asked for, and whether the final .config holds it.

use crate::base::exit::{Exit, fail};
use anyhow::Result;
use std::collections::BTreeMap;

/// The options of fragments, later fragments winning, as `name -> value` (`n` for "is not set").
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    pub fn parse(fragments: &[(&str, &str)]) -> Result<Options> {
        let mut options = Options::default();
        for (file, text) in fragments {
            for (number, line) in text.lines().enumerate() {
                match option(line) {
                    ConfigLine::Set(name, value) => {
                        options.0.insert(name, value);
                    }
                    ConfigLine::Nothing => {}
                    ConfigLine::Garbage => {
                        return Err(fail(
                            Exit::Config,
                            format!("{file}:{}: not a Kconfig line: {line:?}", number + 1),
                        ));
                    }
                }
            }
        }
        Ok(options)
    }

    /// Whether an option is asked for with this value, as in `CONFIG_A=y`.
    pub fn has(&self, option: &str) -> bool {
        let (name, value) = option.split_once('=').unwrap_or((option, "y"));
        self.0.get(name).is_some_and(|v| v == value)
    }

    /// In the form that KCONFIG_ALLCONFIG reads.
    pub fn render(&self) -> String {
        self.0.iter().map(|(k, v)| format!("{k}={v}\n")).collect()
    }

    /// allnoconfig drops in silence what it cannot set: each option asked for is looked up again.
    pub fn assert_in(&self, dot_config: &str) -> Result<()> {
        let have = Options::parse(&[(".config", dot_config)])?;
        let mut lost: Vec<(&str, String)> = self
            .0
            .iter()
            .filter_map(|(name, want)| {
                let got = have.0.get(name).map_or("n", String::as_str);
                (got != want).then(|| {
                    (
                        name.as_str(),
                        format!("{name}={want} (the result is {got})"),
                    )
                })
            })
            .collect();
        // CONFIG_RUST takes much else with it, so it is the one to look at first.
        lost.sort_by_key(|(name, _)| *name != "CONFIG_RUST");
        let Some((first, _)) = lost.first() else {
            return Ok(());
        };
        let hint = if *first == "CONFIG_RUST" {
            "\nCONFIG_RUST was dropped: the kernel found no usable Rust. `make setup` checks rustc, its library source and bindgen; \
             `make rustavailable` in the kernel's build folder names the one that fails; some options (such as MODVERSIONS or KASAN modes) exclude Rust."
        } else {
            "\nAn option is dropped when a dependency is missing or when this kernel does not have it: look it up with `make menuconfig` (/)."
        };
        let list: String = lost.iter().map(|(_, text)| format!("\n  {text}")).collect();
        Err(fail(
            Exit::Config,
            format!(
                "the final .config lacks {} option(s) that were asked for:{list}{hint}",
                lost.len()
            ),
        ))
    }
}

enum ConfigLine {
    Set(String, String),
    Nothing,
    Garbage,
}

fn option(line: &str) -> ConfigLine {
    let line = line.trim();
    if let Some(name) = line
        .strip_prefix("# CONFIG_")
        .and_then(|r| r.strip_suffix(" is not set"))
    {
        return ConfigLine::Set(format!("CONFIG_{name}"), "n".into());
    }
    if line.is_empty() || line.starts_with('#') {
        return ConfigLine::Nothing;
    }
    match line.split_once('=') {
        Some((name, value)) if name.starts_with("CONFIG_") && !value.is_empty() => {
            ConfigLine::Set(name.into(), value.into())
        }
        _ => ConfigLine::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    fn options(text: &str) -> Options {
        Options::parse(&[("f", text)]).unwrap()
    }

    #[test]
    fn later_fragments_win() {
        let o = Options::parse(&[
            ("a", "CONFIG_A=y\nCONFIG_B=4\n"),
            ("b", "# CONFIG_A is not set\n"),
        ]);
        let o = o.unwrap();
        assert_eq!(o.render(), "CONFIG_A=n\nCONFIG_B=4\n");
        assert!(o.has("CONFIG_A=n") && !o.has("CONFIG_A") && !o.has("CONFIG_C=n"));
    }

    #[test]
    fn a_dropped_option_is_an_error_and_rust_comes_first() {
        let e = options("CONFIG_A=y\nCONFIG_RUST=y\nCONFIG_Z=n\nCONFIG_N=8\n")
            .assert_in("CONFIG_N=8\n# CONFIG_A is not set\n")
            .unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Config));
        let text = e.to_string();
        assert!(text.contains("lacks 2 option(s)"), "{text}");
        assert!(text.find("CONFIG_RUST=y").unwrap() < text.find("CONFIG_A=y").unwrap());
        assert!(text.contains("make setup"));
    }

    #[test]
    fn another_value_and_an_unwanted_option_are_errors() {
        assert!(options("CONFIG_N=8\n").assert_in("CONFIG_N=64\n").is_err());
        assert!(options("CONFIG_Z=n\n").assert_in("CONFIG_Z=y\n").is_err());
        assert!(
            options("CONFIG_Z=n\nCONFIG_N=8")
                .assert_in("CONFIG_N=8\n")
                .is_ok()
        );
    }

    #[test]
    fn garbage_names_file_and_line() {
        let e = Options::parse(&[("lane", "CONFIG_A=y\nA=y\n")]).unwrap_err();
        assert!(e.to_string().starts_with("lane:2:"), "{e}");
    }
}
