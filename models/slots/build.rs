// SPDX-License-Identifier: GPL-2.0
//! Compiles the functions of mm/page_slots.c that move pages, out of the series, for the host: as they
//! are, and with one bug each.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const PATCHES: &str = "../../patches";

/// In the order of the file.
const FUNCTIONS: [&str; 13] = [
    "static struct page *slot_take(",
    "static struct page *slots_push(",
    "static unsigned int drain_slots(",
    "static bool fill_slots(",
    "static void fill_slots_or_ask(",
    "static int page_slots_thread(",
    "static void arm_late_timer(",
    "static void page_slots_late_fn(",
    "static void page_slots_irq_work_fn(",
    "struct page *page_slots_pop(",
    "static void fill_all_cpus(",
    "void page_slots_drain(",
    "static void update_cpu(",
];

/// A name, and what to replace by what.
type Bug = (&'static str, &'static [(&'static str, &'static str)]);

const ASK: &str = "	if (irq_work_runs_here() &&
	    ((!cpumask_test_cpu(cpu, &page_slots_asking) &&
	      !cpumask_test_and_set_cpu(cpu, &page_slots_asking)) ||
	     (!page && !timer_pending(this_cpu_ptr(&page_slots_late)))))
		irq_work_queue(&slots->irq_work);
";

const BUGS: &[Bug] = &[
    ("faithful", &[]),
    // A push does not look at the usable slots again.
    (
        "no_second_look",
        &[("if (likely(READ_ONCE(slots->usable) & BIT(slot) &&", "if (likely(true ||")],
    ),
    // It may look too early.
    ("early_second_look", &[("\t\tsmp_mb__after_atomic();\n", "")]),
    // A drain may look at the slots before others know of it.
    ("drain_without_barrier", &[("\tsmp_mb();\n", "")]),
    // It does not look at the zone again,
    (
        "no_zone_in_second_look",
        &[(
            " & BIT(slot) &&\n\t\t\t   READ_ONCE(slots->zone) == zone))\n",
            " & BIT(slot)))\n",
        )],
    ),
    // nor does a pop at that of the page that it got, or whether it may have it.
    (
        "zone_of_the_page_not_asked",
        &[(
            "likely(page_zone(page) == zone &&\n\t\t\t\t    page_usable_no_locks(page, migratetype)))\n",
            "likely(page_usable_no_locks(page, migratetype)))\n",
        )],
    ),
    (
        "usable_not_asked",
        &[(
            "likely(page_zone(page) == zone &&\n\t\t\t\t    page_usable_no_locks(page, migratetype)))\n",
            "likely(page_zone(page) == zone))\n",
        )],
    ),
    // What it may not have is nobody's.
    ("unusable_page_lost", &[("\t\tdefer_free_page(page, 0, true);\n", "")]),
    // The slots are drained before others know what they are not to put in any more,
    (
        "drained_before_it_is_known",
        &[(
            "	WRITE_ONCE(slots->usable, usable);\n	WRITE_ONCE(slots->zone, zone);\n	drain_slots(slots, moved ? ~0UL : ~usable);\n",
            "	drain_slots(slots, moved ? ~0UL : ~usable);\n	WRITE_ONCE(slots->usable, usable);\n	WRITE_ONCE(slots->zone, zone);\n",
        )],
    ),
    // or those that stay usable not at all.
    ("another_zones_pages_left", &[("moved ? ~0UL : ~usable", "~usable + 0 * moved")]),
    // It may be that a slot is taken twice.
    (
        "take_in_two_steps",
        &[(
            "	if (!test_and_clear_bit(slot, &slots->full))\n\t\treturn NULL;\n",
            "	if (!(READ_ONCE(slots->full) & BIT(slot)))\n\t\treturn NULL;\n	test_and_clear_bit(slot, &slots->full);\n",
        )],
    ),
    // A slot counts as free before its page is had.
    (
        "early_null",
        &[
            ("	if (!test_and_clear_bit(slot, &slots->full))\n\t\treturn NULL;\n	page = ", "	page = "),
            (
                "	WRITE_ONCE(slots->pages[slot], NULL);\n",
                "	WRITE_ONCE(slots->pages[slot], NULL);\n	if (!test_and_clear_bit(slot, &slots->full))\n\t\treturn NULL;\n",
            ),
        ],
    ),
    // Who sees the bit need not see the page.
    (
        "page_not_published",
        &[
            ("cmpxchg(&slots->pages[slot], NULL, page)", "cmpxchg_relaxed(&slots->pages[slot], NULL, page)"),
            ("\t\tsmp_mb__after_atomic();\n", ""),
        ],
    ),
    // A push takes its page back without asking whether it is still there,
    (
        "blind_take_back",
        &[("\t\tpage = slot_take(slots, slot);\n", "\t\tslot_take(slots, slot);\n")],
    ),
    // or by an operation that orders nothing.
    (
        "relaxed_take_back",
        &[(
            "\t\tpage = slot_take(slots, slot);\n",
            "\t\tpage = model_test_and_clear_bit(slot, &slots->full, false) ?
			READ_ONCE(slots->pages[slot]) : NULL;\n\t\tif (page)\n\t\t\tWRITE_ONCE(slots->pages[slot], NULL);\n",
        )],
    ),
    // The thread is asked before the page is taken out.
    (
        "ask_first",
        &[
            ("	for (; full && !page; full &= full - 1) {\n", "	cpu = smp_processor_id();\nASK	for (; full && !page; full &= full - 1) {\n"),
            (ASK, ""),
        ],
    ),
    // The page is taken out by an operation that orders nothing.
    (
        "relaxed_pop",
        &[("!test_and_clear_bit(slot, &slots->full)", "!model_test_and_clear_bit(slot, &slots->full, false)")],
    ),
    // The CPU counts as asking until its slots are filled,
    (
        "late_clear",
        &[(
            "			cpumask_test_and_clear_cpu(cpu, &page_slots_asking);\n			if (!fill_slots(cpu)) {\n",
            "			bool filled = fill_slots(cpu);\n			cpumask_test_and_clear_cpu(cpu, &page_slots_asking);\n			if (!filled) {\n",
        )],
    ),
    // or until an operation that orders nothing.
    (
        "relaxed_clear",
        &[(
            "			cpumask_test_and_clear_cpu(cpu, &page_slots_asking);\n",
            "			model_test_and_clear_bit(cpu, &page_slots_asking, false);\n",
        )],
    ),
    // The thread does not look again where it found too little memory.
    (
        "no_second_try",
        &[(
            "				cpumask_set_cpu(cpu, &page_slots_asking);\n				if (full)\n",
            "				if (full)\n",
        )],
    ),
    // As late_clear, of the timer.
    (
        "timer_late_clear",
        &[(
            "	    cpumask_test_and_clear_cpu(cpu, &page_slots_asking) && !fill_slots(cpu))\n",
            "	    !({ bool filled = fill_slots(cpu); cpumask_test_and_clear_cpu(cpu, &page_slots_asking); filled; }))\n",
        )],
    ),
    // Whoever finds no page leaves it to who has asked before.
    (
        "asked_by_others",
        &[(
            "(!page && !timer_pending(this_cpu_ptr(&page_slots_late)))",
            "false",
        )],
    ),
    // Who needs just these pages does not wait for who has them in hand, a filler or somebody else who drains.
    (
        "drained_without_the_lock",
        &[("	guard(spinlock_irqsave)(&page_slots_lock);\n	/* Pairs", "	/* Pairs")],
    ),
    // A filler lets go of the lock before its pages,
    (
        "filled_without_the_lock",
        &[(
            "	guard(spinlock_irqsave)(&page_slots_lock);\n	zone =",
            "	({ guard(spinlock_irqsave)(&page_slots_lock); });\n	zone =",
        )],
    ),
    // or has counted before it has the lock.
    (
        "counted_before_the_lock",
        &[
            ("	guard(spinlock_irqsave)(&page_slots_lock);\n	zone =", "	zone ="),
            (
                "	if (!wanted)\n		return true;\n",
                "	if (!wanted)\n		return true;\n	guard(spinlock_irqsave)(&page_slots_lock);\n",
            ),
        ],
    ),
    // The timer is not armed again where it found too little memory.
    (
        "timer_not_armed_again",
        &[(
            "	if (cpumask_test_cpu(cpu, &page_slots_asking))\n		arm_late_timer();\n",
            "",
        )],
    ),
];

/// What the series makes of mm/page_slots.*, as the whole of it leaves them: by `git apply` in a folder of its own.
fn apply_series(tree: &Path) {
    let _ = fs::remove_dir_all(tree);
    fs::create_dir(tree).expect("cargo made the folder");
    let patches = fs::read_dir(PATCHES).expect("the series is in the checkout");
    let mut patches: Vec<_> = patches.map(|p| p.expect("a patch").path()).collect();
    patches.retain(|p| p.extension().is_some_and(|e| e == "patch"));
    patches.sort();
    for patch in patches {
        let mut git = Command::new("git");
        for (variable, _) in env::vars_os() {
            if variable.to_string_lossy().starts_with("GIT_") {
                git.env_remove(variable);
            }
        }
        // A repository above this would have it look for the files there.
        git.env(
            "GIT_CEILING_DIRECTORIES",
            tree.parent().expect("cargo's folder"),
        );
        git.current_dir(tree)
            .args(["apply", "--include=mm/page_slots.*"]);
        let status = git
            .arg(fs::canonicalize(&patch).expect("it was listed"))
            .status();
        let is_applied = status.expect("git is there").success();
        assert!(is_applied, "{}", patch.display());
    }
}

/// From a line that begins so to the first that begins with `end`.
fn cut<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let begins = |from: &usize| {
        let line = &text[*from..];
        // Not a declaration.
        line.starts_with(begin) && !line.lines().next().unwrap_or("").ends_with(';')
    };
    let mut lines = text.match_indices('\n').map(|(at, _)| at + 1);
    let from = lines.find(begins).unwrap_or_else(|| panic!("no {begin}"));
    let length = text[from..].find(&format!("\n{end}")).expect("an end") + 1 + end.len();
    &text[from..from + length]
}

fn main() {
    for file in [PATCHES, "kernel.h", "build.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    // Cargo goes by a file's time: another checkout's older one would count as compiled.
    println!("cargo::rerun-if-env-changed=NOLOCKS_CHECKOUT");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let out = Path::new(&out);
    let write = |name: &str, text: String| {
        fs::write(out.join(name), text).expect("cargo made the folder");
        out.join(name)
    };

    let tree = out.join("tree");
    apply_series(&tree);
    let made = |path| fs::read_to_string(tree.join(path)).expect("the series makes it");
    let header = made("mm/page_slots.h");
    write(
        "page_slots.h",
        cut(&header, "struct page_slots {", "};\n").into(),
    );
    let file = made("mm/page_slots.c");
    let source: String = FUNCTIONS.map(|name| cut(&file, name, "}\n")).join("\n");
    let mut rust = String::new();
    let mut list = String::new();
    let mut build = cc::Build::new();
    // A model that has found a bug, and a thread that sleeps, leave by unwinding.
    build.flags(["-std=gnu11", "-fexceptions", "-Wno-unused-parameter"]);
    build.include(".").include(out);
    for (name, replacements) in BUGS {
        let text = replacements
            .iter()
            .rev()
            .fold(source.clone(), |text, (from, to)| {
                assert_eq!(text.matches(from).count(), 1, "{name}: {from:?}");
                text.replace(from, &to.replace("ASK", ASK))
            });
        build.file(write(
            &format!("{name}.c"),
            format!(
                "#include \"kernel.h\"\n{text}\nconst struct code {name} = {{ slots_push, page_slots_pop, \
                 drain_slots,\n\tupdate_cpu, page_slots_drain, page_slots_thread, page_slots_late_fn }};\n"
            ),
        ));
        rust += &format!("    static {name}: Code;\n");
        list += &format!("    (\"{name}\", &raw const {name}),\n");
    }
    build.compile("page_slots");
    let count = BUGS.len();
    write(
        "code.rs",
        format!(
            "#[allow(non_upper_case_globals)]\nunsafe extern \"C\" {{\n{rust}}}\n\n\
             const CODE: [(&str, *const Code); {count}] = [\n{list}];\n"
        ),
    );
}
