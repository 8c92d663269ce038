// SPDX-License-Identifier: GPL-2.0
use super::*;

const X86: &str = include_str!("../../../fixtures/splats-x86_64.log");
const ARM: &str = include_str!("../../../fixtures/splats-arm64.log");
const CLEAN: &str = include_str!("../../../fixtures/console-clean.log");
const CONTROL: &str = include_str!("../../../fixtures/console-control.log");
const OOPS: &str = include_str!("../../../fixtures/console-oops.log");
const ALLOWED: &str = include_str!("../../../fixtures/allowed.log");

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::builtin().unwrap());

fn ids(console: &str) -> Vec<String> {
    RULES.scan(console).into_iter().map(|f| f.rule).collect()
}

/// (rule, report) for each report in the fixtures; a rule that is gone leaves its reports unnamed.
fn reports() -> Vec<(&'static str, &'static str)> {
    [X86, ARM]
        .iter()
        .flat_map(|file| file.split("#### ").skip(1))
        .map(|section| section.split_once('\n').unwrap())
        .collect()
}

#[test]
fn each_report_is_found_under_its_rule_alone() {
    for (id, report) in reports() {
        assert_eq!(ids(report), [id], "{report}");
    }
}

#[test]
fn each_rule_has_a_report() {
    let reports = reports();
    for rule in &RULES.file.rule {
        assert!(
            reports.iter().any(|(id, _)| *id == rule.id),
            "ci/fixtures/splats-*.log need a report under \"#### {}\"",
            rule.id
        );
    }
}

/// Reports that say of themselves where they end stay apart even with nothing between them.
#[test]
fn reports_in_a_row_stay_apart() {
    // These join what stands before them: that is what their rules say.
    let joining = |id: &str| {
        let rule = RULES.file.rule.iter().find(|r| r.id == id).unwrap();
        matches!(rule.joins, Some(Joins::Report | Joins::Any))
    };
    for (arch, between) in [(X86, ""), (ARM, ""), (X86, "[    1.000000] then\n")] {
        let traced = |report: &str| report.to_lowercase().contains("] call trace:");
        let rows: Vec<_> = reports()
            .into_iter()
            .filter(|(id, report)| arch.contains(report) && traced(report) && !joining(id))
            .collect();
        let console: String = rows.iter().map(|r| format!("{}{between}", r.1)).collect();
        let want: Vec<_> = rows.iter().map(|r| r.0).collect();
        assert_eq!(ids(&console), want);
    }
}

#[test]
fn an_oops_and_the_panic_that_it_ends_in_are_one_report() {
    assert_eq!(ids(OOPS), ["page-fault", "console-truncated"]);
    let later = OOPS.replace(
        "Kernel panic",
        "random: crng init done\n[   16.800000] Kernel panic",
    );
    assert_eq!(
        ids(&later),
        ["page-fault", "kernel-panic", "console-truncated"]
    );
}

#[test]
fn what_follows_a_report_without_a_trace_is_no_part_of_it() {
    let report = |id: &str| reports().iter().find(|r| r.0 == id).unwrap().1;
    let (stray, warning) = (report("unexplained-trace"), report("warning"));
    for id in ["kfence", "printk-dropped", "lock-debugging-off"] {
        assert_eq!(
            ids(&format!("{}{stray}", report(id))),
            [id, "unexplained-trace"]
        );
    }
    let (head, _) = report("circular-dependency")
        .split_once("stack backtrace:")
        .unwrap();
    let console = format!("{head}\n{warning}");
    assert_eq!(ids(&console), ["circular-dependency", "warning"]);
    let long = format!("{head}{}{stray}", "x\n".repeat(REPORT_LINES));
    assert_eq!(ids(&long), ["circular-dependency", "unexplained-trace"]);
}

#[test]
fn others_may_write_into_a_report() {
    for line in [
        "NOLOCKS: case c rc=0",
        "nolocks_stress: ok 1 task",
        "** replaying previous printk message **",
    ] {
        let oops = OOPS.replace(
            "[   16.708422] Kernel",
            &format!("{line}\n[   16.708422] Kernel"),
        );
        assert!(oops.contains(line));
        assert_eq!(ids(&oops), ["page-fault", "console-truncated"]);
        let control = CONTROL.replacen(
            "stack backtrace:",
            &format!("\n{line}\n[    7.4] stack backtrace:"),
            1,
        );
        assert_eq!(ids(&control), ["invalid-wait-context"]);
    }
}

#[test]
fn a_clean_boot_is_clean() {
    assert_eq!(RULES.scan(CLEAN), []);
    assert_eq!(debug_locks(CLEAN), Some(true));
}

#[test]
fn a_control_boot_gives_exactly_its_report() {
    assert_eq!(ids(CONTROL), ["invalid-wait-context"]);
    assert_eq!(debug_locks(CONTROL), Some(false));
}

#[test]
fn a_finding_has_what_its_own_report_says() {
    let says = |finding: &Finding, pattern| finding.says(&Regex::new(pattern).unwrap());
    let warning = reports().iter().find(|r| r.0 == "warning").unwrap().1;
    let (before, after) = CONTROL.split_once(" debug_locks:").unwrap();
    let found = RULES.scan(&format!("{before}{warning} debug_locks:{after}"));
    assert!(says(
        &found[0],
        r"(?s)BUG: Invalid.*trying to lock:\n.*\(sp\)"
    ));
    assert!(says(&found[0], "_raw_spin_lock"));
    assert_eq!(found[0].report.len(), KEPT_LINES);
    assert!(!says(&found[0], "Modules linked in"));
    assert!(says(&found[1], "(?s)WARNING: .*Modules linked in"));
    assert!(!says(&found[1], "trying to lock|debug_locks|power down"));
}

#[test]
fn a_report_after_a_control_is_one_more() {
    let warning = reports().iter().find(|r| r.0 == "warning").unwrap().1;
    let stray = reports()
        .iter()
        .find(|r| r.0 == "unexplained-trace")
        .unwrap()
        .1;
    let (before, after) = CONTROL.split_once(" debug_locks:").unwrap();
    let console = format!("{before}{warning}{stray} debug_locks:{after}");
    assert_eq!(
        ids(&console),
        ["invalid-wait-context", "warning", "unexplained-trace"]
    );
}

#[test]
fn what_is_allowed_is_not_found_and_would_be_otherwise() {
    assert_eq!(RULES.scan(ALLOWED), []);
    let mut strict = Rules::builtin().unwrap();
    let entries = std::mem::take(&mut strict.file.allow);
    strict.allowed.clear();
    assert_eq!(strict.scan(ALLOWED).len(), entries.len());
    for allow in entries {
        let pattern = Regex::new(&allow.pattern).unwrap();
        let uses = messages(ALLOWED)
            .iter()
            .filter(|(_, text)| pattern.is_match(text))
            .count();
        assert_eq!(uses, 1, "{}", allow.pattern);
    }
}

/// A CPU that is off is no news once the machine goes down, and until then nobody may wake it.
#[test]
fn what_is_allowed_behind_a_message_is_found_before_it() {
    let ids = |lines: &[&str]| -> Vec<String> {
        let console: String = lines.iter().map(|l| format!("[    1.0] {l}\n")).collect();
        ids(&console)
    };
    let down = "reboot: Power down";
    let wakes = "WARNING: at native_smp_send_reschedule+0x21/0x30, CPU#2: rcuc/2/33";
    assert_eq!(ids(&[down, wakes]), [""; 0]);
    assert_eq!(ids(&[wakes, down]), ["warning"]);
    let next = ["Linux version 7.3.4", wakes, "NOLOCKS: guest done"];
    assert_eq!(ids(&[&[down][..], &next].concat()), ["warning"]);
    assert_eq!(ids(&[down, "WARNING: at f+0x1/0x2"]), ["warning"]);
}

#[test]
fn a_log_that_is_cut_off_is_found() {
    for end in ["NOLOCKS: guest done", "[    8.1"] {
        let cut = &CLEAN[..CLEAN.find(end).unwrap_or(CLEAN.len() / 2)];
        assert_eq!(ids(cut), ["console-truncated"]);
    }
    assert_eq!(ids(" \n"), ["console-truncated"]);
    let panic = "Linux version 7.3.4\n[    1.000000][    C0] Kernel panic - not syncing: x\n";
    assert_eq!(ids(panic), ["kernel-panic", "console-truncated"]);
    let twice = format!("{CLEAN}{}", CLEAN.replace("NOLOCKS: guest done", ""));
    assert_eq!(ids(&twice), ["console-truncated"]);
}

#[test]
fn a_report_is_seen_through_escapes_carriage_returns_and_half_lines() {
    let line = "\x1b[31mprogress 3%[   12.345678][    T1] BUG: Bad page state in process a  pfn:1\x1b[0m\r\n";
    let found = RULES.scan(line);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, "bad-page");
    assert_eq!(found[0].line, "BUG: Bad page state in process a  pfn:1");
    assert_eq!(found[0].line_no, 1);
}

#[test]
fn rules_without_a_reason_or_with_a_known_name_are_refused() {
    let text = include_str!("../../../rules/splats.toml");
    let unexplained = text.replacen("reason = \"two locks", "reason = \"\" # \"", 1);
    assert!(Rules::parse(&unexplained).is_err());
    let double = text.replacen("\"kasan\"", "\"kfence\"", 1);
    assert!(Rules::parse(&double).is_err());
}

#[test]
fn lockdep_stats_without_the_line_say_nothing() {
    assert_eq!(debug_locks(" lock-classes:  560 [max: 8192]\n"), None);
}

#[test]
fn a_message_that_printk_replays_counts_once() {
    let whole = "[   15.584033][  T175] ODEBUG: activate active (active state 0) object: 0 object type: nolocks_queue hint: 0x0";
    let marker = "** replaying previous printk message **";
    let cut = &whole[..90];
    for console in [
        format!("before\n{cut}\n{marker}\n{whole}\n"),
        format!("before\n{cut}{marker}\n{whole}\n"),
        format!("before\n{whole}\n"),
    ] {
        let texts: Vec<String> = messages(&console)
            .into_iter()
            .map(|(_, text)| text)
            .collect();
        assert_eq!(
            texts,
            ["before", whole.split("] ").nth(1).unwrap()],
            "{console}"
        );
    }
}
