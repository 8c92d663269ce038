// SPDX-License-Identifier: GPL-2.0
//! The controls that there are, `ci/controls.toml`, and those of them that a lane has.

use crate::lane::config::Options;
use crate::lane::spec::Control;
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Value;

const TEXT: &str = include_str!("../../controls.toml");

/// In the order in which those that share a boot have to run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controls {
    control: Vec<Described>,
}

/// A control as it is in any lane.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: String,
    module: String,
    params: String,
    /// Options that a lane must have, or the bug cannot be seen there.
    #[serde(default)]
    needs: Vec<String>,
    /// The `[[boot]]` that it shares in a lane that has one of this name.
    boot: Option<String>,
    /// What it shares in a lane that has not.
    otherwise: Option<String>,
    #[serde(default)]
    expect: BTreeMap<String, String>,
    /// What an option makes the kernel report as well, or otherwise.
    #[serde(default)]
    expect_with: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    fails: BTreeMap<String, String>,
}

impl Described {
    fn missing(&self, options: &Options) -> Option<&String> {
        self.needs.iter().find(|option| !options.has(option))
    }

    fn in_lane(&self, options: &Options, boots: &[String]) -> Control {
        let mut expect = self.expect.clone();
        for (option, more) in &self.expect_with {
            if options.has(option) {
                expect.extend(more.clone());
            }
        }
        let shared = self.boot.clone().filter(|boot| boots.contains(boot));
        Control {
            name: self.name.clone(),
            module: self.module.clone(),
            params: self.params.clone(),
            boot: shared.or_else(|| self.otherwise.clone()),
            expect,
            fails: self.fails.clone(),
        }
    }
}

impl Controls {
    pub fn builtin() -> Controls {
        Controls::parse(TEXT).expect("ci/controls.toml describes controls")
    }

    pub fn parse(text: &str) -> Result<Controls> {
        Ok(toml::from_str(text)?)
    }

    #[cfg(test)]
    pub fn names(&self) -> std::collections::BTreeSet<String> {
        self.control.iter().map(|c| c.name.clone()).collect()
    }

    /// What a lane's `controls` stands for, in a lane with these options and boots.
    pub fn of_lane(
        &self,
        wanted: &Value,
        options: &Options,
        boots: &[String],
    ) -> Result<Vec<Control>, String> {
        let chosen: Vec<&Described> = match wanted {
            Value::String(all) if all == "all" => {
                let all = self.control.iter();
                all.filter(|c| c.missing(options).is_none()).collect()
            }
            Value::Array(names) => self.named(names, options)?,
            _ => return Err("controls: \"all\", or names of ci/controls.toml".to_owned()),
        };
        Ok(chosen.iter().map(|c| c.in_lane(options, boots)).collect())
    }

    fn named(&self, names: &[Value], options: &Options) -> Result<Vec<&Described>, String> {
        let mut chosen: Vec<&Described> = Vec::new();
        for name in names.iter().map(|n| n.as_str().unwrap_or_default()) {
            let Some(control) = self.control.iter().find(|c| c.name == name) else {
                let known: Vec<&str> = self.control.iter().map(|c| c.name.as_str()).collect();
                return Err(format!(
                    "controls: {name:?} is not in ci/controls.toml; there are: {}",
                    known.join(", ")
                ));
            };
            if chosen.iter().any(|c| c.name == name) {
                return Err(format!("controls: {name} is there twice; once is enough"));
            }
            if let Some(option) = control.missing(options) {
                return Err(format!(
                    "controls: {name} needs {option}: take a fragment that has it, or this control off the list"
                ));
            }
            chosen.push(control);
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;
    use std::collections::BTreeSet;
    use std::path::Path;

    const TWO: &str = "[[control]]\nname = \"a\"\nmodule = \"m\"\nparams = \"p\"\nboot = \"b\"\n\
        expect = { r = \"x\" }\nexpect_with.\"CONFIG_RT=y\" = { s = \"y\" }\n\
        [[control]]\nname = \"c\"\nmodule = \"m\"\nparams = \"q\"\nneeds = [\"CONFIG_L=y\"]\notherwise = \"o\"\n\
        fails = { ledger = \"why\" }\n";

    fn of_lane(wanted: &str, config: &str, boots: &[&str]) -> Result<Vec<Control>, String> {
        let options = Options::parse(&[("f", config)]).unwrap();
        let boots: Vec<String> = boots.iter().map(|b| (*b).to_owned()).collect();
        let wanted: toml::Table = toml::from_str(&format!("w = {wanted}")).unwrap();
        let controls = Controls::parse(TWO).unwrap();
        controls.of_lane(&wanted["w"], &options, &boots)
    }

    #[test]
    fn a_lane_has_what_its_options_allow_and_expects_what_they_make_of_it() {
        let bare = of_lane("\"all\"", "", &[]).unwrap();
        assert_eq!((bare.len(), bare[0].boot.as_deref()), (1, None));
        assert_eq!(bare[0].expect.len(), 1);
        let all = of_lane("\"all\"", "CONFIG_L=y\nCONFIG_RT=y\n", &["b"]).unwrap();
        let boots: Vec<_> = all.iter().map(|c| c.boot.as_deref()).collect();
        assert_eq!(boots, [Some("b"), Some("o")]);
        assert_eq!(all[0].expect["s"], "y");
        let named = of_lane("[\"c\"]", "CONFIG_L=y\n", &[]).unwrap();
        assert_eq!((named.len(), named[0].name.as_str()), (1, "c"));
    }

    #[test]
    fn a_list_that_cannot_be_is_refused_with_what_to_do() {
        for (wanted, says) in [
            ("[\"d\"]", "there are: a, c"),
            ("[\"a\", \"a\"]", "a is there twice"),
            ("[\"c\"]", "c needs CONFIG_L=y: take a fragment"),
            ("\"most\"", "\"all\", or names"),
            ("[1]", "there are: a, c"),
        ] {
            let e = of_lane(wanted, "# CONFIG_L is not set\n", &[]).unwrap_err();
            assert!(e.contains(says), "{wanted}: {e}");
        }
    }

    /// None may get lost: whatever the modules can be told to do wrong is described, once.
    #[test]
    fn each_bug_of_the_modules_is_described() {
        let number = Regex::new(r"(?m)^            (\d+) => ").unwrap();
        let mut have = BTreeSet::new();
        for (module, folder) in [
            ("nolocks_control", "pages"),
            ("nolocks_queue_control", "queue"),
        ] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../rust-module/control/{folder}/control.rs"));
            let text = std::fs::read_to_string(path).unwrap();
            let numbers: Vec<String> = number
                .captures_iter(&text)
                .map(|c| c.extract::<1>().1[0].to_owned())
                .collect();
            let asks = format!("give control=1 to control={}\\n", numbers.len());
            assert!(text.contains(&asks), "{folder}: {asks}");
            have.extend(
                numbers
                    .iter()
                    .map(|n| (module.to_owned(), format!("control={n}"))),
            );
        }
        assert!(!have.is_empty());
        let described = Controls::builtin().control;
        let bugs = described
            .iter()
            .map(|c| (c.module.clone(), c.params.clone()));
        assert_eq!(bugs.collect::<BTreeSet<_>>(), have);
        let names: BTreeSet<_> = described.iter().map(|c| &c.name).collect();
        assert_eq!((names.len(), described.len()), (have.len(), have.len()));
    }
}
