// SPDX-License-Identifier: GPL-2.0
//! The counts of one machine, for the screen and for a page.

use super::counts::{Burst, Counted, Counts};
use super::goals::GOALS;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, PartialEq)]
pub struct Table {
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// How many columns are text.
    pub left: usize,
}

pub fn table(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> Table {
    let header = header.iter().map(|w| (*w).to_owned()).collect();
    Table { header, rows, left }
}

fn cell(counts: &Counts, op: &str) -> String {
    match counts.get(op) {
        Some(n) => format!("{n:.2}"),
        None => "–".to_owned(),
    }
}

/// Those that have a row.
pub fn tables(before: &Counted, after: &Counted, is_rt: bool) -> Vec<Table> {
    let mut all = vec![
        operations(&before.ops, &after.ops),
        goals(&after.ops, is_rt),
    ];
    all.push(bursts(&after.bursts));
    let asked = after.irq_works.iter();
    all.push(table(
        &["with slots to fill", "irq_works"],
        1,
        asked
            .map(|(op, n)| vec![op.clone(), n.to_string()])
            .collect(),
    ));
    all.retain(|table| !table.rows.is_empty());
    all
}

fn operations(before: &Counts, after: &Counts) -> Table {
    let ops: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    table(
        &["operation", "without the series", "with it"],
        1,
        ops.into_iter()
            .map(|op| vec![op.clone(), cell(before, op), cell(after, op)])
            .collect(),
    )
}

fn goals(counts: &Counts, is_rt: bool) -> Table {
    let row = |goal: &super::goals::Goal| {
        let most = goal.most(counts, is_rt)?;
        let n = counts[goal.op];
        let plus = match goal.plus {
            0.0 => String::new(),
            plus => format!(" + {plus}"),
        };
        Some(vec![
            goal.op.to_owned(),
            format!("{} × {}{plus}", goal.factor, goal.of),
            format!("{n:.2}"),
            format!("{most:.2}"),
            format!("{:.2}", n / counts[goal.of]),
            if n <= most { "met" } else { "missed" }.to_owned(),
        ])
    };
    table(
        &["operation", "at most", "costs", "goal", "ratio", "goal is"],
        2,
        GOALS.iter().filter_map(row).collect(),
    )
}

/// A page's allocation and its free, each by the size of the burst.
fn bursts(bursts: &[Burst]) -> Table {
    let sizes: BTreeSet<u32> = bursts.iter().map(|b| b.size).collect();
    let mut rows: BTreeMap<(&str, &str), [Vec<String>; 2]> = BTreeMap::new();
    for burst in bursts {
        let [alloc, free] = rows.entry((&burst.api, &burst.place)).or_default();
        alloc.push(format!("{:.0}", burst.alloc));
        free.push(format!("{:.0}", burst.free));
    }
    let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
    let mut header = vec!["a page of a burst of", "in", ""];
    header.extend(sizes.iter().map(String::as_str));
    table(
        &header,
        3,
        rows.into_iter()
            .flat_map(|((api, place), [alloc, free])| {
                [("alloc", alloc), ("free", free)].map(|(what, cells)| {
                    let words = [api, place, what].map(str::to_owned);
                    words.into_iter().chain(cells).collect()
                })
            })
            .collect(),
    )
}

/// Why a machine has no bursts in an NMI, and what stands for them.
pub fn say_no_nmi(bursts: &[Burst]) -> Option<&'static str> {
    let has = |place| bursts.iter().any(|b| b.place == place);
    (has("hardirq") && !has("nmi")).then_some(
        "No bursts in an NMI: the only one that arm64 has, and that a module can cause, is the pseudo-NMI of a PMU's overflow, and this kernel \
        has no PMU's driver and no `CONFIG_ARM64_PSEUDO_NMI`, which would change what each `local_irq_save()` here costs. (The lanes for \
        arm64 have both, and obtain pages in NMIs.) The flag does not ask whether it is in an NMI or in a hard interrupt: on \
        x86_64, where one can be sent, the rows of both are the same.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::markdown;

    fn counted(ops: &[(&str, f64)]) -> Counted {
        let ops = ops.iter().map(|(op, n)| ((*op).to_owned(), *n)).collect();
        Counted {
            ops,
            ..Counted::default()
        }
    }

    #[test]
    fn an_operation_stands_beside_what_it_replaces_and_its_goal() {
        let after = counted(&[("push", 60.0), ("kfree_rcu", 110.0)]);
        let tables = tables(&counted(&[("kfree_rcu", 111.0)]), &after, false);
        assert_eq!(tables[0].rows[0], ["kfree_rcu", "111.00", "110.00"]);
        assert_eq!(tables[0].rows[1], ["push", "–", "60.00"]);
        let Table { header, rows, left } = &tables[1];
        assert!(
            markdown(header, rows, *left)
                .ends_with("| push | 0.5 × kfree_rcu | 60.00 | 55.00 | 0.55 | missed |\n")
        );
        let met = counted(&[("push", 55.0), ("kfree_rcu", 110.0)]);
        assert_eq!(goals(&met.ops, false).rows[0][5], "met");
        assert_eq!(
            super::tables(&Counted::default(), &Counted::default(), true),
            []
        );
    }

    #[test]
    fn a_burst_has_a_column_for_each_size_and_a_row_for_each_half() {
        let burst = |size, alloc, free| Burst {
            api: "no_locks".to_owned(),
            place: "nmi".to_owned(),
            size,
            alloc,
            free,
        };
        let table = bursts(&[burst(1, 400.0, 200.0), burst(2, 300.4, 150.0)]);
        assert_eq!(table.header[3..], ["1", "2"]);
        assert_eq!(table.rows[0], ["no_locks", "nmi", "alloc", "400", "300"]);
        assert_eq!(table.rows[1], ["no_locks", "nmi", "free", "200", "150"]);
    }

    #[test]
    fn a_page_without_nmis_says_why() {
        let burst = |place: &str| Burst {
            api: "no_locks".to_owned(),
            place: place.to_owned(),
            size: 1,
            alloc: 400.0,
            free: 200.0,
        };
        let why = say_no_nmi(&[burst("hardirq")]).unwrap();
        assert!(why.contains("CONFIG_ARM64_PSEUDO_NMI"), "{why}");
        assert_eq!(say_no_nmi(&[burst("hardirq"), burst("nmi")]), None);
        assert_eq!(say_no_nmi(&[]), None);
    }
}
