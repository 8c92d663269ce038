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
            "if !self.snapshot.is_some_and(|snap| platform.elapsed(&snap))",
            "if self.snapshot.is_none()",
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
            "self.spares.top.is_none();\n        self.want(platform, Wake::Now);",
            "self.spares.top.is_none();",
        )],
    ),
    // A barrier that forgets that an older list may be in the way.
    (
        "barrier_too_short",
        &[("    if left {\n        drain_all();\n", "    if left {\n")],
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
        &[("            shard.hurried = true;\n", "")],
    ),
    // The timer comes at each tick while an older list is in the way.
    (
        "restless",
        &[("0 if is_blocked => P::PERIOD", "0 if is_blocked => 1")],
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
