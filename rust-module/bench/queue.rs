// SPDX-License-Identifier: GPL-2.0

//! What queueing an object costs, and all that is done until it is free, as an `insmod`: kvfree.c has what
//! it stands in for.
//!
//! Under QEMU's `-icount shift=0` each nanosecond is one instruction.

use kernel::{
    error::to_result,
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
    memory::page_mightsleep,
    BulkHead,
    BulkQueue,
    DropQueue,
    Policy,
    Queue,
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
    fn nolocks_begin_profile(name: *const c_char, ops: c_uint);
    fn nolocks_end_profile();
    fn nolocks_before_workers();
    fn nolocks_behind_workers();
    fn nolocks_filler_start() -> c_int;
    fn nolocks_filler_stop();
    fn nolocks_busy_ns() -> u64;
}

/// Two blocks' worth, so that what a block costs is in it.
const OPS: usize = 2 * queue::CAPACITY;
/// So that waiting for a grace period, which is one for all, is little of it.
const MANY: usize = 16 * OPS;
/// As many as gdb steps through in C.
const STEPPED: usize = 16;
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

impl Object {
    fn new() -> Self {
        Self {
            _head: BulkHead::new(),
            _rest: [0; SIZE - size_of::<BulkHead>()],
        }
    }

    fn boxed() -> Result<KBox<Self>> {
        Ok(KBox::new(Self::new(), GFP_KERNEL)?)
    }
}

/// As large, and with a destructor.
struct Dropped {
    _head: BulkHead,
    _rest: [u8; SIZE - size_of::<BulkHead>()],
}

impl_has_bulk_head! {
    impl HasBulkHead for Dropped { self._head }
}

impl Drop for Dropped {
    fn drop(&mut self) {}
}

fn objects<O>(nr: usize, make: impl Fn() -> Result<O>) -> Result<KVVec<O>> {
    let mut objects = KVVec::with_capacity(nr, GFP_KERNEL)?;

    for _ in 0..nr {
        objects.push(make()?, GFP_KERNEL)?;
    }
    Ok(objects)
}

/// The nanoseconds that `round` returns, at best.
fn least(mut round: impl FnMut() -> Result<u64>) -> Result<u64> {
    let mut least = u64::MAX;

    for _ in 0..ROUNDS {
        least = least.min(round()?);
    }
    Ok(least)
}

/// Times `push_these` of [`OPS`] objects, and has gdb step through that of [`STEPPED`].
fn bench<R: Policy, O>(
    queue: &Queue<R>,
    name: &'static CStr,
    make: impl Fn() -> Result<O>,
    push_these: impl Fn(&mut KVVec<O>) -> Result,
) -> Result {
    let ns = least(|| {
        let mut objects = objects(OPS, &make)?;
        let start = Instant::<Monotonic>::now();

        push_these(&mut objects)?;
        let took = start.elapsed().as_nanos() as u64;
        queue.barrier();
        Ok(took)
    })?;
    pr_info!("# bench: op={name} ops={OPS} ns={ns}\n");

    // Once before, because the first push has more to do than the others.
    push_these(&mut objects(STEPPED, &make)?)?;
    let mut stepped = objects(STEPPED, &make)?;
    // SAFETY: The name is a string, and the module is being loaded.
    unsafe { nolocks_begin_profile(name.as_char_ptr(), STEPPED as c_uint) };
    push_these(&mut stepped)?;
    // SAFETY: As above.
    unsafe { nolocks_end_profile() };
    queue.barrier();
    Ok(())
}

// Never inlined, so that it has a name in the profile.
#[inline(never)]
fn push_each<O>(objects: &mut KVVec<O>, mut push: impl FnMut(O) -> Result) -> Result {
    while let Some(object) = objects.pop() {
        push(object)?;
    }
    Ok(())
}

fn came_back<O>(object: Retired<O>) -> Error {
    drop(object.wait());
    ENOMEM
}

/// The one call for objects of kmalloc(): a driver has one as well, and so it is inlined.
fn push_all(queue: &BulkQueue, objects: &mut KVVec<KBox<Object>>) {
    while let Some(object) = objects.pop() {
        queue.push(object);
    }
}

/// All that is done from the first of `nr` objects on until all are free.
fn push_to_free(queue: &BulkQueue, nr: usize) -> Result<u64> {
    let mut objects = objects(nr, Object::boxed)?;
    // SAFETY: The filler was started.
    let begin = unsafe { nolocks_busy_ns() };

    push_all(queue, &mut objects);
    queue.barrier();
    // SAFETY: As above.
    Ok(unsafe { nolocks_busy_ns() } - begin)
}

struct Bench;

impl kernel::Module for Bench {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let queue = BulkQueue::new(c"nolocks_bench_queue")?;

        // SAFETY: The current task is the one that loads the module, and may sleep.
        unsafe { nolocks_before_workers() };
        bench(&queue, c"push", Object::boxed, |objects| {
            push_all(&queue, objects);
            Ok(())
        })?;
        let in_vmalloc = || Ok(VBox::new(Object::new(), GFP_KERNEL)?);
        bench(&queue, c"push_vmalloc", in_vmalloc, |objects| {
            push_each(objects, |object| {
                queue.push(object);
                Ok(())
            })
        })?;
        bench(&queue, c"push_headless", Object::boxed, |objects| {
            push_each(objects, |object| {
                queue.push_headless(object).map_err(came_back)
            })
        })?;
        // Of a type of its own: the second call of `push_headless()` for one type is not inlined any more.
        let array = || Ok(KBox::new([0u8; SIZE], GFP_KERNEL)?);
        bench(&queue, c"push_mightsleep", array, |objects| {
            push_each(objects, |object| {
                queue.push_mightsleep(object);
                Ok(())
            })
        })?;
        bench(&queue, c"try_push", Object::boxed, |objects| {
            push_each(objects, |object| queue.try_push(object).map_err(came_back))
        })?;
        let vector = || Ok(KVec::from_elem(0u8, SIZE, GFP_KERNEL)?);
        bench(&queue, c"push_headless_vector", vector, |objects| {
            push_each(objects, |object| {
                queue.push_headless(object).map_err(came_back)
            })
        })?;
        let page = || page_mightsleep().ok_or(ENOMEM);
        bench(&queue, c"push_headless_page", page, |objects| {
            push_each(objects, |object| {
                queue.push_headless(object).map_err(came_back)
            })
        })?;
        let drops = DropQueue::new(c"nolocks_bench_drop_queue")?;
        let dropped = || {
            let Object { _head, _rest } = Object::new();
            Ok(KBox::new(Dropped { _head, _rest }, GFP_KERNEL)?)
        };
        bench(&drops, c"drop_queue_push", dropped, |objects| {
            push_each(objects, |object| {
                drops.push(object);
                Ok(())
            })
        })?;
        drop(drops);

        // SAFETY: As above.
        unsafe { nolocks_behind_workers() };
        // SAFETY: Started once, by a task that may sleep.
        to_result(unsafe { nolocks_filler_start() })?;
        let one = least(|| push_to_free(&queue, 1));
        let all = least(|| push_to_free(&queue, MANY));
        // SAFETY: It was started above.
        unsafe { nolocks_filler_stop() };
        pr_info!("# bench: op=push_to_free ops={MANY} ns={}\n", all? - one?);
        Ok(Self)
    }
}
