// SPDX-License-Identifier: GPL-2.0
//! That the cover letter says what docs/torture.json does, which is a run's.

use super::rcuscale::{Scale, ratio};
use crate::command::bench::committed::tests::{assert_quoted, read};
use crate::report::numbers::thousands;
use serde_json::Value;

#[test]
fn the_cover_letter_quotes_what_is_committed() {
    let all: Value = serde_json::from_str(&read("docs/torture.json")).unwrap();
    let machine = &all["own"]["x86_64-rt"];
    let share = |side: &str, what: &str| {
        let of = &machine[side]["nolock"][what];
        (of[0].as_u64().unwrap(), of[1].as_u64().unwrap())
    };
    let quotes = |sentence: String| assert_quoted("patches/cover-letter.txt", &sentence);

    for (what, came, without, with) in [
        (
            super::STORAGE,
            "came ",
            " times without the series,",
            " with it",
        ),
        (super::KPROBES, "", "", ""),
    ] {
        let (none, asked) = share("without", what);
        let (got, of) = share("with", what);
        quotes(format!(
            "{came}{none} of {}{without} and {} of {}{with}",
            thousands(asked),
            thousands(got),
            thousands(of)
        ));
    }

    let scales = |side: &str, set: &str| -> Scale {
        serde_json::from_value(machine[side]["scales"][set].clone()).unwrap()
    };
    let sets = machine["with"]["scales"].as_object().unwrap().keys();
    let ratios = sets.map(|set| ratio(&scales("without", set), &scales("with", set)).unwrap());
    let (least, most) = ratios.fold((f64::MAX, 0.0_f64), |(least, most), ratio| {
        (ratio.min(least), ratio.max(most))
    });
    quotes(format!(
        "test takes {least:.2} to {most:.2} of the time that it takes without the series"
    ));

    let reported = all["reported"].as_array().unwrap();
    let machine = reported
        .iter()
        .find(|m| m["about"].as_str().unwrap().starts_with("x86_64: "));
    let side = |side: &str| {
        let of = &machine.unwrap()[side]["beside_forks_and_readers"];
        let refused = of["refused"].as_u64().unwrap();
        (refused, refused + of["obtained"].as_u64().unwrap())
    };
    let ((refused, asked), (none, of)) = (side("without"), side("with"));
    assert_eq!(none, 0);
    quotes(format!(
        "failed for {} of {} pages with memory free, and for none of {} with the series",
        thousands(refused),
        thousands(asked),
        thousands(of)
    ));
}
