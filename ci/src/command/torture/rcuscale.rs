// SPDX-License-Identifier: GPL-2.0
//! rcuscale's kfree_rcu() test: what it took on one kernel, and whether that is more than on another.

use crate::facts::boot::BootFacts;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Its parameter sets.
const SCALES: &[(&str, &str)] = &[
    ("both", ""),
    ("double", "kfree_rcu_test_double=1"),
    ("single", "kfree_rcu_test_single=1"),
    ("double_large", "kfree_rcu_test_double=1 kfree_mult=16"),
];
/// How often each is run, with the series and without it.
const PAIRS: usize = 5;
/// What `rcuscale` may take with the series, as a multiple of its time without it.
pub const MOST: f64 = 1.02;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Of each run.
    ns: Vec<u64>,
    mb: Vec<i64>,
}

/// The guest's steps.
pub fn steps() -> String {
    let lines = (0..PAIRS).flat_map(|nth| {
        SCALES.iter().map(move |(set, params)| {
            format!(
                "wait {set}.{nth} rcuscale.ko kfree'ers: kfree_rcu_test=1 kfree_nthreads=2 kfree_loops=10 holdoff=1 \
                 shutdown_secs=0 {params}\n"
            )
        })
    });
    lines.collect()
}

pub fn read_scales(facts: &BootFacts) -> Result<BTreeMap<String, Scale>> {
    let line = Regex::new(r"taken by all kfree'ers: (\d+) ns, .* footprint: (-?\d+)MB")
        .expect("a constant pattern");
    let mut scales: BTreeMap<String, Scale> = BTreeMap::new();
    for (set, _) in SCALES {
        for nth in 0..PAIRS {
            let case = format!("{set}.{nth}");
            let found = facts
                .case(&case)
                .and_then(|case| line.captures(&case.said))
                .with_context(|| format!("rcuscale said nothing in {case}"))?;
            let scale = scales.entry((*set).to_owned()).or_default();
            scale.ns.push(found[1].parse()?);
            scale.mb.push(found[2].parse()?);
        }
    }
    Ok(scales)
}

/// What the table has of it: the medians of its runs.
pub fn cell(scale: Option<&Scale>) -> String {
    let median = scale.and_then(|s| Some((median(&s.ns)?, median(&s.mb)?)));
    median.map_or("–".to_owned(), |(ns, mb)| {
        format!("{:.1} ms, {mb} MB", ns as f64 / 1e6)
    })
}

fn median<T: Copy + Ord>(values: &[T]) -> Option<T> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Runs of a boot take longer one after the other, so that each is compared with the one of its number.
pub fn ratio(before: &Scale, after: &Scale) -> Option<f64> {
    let pairs = before.ns.iter().zip(&after.ns);
    let mut ratios: Vec<f64> = pairs.map(|(b, a)| *a as f64 / *b as f64).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

pub fn check_no_slower(before: &Scale, after: &Scale) -> Result<()> {
    let ratio = ratio(before, after).context("it did not run")?;
    ensure!(ratio <= MOST, "{ratio:.3}");
    Ok(())
}

/// rcuscale counts in MB, and finds one more or less from run to run.
pub fn check_no_larger(before: &Scale, after: &Scale) -> Result<()> {
    let [before, after] = [before, after].map(|scale| median(&scale.mb).context("it did not run"));
    let (before, after) = (before?, after?);
    ensure!(after <= before + 1, "{after} MB, and {before} MB without");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::boot::tests::{boot_facts, case_part};

    #[test]
    fn a_scale_is_the_median_of_its_runs() {
        let mut console = String::new();
        for nth in 0..PAIRS {
            for (set, _) in SCALES {
                let said = format!(
                    "[ 1.0] Total time taken by all kfree'ers: {}0 ns, loops: 10, batches: 3, memory footprint: {nth}MB",
                    nth + 1
                );
                console += &case_part(&format!("{set}.{nth}"), &said);
            }
        }
        let scales = read_scales(&boot_facts(&console)).unwrap();
        assert_eq!(scales.len(), SCALES.len());
        let before = &scales["both"];
        assert_eq!(
            (median(&before.ns), median(&before.mb)),
            (Some(30), Some(2))
        );
        let slower = Scale {
            ns: vec![31],
            ..Scale::default()
        };
        assert!(check_no_slower(before, before).is_ok());
        assert!(check_no_slower(before, &slower).is_err());
        assert!(check_no_slower(before, &Scale::default()).is_err());
        let larger = |mb| Scale {
            mb: vec![mb],
            ..Scale::default()
        };
        assert!(check_no_larger(before, &larger(3)).is_ok());
        assert!(check_no_larger(before, &larger(4)).is_err());
        assert!(check_no_larger(before, &Scale::default()).is_err());
        assert!(read_scales(&boot_facts(&console.replace("single.4", "other"))).is_err());
    }
}
