// SPDX-License-Identifier: GPL-2.0
//! Copies the module's source for the tests, as it is and with one bug each.

use std::path::Path;
use std::{env, fs};

const SOURCE: &str = "../../rust-module/lib/queue/shard.rs";

/// A name, and what to replace by what.
type Mutant = (&'static str, &'static [(&'static str, &'static str)]);

const MUTANTS: &[Mutant] = &[
    ("faithful", &[]),
    // The snapshot of a block is older than its last pointers.
    (
        "snapshot_at_opening",
        &[
            (
                "        block.kind = kind;\n",
                "        block.kind = kind;\n        block.snapshot = Some(platform.snapshot());\n",
            ),
            (
                "        block.snapshot = Some(platform.snapshot());\n        self.counts",
                "        self.counts",
            ),
        ],
    ),
    (
        "block_not_waited_for",
        &[(
            "if !block.snapshot.is_some_and(|snap| platform.elapsed(&snap))",
            "if block.snapshot.is_none()",
        )],
    ),
    (
        "list_not_waited_for",
        &[(
            "self.listed[0].take_if(|(_, snapshot)| platform.elapsed(snapshot))",
            "self.listed[0].take_if(|_| true)",
        )],
    ),
    // Nobody is told of the first object of a block.
    (
        "lost_wakeup",
        &[(
            "            self.since = platform.now();\n        }\n        self.want(platform, Wake::Later);",
            "            self.since = platform.now();\n        }",
        )],
    ),
    // A full block stays until it is old.
    (
        "late_wakeup",
        &[(
            "        self.publish(platform);\n        self.want(platform, Wake::Now);\n    }",
            "        self.publish(platform);\n    }",
        )],
    ),
    // A list stays until it is old, however long it is.
    (
        "long_list_left",
        &[(" || self.listed.len >= CAPACITY {", " {")],
    ),
    (
        "long_list_not_told",
        &[(
            "            CAPACITY => self.want(platform, Wake::Now),\n",
            "",
        )],
    ),
    // A list that comes to an older one is freed with that.
    (
        "list_joins_older",
        &[
            ("const LISTS: usize = 2;", "const LISTS: usize = 1;"),
            ("        *latest = snapshot;\n", "        let _ = latest;\n"),
        ],
    ),
    // Only one list can wait: the later one has the earlier one wait with it.
    ("one_list", &[("const LISTS: usize = 2;", "const LISTS: usize = 1;")]),
    // Every push without a block has a drain come that finds none either.
    (
        "drains_for_nothing",
        &[("if !self.dry.is_some_and(is_dry) {", "if true {")],
    ),
    (
        "dry_for_ever",
        &[("platform.now().wrapping_sub(since) < P::PAUSE", "since != usize::MAX")],
    ),
    (
        "drain_asks_as_a_push",
        &[("platform.page_mightsleep()", "platform.page()")],
    ),
    // All that waits is looked at, whether what came before has elapsed or not.
    (
        "polls_on",
        &[(
            "                break;\n            }\n            if let Some(block) = self.older.pop() {",
            "                for block in core::iter::successors(self.older.top.as_deref(), |block| {\n                    \
                 block.next.as_deref()\n                }) {\n                    \
                 let _ = block.snapshot.is_some_and(|snap| platform.elapsed(&snap));\n                }\n                \
                 break;\n            }\n            if let Some(block) = self.older.pop() {",
        )],
    ),
    (
        "wrong_order",
        &[(
            "let mut sealed = sealed.reversed();",
            "let mut sealed = sealed;",
        )],
    ),
    // Nobody comes for what is left open by a drain.
    (
        "timer_not_rearmed",
        &[("    if let Some(ticks) = rest.open {\n        works.drain_in(ticks);\n    }\n", "")],
    ),
    (
        "barrier_too_short",
        &[
            (
                "    drain_all();\n    platform.synchronize();\n    // A list that",
                "    drain_all();\n    // A list that",
            ),
            ("    if drain_all() {\n", "    if drain_all() && core::hint::black_box(false) {\n"),
        ],
    ),
    // With one place for lists a later one joins the one that a barrier waits for.
    (
        "barrier_and_one_list",
        &[
            ("const LISTS: usize = 2;", "const LISTS: usize = 1;"),
            ("    if drain_all() {\n", "    if drain_all() && core::hint::black_box(false) {\n"),
        ],
    ),
    (
        "barrier_without_flush",
        &[("    }\n    flush();\n}", "    }\n}")],
    ),
    (
        "not_settled",
        &[("    shards.iter().for_each(|works| works.settle());\n", "")],
    ),
    (
        "no_grace_period_at_the_end",
        &[(
            "works.settle());\n    platform.synchronize();\n",
            "works.settle());\n",
        )],
    ),
    // The queue is dropped with what a destructor has pushed to a shard that was looked at before.
    (
        "finish_too_short",
        &[
            (
                "        shards.iter().for_each(&drain);\n",
                "        let left = shards.iter().fold(false, |left, shard| {\n            \
                 drain(shard);\n            left | (done(shard) != pushed(shard))\n        });\n",
            ),
            (
                "        if done == shards.iter().map(&pushed).sum() {\n",
                "        if !left {\n",
            ),
        ],
    ),
    // A destructor may run between the two.
    (
        "books_backwards",
        &[
            (
                "let done: u64 = shards.iter().map(&done).sum();",
                "let pushed: u64 = shards.iter().map(&pushed).sum();",
            ),
            (
                "if done == shards.iter().map(&pushed).sum() {",
                "if pushed == shards.iter().map(&done).sum() {",
            ),
        ],
    ),
    // What was hurried is counted again at each scan.
    (
        "hurried_again",
        &[("            self.hurried = true;\n", "")],
    ),
    // An object that was to be put in a block when the lock was taken.
    (
        "lost_when_locked",
        &[(
            "lock.try_with(put).unwrap_or(Pushed::Refused)",
            "lock.try_with(put).unwrap_or(Pushed::Queued)",
        )],
    ),
];

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    // Cargo goes by a file's time: another checkout's older one would count as compiled.
    println!("cargo::rerun-if-env-changed=NOLOCKS_CHECKOUT");
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    // An included file cannot begin with the documentation of its module.
    let source: String = fs::read_to_string(SOURCE)
        .expect("the module's source is in the checkout")
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("//!"))
        .collect();

    for (name, replacements) in MUTANTS {
        let text = replacements
            .iter()
            .rev()
            .fold(source.clone(), |text, (from, to)| {
                assert_eq!(text.matches(from).count(), 1, "{name}: {from:?}");
                text.replace(from, to)
            });
        fs::write(Path::new(&out).join(format!("{name}.rs")), text).expect("cargo made the folder");
    }
}
