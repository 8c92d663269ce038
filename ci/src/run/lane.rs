// SPDX-License-Identifier: GPL-2.0
//! All boots of a lane, each judged by what it left.

use crate::base::cache::{write_atomic, write_json};
use crate::facts::boot::BootFacts;
use crate::lane::cases::QUEUE;
use crate::lane::plan::{FAILING, MAIN, Plan, STRESS_CASE};
use crate::lane::spec::{Control, Lane};
use crate::report::run::LaneReport;
use crate::run::ready::Ready;
use crate::verdict::judge::{judge_control, judge_later_boot, judge_main_boot};
use crate::verdict::standards::Standards;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// What a run records of a lane.
pub struct Recorded<'a> {
    pub lane: &'a Lane,
    pub folder: &'a Path,
    pub plan: &'a Plan,
    pub metadata: &'a Value,
}

/// Boots the lane in all ways of its plan, and judges each boot.
pub fn boot_lane(
    ready: &Ready,
    metadata: &Value,
    plan: &Plan,
    tally: &mut Tally,
) -> Result<LaneReport> {
    write_json(&ready.folder.join("metadata.json"), metadata)?;
    let standards = Standards::kept(&ready.folder)?;
    let recorded = Recorded {
        lane: &ready.lane,
        folder: &ready.folder,
        plan,
        metadata,
    };
    judge_lane(&recorded, &standards, tally, |name, steps, load| {
        let mut ready = ready.clone();
        let words = match name {
            MAIN => Vec::from_iter(plan.cmdline()),
            _ => ready.lane.later_cmdline(name),
        };
        ready.guest.cmdline.extend(words);
        ready.boot(name, steps, load).map(drop)
    })
}

/// Judges a lane's boots by what they left. `boot` makes them leave it, if they have not.
pub fn judge_lane(
    recorded: &Recorded,
    standards: &Standards,
    tally: &mut Tally,
    boot: impl Fn(&str, &str, Duration) -> Result<()>,
) -> Result<LaneReport> {
    let &Recorded {
        lane,
        folder,
        plan,
        metadata,
    } = recorded;
    let facts = |name: &str| BootFacts::read(&folder.join(name), &standards.rules);
    boot(MAIN, &plan.lines, Duration::from_secs(plan.load_s))?;
    let seen = facts(MAIN)?;
    for (file, case) in [
        ("ktap.txt", STRESS_CASE),
        ("ktap-queue.txt", QUEUE),
        ("ktap-queue-fail.txt", FAILING),
    ] {
        if plan.has(case) {
            let printed = seen.case(case).map_or("", |c| c.printed.as_str());
            write_atomic(&folder.join(MAIN).join(file), printed)?;
        }
    }
    let mut took_s = seen.took_s;
    let (main, mut checks) = judge_main_boot(lane, plan, &standards.cases, &seen);
    tally.take(&checks);
    let mut consoles = vec![MAIN.to_owned()];
    let (mut boots, mut results) = (Vec::new(), Vec::new());
    let later = lane.later_boots().into_iter();
    for (name, controls) in later.filter(|_| plan.all_boots) {
        let line = |c: &&Control| format!("module {} {}.ko {}", c.name, c.module, c.params);
        let lines: Vec<String> = controls.iter().map(line).collect();
        boot(&name, &lines.join("\n"), Duration::ZERO)?;
        let seen = facts(&name)?;
        took_s += seen.took_s;
        let mut found = Vec::new();
        if let Some(wanted) = lane.boots.iter().find(|b| b.name == name) {
            let (report, more) = judge_later_boot(lane, wanted, &controls, &standards.cases, &seen);
            boots.push(report);
            found.extend(more);
        }
        for control in &controls {
            let (result, more) = judge_control(lane, control, &controls, &seen)?;
            results.push(result);
            found.extend(more);
        }
        tally.take(&found);
        checks.extend(found);
        consoles.push(name);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let is_kvm = metadata["accelerator"]["kvm"] == true;
    Ok(LaneReport {
        name: lane.name.clone(),
        arch: lane.arch.kernel().to_owned(),
        kernel: text(&metadata["tree"]["version"]),
        accel: if is_kvm { "kvm" } else { "tcg" }.to_owned(),
        duration_s: took_s,
        promised: plan.load.iter().flat_map(|l| l.contexts.clone()).collect(),
        suite: main.suite,
        queue: main.queue,
        failing: main.failing,
        kunit: main.boot.kunit,
        boots,
        controls: results,
        findings: main.boot.findings,
        debug_locks: main.boot.debug_locks,
        consoles,
        decoded: Vec::new(),
        checks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::spec::Lane;
    use crate::run::ready::tests::made_up;
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    #[test]
    fn a_test_boots_the_lane_in_all_its_ways_and_a_stress_run_once() {
        let dir = tempfile::tempdir().unwrap();
        let lanes = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lane = Lane::load(&lanes, "x86_64-rt").unwrap();
        let words = "for last; do :; done; echo \"$*\" >$HOME/run/${last##* }/out/words";
        let script = format!("{words}; echo NOLOCKS: guest up; echo NOLOCKS: guest done");
        let ready = made_up(dir.path(), lane.clone(), &script);
        let read = |file: &str| fs::read_to_string(ready.folder.join(file)).unwrap();
        let boots = |all_boots| {
            let plan = Plan::new(&lane.stress, lane.queue.as_ref(), &BTreeMap::new());
            let plan = Plan { all_boots, ..plan };
            let metadata = json!({ "plan": plan });
            let report = boot_lane(&ready, &metadata, &plan, &mut Tally::default()).unwrap();
            assert_eq!(read("main/plan"), format!("{}\n", plan.lines));
            let record: Value = serde_json::from_str(&read("metadata.json")).unwrap();
            assert_eq!(
                serde_json::from_value::<Plan>(record["plan"].clone()).unwrap(),
                plan
            );
            (report.consoles, report.boots.len(), report.controls.len())
        };
        assert_eq!(boots(false), (vec!["main".to_owned()], 0, 0));
        let (consoles, others, controls) = boots(true);
        assert_eq!((others, controls), (lane.boots.len(), lane.controls.len()));
        let mut want = vec!["main".to_owned()];
        want.extend(lane.later_boots().into_iter().map(|(name, _)| name));
        assert_eq!(consoles, want);
        for boot in consoles {
            let faked = read(&format!("{boot}/out/words")).contains("--append numa=fake=2");
            assert_eq!(faked, boot == "kunit-numa", "{boot}");
        }
        let (_, shared) = lane.later_boots().swap_remove(0);
        let plan = read("kunit-numa/plan");
        assert!(!shared.is_empty() && plan.lines().count() == shared.len());
    }
}
