// SPDX-License-Identifier: GPL-2.0

//! What queueing an object costs, beside `kfree_rcu()`, as an `insmod`.
//!
//! Under QEMU's `-icount shift=0` each nanosecond is one instruction.

use kernel::{
    alloc::{
        allocator::{
            Kmalloc,
            Vmalloc, //
        },
        Box, //
    },
    prelude::*,
    time::{
        Instant,
        Monotonic, //
    }, //
};

#[allow(dead_code, reason = "a benchmark needs little of it")]
#[path = "../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code, reason = "a benchmark needs little of it")]
#[path = "../lib/queue/mod.rs"]
pub mod queue;

use queue::{
    impl_has_bulk_head,
    BulkHead,
    BulkQueue,
    Reclaimable,
    Retired, //
};

module! {
    type: Bench,
    name: "nolocks_bench_queue",
    authors: ["The nolocks authors"],
    description: "What queueing an object costs, in instructions",
    license: "GPL",
}

extern "C" {
    fn nolocks_bench_kfree_rcu(how: u32, objects: *mut *mut c_void, nr: u32) -> u64;
    fn nolocks_bench_before_workers();
}

/// Two blocks' worth, so that what a block costs is in it.
const OPS: usize = 2 * queue::CAPACITY;
/// The best of them is one that no interrupt got into.
const ROUNDS: usize = 20;
const SIZE: usize = 64;

/// As large as the object in C.
struct Object {
    _head: BulkHead,
    _rest: [u8; SIZE - size_of::<BulkHead>()],
}

impl_has_bulk_head! {
    impl HasBulkHead for Object { self._head }
}

fn objects<A: Reclaimable>() -> Result<KVVec<Box<Object, A>>> {
    let mut objects = KVVec::with_capacity(OPS, GFP_KERNEL)?;

    for _ in 0..OPS {
        let object = Object {
            _head: BulkHead::new(),
            _rest: [0; SIZE - size_of::<BulkHead>()],
        };
        objects.push(Box::new(object, GFP_KERNEL)?, GFP_KERNEL)?;
    }
    Ok(objects)
}

/// The nanoseconds that `round` returns, at best.
fn best(name: &str, mut round: impl FnMut() -> Result<u64>) -> Result {
    let mut best = u64::MAX;

    for _ in 0..ROUNDS {
        best = best.min(round()?);
    }
    pr_info!("# bench: op={name} ops={OPS} ns={best}\n");
    Ok(())
}

fn push<A: Reclaimable>(
    queue: &BulkQueue,
    mut push: impl FnMut(Box<Object, A>) -> Result,
) -> Result<u64> {
    let objects = objects()?;
    let start = Instant::<Monotonic>::now();

    for object in objects {
        push(object)?;
    }
    let took = (Instant::now() - start).as_nanos();
    queue.barrier();
    Ok(took as u64)
}

fn came_back<O>(object: Retired<O>) -> Error {
    drop(object.wait());
    ENOMEM
}

/// As `how` says, which is the order of the names in `init()`.
fn kfree_rcu<A: Reclaimable>(how: u32) -> Result<u64> {
    let mut raw = KVVec::with_capacity(OPS, GFP_KERNEL)?;

    for object in objects::<A>()? {
        raw.push_within_capacity(Box::into_raw(object))?;
    }
    // SAFETY: There are so many objects, as large as C's and from where `how` has them freed, which
    // nobody else has.
    Ok(unsafe { nolocks_bench_kfree_rcu(how, raw.as_mut_ptr().cast(), OPS as u32) })
}

struct Bench;

impl kernel::Module for Bench {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let queue = BulkQueue::new(c"nolocks_bench_queue")?;

        // SAFETY: The current task is the one that loads the module, and may sleep.
        unsafe { nolocks_bench_before_workers() };
        best("push", || {
            push::<Kmalloc>(&queue, |object| {
                queue.push(object);
                Ok(())
            })
        })?;
        best("push_vmalloc", || {
            push::<Vmalloc>(&queue, |object| {
                queue.push(object);
                Ok(())
            })
        })?;
        best("push_headless", || {
            push::<Kmalloc>(&queue, |object| {
                queue.push_headless(object).map_err(came_back)
            })
        })?;
        best("try_push", || {
            push::<Kmalloc>(&queue, |object| queue.try_push(object).map_err(came_back))
        })?;
        for (how, name) in ["kfree_rcu", "kfree_rcu_mightsleep", "kfree_rcu_nolock"]
            .into_iter()
            .enumerate()
        {
            best(name, || kfree_rcu::<Kmalloc>(how as u32))?;
        }
        // Asks itself what it has been given.
        best("kvfree_rcu_vmalloc", || kfree_rcu::<Vmalloc>(0))?;
        Ok(Self)
    }
}
