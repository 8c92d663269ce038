// SPDX-License-Identifier: GPL-2.0

//! Allocates and frees pages with `__GFP_NO_LOCKS` in every context, as an `insmod`.
//!
//! The verdict is KTAP on the kernel log. The load fails when a case did.

use core::num::NonZero;

use kernel::prelude::*;

#[path = "../../lib/nolocks/mod.rs"]
pub mod nolocks;

#[path = "../../harness/mod.rs"]
mod harness;
#[path = "../../harness/pages/ledger.rs"]
mod ledger;
#[path = "../../harness/pages/load.rs"]
mod load;
#[path = "../../harness/pages/probes.rs"]
mod probes;
#[path = "../../harness/pages/vm.rs"]
mod vm;

mod absence;
mod all_cpus;
mod cases;
mod charged;
mod cma;
mod config;
mod contents;
mod contexts;
mod dead_cgroup;
mod deferred;
mod env;
mod flags;
mod guards;
mod hotplug;
mod irq_works;
mod kvfree;
mod locks;
mod nested;
mod page_api;
mod refill;
mod storm;
mod sysctl;
mod tick;

use cases::CASES;
use config::Config;
use env::Env;
use harness::*;
use ktap::Chosen;

module! {
    type: Stress,
    name: "nolocks_stress",
    authors: ["The nolocks authors"],
    description: "Stress test for page allocation without locks",
    license: "GPL",
    params: {
        seconds: u32 {
            default: 0,
            description: "How long all CPUs allocate at once; 0: until the pages are through",
        },
        threads: u32 {
            default: 0,
            description: "Threads that allocate at once; 0: one for each CPU",
        },
        seed: u64 {
            default: 0,
            description: "Seed of everything random; 0: 1",
        },
        pages: u64 {
            default: 0,
            description: "Pages to obtain in each context, and 8 times that on all CPUs; 0: 220000",
        },
        tick_seconds: u32 {
            default: 0,
            description: "How long pages are taken at each tick, four times; 0: as seconds, at least 1",
        },
        tick_ms: u32 {
            default: 0,
            description: "The shortest time between two ticks; 0: 4",
        },
        tick_permille: u32 {
            default: 0,
            description: "Of a thousand of these pages, how many each CPU must obtain; 0: 999",
        },
        hits: u32 {
            default: 0,
            description: "NMIs to hit each part of the slots' code; 0: 1000",
        },
    },
}

impl Config {
    const MAX_SECONDS: u32 = 24 * 60 * 60;
    const MAX_PAGES: u64 = 1 << 32;
    const MAX_HITS: u32 = 1_000_000;

    fn from_parameters() -> Result<Self> {
        let seconds = module_parameters::seconds.value();
        let threads = module_parameters::threads.value();
        let seed = module_parameters::seed.value();
        let pages = module_parameters::pages.value();
        let tick_seconds = module_parameters::tick_seconds.value();
        let tick_ms = module_parameters::tick_ms.value();
        let tick_permille = module_parameters::tick_permille.value();
        let hits = module_parameters::hits.value();
        let cpus = threads::online_cpus();
        let max_threads = 16 * cpus.get();

        for (name, value) in [("seconds", seconds), ("tick_seconds", tick_seconds)] {
            if value > Self::MAX_SECONDS {
                pr_err!(
                    "{name}={value} is more than a day ({}): give less\n",
                    Self::MAX_SECONDS
                );
                return Err(EINVAL);
            }
        }
        if threads > max_threads {
            pr_err!(
                "threads={} is more than 16 for each online CPU ({})\n",
                threads,
                max_threads
            );
            return Err(EINVAL);
        }
        if pages > Self::MAX_PAGES {
            pr_err!(
                "pages={} is more than {}: give less, or seconds= for a long run\n",
                pages,
                Self::MAX_PAGES
            );
            return Err(EINVAL);
        }

        if tick_ms > 1000 {
            pr_err!("tick_ms={tick_ms} is more than a second: give less\n");
            return Err(EINVAL);
        }
        if tick_permille > 1000 {
            pr_err!("tick_permille={tick_permille} is more than there are: give at most 1000\n");
            return Err(EINVAL);
        }
        if hits > Self::MAX_HITS {
            pr_err!("hits={} is more than {}: give less\n", hits, Self::MAX_HITS);
            return Err(EINVAL);
        }

        Ok(Self {
            seconds,
            threads: NonZero::new(threads).unwrap_or(cpus),
            seed: if seed == 0 { 1 } else { seed },
            pages: if pages == 0 { 220_000 } else { pages },
            tick_seconds: tick_seconds.max(seconds).max(1),
            tick_ms: if tick_ms == 0 { 4 } else { tick_ms },
            tick_permille: if tick_permille == 0 {
                999
            } else {
                tick_permille
            },
            hits: if hits == 0 { 1000 } else { hits },
        })
    }
}

struct Stress;

impl kernel::Module for Stress {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let chosen = Chosen::from_parameter(CASES)?;
        let env = Env::new(Config::from_parameters()?)?;

        ktap::run(&env, CASES, &chosen, env.config.seed)?;
        Ok(Self)
    }
}
