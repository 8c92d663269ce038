// SPDX-License-Identifier: GPL-2.0
//! `docs/bench.json`: the counts that the repository shows, and README and the cover letter quote.

use super::counts::{Counted, Counts};
use super::native;
use crate::base::cache::read_json;
use crate::report::table::markdown;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub const JSON: &str = "docs/bench.json";
/// Counts come again to the digit; what moves by more than this was changed.
const MOVED: f64 = 0.01;

#[derive(Deserialize)]
pub struct Committed {
    pub machines: BTreeMap<String, Sides>,
    pub native: Option<native::Before>,
    /// What patches/ hashed to.
    pub series: String,
}

#[derive(Deserialize)]
pub struct Sides {
    pub without: Counted,
    pub with: Counted,
}

impl Committed {
    /// Nothing where there is none, or one of another runner.
    pub fn of(checkout: &Path) -> Option<Committed> {
        read_json(&checkout.join(JSON))
    }

    /// What a machine's counts are now that they were not: a line for each.
    pub fn moved(&self, machine: &str, without: &Counted, with: &Counted) -> Vec<String> {
        let Some(old) = self.machines.get(machine) else {
            return vec![format!("{machine}: not in {JSON}")];
        };
        let sides = [
            ("without", &old.without, without),
            ("with", &old.with, with),
        ];
        let moved = sides.into_iter().flat_map(|(side, old, new)| {
            let (old, new) = (old.all(), new.all());
            let ops: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
            let line = move |op: String| {
                let what = format!("{machine} {side} the series: {op}");
                match (old.get(&op), new.get(&op)) {
                    (Some(old), Some(new)) if (new - old).abs() > MOVED * old => {
                        let percent = 100.0 * (new - old) / old;
                        Some(format!("{what} {old:.2} -> {new:.2} ({percent:+.1} %)"))
                    }
                    (Some(_), Some(_)) => None,
                    (old, _) => {
                        let when = if old.is_some() {
                            "only then"
                        } else {
                            "only now"
                        };
                        Some(format!("{what} was counted {when}"))
                    }
                }
            };
            ops.into_iter().filter_map(line)
        });
        moved.collect()
    }
}

/// That the committed counts are of another series than `patches/`, for who is about to commit.
pub fn note_on_series(checkout: &Path, series: &str) -> Option<String> {
    let committed = Committed::of(checkout)?;
    (committed.series != series).then(|| {
        format!("NOTE {JSON} is of another series than patches/: make bench counts anew, for docs/")
    })
}

/// A row of README: what it is called, and which counts it shows.
type Row = (&'static str, &'static [(Side, &'static str)]);

#[derive(Clone, Copy)]
enum Side {
    Without,
    With,
}
use Side::{With, Without};

const ROWS: &[Row] = &[
    (
        "a `GFP_KERNEL` page and its free, without the series; with it",
        &[(Without, "gfp_kernel"), (With, "gfp_kernel")],
    ),
    ("`GFP_NOWAIT`, with it", &[(With, "gfp_nowait")]),
    (
        "`__GFP_NO_LOCKS` and `free_pages_nolock()`, from the lists",
        &[(With, "no_locks_free_nolock")],
    ),
    (
        "the same with interrupts disabled (`PREEMPT_RT`: from the slots)",
        &[(With, "no_locks_irqs_off")],
    ),
    ("a call that fails", &[(With, "no_locks_failing")]),
    (
        "the same while nobody has registered",
        &[(With, "no_locks_failing_unregistered")],
    ),
    (
        "`__GFP_ZERO` with interrupts disabled; `alloc_pages_nolock()` there",
        &[
            (With, "no_locks_zero_irqs_off"),
            (With, "alloc_pages_nolock_irqs_off"),
        ],
    ),
    (
        "`kmalloc()` and `kfree()` of 64 bytes, without the series; with it",
        &[(Without, "kmalloc_64"), (With, "kmalloc_64")],
    ),
    (
        "`kfree_rcu()` of mainline; with the series",
        &[(Without, "kfree_rcu"), (With, "kfree_rcu")],
    ),
    (
        "`kvfree_rcu()` of vmalloc memory, likewise",
        &[
            (Without, "kvfree_rcu_vmalloc"),
            (With, "kvfree_rcu_vmalloc"),
        ],
    ),
    (
        "`push(box)`; of a `VBox`",
        &[(With, "push"), (With, "push_vmalloc")],
    ),
    (
        "`push_headless(box)`; `kfree_rcu_mightsleep()`",
        &[(With, "push_headless"), (With, "kfree_rcu_mightsleep")],
    ),
    (
        "`push_mightsleep(box)`; `push(box)` to a `DropQueue`",
        &[(With, "push_mightsleep"), (With, "drop_queue_push")],
    ),
    (
        "`push_headless()` of a vector; of a page",
        &[(With, "push_headless_vector"), (With, "push_headless_page")],
    ),
    (
        "`try_push(box)`; `kfree_rcu_nolock()`",
        &[(With, "try_push"), (With, "kfree_rcu_nolock")],
    ),
    (
        "from `push()` to free; `kfree_rcu()`",
        &[(With, "push_to_free"), (With, "kfree_rcu_to_free")],
    ),
];

/// README's table, without the rows that no machine has counted.
pub fn summary(committed: &Committed) -> String {
    let cell = |counts: &Counts, op: &str| match counts.get(op) {
        Some(n) => format!("{n:.0}"),
        None => "–".to_owned(),
    };
    let names = committed.machines.keys().cloned();
    let header: Vec<String> = [String::new()].into_iter().chain(names).collect();
    let is_counted = |(_, shown): &&Row| {
        let mut machines = committed.machines.values();
        machines.any(|sides| {
            let mut ops = shown.iter().map(|(_, op)| *op);
            ops.any(|op| sides.without.ops.contains_key(op) || sides.with.ops.contains_key(op))
        })
    };
    let rows: Vec<Vec<String>> = ROWS
        .iter()
        .filter(is_counted)
        .map(|(name, shown)| {
            let machines = committed.machines.values().map(|sides| {
                let cells = shown.iter().map(|(side, op)| match side {
                    Without => cell(&sides.without.ops, op),
                    With => cell(&sides.with.ops, op),
                });
                cells.collect::<Vec<_>>().join("; ")
            });
            [(*name).to_owned()].into_iter().chain(machines).collect()
        })
        .collect();
    markdown(&header, &rows, 1)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::command::bench::counts::Burst;

    fn committed() -> Committed {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Committed::of(&checkout).expect("docs/bench.json")
    }

    fn counted(op: &str, n: f64) -> Counted {
        Counted {
            ops: Counts::from([(op.to_owned(), n)]),
            ..Counted::default()
        }
    }

    #[test]
    fn native_figures_are_there_to_be_compared_with() {
        assert!(committed().native.is_some());
    }

    #[test]
    fn counts_of_another_series_are_noted() {
        let dir = tempfile::tempdir().unwrap();
        let note = |series| note_on_series(dir.path(), series);
        assert_eq!(note("a"), None, "there are none");
        std::fs::create_dir(dir.path().join("docs")).unwrap();
        let json = r#"{ "machines": {}, "native": null, "series": "a" }"#;
        std::fs::write(dir.path().join(JSON), json).unwrap();
        assert_eq!(note("a"), None);
        assert!(
            note("b")
                .unwrap()
                .starts_with("NOTE docs/bench.json is of another series")
        );
    }

    pub fn read(file: &str) -> String {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(checkout.join(file)).unwrap()
    }

    /// That a text has this sentence, however its lines break.
    pub fn assert_quoted(file: &str, sentence: &str) {
        let text = read(file);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(
            words.join(" ").contains(sentence),
            "{file} needs: {sentence}"
        );
    }

    #[test]
    fn readme_shows_what_is_committed() {
        let summary = summary(&committed());
        let is_there = read("README.md").contains(&summary);
        assert!(is_there, "README.md needs this table:\n{summary}");
    }

    #[test]
    fn readme_quotes_the_rates_of_the_queue() {
        let native = committed().native.unwrap();
        let ratio = |objects| native.ratio_on_one_cpu(objects, 64).unwrap();
        assert_quoted(
            "README.md",
            &format!(
                "100 thousand objects of 64 bytes in one go are freed at {:.2} of `kfree_rcu()`'s rate through `push()`, and 10 \
                million at {:.2}:",
                ratio(100_000),
                ratio(10_000_000)
            ),
        );
    }

    #[test]
    fn the_cover_letter_quotes_what_is_committed() {
        let committed = committed();
        let Sides { without, with } = &committed.machines["x86_64-rt"];
        let (without, with) = (&without.ops, &with.ops);
        assert_quoted(
            "patches/cover-letter.txt",
            &format!(
                "a GFP_KERNEL page and its free are {:.0} without the series and {:.0} with it, GFP_NOWAIT {:.0}, a page out \
                of a slot and its free {:.0}, a call that fails {:.0}; kfree_rcu() is {:.1} without it and {:.1} with it",
                without["gfp_kernel"],
                with["gfp_kernel"],
                with["gfp_nowait"],
                with["no_locks_irqs_off"],
                with["no_locks_failing"],
                without["kfree_rcu"],
                with["kfree_rcu"],
            ),
        );
    }

    #[test]
    fn the_queues_document_quotes_what_a_free_costs() {
        let committed = committed();
        let ops = &committed.machines["arm64"].with.ops;
        assert_quoted(
            "docs/queue.md",
            &format!(
                "(on arm64 {:.0} instructions an object, and {:.0})",
                ops["push_to_free"] - ops["push"],
                ops["kfree_rcu_to_free"] - ops["kfree_rcu"]
            ),
        );
    }

    #[test]
    fn the_design_quotes_what_is_committed() {
        const FILE: &str = "docs/patch-design.md";
        let committed = committed();
        let Sides { without, with } = &committed.machines["x86_64-rt"];
        let sum = |of: &Counted, op: &str, functions: &[&str]| -> u64 {
            let profile = &of.profile[op];
            functions.iter().filter_map(|f| profile.get(*f)).sum()
        };
        let lists = |functions: &[&str]| sum(with, "no_locks_free_nolock", functions);
        let slots = |functions: &[&str]| sum(with, "no_locks_irqs_off", functions);
        let more = |function| {
            sum(with, "gfp_kernel", &[function]) as i64
                - sum(without, "gfp_kernel", &[function]) as i64
        };
        let dearer = |op: &str| with.ops[op] - without.ops[op];
        for sentence in [
            format!(
                "A page out of a slot and its free are {:.0} instructions on x86_64 PREEMPT_RT, where `GFP_NOWAIT`'s pair is {:.0};",
                with.ops["no_locks_irqs_off"], with.ops["gfp_nowait"]
            ),
            format!(
                "So {} are the slots,",
                slots(&["page_slots_pop", "page_slots_push"])
            ),
            format!(
                "The pair from the lists, {:.0}, takes `pcp->lock` twice, an rtmutex here: {} in `rt_spin_trylock()`, \
                `rt_spin_unlock()` and `__rcu_read_unlock()`, {} in `__rmqueue_pcplist_no_locks()`, and {} in the free,",
                with.ops["no_locks_free_nolock"],
                lists(&["rt_spin_trylock", "rt_spin_unlock", "__rcu_read_unlock"]),
                lists(&["__rmqueue_pcplist_no_locks"]),
                lists(&["free_pages_nolock", "__free_frozen_pages_nolock"])
            ),
            format!(
                "`__alloc_frozen_pages_noprof()` has {} more in each allocation",
                more("__alloc_frozen_pages_noprof")
            ),
            format!(
                "`__rmqueue_pcplist()` {} less, so that a `GFP_KERNEL` pair is {:.0} less; of order 4, which has no list, {:.0} remain of these {}.",
                -more("__rmqueue_pcplist"),
                -dearer("gfp_kernel"),
                dearer("gfp_kernel_order_4"),
                more("__alloc_frozen_pages_noprof")
            ),
        ] {
            assert_quoted(FILE, &sentence);
        }

        // Each row of the table has the sum of the functions that it names, and all are in one.
        let text = read(FILE);
        let table = text
            .split_once("| functions | instructions | what for |")
            .unwrap()
            .1;
        let rows = table
            .lines()
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        let mut named = BTreeSet::new();
        for row in rows {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let functions = cells[1].split(", ");
            let functions = functions.map(|f| f.trim_matches('`').trim_end_matches("()"));
            let functions: Vec<&str> = functions.collect();
            let n = slots(&functions).to_string();
            assert_eq!(cells[2], n, "{FILE}: {}", cells[1]);
            named.extend(functions.into_iter().map(str::to_owned));
        }
        let all = with.profile["no_locks_irqs_off"].keys();
        let absent: Vec<&String> = all.filter(|f| !named.contains(*f)).collect();
        assert_eq!(absent, ["the caller"], "{FILE}");
    }

    #[test]
    fn a_burst_in_an_nmi_costs_what_it_costs_in_a_hard_interrupt() {
        let committed = committed();
        let bursts = committed.machines.values().map(|m| &m.with.bursts);
        let mut compared = 0;
        for all in bursts {
            for nmi in all.iter().filter(|b| b.place == "nmi") {
                let is_same =
                    |b: &&Burst| (&*b.place, &b.api, b.size) == ("hardirq", &nmi.api, nmi.size);
                let hardirq = all.iter().find(is_same).unwrap();
                assert!(
                    (nmi.alloc - hardirq.alloc).abs() < 0.01 * hardirq.alloc,
                    "{nmi:?}"
                );
                assert!(
                    (nmi.free - hardirq.free).abs() < 0.01 * hardirq.free,
                    "{nmi:?}"
                );
                compared += 1;
            }
        }
        assert!(compared > 0);
    }

    #[test]
    fn a_count_that_moved_is_said() {
        let old = Committed {
            machines: BTreeMap::from([(
                "m".to_owned(),
                Sides {
                    without: counted("push", 1.0),
                    with: counted("push", 100.0),
                },
            )]),
            native: None,
            series: String::new(),
        };
        let same = counted("push", 1.0);
        assert!(old.moved("m", &same, &counted("push", 101.0)).is_empty());
        assert_eq!(
            old.moved("m", &same, &counted("push", 98.0)),
            ["m with the series: push 100.00 -> 98.00 (-2.0 %)"]
        );
        let gone = old.moved("m", &same, &counted("pop", 1.0));
        assert!(gone[0].contains("pop was counted only now"), "{gone:?}");
        assert!(gone[1].contains("push was counted only then"), "{gone:?}");
        assert_eq!(old.moved("n", &same, &same).len(), 1);
        let summary = summary(&old);
        assert!(summary.contains("| 100; – |"));
        assert!(!summary.contains("kfree_rcu()"), "none was counted");
    }
}
