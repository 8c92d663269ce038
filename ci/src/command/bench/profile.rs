// SPDX-License-Identifier: GPL-2.0
//! Which functions the instructions of an operation are in: gdb steps through it at QEMU's stub.

use super::counts::{Counted, Profile};
use super::tables::{Table, table};
use crate::base::cache::{read_json, write_atomic};
use crate::base::exit::{Exit, OrExit};
use crate::base::proc::clear_environment;
use crate::command::gdb::Stub;
use crate::run::ready::Ready;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = include_str!("../../../bench/profile.py");
/// It knows each architecture.
const GDB: &str = "gdb-multiarch";
/// What is stepped through, and whether mainline has it too.
const OPS: &[(&str, bool)] = &[
    ("gfp_kernel", true),
    ("gfp_kernel_order_4", true),
    ("gfp_nowait", true),
    ("alloc_pages_nolock", true),
    ("no_locks_zero", false),
    ("no_locks_free_nolock", false),
    ("no_locks_irqs_off", false),
    ("no_locks_zero_irqs_off", false),
    ("alloc_pages_nolock_irqs_off", false),
    ("no_locks_failing_preempt_off", false),
];
/// The queue's calls, each beside what it stands in for. With the series, as they are compared there.
const QUEUE_OPS: &[(&str, bool)] = &[
    ("kfree_rcu", false),
    ("push", false),
    ("kfree_rcu_mightsleep", false),
    ("push_headless", false),
    ("push_mightsleep", false),
    ("kfree_rcu_nolock", false),
    ("try_push", false),
];
/// Of what was counted: the best of many rounds, and a loop around it.
const TOLERANCE: f64 = 0.03;
/// What is stepped through fills no block of objects, which costs some of them another page.
const QUEUE_TOLERANCE: f64 = 0.08;
/// A function with fewer instructions in each operation is told with its like.
const FEW: u64 = 8;

/// Boots the machine once more, with the steps that mark what is to be stepped through.
pub fn measure(mut ready: Ready, name: &str, vmlinux: &Path, steps: &str) -> Result<Profile> {
    let stub = Stub::halt(&mut ready.guest)?;
    let folder = ready.write_steps(name, steps)?;
    let script = folder.join("profile.py");
    write_atomic(&script, SCRIPT)?;
    let (profile, log) = (folder.join("profile.json"), folder.join("gdb.log"));
    let log_file = File::create(&log)?;
    let mut gdb = Command::new(GDB);
    clear_environment(&mut gdb);
    let mut gdb = gdb
        .args(["-nx", "-batch", "-x"])
        .arg(&script)
        .arg(vmlinux)
        .env("NOLOCKS_ARCH", ready.lane.arch.kernel())
        .env("NOLOCKS_MAP", ready.folder.join("System.map"))
        .env("NOLOCKS_SOCKET", stub.socket())
        .env("NOLOCKS_PROFILE", &profile)
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .or_exit(Exit::Setup)?;
    let outcome = ready.boot(name, steps, Duration::ZERO);
    // With the guest it has nothing more to do.
    let _ = gdb.kill();
    gdb.wait()?;
    outcome?;
    read_json(&profile).with_context(|| format!("gdb counted nothing: see {}", log.display()))
}

/// That each operation was stepped through, by as many instructions as were counted.
pub fn check(counted: &Counted, with: bool) -> Result<()> {
    let pages = OPS.iter().map(|op| (op, TOLERANCE));
    let all = pages.chain(QUEUE_OPS.iter().map(|op| (op, QUEUE_TOLERANCE)));
    for ((op, in_mainline), tolerance) in all {
        if !with && !in_mainline {
            continue;
        }
        let profile = (counted.profile.get(*op)).with_context(|| format!("no profile of {op}"))?;
        let (stepped, counted) = (profile.values().sum::<u64>() as f64, counted.ops[*op]);
        ensure!(
            (stepped - counted).abs() <= tolerance * counted,
            "{op}: stepped through {stepped} instructions, and counted {counted}"
        );
    }
    Ok(())
}

/// Of pages, and of the queue's calls.
pub fn tables(before: &Profile, after: &Profile) -> [Table; 2] {
    [OPS, QUEUE_OPS].map(|ops| by_function(ops, before, after))
}

/// A row for each function, the dearest first, and a column for each operation on each side.
fn by_function(ops: &[(&str, bool)], before: &Profile, after: &Profile) -> Table {
    let columns: Vec<(String, &BTreeMap<String, u64>)> = ops
        .iter()
        .flat_map(|(op, in_mainline)| {
            let without = before.get(*op).filter(|_| *in_mainline);
            let without = without.map(|p| (format!("{op} without"), p));
            let with = after.get(*op).map(|p| ((*op).to_owned(), p));
            without.into_iter().chain(with)
        })
        .collect();
    let mut rows: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (nth, (_, profile)) in columns.iter().enumerate() {
        for (function, n) in *profile {
            rows.entry(function)
                .or_insert_with(|| vec![0; columns.len()])[nth] = *n;
        }
    }
    let (mut rows, few): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .partition(|(_, counts)| counts.iter().any(|n| *n >= FEW));
    rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().copied().max()));
    let sum = |of: &[(&str, Vec<u64>)]| -> Vec<u64> {
        (0..columns.len())
            .map(|nth| of.iter().map(|(_, counts)| counts[nth]).sum())
            .collect()
    };
    let (others, all) = (sum(&few), sum(&rows));
    let all = all.iter().zip(&others).map(|(a, b)| a + b).collect();
    let of_few = format!("others, of less than {FEW} each");
    rows.extend([(&*of_few, others), ("all", all)]);
    let cell = |n: u64| match n {
        0 => String::new(),
        n => n.to_string(),
    };
    let mut header = vec!["instructions in"];
    header.extend(columns.iter().map(|(name, _)| name.as_str()));
    let rows = rows.into_iter().map(|(function, counts)| {
        let cells = counts.into_iter().map(cell);
        std::iter::once(function.to_owned()).chain(cells).collect()
    });
    table(&header, 1, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(ops: &[(&str, &[(&str, u64)])]) -> Profile {
        let mut profile = Profile::new();
        for (op, functions) in ops {
            let of_op = profile.entry((*op).to_owned()).or_default();
            of_op.extend(functions.iter().map(|(f, n)| ((*f).to_owned(), *n)));
        }
        profile
    }

    #[test]
    fn the_dearest_function_comes_first_and_few_are_told_together() {
        let before = profile(&[("gfp_kernel", &[("a", 10), ("f", 3)])]);
        let after = profile(&[
            ("gfp_kernel", &[("a", 12), ("b", 40), ("g", 7)]),
            ("no_locks_irqs_off", &[("b", 9)]),
        ]);
        let Table { header, rows, .. } = by_function(OPS, &before, &after);
        let want = "instructions in|gfp_kernel without|gfp_kernel|no_locks_irqs_off";
        assert_eq!(header.join("|"), want);
        let rows: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
        let others = "others, of less than 8 each|3|7|";
        assert_eq!(rows, ["b||40|9", "a|10|12|", others, "all|13|59|9"]);

        let both = profile(&[("push", &[("c", 20)]), ("kfree_rcu", &[("d", 50)])]);
        let [_, queue] = tables(&both, &both);
        assert_eq!(queue.header.join("|"), "instructions in|kfree_rcu|push");
    }

    #[test]
    fn what_was_stepped_through_is_what_was_counted() {
        let mut counted = Counted::default();
        for (op, _) in OPS.iter().chain(QUEUE_OPS) {
            counted.ops.insert((*op).to_owned(), 100.0);
            let of_op = profile(&[(op, &[("a", 60), ("b", 42)])]);
            counted.profile.extend(of_op);
        }
        let push = counted.profile.get_mut("push").unwrap();
        push.insert("c".to_owned(), 6);
        check(&counted, true).unwrap();
        let failing = counted
            .profile
            .get_mut("no_locks_failing_preempt_off")
            .unwrap();
        failing.insert("c".to_owned(), 2);
        let why = check(&counted, true).unwrap_err().to_string();
        assert!(
            why.starts_with("no_locks_failing_preempt_off: stepped through 104"),
            "{why}"
        );
        counted.profile.remove("no_locks_failing_preempt_off");
        assert!(check(&counted, true).is_err());
        check(&counted, false).unwrap();
    }
}
