// SPDX-License-Identifier: GPL-2.0
//! The native figures as tables.

use super::super::tables::{Table, table};
use super::figures::{Figures, Freed, Middle, PAIRS, Share, Wait};
use crate::report::latency::Waits;
use crate::report::numbers::thousands;
use std::collections::BTreeSet;

pub fn legend(figures: &Figures) -> String {
    let toggles = figures.irq_toggle_ns.iter();
    let toggles: Vec<String> = toggles
        .map(|(cpus, ns)| format!("{ns:.0} ns on {cpus}"))
        .collect();
    format!(
        "Time, not instructions. Each figure is the median of {PAIRS}, taken in turn with what it is compared with, and \
        behind ± half the distance between the quartiles; a row where that distance is more than a fifth of a median is \
        `noisy`. One CPU is a kernel without SMP. With it UML asks its host for each change of the signal mask, and so a pair of \
        `local_irq_save()` and `local_irq_restore()` takes {}; `push()` and `kfree_rcu()` of large objects have such pairs, \
        `kfree_rcu()` of small ones has none, so that on several CPUs the ratio says how the queue scales and not what it costs.",
        toggles.join(", ")
    )
}

pub fn tables(figures: &Figures) -> Vec<Table> {
    vec![
        freed(&figures.freed),
        waits(&figures.waits),
        shares(&figures.shares),
    ]
}

/// In a thousandth, or what else `unit` is.
fn cell(middle: &Middle, unit: f64) -> String {
    let median = middle.median / unit;
    let digits = usize::from(median < 10.0);
    format!("{median:.digits$} ±{:.0} %", 50.0 * middle.spread)
}

fn freed(rows: &[Freed]) -> Table {
    let row = |row: &Freed| {
        let sides = [&row.push, &row.kfree_rcu];
        let mut cells = vec![
            thousands(row.objects),
            thousands(row.size),
            row.cpus.to_string(),
        ];
        cells.extend(sides.map(|side| cell(&side.freed, 1e3)));
        cells.push(format!(
            "{:.2} ±{:.0} %",
            row.ratio.median,
            50.0 * row.ratio.spread
        ));
        cells.extend(sides.map(|side| cell(&side.peak_kib, 1024.0)));
        cells.extend(sides.map(|side| format!("{:.0}", side.grace_periods.median)));
        cells.push(if row.is_noisy() { "noisy" } else { "" }.to_owned());
        cells
    };
    table(
        &[
            "objects",
            "bytes",
            "CPUs",
            "thousand freed a second by `push()`",
            "`kfree_rcu()`",
            "ratio",
            "peak MiB of `push()`",
            "`kfree_rcu()`",
            "grace periods of `push()`",
            "`kfree_rcu()`",
            "",
        ],
        0,
        rows.iter().map(row).collect(),
    )
}

/// What waited, as rows of a table and of a picture are called.
pub fn by_name(waits: &[Wait]) -> Vec<(String, &Wait)> {
    let size = |n: u64| match n {
        n if n < 1024 => format!("{n} B"),
        n => format!("{} KiB", n / 1024),
    };
    let name = |w: &Wait| format!("{} {}", w.api, size(w.size));
    waits.iter().map(|w| (name(w), w)).collect()
}

fn waits(waits: &[Wait]) -> Table {
    let row = |(name, wait): &(String, &Wait)| {
        let waits = Waits::new(name, &wait.log2_us);
        let mut cells = vec![name.clone(), thousands(waits.count())];
        cells.extend([50, 99, 100].map(|percent| waits.below(percent)));
        cells
    };
    table(
        &[
            "from the call to the free",
            "objects",
            "half under",
            "99 % under",
            "all under",
        ],
        1,
        by_name(waits).iter().map(row).collect(),
    )
}

fn shares(shares: &[Share]) -> Table {
    const APIS: [&str; 3] = ["no_locks", "nolock", "nowait"];
    let sizes: BTreeSet<u64> = shares.iter().map(|s| s.size).collect();
    let row = |size| {
        let of = |api| shares.iter().find(|s| (&*s.api, s.size) == (api, size));
        let cells = APIS.map(|api| match of(api) {
            None => "–".to_owned(),
            Some(Share { obtained, .. }) => {
                format!(
                    "{:.1} ±{:.1}",
                    obtained.median,
                    obtained.median * obtained.spread / 2.0
                )
            }
        });
        [thousands(size)].into_iter().chain(cells).collect()
    };
    table(
        &[
            "% obtained of a burst of",
            "`__GFP_NO_LOCKS`",
            "`alloc_pages_nolock()`",
            "`GFP_NOWAIT`",
        ],
        0,
        sizes.into_iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, tests::console};
    use super::*;

    #[test]
    fn a_row_has_both_sides_and_says_when_it_is_noisy() {
        let rows = |ns: fn(u64) -> u64| freed(&Figures::read(&console(ns)).unwrap().freed).rows;
        let quiet = &rows(|_| 2_000_000)[0];
        assert_eq!(quiet[3..6], ["10000 ±0 %", "5000 ±0 %", "2.00 ±0 %"]);
        assert_eq!(quiet[6..], ["2.0 ±0 %", "2.0 ±0 %", "3", "3", ""]);
        assert_eq!(rows(|nth| 1_000_000 * (nth + 1))[0][10], "noisy");
    }

    #[test]
    fn waits_and_shares_have_a_row_each() {
        let figures = Figures::read(&console(|_| 1_000_000)).unwrap();
        let [_, waits, shares] = tables(&figures).try_into().unwrap();
        assert_eq!(
            waits.rows,
            [["push 64 B", "11", "32 ms", "131 ms", "131 ms"]]
        );
        assert_eq!(shares.rows, [["64", "50.0 ±0.0", "–", "–"]]);
        assert!(legend(&figures).contains(" takes 380 ns on 2;"));
    }
}
