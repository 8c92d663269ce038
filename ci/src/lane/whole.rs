// SPDX-License-Identifier: GPL-2.0
//! A lane made whole: its file, the fragments that it names and the controls that it has become one text
//! that needs none of them any more. That text is what a run keeps, and what it is judged by later.

use crate::base::exit::{Exit, fail};
use crate::lane::config::Options;
use crate::lane::controls::Controls;
use crate::lane::head::{complaint, header, line, names};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use toml::Value;
use toml::de::{DeTable, DeValue, ValueDeserializer};

const FRAGMENTS: &str = "fragments";

/// Where something stands: a file and a line.
#[derive(Clone, Debug)]
struct Place(String, usize);

impl Place {
    fn error(&self, what: impl std::fmt::Display) -> anyhow::Error {
        fail(Exit::Config, format!("{}:{}: {what}", self.0, self.1))
    }
}

/// The path of a value below the head's tables.
type Key = Vec<String>;

/// The values of a head that are no tables.
type Head = BTreeMap<Key, (Value, Place)>;

fn key(path: &[&str]) -> Key {
    path.iter().map(|p| (*p).to_owned()).collect()
}

/// A file as it was read: a lane's, or a fragment.
struct LaneFile {
    file: String,
    text: String,
    head: Head,
}

impl LaneFile {
    fn read(path: &Path) -> Result<LaneFile> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        let header = header(&text);
        let place = |at| Place(file.clone(), line(&header, at));
        let mut head = Head::new();
        DeTable::parse(&header)
            .and_then(|table| flatten(table.get_ref(), &[], &place, &mut head))
            .map_err(|e| {
                let (line, what) = complaint(&header, &e);
                Place(file.clone(), line).error(what)
            })?;
        Ok(LaneFile { file, text, head })
    }

    /// Its text without the head.
    fn options(&self) -> String {
        let lines = self.text.lines().filter(|l| !l.starts_with("#:"));
        lines.map(|l| format!("{l}\n")).collect()
    }
}

fn flatten(
    table: &DeTable,
    above: &[String],
    place: &dyn Fn(usize) -> Place,
    head: &mut Head,
) -> Result<(), toml::de::Error> {
    for (name, value) in table {
        let key = [above, &[name.get_ref().to_string()]].concat();
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => flatten(table, &key, place, head)?,
            _ => {
                let plain = Value::deserialize(ValueDeserializer::from(value.clone()))?;
                head.insert(key, (plain, place(name.span().start)));
            }
        }
    }
    Ok(())
}

/// What a later part says wins, but for lists, which become longer.
fn merge(parts: &[&LaneFile]) -> Head {
    let mut merged = Head::new();
    for (key, (value, place)) in parts.iter().flat_map(|part| &part.head) {
        match (merged.get_mut(key), value) {
            (Some((Value::Array(list), _)), Value::Array(more)) => list.extend(more.clone()),
            _ => {
                merged.insert(key.clone(), (value.clone(), place.clone()));
            }
        }
    }
    merged
}

pub struct Whole {
    pub text: String,
    /// Where each line of `text` comes from, as far as it is head.
    places: Vec<Place>,
}

impl Whole {
    pub fn of(path: &Path) -> Result<Whole> {
        let mut lane = LaneFile::read(path)?;
        let fragments = fragments(path, &mut lane)?;
        let parts: Vec<&LaneFile> = fragments.iter().chain([&lane]).collect();
        let mut head = merge(&parts);
        // The contract promises pages in the same contexts, however many are asked for.
        if let Some(contexts) = head.get(&key(&["stress", "contexts"])).cloned()
            && head.keys().any(|key| key[0] == "test")
        {
            head.entry(key(&["test", "contexts"])).or_insert(contexts);
        }
        let texts: Vec<_> = parts
            .iter()
            .map(|p| (p.file.as_str(), p.text.as_str()))
            .collect();
        let controls = controls(&mut head, &Options::parse(&texts)?)?;

        let start = Place(lane.file.clone(), 1);
        let file = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let mut whole = Whole {
            text: String::new(),
            places: Vec::new(),
        };
        whole.add("# SPDX-License-Identifier: GPL-2.0\n", "", &start);
        let what = format!("# {} with its fragments and controls.\n", file(&lane.file));
        whole.add(&what, "", &start);
        for (key, (value, place)) in &head {
            whole.add(&format!("{} = {value}\n", dotted(key)), "#: ", place);
        }
        whole.add(&controls, "#: ", &start);
        for part in parts {
            whole.text += &format!("\n# {}:\n{}", file(&part.file), part.options());
        }
        Ok(whole)
    }

    fn add(&mut self, text: &str, before: &str, place: &Place) {
        for line in text.lines() {
            self.text += format!("{before}{line}").trim_end();
            self.text += "\n";
            self.places.push(place.clone());
        }
    }

    /// What is wrong with a line, told of the file that it comes from.
    pub fn error(&self, line: usize, what: &str) -> anyhow::Error {
        let place = self.places.get(line - 1).or(self.places.first());
        place.expect("there is a first line").error(what)
    }
}

fn dotted(key: &[String]) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let part = |part: &String| match !part.is_empty() && part.chars().all(is_bare) {
        true => part.clone(),
        false => Value::from(part.as_str()).to_string(),
    };
    key.iter().map(part).collect::<Vec<_>>().join(".")
}

/// Those that a lane's head names, which are in the folder beside the lanes'.
fn fragments(path: &Path, lane: &mut LaneFile) -> Result<Vec<LaneFile>> {
    let lanes = path.parent().unwrap_or(Path::new(""));
    let dir: PathBuf = lanes.parent().unwrap_or(lanes).join(FRAGMENTS);
    let there_are = || -> Result<String> {
        Ok(format!(
            "there are, in {}: {}",
            dir.display(),
            names(&dir)?.join(", ")
        ))
    };
    let (named, place) = match lane.head.remove(&key(&[FRAGMENTS])) {
        Some((Value::Array(named), place)) if !named.is_empty() => (named, place),
        other => {
            let place = other.map_or(Place(lane.file.clone(), 1), |(_, place)| place);
            return Err(place.error(format!(
                "a lane says what it shares with others, `#: fragments = [\"guest-x86_64\", ...]`; {}",
                there_are()?
            )));
        }
    };
    let mut parts: Vec<LaneFile> = Vec::new();
    for name in &named {
        let name = name.as_str().unwrap_or_default();
        let path = dir.join(format!("{name}.config"));
        if !path.is_file() {
            return Err(place.error(format!("no fragment {name:?}; {}", there_are()?)));
        }
        let part = LaneFile::read(&path)?;
        if parts.iter().any(|other| other.file == part.file) {
            return Err(place.error(format!("fragment {name:?} is there twice; once is enough")));
        }
        if let Some((_, place)) = part.head.get(&key(&[FRAGMENTS])) {
            return Err(place.error("a fragment has none itself: name them in the lane"));
        }
        parts.push(part);
    }
    Ok(parts)
}

/// The tables of the controls that a lane has, of those that are described for all.
fn controls(head: &mut Head, options: &Options) -> Result<String> {
    if let Some((_, place)) = head.get(&key(&["control"])) {
        return Err(place.error(
            "a control is described in ci/controls.toml, and a lane names it in `controls`",
        ));
    }
    let Some((wanted, place)) = head.remove(&key(&["controls"])) else {
        return Ok(String::new());
    };
    let boots = head.get(&key(&["boot"])).and_then(|(v, _)| v.as_array());
    let boots = boots.into_iter().flatten();
    let boots: Vec<String> = boots
        .filter_map(|boot| Some(boot.get("name")?.as_str()?.to_owned()))
        .collect();
    let controls = Controls::builtin().of_lane(&wanted, options, &boots);
    let controls = controls.map_err(|what| place.error(what))?;
    let controls = BTreeMap::from([("control", controls)]);
    toml::to_string(&controls).context("a control is TOML")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::lane::spec::Lane;

    const GUEST: &str = "# The guest.\n#: arch = \"x86_64\"\n#: cpus = 4\n#: memory = \"1G\"\n#: cmdline = [\"a\"]\n\
        #: limits = { boot = 1, run = 2, shutdown = 3 }\n#: stress.contexts = [\"task\"]\n#: controls = \"all\"\n\
        CONFIG_A=y\nCONFIG_B=y\n";
    const LANE: &str = "#: about = \"x\"\n#: fragments = [\"guest\"]\n#: limits.run = 7\n#: cmdline = [\"b\"]\n\
        #: [stress]\n#: obtained = 1\n#: obtained_each = 1\n#: [test]\n#: obtained = 2\n#: obtained_each = 1\n\
        # CONFIG_B is not set\n";

    fn load(guest: &str, lane: &str) -> Result<Lane> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("fragments/guest", guest), ("lanes/l", lane)] {
            let path = dir.path().join(format!("{file}.config"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Lane::load(&dir.path().join("lanes"), "l")
    }

    #[test]
    fn a_lane_is_its_fragments_and_what_it_says_itself() {
        let lane = load(GUEST, LANE).unwrap();
        assert_eq!(lane.cmdline, ["a", "b"]);
        let boot = lane.limits.boot().as_secs();
        let run = lane.limits.run(Default::default()).as_secs();
        assert_eq!((boot, run, lane.cpus), (1, 7, 4));
        assert_eq!(lane.test.as_ref().unwrap().contexts, ["task"]);
        assert!(lane.controls.iter().any(|c| c.name == "leaked-page"));
        let options = Options::parse(&[("l", &lane.config)]).unwrap();
        assert_eq!(options.render(), "CONFIG_A=y\nCONFIG_B=n\n");
        let none = load(&GUEST.replace("#: controls = \"all\"\n", ""), LANE).unwrap();
        assert!(none.controls.is_empty());
    }

    #[test]
    fn a_mistake_is_told_of_the_file_that_it_is_in() {
        let lane = |from: &str, to: &str| load(GUEST, &LANE.replace(from, to));
        let guest = |from: &str, to: &str| load(&GUEST.replace(from, to), LANE);
        let fragments = "#: fragments = [\"guest\"]\n";
        for (result, says) in [
            (
                lane(fragments, ""),
                &["l.config:1: ", "there are, in ", ": guest"][..],
            ),
            (
                lane("[\"guest\"]", "[]"),
                &["l.config:2: ", "[\"guest-x86_64\", ...]"],
            ),
            (
                lane("[\"guest\"]", "[\"gast\"]"),
                &["l.config:2: no fragment \"gast\"", ": guest"],
            ),
            (
                lane("[\"guest\"]", "[\"guest\", \"guest\"]"),
                &["l.config:2: ", "twice"],
            ),
            (
                lane("#: limits", "#: controls = [\"no\"]\n#: limits"),
                &["l.config:3: ", "leaked-page"],
            ),
            (
                lane("#: limits", "#: control = []\n#: limits"),
                &["l.config:3: ", "ci/controls.toml"],
            ),
            (
                lane("limits.run = 7", "limits.run = \"7\""),
                &["l.config:3: "],
            ),
            (
                lane("limits.run = 7", "limits.ran = 7"),
                &["l.config:3: ", "ran"],
            ),
            (lane("limits.run = 7", "limits.run ="), &["l.config:3: "]),
            (
                lane("# CONFIG_B is not set", "B=n"),
                &["l.config:11: not a Kconfig line"],
            ),
            (guest("cpus = 4", "cpus = []"), &["guest.config:3: "]),
            (
                lane("= 2\n", "= 2\n#: cpus = 0\n"),
                &["l.config:", "cpus: at least 1"],
            ),
            (
                lane("[stress]\n", "[stress]\n#: cpus = 2\n"),
                &["l.config:", "the lane's own"],
            ),
            (guest("cpus = 4", "cpos = 4"), &["guest.config:3: ", "cpos"]),
            (
                guest("#: cpus", "#: fragments = [\"rt\"]\n#: cpus"),
                &["guest.config:3: "],
            ),
            (
                guest("CONFIG_A=y", "A=y"),
                &["guest.config:9: not a Kconfig line"],
            ),
        ] {
            let e = result.unwrap_err();
            assert_eq!(stage(&e), Some(Exit::Config), "{e}");
            let text = e.to_string();
            assert!(says.iter().all(|s| text.contains(s)), "{says:?}: {text}");
        }
    }
}
