// SPDX-License-Identifier: GPL-2.0
//! The command line.

use crate::base::exit::{Exit, fail};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    name = "nolocks-ci",
    about = "Builds, boots and judges the __GFP_NO_LOCKS series; `make` calls it"
)]
pub struct Cli {
    /// The checkout that holds patches/, rust-module/ and ci/.
    #[arg(long, default_value = ".", global = true)]
    pub checkout: PathBuf,
    /// Where everything is fetched and built [default: $NOLOCKS_CACHE or ~/.cache/nolocks]
    #[arg(long, global = true)]
    pub cache: Option<PathBuf>,
    /// Install missing packages without asking (so does CI=true).
    #[arg(long, global = true)]
    pub yes: bool,
    /// Guests beside each other [default: as many as cores and memory allow]
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    #[command(subcommand)]
    pub command: Task,
}

#[derive(Args, Clone, Default)]
pub struct Where {
    /// Your kernel tree; only apply, unapply and rebase ever change it
    #[arg(long)]
    pub kdir: Option<PathBuf>,
    /// A lane of ci/lanes/, or all
    #[arg(long)]
    pub lane: Option<String>,
}

impl Where {
    /// For a command that boots one guest.
    pub fn one_lane(&self, command: &str) -> Result<()> {
        if self.lane.as_deref() == Some("all") {
            let what = format!("`make {command}` is for one lane: name it with LANE=");
            return Err(fail(Exit::Usage, what));
        }
        Ok(())
    }
}

/// What one run has on top of its lane.
#[derive(Args, Clone, Default)]
pub struct OnTop {
    /// A file of Kconfig options; the kernel with them is a build of its own
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Words for the guest's kernel command line
    #[arg(long)]
    pub bootargs: Option<String>,
}

/// The stress module's parameters; none means the lane's own, 0 the module's default.
#[derive(Args, Clone, Default)]
pub struct Params {
    #[arg(long)]
    pub seconds: Option<u32>,
    #[arg(long)]
    pub threads: Option<u32>,
    #[arg(long)]
    pub seed: Option<u32>,
    #[arg(long)]
    pub pages: Option<u32>,
    /// The queue's stress module's
    #[arg(long)]
    pub objects: Option<u32>,
}

impl Params {
    pub fn given(&self) -> BTreeMap<String, u64> {
        [
            ("seconds", self.seconds),
            ("threads", self.threads),
            ("seed", self.seed),
            ("pages", self.pages),
            ("objects", self.objects),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect()
    }
}

#[derive(Subcommand)]
pub enum Task {
    /// Check and install the tools
    Setup,
    /// Build a lane with the series, boot it and run the stress module
    Stress {
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        on_top: OnTop,
        #[command(flatten)]
        params: Params,
        /// Only these cases: pages/nmi,queue/*irq*,kunit/slots_*
        #[arg(long)]
        case: Option<String>,
        /// Boot until it is red, at most so often
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        repeat: u32,
    },
    /// Push objects to the queue for a long time
    Soak {
        #[command(flatten)]
        at: Where,
        /// How many, all in all
        #[arg(long, default_value_t = 10_000_000)]
        objects: u64,
    },
    /// Unit tests, series checks, and the lanes with their controls
    Test {
        #[command(flatten)]
        at: Where,
    },
    /// Everything that needs no kernel build
    Check,
    /// Build and boot every prefix of the series
    SeriesCheck,
    /// Run sparse on the C files that the series touches
    Sparse,
    /// Count the instructions of a page and of queueing an object, with and without the series; and measure natively
    Bench {
        /// A machine of ci/bench/, native, or all
        #[arg(long)]
        lane: Option<String>,
    },
    /// Run the kernel's own tests of what the series changes, with the series and without it
    Torture,
    /// Put the series on your tree
    Apply {
        #[arg(long)]
        kdir: Option<PathBuf>,
    },
    /// Take the series off your tree
    Unapply {
        #[arg(long)]
        kdir: Option<PathBuf>,
    },
    /// Put the series on a newer release, by a three-way merge
    Rebase {
        #[arg(long)]
        kdir: Option<PathBuf>,
    },
    /// Make patches/ anew from the commits of your tree
    Refresh {
        #[arg(long)]
        kdir: Option<PathBuf>,
        /// The commit below the series, where it cannot be told by the subjects
        #[arg(long)]
        base: Option<String>,
    },
    /// Build the lane's kernel
    Build {
        #[command(flatten)]
        at: Where,
    },
    /// Build the modules, against a lane's kernel or your built tree
    Modules {
        #[command(flatten)]
        at: Where,
    },
    /// Put bugs into copies of the modules' source, and see which no test finds
    Mutants {
        #[command(flatten)]
        at: Where,
        /// models, kernel, series, or names of ci/mutants/mutants.toml with commas between
        #[arg(long)]
        mutants: Option<String>,
    },
    /// A prompt in the booted guest
    Shell {
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        on_top: OnTop,
    },
    /// Boot a guest that waits for gdb, from a kernel with debug info
    Gdb {
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        on_top: OnTop,
    },
    /// Write a run's stack traces with file and line
    Decode {
        #[arg(long)]
        run: Option<PathBuf>,
        /// The tree that the run was of, if it was your own
        #[arg(long)]
        kdir: Option<PathBuf>,
    },
    /// Write rust-project.json for rust-analyzer, of the modules against a lane's kernel
    RustAnalyzer {
        #[command(flatten)]
        at: Where,
    },
    /// Record a trace in the guest and show that perf kmem prints NL
    PerfKmem {
        #[command(flatten)]
        at: Where,
    },
    /// Repeat a run with its own images, modules and seed
    Repro {
        #[arg(long)]
        run: Option<PathBuf>,
    },
    /// Write docs/results.md and its picture from a run
    Results {
        #[arg(long)]
        run: Option<PathBuf>,
    },
    /// Judge a recorded run again, without a boot
    Judge {
        #[arg(long)]
        run: Option<PathBuf>,
        /// By the cases and rules of this checkout, not by the run's own
        #[arg(long)]
        todays: bool,
    },
    /// Remove what was built, and the runs
    Clean,
}

impl Task {
    pub fn makes_modules(&self) -> bool {
        matches!(
            self,
            Task::Stress { .. }
                | Task::Soak { .. }
                | Task::Test { .. }
                | Task::Bench { .. }
                | Task::Modules { .. }
                | Task::Mutants { .. }
                | Task::Shell { .. }
                | Task::Gdb { .. }
                | Task::Decode { .. }
                | Task::RustAnalyzer { .. }
                | Task::PerfKmem { .. }
        )
    }
}
