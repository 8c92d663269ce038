// SPDX-License-Identifier: GPL-2.0

//! Pushes objects to the bulk queue from every context, as an `insmod`, and leaves some behind for
//! the `rmmod`.
//!
//! The verdict is KTAP on the kernel log. The load fails when a case did.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::ordering::Relaxed,
    ModuleMetadata, //
};

#[path = "../../lib/nolocks/mod.rs"]
pub mod nolocks;
#[path = "../../lib/queue/mod.rs"]
pub mod queue;

#[allow(dead_code, reason = "the pages' stress test needs all of it")]
#[path = "../../harness/mod.rs"]
mod harness;
#[path = "../../harness/queue/node.rs"]
mod node;
#[path = "../../harness/queue/readers.rs"]
mod readers;

mod books;
mod cases;
mod config;
mod contexts;
mod destructors;
mod drains;
mod env;
mod latency;
mod life;
mod locks;
mod memory;
mod peaks;
mod promises;
mod races;

use cases::CASES;
use config::Config;
use env::Env;
use harness::*;
use ktap::Chosen;
use node::{
    Boxed,
    Held,
    How,
    Origin,
    Watched,
    FAIL_EVERY,
    FREED, //
};
use queue::Queue;

module! {
    type: Stress,
    name: "nolocks_queue_stress",
    authors: ["The nolocks authors"],
    description: "Stress test for the bulk queue",
    license: "GPL",
    params: {
        objects: u64 {
            default: 0,
            description: "Objects to push in each context, at least 160; 0: 4000",
        },
        seed: u64 {
            default: 0,
            description: "Seed of everything random; 0: 1",
        },
        fail: u64 {
            default: 0,
            description: "Every so many blocks one cannot be allocated; 0: none",
        },
    },
}

impl Config {
    /// So that no case, each of which pushes a share, pushes none.
    const MIN_OBJECTS: u64 = 160;
    const MAX_OBJECTS: u64 = 1 << 30;

    fn from_parameters() -> Result<Self> {
        let objects = module_parameters::objects.value();
        let seed = module_parameters::seed.value();
        let fail = module_parameters::fail.value();

        if objects > Self::MAX_OBJECTS {
            pr_err!(
                "objects={} is more than {}: give less\n",
                objects,
                Self::MAX_OBJECTS
            );
            return Err(EINVAL);
        }
        if objects != 0 && objects < Self::MIN_OBJECTS {
            pr_err!(
                "objects={} is less than {}, of which each case pushes some: give more\n",
                objects,
                Self::MIN_OBJECTS
            );
            return Err(EINVAL);
        }
        FAIL_EVERY.store(fail, Relaxed);

        Ok(Self {
            objects: if objects == 0 {
                4_000
            } else {
                objects as usize
            },
            seed: if seed == 0 { 1 } else { seed },
            fail: fail != 0,
        })
    }
}

struct Stress {
    /// Keeps the objects in the queue until the module goes.
    held: Option<Held>,
    queue: Option<Queue<Watched>>,
    /// What must have been freed then.
    freed: u64,
}

impl Stress {
    const LEFT: u64 = 2000;

    /// How many references to this module there are.
    fn references() -> c_int {
        // SAFETY: The module is there as long as its code runs.
        unsafe { bindings::module_refcount(Self::THIS_MODULE.as_ptr()) }
    }
}

impl kernel::Module for Stress {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let chosen = Chosen::from_parameter(CASES)?;
        let env = Env::new(Config::from_parameters()?, Self::references)?;

        ktap::run(&env, CASES, &chosen, env.config.seed)?;

        let queue = Queue::new(c"nolocks_queue_stress")?;
        let held = Watched::hold();
        let freed = FREED.load(Relaxed) + Self::LEFT;
        for _ in 0..Self::LEFT {
            // Cannot come back: it has a head.
            let _ = Boxed::new(Origin::Kmalloc)?.push(&queue, How::Push);
        }
        Ok(Self {
            held: Some(held),
            queue: Some(queue),
            freed,
        })
    }
}

impl Drop for Stress {
    fn drop(&mut self) {
        let left = self.freed - FREED.load(Relaxed);

        drop(self.held.take());
        drop(self.queue.take());
        pr_info!(
            "# unload: queued={left} freed={} of {}\n",
            FREED.load(Relaxed),
            self.freed
        );
        kernel::warn_on!(left != Self::LEFT || FREED.load(Relaxed) != self.freed);
    }
}
