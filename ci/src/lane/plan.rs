// SPDX-License-Identifier: GPL-2.0
//! What a run boots of a lane, as its metadata.json records it.

use crate::lane::cases::{QUEUE, STRESS};
use crate::lane::spec::{Lane, Load, Queue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Its case in a plan.
pub const STRESS_CASE: &str = "stress";
pub const EXAMPLE: &str = "nolocks_example";
/// The queue's module once more, with blocks that cannot be allocated.
pub const FAILING: &str = "queue_fail";
pub const MAIN: &str = "main";
/// What a lane's guest may be told to load.
pub const MODULES: &[&str] = &[
    STRESS,
    "nolocks_control",
    QUEUE,
    "nolocks_queue_control",
    EXAMPLE,
];
/// The queue's parameter among all others.
const OBJECTS: &str = "objects";
const SEED: &str = "seed";
/// Few, because a third of all blocks fails and each goes the long way.
const FAIL: &str = "objects=400 fail=3";

/// What a run boots, as its metadata.json records it: `make repro` does exactly that again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    /// Of the stress module, where it is loaded.
    pub load: Option<Load>,
    pub queue: Option<Queue>,
    pub params: BTreeMap<String, u64>,
    /// The guest's steps, its file `plan`.
    pub lines: String,
    /// How much longer than the lane's limit it may run.
    pub load_s: u64,
    /// The lane's least numbers hold for its own load, not for one that the user made smaller.
    pub floor: bool,
    /// The lane's other boots and its controls too.
    pub all_boots: bool,
}

impl Plan {
    pub fn new(load: &Load, queue: Option<&Queue>, given: &BTreeMap<String, u64>) -> Plan {
        let mut params = load.params.clone();
        params.extend(queue.map(|q| (OBJECTS.to_owned(), q.objects)));
        params.extend(given.clone());
        params.entry(SEED.into()).or_insert_with(seed);
        let words = |wanted: &dyn Fn(&str) -> bool| {
            let params = params.iter().filter(|(name, _)| wanted(name));
            params
                .map(|(name, value)| format!(" {name}={value}"))
                .collect::<String>()
        };
        let mut lines = format!(
            "module {STRESS_CASE} {STRESS}.ko{}",
            words(&|n| n != OBJECTS)
        );
        if queue.is_some() {
            lines += "\n";
            lines += &queue_lines(&words(&|n| [OBJECTS, SEED].contains(&n)));
            lines += &format!(
                "\nmodule {FAILING} {QUEUE}.ko {FAIL}{}",
                words(&|n| n == SEED)
            );
        }
        Plan {
            load: Some(load.clone()),
            queue: queue.cloned(),
            lines,
            // The cases take turns, and an emulated machine is slow: this is a limit, not a forecast.
            load_s: params.get("seconds").copied().unwrap_or(0) * 10,
            params,
            floor: given.keys().all(|k| k == SEED),
            all_boots: false,
        }
    }

    pub fn soak(lane: &Lane, total: u64) -> Plan {
        /// Of the module's `objects`, how many it pushes in the case that carries a run.
        const SHARE: u64 = 256;
        /// Objects a second that no emulated machine falls short of.
        const SLOWEST: u64 = 500;
        let wanted = Queue {
            objects: total.div_ceil(SHARE),
            freed: total,
            skips: lane.queue.iter().flat_map(|q| q.skips.clone()).collect(),
        };
        let (objects, seed) = (wanted.objects, seed());
        Plan {
            load: None,
            queue: Some(wanted),
            params: BTreeMap::from([(OBJECTS.into(), objects), (SEED.into(), seed)]),
            lines: queue_lines(&format!(" {OBJECTS}={objects} {SEED}={seed}")),
            load_s: total / SLOWEST,
            floor: true,
            all_boots: false,
        }
    }

    /// Whether the guest carries out a case of this name.
    pub fn has(&self, case: &str) -> bool {
        let mut lines = self.lines.lines();
        lines.any(|l| l.split(' ').nth(1) == Some(case))
    }
}

/// Chosen here, so that it is recorded even if the guest never says it.
fn seed() -> u64 {
    u64::from(std::process::id()) + 1
}

fn queue_lines(params: &str) -> String {
    format!("module {QUEUE} {QUEUE}.ko{params}\nmodule {EXAMPLE} {EXAMPLE}.ko")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::Path;

    fn load() -> Load {
        Load {
            params: BTreeMap::from([("seconds".into(), 10)]),
            obtained: 1,
            obtained_each: 1,
            contexts: vec![],
        }
    }

    #[test]
    fn given_parameters_win_and_lift_the_floor() {
        let load = load();
        let given = BTreeMap::from([("seconds".into(), 3), ("seed".into(), 7)]);
        let plan = Plan::new(&load, None, &given);
        assert_eq!(
            plan.lines,
            "module stress nolocks_stress.ko seconds=3 seed=7"
        );
        assert_eq!((plan.floor, plan.load_s), (false, 30));
        let seed = BTreeMap::from([("seed".into(), 7)]);
        assert!(Plan::new(&load, None, &seed).floor);
    }

    #[test]
    fn the_queue_gets_its_own_parameters() {
        let queue = Queue {
            objects: 4000,
            freed: 1,
            skips: Default::default(),
        };
        let given = BTreeMap::from([("seed".into(), 7)]);
        let lines = Plan::new(&load(), Some(&queue), &given).lines;
        assert_eq!(
            lines.lines().collect::<Vec<_>>(),
            [
                "module stress nolocks_stress.ko seconds=10 seed=7",
                "module nolocks_queue_stress nolocks_queue_stress.ko objects=4000 seed=7",
                "module nolocks_example nolocks_example.ko",
                "module queue_fail nolocks_queue_stress.ko objects=400 fail=3 seed=7",
            ]
        );
    }

    #[test]
    fn every_run_has_a_seed() {
        let plan = Plan::new(&load(), None, &BTreeMap::new());
        assert!(plan.params["seed"] > 0);
    }

    #[test]
    fn a_soak_is_recorded_with_its_seed_and_comes_again() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes");
        let lane = Lane::load(&dir, "x86_64-ftrace").unwrap();
        let plan = Plan::soak(&lane, 10_000_000);
        let seed = plan.params["seed"];
        assert!(seed > 0 && plan.has(QUEUE) && plan.has(EXAMPLE) && !plan.has(FAILING));
        assert!(
            plan.lines
                .contains(&format!(" objects=39063 seed={seed}\n"))
        );
        assert_eq!(plan.load_s, 20_000);
        assert!(plan.queue.as_ref().unwrap().skips.contains("locks"));
        let record = serde_json::to_string(&json!({ "plan": plan })).unwrap();
        let metadata: Value = serde_json::from_str(&record).unwrap();
        let again: Plan = serde_json::from_value(metadata["plan"].clone()).unwrap();
        assert_eq!(again, plan);
    }
}
