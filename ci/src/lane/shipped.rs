// SPDX-License-Identifier: GPL-2.0
//! Tests of what is in ci/: each lane, machine and control, by whatever name.

use crate::lane::cases::{Cases, EXAMPLE_SUITE, QUEUE, STRESS, cases};
use crate::lane::controls::Controls;
use crate::lane::head::names;
use crate::lane::spec::Lane;
use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn checkout() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped() -> Vec<Lane> {
    Lane::load_all(&checkout().join("ci/lanes")).unwrap()
}

/// What is described in one place is of use in one at least.
#[test]
fn each_control_and_each_fragment_has_a_lane() {
    let controls = shipped().into_iter().flat_map(|l| l.controls);
    let used: BTreeSet<String> = controls.map(|c| c.name).collect();
    assert_eq!(used, Controls::builtin().names());
    let machines = ["lanes", "bench", "torture"].map(|kind| checkout().join("ci").join(kind));
    let machines = machines.iter().flat_map(|dir| Lane::load_all(dir).unwrap());
    let texts: String = machines.map(|lane| lane.config).collect();
    for name in names(&checkout().join("ci/fragments")).unwrap() {
        assert!(texts.contains(&format!("\n# {name}.config:\n")), "{name}");
    }
}

#[test]
fn each_lane_has_controls_and_those_of_make_test_two_nodes_for_them() {
    for lane in shipped() {
        assert!(!lane.controls.is_empty(), "{}", lane.name);
        let boots: Vec<_> = lane.boots.iter().map(|b| b.name.as_str()).collect();
        assert!(
            lane.test.is_none() || boots == ["kunit-numa"],
            "{}",
            lane.name
        );
    }
}

/// It leaves out none for which somebody forgot a line.
#[test]
fn the_workflow_runs_each_lane_that_make_test_leaves_out() {
    let text = fs::read_to_string(checkout().join(".github/workflows/lanes.yml")).unwrap();
    let named = text.lines().filter_map(|line| {
        let words = line.trim().strip_prefix("- make test LANE=")?;
        Some(words.split(' ').next()?.to_owned())
    });
    let lanes = shipped().into_iter().filter(|lane| lane.test.is_none());
    let left_out = lanes.map(|lane| lane.name);
    assert_eq!(BTreeSet::from_iter(named), BTreeSet::from_iter(left_out));
}

/// A run keeps its lane whole, and is judged by that when the fragments are others.
#[test]
fn what_a_run_keeps_is_the_lane() {
    let dir = tempfile::tempdir().unwrap();
    for lane in shipped() {
        let path = dir.path().join("lane.config");
        fs::write(&path, &lane.config).unwrap();
        let kept = Lane::read(&path, &lane.name, &Cases::builtin()).unwrap();
        assert_eq!(format!("{kept:?}"), format!("{lane:?}"));
    }
}

#[test]
fn controls_expect_rules_that_there_are() {
    let rules = crate::facts::scan::Rules::builtin().unwrap();
    let controls = shipped().into_iter().flat_map(|l| l.controls);
    for rule in controls.flat_map(|c| c.expect.into_keys()) {
        assert!(rules.has(&rule), "{rule}");
    }
}

#[test]
fn the_patches_have_the_kunit_cases_that_are_listed() {
    let patches = checkout().join("patches");
    let mut patches: Vec<_> = fs::read_dir(patches)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    patches.sort();
    let series: String = patches
        .iter()
        .map(|p| fs::read_to_string(p).unwrap())
        .collect();
    let case = Regex::new(r"(?m)^\+\tKUNIT_CASE\((\w+)\)").unwrap();
    let have: Vec<&str> = case
        .captures_iter(&series)
        .map(|c| c.extract::<1>().1[0])
        .collect();
    assert_eq!(have, cases("page_alloc_no_locks"));
}

#[test]
fn the_modules_have_the_cases_that_are_listed() {
    let case = Regex::new(r#"(?m)^    \("(\w+)", "#).unwrap();
    for (module, folder) in [(STRESS, "stress/pages"), (QUEUE, "stress/queue")] {
        let path = checkout().join(format!("rust-module/{folder}/cases.rs"));
        let text = fs::read_to_string(path).unwrap();
        let (_, table) = text.split_once("const CASES: ").unwrap();
        let (table, _) = table.split_once("\n];").unwrap();
        let have: Vec<&str> = case
            .captures_iter(table)
            .map(|c| c.extract::<1>().1[0])
            .collect();
        assert_eq!(have, cases(module), "{module}");
    }
}

#[test]
fn the_example_has_the_kunit_cases_that_are_listed() {
    let path = checkout().join("rust-module/example/kunit.rs");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(&format!("#[kunit_tests({EXAMPLE_SUITE})]\n")));
    let case = Regex::new(r"#\[test\]\n    fn (\w+)\(").unwrap();
    let have: Vec<&str> = case
        .captures_iter(&text)
        .map(|c| c.extract::<1>().1[0])
        .collect();
    assert_eq!(have, cases(EXAMPLE_SUITE));
}
