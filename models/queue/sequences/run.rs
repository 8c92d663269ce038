// SPDX-License-Identifier: GPL-2.0
// Included once for the source as it is and once for each bug in it.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use shard::*;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::BTreeSet;
use std::io::{stderr, Write};
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::rc::Rc;

const PERIOD: usize = 10;
const PAUSE: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// `memory`: whether a block can be allocated. `tries`: after how many the lock is taken, where
    /// the push does not `wait` for it.
    Push {
        single: bool,
        head: bool,
        memory: bool,
        wait: bool,
        tries: usize,
    },
    /// The same object once more.
    Again {
        nth: usize,
        memory: bool,
    },
    Tick(usize),
    /// A grace period begins or ends.
    GracePeriod,
    Drain {
        all: bool,
        memory: bool,
    },
    /// The work that frees.
    Reclaim,
    Barrier {
        memory: bool,
    },
    Hurry,
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (any::<(bool, bool, bool, bool)>(), 0..4usize).prop_map(
            |((single, head, memory, wait), tries)| {
                Op::Push { single, head, memory, wait, tries }
            },
        ),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(nth, memory)| Op::Again { nth, memory }),
        3 => (0..=PERIOD).prop_map(Op::Tick),
        6 => Just(Op::GracePeriod),
        5 => any::<(bool, bool)>().prop_map(|(all, memory)| Op::Drain { all, memory }),
        4 => Just(Op::Reclaim),
        1 => any::<bool>().prop_map(|memory| Op::Barrier { memory }),
        1 => Just(Op::Hurry),
        1 => Just(Op::Shrink),
    ]
}

include!("world.rs");
include!("model.rs");

/// A run of the queue and of its model.
struct Run {
    world: World,
    lock: Taken<Shard<World>>,
    waiting: RefCell<Waiting<World>>,
    reclaimed: Cell<usize>,
    model: RefCell<Model>,
    // Boxed, because the queue keeps their addresses.
    #[allow(clippy::vec_box)]
    heads: Vec<Option<Box<UnsafeCell<Head>>>>,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::default(),
            lock: Taken(RefCell::new(Shard::new()), Cell::new(0)),
            waiting: RefCell::new(Waiting::new()),
            reclaimed: Cell::new(0),
            model: RefCell::default(),
            heads: Vec::new(),
        }
    }

    fn push(&mut self, nth: usize, wait: bool, tries: usize) -> Pushed {
        let kind = [Kind::Slab, Kind::Single][usize::from(is_single(nth))];
        let head = self.heads[nth]
            .as_ref()
            .and_then(|head| NonNull::new(head.get()));

        self.lock.1.set(tries);
        // SAFETY: The heads live as long as the run; freeing is a note in a book.
        unsafe { push(&self.world, &self.lock, wait, address(nth), kind, head) }
    }

    fn drain(&self, all: bool) -> bool {
        self.world.may_sleep.set(true);
        let rest = drain(&self.world, &self.lock, &mut self.waiting.borrow_mut(), all);
        self.world.may_sleep.set(false);
        let expected = self.model.borrow_mut().drain(&self.world, all);

        if rest != expected {
            self.world
                .complain(format!("{rest:?} rests, not {expected:?}"));
        }
        rest.listed
    }

    fn reclaim(&self) {
        let ready = self.waiting.borrow_mut().take_ready();
        let freed = reclaim(&self.world, &self.lock, ready) as usize;
        self.reclaimed.set(self.reclaimed.get() + freed);
        self.model.borrow_mut().reclaim();
    }

    fn barrier(&self) {
        barrier(&self.world, || self.drain(true), || self.reclaim());
        let model = self.model.borrow();
        let freed = self.world.freed.borrow().len();
        if freed + model.twice != model.pushed {
            self.world
                .complain(format!("{} left by a barrier", model.pushed - freed));
        }
    }

    fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Push {
                single,
                head,
                memory,
                wait,
                tries,
            } => {
                // A number that says the kind.
                let skip = self.heads.len() % 2 != usize::from(single);
                self.heads.extend(skip.then_some(None));
                let nth = self.heads.len();
                self.heads
                    .push(head.then(|| Box::new(UnsafeCell::new(Head::new()))));
                self.world.memory.set(memory);
                let safe_at = self.world.snap();
                self.world.safe_at.borrow_mut().resize(nth + 1, safe_at);

                let enough = if wait { usize::MAX } else { tries };
                let expected = self.model.get_mut().push(&self.world, nth, head, enough);
                let pushed = self.push(nth, wait, tries);
                if pushed != expected {
                    return Err(format!("{nth} was {pushed:?}, not {expected:?}"));
                }
            }
            Op::Again { nth, memory } => {
                let model = self.model.get_mut();
                let open: Vec<usize> = model.open.iter().flatten().copied().collect();
                let listed = model.listed.len();
                self.world.memory.set(memory);
                if listed > 0 && nth % 2 == 0 && !memory && model.spares == 0 {
                    let nth = model.listed[nth % listed];
                    if model.open[usize::from(is_single(nth))].is_empty() {
                        // The head tells.
                        model.starved = true;
                        let pushed = self.push(nth, true, 0);
                        if pushed != Pushed::Twice {
                            return Err(format!("{nth}, listed, was {pushed:?} again"));
                        }
                    }
                } else if !open.is_empty() {
                    // The worker will tell.
                    let nth = open[nth % open.len()];
                    let _ = model.push(&self.world, nth, false, usize::MAX);
                    let _ = self.push(nth, true, 0);
                }
            }
            Op::Tick(ticks) => self.world.now.set(self.world.now.get() + ticks),
            Op::GracePeriod => self.world.gp_seq.set(self.world.gp_seq.get() + 1),
            Op::Drain { all, memory } => {
                self.world.memory.set(memory);
                let _listed = self.drain(all);
            }
            Op::Reclaim => self.reclaim(),
            Op::Barrier { memory } => {
                self.world.memory.set(memory);
                self.barrier();
            }
            Op::Hurry => {
                let gone = hurry(&self.world, &self.lock);
                let expected = self.model.get_mut().hurry(&self.world);
                if gone != expected {
                    return Err(format!("{gone} hurried, not {expected}"));
                }
            }
            Op::Shrink => {
                let gone = shrink(&self.world, &self.lock);
                let model = self.model.get_mut();
                let expected = model.hurry(&self.world) + mem::take(&mut model.spares);
                if gone != expected {
                    return Err(format!("{gone} shrunk, not {expected}"));
                }
            }
        }
        self.compare()
    }

    fn compare(&self) -> Result<(), String> {
        let complaints = self.world.complaints.borrow();
        if !complaints.is_empty() {
            return Err(complaints.join("; "));
        }
        let (model, shard) = (self.model.borrow(), self.lock.0.borrow());
        let (freed, twice) = (self.reclaimed.get(), self.waiting.borrow().twice());
        let same = |what: &str, is: usize, should: usize| match is == should {
            true => Ok(()),
            false => Err(format!("{what}: {is}, not {should}")),
        };

        if *self.world.freed.borrow() != model.freed {
            return Err(format!(
                "{:?} freed, not {:?}",
                self.world.freed.borrow(),
                model.freed
            ));
        }
        same(
            "wake",
            shard.wake() as usize,
            model.wake.unwrap_or(Wake::Idle) as usize,
        )?;
        same("kicks to wake", self.world.kicks.get(), model.kicks)?;
        same(
            "objects pushed",
            shard.counts().pushed as usize,
            model.pushed,
        )?;
        same("objects freed", freed, model.freed.len())?;
        same("objects pushed twice", twice as usize, model.twice)?;
        same("polls", self.world.polls.get(), model.polls)?;
        same(
            "shrinkable",
            self.world.shrinkable.get(),
            model.shrinkable(),
        )?;
        same("blocks", self.world.pages.get(), model.blocks_in_use())
    }
}

fn run(ops: &[Op], what: &str) -> Result<(), String> {
    let mut run = Run::new();
    let relevant = |result: Result<(), String>| match result {
        Err(wrong) if wrong.contains(what) => Err(wrong),
        _ => Ok(()),
    };

    for op in ops {
        relevant(run.step(*op)).map_err(|wrong| format!("at {op:?}: {wrong}"))?;
    }
    run.barrier();
    relevant(run.compare())?;
    let _spares = shrink(&run.world, &run.lock);
    relevant(match run.world.pages.get() {
        0 => Ok(()),
        pages => Err(format!("{pages} blocks leaked")),
    })
}

/// Runs 2,000 cases, the same ones each time.
fn runner() -> TestRunner {
    let config = Config {
        cases: 2000,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// Runs sequences, and says what was wrong in the shortest, of all that has `what` in its description.
pub fn check(what: &str) -> Result<(), String> {
    let count = Cell::new(0);
    runner()
        .run(&prop::collection::vec(op(), 1..100), |ops| {
            count.set(count.get() + 1);
            run(&ops, what).map_err(TestCaseError::fail)
        })
        .map_err(|err| err.to_string())?;
    // The harness would keep what print!() says of a test that passes, and `make check` shows it.
    let count = count.get();
    let line = format!("explored {count} random sequences of the queue\n");
    stderr().write_all(line.as_bytes()).unwrap();
    Ok(())
}

/// Runs what a random sequence seldom does: a list as long as a full block, and a drain before that is
/// old.
pub fn check_long_list(what: &str) -> Result<(), String> {
    let push = Op::Push {
        single: false,
        head: true,
        memory: false,
        wait: true,
        tries: 0,
    };
    let drain = Op::Drain {
        all: false,
        memory: false,
    };
    let mut ops = vec![push; CAPACITY];

    ops.push(drain);
    run(&ops, what)
}
