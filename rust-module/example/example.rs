// SPDX-License-Identifier: GPL-2.0

//! A table that a timer updates in hard interrupt context, under a raw spinlock, while a task reads
//! it under RCU.
//!
//! Without the queue the timer could not get rid of what it replaces: it can neither wait for a
//! grace period nor, on `PREEMPT_RT`, free memory. With it there is no `unsafe` in here.

use kernel::{
    impl_has_hr_timer,
    prelude::*,
    sync::{
        atomic::{
            ordering::Relaxed,
            Atomic, //
        },
        rcu,
        Arc,
        ArcBorrow, //
    },
    time::{
        delay::fsleep,
        hrtimer::{
            ArcHrTimerHandle,
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerPointer,
            HrTimerRestart,
            RelativePinnedHardMode, //
        },
        Delta,
        Monotonic, //
    }, //
};

mod kunit;
#[allow(dead_code, reason = "an example needs little of it")]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code, reason = "an example needs little of it")]
#[path = "../lib/queue/mod.rs"]
pub mod queue;
mod table;

use table::Table;

module! {
    type: Example,
    name: "nolocks_example",
    authors: ["The nolocks authors"],
    description: "An RCU-protected table that is updated in hard interrupts",
    license: "GPL",
}

const PLACES: usize = 8;
/// More than a block holds, so that some are freed before the module goes.
const UPDATES: u64 = 2000;

#[pin_data]
struct Clockwork {
    #[pin]
    table: Table<PLACES>,
    updates: Atomic<u64>,
    #[pin]
    timer: HrTimer<Self>,
}

impl Clockwork {
    const PERIOD: Delta = Delta::from_micros(200);

    fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                table <- Table::new(),
                updates: Atomic::new(0),
                timer <- HrTimer::new(),
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Reads every place once, and says how many entries were not what they should be.
    fn read(&self) -> usize {
        let reader = rcu::read_lock();

        (0..PLACES)
            .filter_map(|place| self.table.get(place, &reader))
            .filter(|entry| entry.value != Table::<PLACES>::value_of(entry.generation))
            .count()
    }
}

impl HrTimerCallback for Clockwork {
    type Pointer<'a> = Arc<Self>;

    /// Runs in hard interrupt context on `PREEMPT_RT` too.
    fn run(this: ArcBorrow<'_, Self>, mut ctx: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        let generation = this.updates.load(Relaxed);

        if this
            .table
            .update(generation as usize % PLACES, generation)
            .is_none()
        {
            return HrTimerRestart::NoRestart;
        }
        this.updates.store(generation + 1, Relaxed);
        ctx.forward_now(Self::PERIOD);
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Clockwork {
        mode: RelativePinnedHardMode<Monotonic>, field: self.timer
    }
}

struct Example {
    // Before the table that it updates.
    _timer: ArcHrTimerHandle<Clockwork>,
    _clockwork: Arc<Clockwork>,
}

impl kernel::Module for Example {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let clockwork = Clockwork::new()?;
        let (mut reads, mut torn) = (0, 0);

        clockwork.table.provide(UPDATES as usize)?;
        let timer = clockwork.clone().start(Clockwork::PERIOD);
        while clockwork.updates.load(Relaxed) < UPDATES {
            torn += clockwork.read();
            reads += PLACES;
            fsleep(Delta::from_millis(1));
        }
        pr_info!("{UPDATES} updates in hard interrupts, {reads} reads, {torn} of them torn\n");
        if torn != 0 {
            return Err(EIO);
        }
        Ok(Self {
            _timer: timer,
            _clockwork: clockwork,
        })
    }
}
