// SPDX-License-Identifier: GPL-2.0
//! That the cover letter says what docs/torture.json does, which is a run's.

use serde_json::Value;
use std::path::Path;

fn read(file: &str) -> String {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(checkout.join(file)).unwrap()
}

/// With a comma before each three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|part| std::str::from_utf8(part).unwrap())
        .collect();
    parts.join(",")
}

fn median(of: &Value) -> f64 {
    let mut of: Vec<f64> = of
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_f64().unwrap())
        .collect();
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[test]
fn the_cover_letter_quotes_what_is_committed() {
    let letter = read("patches/cover-letter.txt");
    let letter = letter.split_whitespace().collect::<Vec<_>>().join(" ");
    let all: Value = serde_json::from_str(&read("docs/torture.json")).unwrap();
    let machine = &all["own"]["x86_64-rt"];
    let share = |side: &str, what: &str| {
        let of = &machine[side]["nolock"][what];
        (of[0].as_u64().unwrap(), of[1].as_u64().unwrap())
    };
    let quotes = |sentence: String| assert!(letter.contains(&sentence), "it needs: {sentence}");

    let (none, asked) = share("without", super::STORAGE);
    let (got, of) = share("with", super::STORAGE);
    quotes(format!(
        "came {none} of {} times without the series, and {} of {} with it",
        grouped(asked),
        grouped(got),
        grouped(of)
    ));
    let (none, asked) = share("without", super::KPROBES);
    let (got, of) = share("with", super::KPROBES);
    quotes(format!(
        "{none} of {} and {} of {}",
        grouped(asked),
        grouped(got),
        grouped(of)
    ));

    let scales = &machine["with"]["scales"];
    let before = &machine["without"]["scales"];
    let ratios = scales.as_object().unwrap().iter();
    let ratios = ratios.map(|(set, scale)| median(&scale["ns"]) / median(&before[set]["ns"]));
    let (least, most) = ratios.fold((f64::MAX, 0.0), |(least, most), ratio| {
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
        grouped(refused),
        grouped(asked),
        grouped(of)
    ));
}
