// SPDX-License-Identifier: GPL-2.0
//! The cases that there are, `ci/cases.toml`, and those of them that a run is to have, `CASE=`.

#[path = "../../../rust-module/harness/choice.rs"]
mod choice;

use crate::base::exit::{Exit, fail};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

pub const STRESS: &str = "nolocks_stress";
pub const QUEUE: &str = "nolocks_queue_stress";
/// KUnit's, of the series.
pub const KUNIT: &str = "page_alloc_no_locks";
/// KUnit's, of the module that is the example.
pub const EXAMPLE_SUITE: &str = "page_alloc_nolocks_rust";
pub const NO_KUNIT: &str = "kunit.enable=0";

/// Cases by suite.
pub type Names = BTreeMap<String, BTreeSet<String>>;

/// Those that every suite has, as a run was or is to be judged by.
#[derive(Clone, Debug)]
pub struct Cases(BTreeMap<String, Vec<String>>);

impl Cases {
    pub const TEXT: &str = include_str!("../../cases.toml");

    pub fn builtin() -> Cases {
        Cases(CASES.clone())
    }

    pub fn parse(text: &str) -> Result<Cases> {
        Ok(Cases(toml::from_str(text)?))
    }

    /// The cases that a suite has; none of one that nobody knows.
    pub fn of(&self, suite: &str) -> &[String] {
        self.0.get(suite).map_or(&[], Vec::as_slice)
    }
}

static CASES: LazyLock<BTreeMap<String, Vec<String>>> =
    LazyLock::new(|| toml::from_str(Cases::TEXT).expect("ci/cases.toml is names only"));

/// The cases that a suite has; none of one that nobody knows.
pub fn cases(suite: &str) -> &'static [String] {
    CASES.get(suite).map_or(&[], Vec::as_slice)
}

pub fn suites() -> impl Iterator<Item = &'static str> {
    CASES.keys().map(String::as_str)
}

/// What people write before the slash.
fn group(suite: &str) -> &'static str {
    match suite {
        STRESS => "pages",
        QUEUE => "queue",
        _ => "kunit",
    }
}

/// Every case with its suite, as people write it.
fn list_names() -> Vec<(&'static str, &'static str, String)> {
    let of = |suite: &'static str| {
        cases(suite)
            .iter()
            .map(move |case| (suite, case.as_str(), format!("{}/{case}", group(suite))))
    };
    suites().flat_map(of).collect()
}

/// The cases of `CASE=`: what has none of them is not loaded, and KUnit not started.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Selection {
    cases: Names,
    /// KUnit takes one pattern of suites and one of cases, which may stand for more than was asked for.
    kunit: Option<String>,
}

impl Selection {
    /// By patterns such as `pages/nmi,queue/*irq*`.
    pub fn parse(list: &str) -> Result<Selection> {
        let all = list_names();
        let names = all.iter().map(|(_, _, name)| name.as_str());
        let unknown = match list {
            "" => Some(""),
            list => choice::unknown(list, names.clone()),
        };
        if let Some(pattern) = unknown {
            let names: Vec<&str> = names.collect();
            return Err(fail(
                Exit::Usage,
                // Once more behind a list that is longer than a screen.
                format!(
                    "CASE={list}: {pattern:?} is no case; there are:\n  {}\n\
                    CASE={list}: {pattern:?} is none of these (* stands for any text)",
                    names.join("\n  ")
                ),
            ));
        }
        let chosen = all
            .iter()
            .filter(|(.., name)| choice::is_chosen(list, name));
        let mut selection = Selection {
            cases: Names::new(),
            kunit: None,
        };
        for (suite, case, _) in chosen {
            selection.add(suite, case);
        }
        selection.find_kunit_pattern();
        Ok(selection)
    }

    fn add(&mut self, suite: &str, case: &str) {
        let cases = self.cases.entry(suite.to_owned()).or_default();
        cases.insert(case.to_owned());
    }

    fn is_kunit(suite: &str) -> bool {
        group(suite) == "kunit"
    }

    /// Finds KUnit's pattern, and adds what else it stands for.
    fn find_kunit_pattern(&mut self) {
        let kunit = self.cases.iter().filter(|(s, _)| Self::is_kunit(s));
        let (suites, cases): (Vec<_>, Vec<_>) = kunit.unzip();
        if suites.is_empty() {
            return;
        }
        let suite = pattern(suites.into_iter().map(String::as_str));
        let case = pattern(cases.into_iter().flatten().map(String::as_str));
        for (known, name, _) in list_names() {
            let is_meant = choice::is_chosen(&suite, known) && choice::is_chosen(&case, name);
            if Self::is_kunit(known) && is_meant {
                self.add(known, name);
            }
        }
        self.kunit = Some(format!("{suite}.{case}"));
    }

    /// Whether a case of the suite is to run.
    pub fn has(&self, suite: &str) -> bool {
        self.cases.contains_key(suite)
    }

    pub fn contains(&self, suite: &str, case: &str) -> bool {
        self.cases.get(suite).is_some_and(|c| c.contains(case))
    }

    /// Its KUnit suites.
    pub fn kunit(&self) -> impl Iterator<Item = &str> {
        let suites = self.cases.keys().map(String::as_str);
        suites.filter(|suite| Self::is_kunit(suite))
    }

    /// For the kernel's command line.
    pub fn cmdline(&self) -> String {
        match &self.kunit {
            Some(pattern) => format!("kunit.filter_glob={pattern}"),
            None => NO_KUNIT.to_owned(),
        }
    }

    /// For a stress module, if not all of its cases are to run.
    pub fn parameter(&self, module: &str) -> Option<String> {
        let chosen = cases(module).iter().filter(|c| self.contains(module, c));
        let chosen: Vec<&str> = chosen.map(String::as_str).collect();
        (chosen.len() < cases(module).len()).then(|| format!("case={}", chosen.join(",")))
    }
}

/// A pattern that stands for all of the names: what they begin with.
fn pattern<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let Some(first) = names.next() else {
        return "*".to_owned();
    };
    let mut prefix = first;
    for name in names {
        let same = |(a, b): &(char, char)| a == b;
        let common = prefix.chars().zip(name.chars()).take_while(same);
        // The names are ASCII: a unit test says so.
        prefix = &prefix[..common.count()];
    }
    match prefix == first {
        true => first.to_owned(),
        false => format!("{prefix}*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use proptest::prelude::*;

    fn select(list: &str) -> Selection {
        Selection::parse(list).unwrap()
    }

    #[test]
    fn a_case_is_named_with_its_group() {
        let one = select("pages/nmi");
        assert!(one.contains(STRESS, "nmi") && !one.contains(STRESS, "raw"));
        assert!(!one.has(QUEUE) && !one.has(KUNIT));
        assert_eq!(one.parameter(STRESS).unwrap(), "case=nmi");
        assert_eq!(one.cmdline(), "kunit.enable=0");
        let both = select("*/nmi,queue/locks");
        assert_eq!(both.parameter(STRESS).unwrap(), "case=nmi");
        assert_eq!(both.parameter(QUEUE).unwrap(), "case=nmi,locks");
        assert_eq!(select("pages/*").parameter(STRESS), None);
    }

    #[test]
    fn kunit_gets_one_pattern_and_what_it_stands_for_is_expected() {
        let cases = cases(KUNIT);
        let one = select(&format!("kunit/{}", cases[0]));
        assert_eq!(
            one.cmdline(),
            format!("kunit.filter_glob={KUNIT}.{}", cases[0])
        );
        assert_eq!(one.cases[KUNIT].len(), 1);
        let all = select("kunit/*");
        assert!(all.cmdline().ends_with('*'));
        assert_eq!(all.kunit().count(), all.cases.len());
        // From each end of the list, which have less in common than either with its neighbours.
        let ends = select(&format!(
            "kunit/{},kunit/{}",
            cases[0],
            cases.last().unwrap()
        ));
        let glob = ends.kunit.as_ref().unwrap().split_once('.').unwrap().1;
        let matched = cases.iter().filter(|c| choice::is_chosen(glob, c));
        assert_eq!(matched.count(), ends.cases[KUNIT].len());
    }

    #[test]
    fn an_unknown_case_is_told_what_there_is() {
        for list in [
            "",
            "nmi",
            "pages/nmi,",
            "pages/nni",
            "queue/unregistered",
            "kunit/nmi",
        ] {
            let e = Selection::parse(list).expect_err(list);
            assert_eq!(stage(&e), Some(Exit::Usage), "{list}");
            let text = e.to_string();
            for there_is in ["\n  pages/nmi", "\n  queue/locks", "\n  kunit/"] {
                assert!(text.contains(there_is), "{list}: {text}");
            }
            let last = text.lines().last().unwrap();
            assert!(last.starts_with(&format!("CASE={list}: ")), "{last}");
        }
    }

    #[test]
    fn names_are_what_a_list_and_a_command_line_can_take() {
        for (_, case, _) in list_names() {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            assert!(!case.is_empty() && case.bytes().all(plain), "{case}");
        }
        // rust-module/harness/case.c has room for 2047.
        for module in [STRESS, QUEUE] {
            assert!(cases(module).join(",").len() < 1500, "{module}");
        }
    }

    /// A mask of 32 bits was not enough for 32 cases, and its check panicked.
    #[test]
    fn there_may_be_any_number_of_cases() {
        let names: Vec<String> = (0..100).map(|n| format!("case_{n}")).collect();
        let all = || names.iter().map(String::as_str);
        for name in all() {
            assert_eq!(choice::unknown(name, all()), None);
            assert_eq!(all().filter(|n| choice::is_chosen(name, n)).count(), 1);
        }
        assert_eq!(all().filter(|n| choice::is_chosen("", n)).count(), 100);
        assert_eq!(choice::unknown("case_7,case_100", all()), Some("case_100"));
        assert_eq!(choice::unknown("", all()), None);
    }

    #[test]
    fn patterns_stand_for_what_they_should() {
        for (pattern, name, matches) in [
            ("nmi", "nmi", true),
            ("nmi", "nmis", false),
            ("nmi", "nm", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("?", "", false),
            ("n?i", "nmi", true),
            ("*irq*", "raw_irqsave", true),
            ("*irq", "raw_irqsave", false),
            ("*a*ab", "aaab", true),
            ("a*b*c", "abcbc", true),
            ("a*b*c", "acb", false),
            ("a,b*", "bc", true),
            ("", "", true),
            ("a,", "b", false),
        ] {
            assert_eq!(
                choice::is_chosen(pattern, name),
                matches,
                "{pattern} {name}"
            );
        }
    }

    proptest! {
        /// Against the same rule as a regular expression.
        #[test]
        fn a_pattern_is_the_expression_that_it_looks_like(pattern in "[ab?*]{1,8}", name in "[ab]{0,8}") {
            let expression = pattern.replace('*', ".*").replace('?', ".");
            let expression = regex::Regex::new(&format!("^{expression}$")).unwrap();
            prop_assert_eq!(choice::is_chosen(&pattern, &name), expression.is_match(&name));
        }
    }
}
