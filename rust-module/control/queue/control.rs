// SPDX-License-Identifier: GPL-2.0

//! Deliberate bugs, one for each load, to show that the queue's tests would see them.
//!
//! The readers, or the queue itself, must report each of them. Of no other use.

use kernel::{
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        atomic::ordering::Relaxed,
        Arc, //
    }, //
};

#[path = "../../lib/nolocks/mod.rs"]
pub mod nolocks;
#[path = "../../lib/queue/mod.rs"]
pub mod queue;

#[allow(dead_code, reason = "a control needs little of it")]
#[path = "../../harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "a control needs little of it")]
#[path = "../../harness/queue/node.rs"]
mod node;
#[path = "../../harness/queue/readers.rs"]
mod readers;

use context::Context;
use harness::*;
use node::{
    Boxed,
    How,
    Node,
    Origin,
    Watched, //
};
use queue::{
    Accepts,
    DropQueue,
    Hooks,
    Object,
    Policy,
    Queue,
    RcuPointer, //
};

module! {
    type: Control,
    name: "nolocks_queue_control",
    authors: ["The nolocks authors"],
    description: "Deliberate bugs that the tests of the bulk queue must report",
    license: "GPL",
    params: {
        control: u32 {
            default: 0,
            description: "1 objects freed before the grace period, 2 one pushed twice to blocks, 3 one pushed twice by its head, 4 what readers may see dropped, 5 an object read after its free, 6 objects forgotten, 7 a destructor in a barrier of its own queue, 8 one that waits until its own queue is empty",
        },
    },
}

struct Control;

impl kernel::Module for Control {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        match module_parameters::control.value() {
            1 => freed_too_early()?,
            2 => pushed_twice(How::Headless)?,
            3 => pushed_twice(How::Push)?,
            4 => retired_dropped()?,
            5 => read_after_free()?,
            6 => forgotten()?,
            7 => waits_for_itself(DropQueue::barrier)?,
            8 => waits_for_itself(DropQueue::wait_until_empty)?,
            control => {
                pr_err!("control={control} is no control: give control=1 to control=8\n");
                return Err(EINVAL);
            }
        }
        Ok(Self)
    }
}

/// Never waits.
struct Hasty(());

// SAFETY: It is not safe. That is the bug.
unsafe impl Hooks for Hasty {
    fn elapsed(_snapshot: bindings::rcu_gp_seq) -> bool {
        true
    }
}

// SAFETY: It frees nothing. Dropping a node does nothing.
unsafe impl Policy for Hasty {
    const DESTROYS: bool = true;
    const OWNS_MEMORY: bool = false;

    unsafe fn destroy(object: Object) {
        // SAFETY: `Watched` accepts nodes, and the caller owns one, as `Hasty` accepts nothing else.
        unsafe { Watched::destroy(object) }
    }
}

// SAFETY: `destroy()` takes nodes.
unsafe impl Accepts<Node> for Hasty {}

fn freed_too_early() -> Result {
    const WRITES: usize = 1 << 12;
    const ROUNDS: usize = 200;
    let queue = Queue::<Hasty>::new(c"nolocks_queue_control")?;
    // No vmalloc: a reader who is late would fault.
    let choice = readers::Choice {
        contexts: &[Context::Task],
        origins: &[Origin::Kmalloc],
        seed: 1,
        // Long enough for what is queued meanwhile to be freed on a slow machine.
        patience: 1 << 26,
    };

    // A writer that waits for a reader can end that reader's chance.
    for _ in 0..ROUNDS {
        let tally = readers::run(&queue, &choice, WRITES)?;
        let (reads, stale) = (tally.reads.load(Relaxed), tally.stale.load(Relaxed));

        pr_info!("control 1: {stale} of {reads} reads met a freed object\n");
        if kernel::warn_on!(stale != 0) {
            break;
        }
    }
    Ok(())
}

fn pushed_twice(how: How) -> Result {
    let queue = Queue::<Watched>::new(c"nolocks_queue_control")?;
    let node = Boxed::new(Origin::Kmalloc)?;
    // SAFETY: It is not safe. That is the bug.
    let again = unsafe { core::ptr::read(&node) };

    // Lists only, where the head is to tell.
    Watched::fail((how == How::Push).then_some(0), how == How::Push);
    for node in [node, again] {
        let _ = node.push(&queue, how);
    }
    queue.barrier();
    pr_info!("control: {:?}\n", queue.stats());
    Ok(())
}

/// What was replaced under its readers goes without a queue.
fn retired_dropped() -> Result {
    let place = RcuPointer::new(KBox::new(1u64, GFP_KERNEL)?);

    drop(place.replace(KBox::new(2, GFP_KERNEL)?));
    Ok(())
}

/// For KASAN alone.
fn read_after_free() -> Result {
    let object = KBox::new(1u64, GFP_KERNEL)?;
    let stale: *const u64 = &*object;

    drop(object);
    // SAFETY: It is not safe. That is the bug.
    let value = unsafe { stale.read_volatile() };
    pr_info!("control: {value} was read after its free\n");
    Ok(())
}

/// For kmemleak alone. Of slab objects the sheaf that they came from still has the pointers, and these are
/// larger. Several, as one may look as if a stack still knew it.
fn forgotten() -> Result {
    for _ in 0..16 {
        core::mem::forget(KVec::<u64>::with_capacity(PAGE_SIZE, GFP_KERNEL)?);
    }
    Ok(())
}

/// Waits, when it is destroyed, for the queue whose work destroys it.
struct Waiter {
    queue: Arc<DropQueue<Self>>,
    wait: fn(&DropQueue<Self>),
}

impl Drop for Waiter {
    fn drop(&mut self) {
        (self.wait)(&self.queue);
    }
}

fn waits_for_itself(wait: fn(&DropQueue<Waiter>)) -> Result {
    let queue = Arc::new(DropQueue::new(c"nolocks_queue_control")?, GFP_KERNEL)?;
    let waiter = Waiter {
        queue: queue.clone(),
        wait,
    };

    queue.push_mightsleep(KBox::new(waiter, GFP_KERNEL)?);
    queue.wait_until_empty();
    Ok(())
}
