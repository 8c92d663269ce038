// SPDX-License-Identifier: GPL-2.0
//! All boots of a lane, and what was found.

use crate::base::cache::write_json;
use crate::lane::cases::{QUEUE, STRESS};
use crate::lane::plan::{FAILING, MAIN, Plan, STRESS_CASE};
use crate::lane::spec::Control;
use crate::report::LaneReport;
use crate::run::ready::Ready;
use crate::verdict::judge;
use crate::verdict::tally::Tally;
use anyhow::Result;
use serde_json::Value;
use std::time::Duration;

/// The green boots, then the red ones.
pub fn lane_report(
    ready: &Ready,
    metadata: &Value,
    plan: &Plan,
    tally: &mut Tally,
) -> Result<LaneReport> {
    write_json(&ready.folder.join("metadata.json"), metadata)?;
    let lane = &ready.lane;
    let load = Duration::from_secs(plan.load_s);
    let mut main = ready.clone();
    main.guest.cmdline.extend(plan.cmdline());
    let outcome = main.boot(MAIN, &plan.lines, load)?;
    let mut own = Tally::default();
    let folder = ready.folder.join(MAIN);
    let seen = judge::green(lane, plan, &folder, &outcome, &mut own)?;
    let mut took = outcome.took;
    let mut hung = Vec::from_iter(outcome.hung(MAIN));
    let mut consoles = vec![MAIN.to_owned()];
    for (file, case, module) in [
        ("ktap.txt", STRESS_CASE, STRESS),
        ("ktap-queue.txt", QUEUE, QUEUE),
        ("ktap-queue-fail.txt", FAILING, QUEUE),
    ] {
        if plan.has(case) {
            ready.keep(file, case, module, &outcome)?;
        }
    }
    let (mut boots, mut results) = (Vec::new(), Vec::new());
    let later = lane.later_boots().into_iter();
    for (name, controls) in later.filter(|_| plan.all_boots) {
        let green = lane.boots.iter().find(|b| b.name == name);
        let mut ready = ready.clone();
        let words = green.iter().flat_map(|b| &b.cmdline);
        ready.guest.cmdline.extend(words.cloned());
        let line = |c: &&Control| format!("module {} {}.ko {}", c.name, c.module, c.params);
        let lines: Vec<String> = controls.iter().map(line).collect();
        let outcome = ready.boot(&name, &lines.join("\n"), Duration::ZERO)?;
        took += outcome.took;
        hung.extend(outcome.hung(&name));
        if let Some(wanted) = green {
            let folder = ready.folder.join(&name);
            boots.push(judge::quiet(
                lane, wanted, &controls, &folder, &outcome, &mut own,
            )?);
        }
        for control in &controls {
            results.push(judge::red(lane, control, &controls, &outcome, &mut own)?);
        }
        consoles.push(name);
    }
    let report = LaneReport {
        name: lane.name.clone(),
        arch: lane.arch.kernel().to_owned(),
        kernel: metadata["tree"]["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        accel: if ready.accel.kvm { "kvm" } else { "tcg" }.to_owned(),
        duration_s: took.as_secs_f64(),
        promised: plan.load.iter().flat_map(|l| l.contexts.clone()).collect(),
        suite: seen.suite,
        queue: seen.queue,
        failing: seen.failing,
        kunit: seen.main.kunit,
        boots,
        controls: results,
        findings: seen.main.findings,
        debug_locks: seen.main.debug_locks,
        hung,
        consoles,
        verdict: own.verdict(),
    };
    tally.merge(own);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::accel::Accel;
    use crate::lane::spec::Lane;
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
        let guest = crate::guest::boot::tests::guest(
            dir.path(),
            &format!("{words}; echo NOLOCKS: guest up; echo NOLOCKS: guest done"),
        );
        let ready = Ready {
            lane: lane.clone(),
            folder: guest.share.clone(),
            guest,
            accel: Accel {
                kvm: false,
                why: String::new(),
            },
        };
        fs::create_dir_all(&ready.folder).unwrap();
        let read = |file: &str| fs::read_to_string(ready.folder.join(file)).unwrap();
        let boots = |all_boots| {
            let plan = Plan::new(&lane.stress, lane.queue.as_ref(), &BTreeMap::new());
            let plan = Plan { all_boots, ..plan };
            let metadata = json!({ "plan": plan });
            let report = lane_report(&ready, &metadata, &plan, &mut Tally::default()).unwrap();
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
