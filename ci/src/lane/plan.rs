// SPDX-License-Identifier: GPL-2.0
//! What a run boots of a lane, as its metadata.json records it.

use crate::base::exit::{Exit, fail};
use crate::lane::cases::{EXAMPLE_SUITE, QUEUE, STRESS, Selection};
use crate::lane::spec::{Lane, Load, Queue};
use anyhow::Result;
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
    /// Only these cases, and none in the lane's other boots.
    #[serde(default)]
    pub selection: Option<Selection>,
    /// The user's own, and not to be changed.
    #[serde(default)]
    pub seed_given: bool,
}

impl Plan {
    /// `make stress`, with what the user gave.
    pub fn stress(
        lane: &Lane,
        given: &BTreeMap<String, u64>,
        selection: Option<&Selection>,
    ) -> Result<Plan> {
        check_given(lane, given)?;
        let plan = Plan::new(&lane.stress, lane.queue.as_ref(), given);
        match selection {
            Some(selection) => plan.selecting(lane, selection),
            None => Ok(plan),
        }
    }

    fn selecting(self, lane: &Lane, selection: &Selection) -> Result<Plan> {
        let missing = |what: &str| {
            let what = format!("CASE=: the lane {} has no {what}", lane.name);
            Err(fail(Exit::Usage, what))
        };
        if selection.has(QUEUE) && self.queue.is_none() {
            return missing("queue");
        }
        // Whoever asks for the example's has it loaded, in a lane without a queue too.
        let is_missing = |suite: &&str| *suite != EXAMPLE_SUITE && !lane.kunit.contains_key(*suite);
        if let Some(suite) = selection.kunit().find(is_missing) {
            return missing(&format!("KUnit suite {suite}"));
        }
        let chosen = [(STRESS_CASE, STRESS), (QUEUE, QUEUE)];
        let line = |(case, module): (&str, &str)| {
            let mut old = self.lines.lines();
            let old = old.find(|l| l.split(' ').nth(1) == Some(case))?;
            let words = selection.parameter(module).into_iter();
            let words: String = words.map(|word| format!(" {word}")).collect();
            selection.has(module).then(|| format!("{old}{words}"))
        };
        let example = selection.has(EXAMPLE_SUITE).then(example_line);
        let lines = chosen.into_iter().filter_map(line).chain(example);
        let lines: Vec<String> = lines.collect();
        Ok(Plan {
            load: self.load.filter(|_| selection.has(STRESS)),
            queue: self.queue.filter(|_| selection.has(QUEUE)),
            lines: lines.join("\n"),
            floor: false,
            selection: Some(selection.clone()),
            ..self
        })
    }

    /// What the kernel of its main boot is told beside what the lane says.
    pub fn cmdline(&self) -> Option<String> {
        self.selection.as_ref().map(Selection::cmdline)
    }

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
            selection: None,
            seed_given: given.contains_key(SEED),
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
            selection: None,
            seed_given: false,
        }
    }

    /// The same with a seed that is `by` more, if the user gave none.
    pub fn with_later_seed(&self, by: u64) -> Plan {
        let mut plan = self.clone();
        if let (Some(seed), false) = (plan.params.get_mut(SEED), self.seed_given) {
            let word = |seed: u64| format!(" {SEED}={seed}");
            let later = *seed + by;
            let lines = plan.lines.lines().map(|line| {
                let words = line.split(' ').skip(1).map(|w| format!(" {w}"));
                let words = words.map(|w| if w == word(*seed) { word(later) } else { w });
                line.split(' ')
                    .take(1)
                    .map(str::to_owned)
                    .chain(words)
                    .collect::<String>()
            });
            plan.lines = lines.collect::<Vec<_>>().join("\n");
            *seed = later;
        }
        plan
    }

    /// Whether the guest carries out a case of this name.
    pub fn has(&self, case: &str) -> bool {
        let mut lines = self.lines.lines();
        lines.any(|l| l.split(' ').nth(1) == Some(case))
    }
}

/// What the module refuses, before a boot is there to find it out.
fn check_given(lane: &Lane, given: &BTreeMap<String, u64>) -> Result<()> {
    let most = [
        (
            "threads",
            16 * u64::from(lane.cpus),
            "16 for each of its CPUs",
        ),
        ("seconds", 24 * 60 * 60, "a day"),
    ];
    for (name, most, what) in most {
        if given.get(name).is_some_and(|n| *n > most) {
            let (variable, lane) = (name.to_uppercase(), &lane.name);
            let why = format!(
                "{variable}={}: {lane} takes {most} at most, {what}",
                given[name]
            );
            return Err(fail(Exit::Usage, why));
        }
    }
    Ok(())
}

/// Chosen here, so that it is recorded even if the guest never says it.
fn seed() -> u64 {
    u64::from(std::process::id()) + 1
}

fn queue_lines(params: &str) -> String {
    format!("module {QUEUE} {QUEUE}.ko{params}\n{}", example_line())
}

fn example_line() -> String {
    format!("module {EXAMPLE} {EXAMPLE}.ko")
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
            cpus: None,
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
    fn a_repetition_has_a_seed_of_its_own_but_for_a_given_one() {
        let lane = shipped("x86_64-rt");
        let plan = Plan::stress(&lane, &BTreeMap::new(), None).unwrap();
        let (seed, later) = (plan.params["seed"], plan.with_later_seed(5));
        assert_eq!(later.params["seed"], seed + 5);
        let count = |plan: &Plan, seed: u64| {
            let words = plan.lines.split([' ', '\n']);
            words.filter(|w| *w == format!("seed={seed}")).count()
        };
        assert_eq!((count(&plan, seed), count(&later, seed + 5)), (3, 3));
        assert_eq!(later.lines.len(), plan.lines.len());
        let given = BTreeMap::from([("seed".into(), 7)]);
        let plan = Plan::stress(&lane, &given, None).unwrap();
        assert_eq!(plan.with_later_seed(5), plan);
    }

    fn shipped(name: &str) -> Lane {
        Lane::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("lanes"), name).unwrap()
    }

    #[test]
    fn a_selection_loads_what_has_its_cases_and_nothing_else() {
        let given = BTreeMap::from([("seed".into(), 7)]);
        let plan = |list: &str| {
            let selection = Selection::parse(list).unwrap();
            Plan::stress(&shipped("x86_64-rt"), &given, Some(&selection)).unwrap()
        };
        let one = plan("pages/nmi");
        assert!(
            one.lines
                .ends_with(" seed=7 tick_permille=990 tick_seconds=10 case=nmi"),
            "{}",
            one.lines
        );
        assert!(one.has(STRESS_CASE) && one.lines.lines().count() == 1);
        assert!(one.load.is_some() && one.queue.is_none() && !one.floor);
        assert_eq!(one.cmdline().unwrap(), "kunit.enable=0");
        let both = plan("*/locks");
        assert_eq!(both.lines.matches("case=locks").count(), 2);
        assert!(!both.has(EXAMPLE) && !both.has(FAILING));
        assert_eq!(plan("kunit/slots_free").lines, "");
        let kunit = plan("kunit/*");
        assert_eq!(kunit.lines, example_line());
        let all = plan("queue/*");
        assert!(all.has(QUEUE) && !all.lines.contains("case="));
        assert_eq!(Plan::new(&load(), None, &given).cmdline(), None);
    }

    #[test]
    fn a_lane_without_the_suite_says_so() {
        let selection = Selection::parse("kunit/*").unwrap();
        let e = Plan::stress(&shipped("x86_64-up"), &BTreeMap::new(), Some(&selection));
        let e = e.unwrap_err();
        assert_eq!(crate::base::exit::stage(&e), Some(Exit::Usage));
        assert!(e.to_string().contains("x86_64-up"), "{e}");
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

    #[test]
    fn what_the_module_would_refuse_is_refused_before_a_boot() {
        let lane = shipped("x86_64-rt");
        let most = 16 * u64::from(lane.cpus);
        let stress = |name: &str, n| {
            let given = BTreeMap::from([(name.to_owned(), n)]);
            Plan::stress(&lane, &given, None).map_err(|e| e.to_string())
        };
        stress("threads", most).unwrap();
        let why = stress("threads", 100_000).unwrap_err();
        assert!(why.starts_with("THREADS=100000: x86_64-rt takes "), "{why}");
        assert!(stress("seconds", 86_401).is_err());
    }
}
