// SPDX-License-Identifier: GPL-2.0

//! How many objects are freed in a second, how much memory waits meanwhile, and how long each object waits:
//! by the queue and by `kfree_rcu()` in turn, as an `insmod` in UML.
//!
//! Only what is measured is printed. Medians and spreads are for who reads it: ci/src/command/bench/native.

use core::mem::MaybeUninit;

use kernel::{
    error::to_result,
    prelude::*,
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

#[allow(dead_code, reason = "a benchmark needs little of it")]
#[path = "../../lib/nolocks/mod.rs"]
pub mod nolocks;
#[allow(dead_code, reason = "a benchmark needs little of it")]
#[path = "../../lib/queue/mod.rs"]
pub mod queue;

#[allow(dead_code, reason = "a benchmark needs little of it")]
#[path = "../../harness/threads.rs"]
mod threads;

use queue::{
    impl_has_bulk_head,
    BulkHead,
    BulkQueue, //
};

module! {
    type: Native,
    name: "nolocks_bench_native",
    authors: ["The nolocks authors"],
    description: "How soon objects are freed after a grace period, in time",
    license: "GPL",
    params: {
        barrier: u64 {
            default: 0,
            description: "Where kvfree_rcu_barrier() is, of /proc/kallsyms",
        },
        pairs: u32 {
            default: 9,
            description: "How often each API is measured, in turn",
        },
        what: u32 {
            default: 0,
            description: "0: objects freed a second, 1: how long they wait, which needs init_on_free=1, 2: bursts of pages",
        },
    },
}

extern "C" {
    fn nolocks_native_kfree_rcu(object: *mut c_void);
    fn nolocks_native_call(function: usize);
    fn nolocks_native_grace_periods() -> usize;
    fn nolocks_native_holds(word: *const u64, value: u64) -> bool;
    fn nolocks_native_watch_memory();
    fn nolocks_native_peak_kib() -> u64;
    fn nolocks_native_print_memory(api: *const c_char);
    fn nolocks_native_toggle_ps() -> u64;
    fn nolocks_native_share(pairs: c_uint) -> c_int;
}

const HEAD: usize = size_of::<BulkHead>();

/// Its memory is allocated and freed as if it was in use, and all but the first word is left alone.
#[repr(C)]
struct Object<const REST: usize> {
    head: BulkHead,
    word: MaybeUninit<u64>,
    _rest: MaybeUninit<[u8; REST]>,
}

impl_has_bulk_head! {
    impl{const REST: usize} HasBulkHead for Object<REST> { self.head }
}

#[derive(Clone, Copy)]
enum Api {
    Push,
    KfreeRcu,
}

impl Api {
    /// In the order in which they take turns.
    const ALL: [Self; 2] = [Self::Push, Self::KfreeRcu];

    fn name(self) -> &'static CStr {
        match self {
            Self::Push => c"push",
            Self::KfreeRcu => c"kfree_rcu",
        }
    }
}

struct Bench {
    queue: BulkQueue,
    barrier: usize,
    pairs: u32,
}

impl Bench {
    /// A new object, on its way to be freed; `word` is where its first word is.
    fn hand_over<const REST: usize>(&self, api: Api, word: Option<u64>) -> Result<*const u64> {
        let mut object = KBox::<Object<REST>>::new_uninit(GFP_KERNEL)?;
        // SAFETY: It is that of a field.
        let head = unsafe { &raw mut (*object.as_mut_ptr()).head };
        // SAFETY: There is no other reference to the object.
        unsafe { head.write(BulkHead::new()) };
        // SAFETY: The head was written, and nothing is asked of the rest.
        let mut object = unsafe { object.assume_init() };

        if let Some(word) = word {
            object.word.write(word);
        }
        let word = object.word.as_ptr();
        match api {
            Api::Push => self.queue.push(object),
            // SAFETY: It begins with a head, it is kmalloc()'s, and nothing has to be dropped.
            Api::KfreeRcu => unsafe { nolocks_native_kfree_rcu(KBox::into_raw(object).cast()) },
        }
        Ok(word)
    }

    /// Waits until all is freed.
    fn drain(&self, api: Api) {
        match api {
            Api::Push => self.queue.barrier(),
            // SAFETY: `init()` was told that kvfree_rcu_barrier() is there. May sleep.
            Api::KfreeRcu => unsafe { nolocks_native_call(self.barrier) },
        }
    }

    /// So many objects, from all CPUs.
    fn pour<const REST: usize>(&self, api: Api, objects: u32, cpus: u32) -> Result {
        threads::run(cpus, &|_| {
            (0..objects / cpus).try_for_each(|_| self.hand_over::<REST>(api, None).map(drop))
        })
    }

    fn freed<const REST: usize>(&self, objects: u32, watch: bool) -> Result {
        let cpus = threads::online_cpus().get();

        for nth in 0..self.pairs {
            for api in Api::ALL {
                Api::ALL.into_iter().for_each(|api| self.drain(api));
                // SAFETY: Nobody else watches it.
                unsafe { nolocks_native_watch_memory() };
                // SAFETY: Only reads a number.
                let before = unsafe { nolocks_native_grace_periods() };
                let start = Instant::<Monotonic>::now();

                let poured = self.pour::<REST>(api, objects, cpus);
                let handed = start.elapsed().as_nanos();
                self.drain(api);
                let ns = start.elapsed().as_nanos();
                // SAFETY: As above.
                let periods = unsafe { nolocks_native_grace_periods() } - before;
                // SAFETY: It was watched.
                let peak = unsafe { nolocks_native_peak_kib() };

                poured?;
                pr_info!(
                    "# freed: api={} size={} objects={objects} cpus={cpus} handed_ns={handed} ns={ns} peak_kib={peak} grace_periods={periods}\n",
                    api.name(),
                    size_of::<Object<REST>>()
                );
                if watch && nth == 0 {
                    // SAFETY: The name ends with NUL.
                    unsafe { nolocks_native_print_memory(api.name().as_char_ptr()) };
                }
            }
        }
        Ok(())
    }

    fn throughput(&self) -> Result {
        const SMALL: usize = 64 - HEAD - 8;
        const MIDDLE: usize = 1024 - HEAD - 8;
        const LARGE: usize = 65536 - HEAD - 8;

        pr_info!(
            "# toggle: cpus={} ps={}\n",
            threads::online_cpus().get(),
            // SAFETY: Only touches this CPU's interrupts.
            unsafe { nolocks_native_toggle_ps() }
        );
        self.freed::<SMALL>(10_000, false)?;
        self.freed::<SMALL>(100_000, false)?;
        self.freed::<SMALL>(1_000_000, false)?;
        self.freed::<SMALL>(10_000_000, false)?;
        self.freed::<MIDDLE>(10_000, false)?;
        self.freed::<MIDDLE>(100_000, false)?;
        self.freed::<MIDDLE>(1_000_000, !cfg!(CONFIG_SMP))?;
        self.freed::<MIDDLE>(10_000_000, false)?;
        self.freed::<LARGE>(10_000, false)
    }

    /// What comes at an even pace, so many objects a turn, of which the first is watched.
    fn waits<const REST: usize>(&self, each: u32) -> Result {
        const PACE: Delta = Delta::from_millis(1);
        const TURNS: usize = 1_000;
        /// Nobody else writes it into an object.
        const MARK: u64 = 0x6e6f_6c6f_636b_7321;
        /// For what is never seen to be freed.
        const PATIENCE: Delta = Delta::from_secs(60);
        let mut counts = [[0u64; BUCKETS]; Api::ALL.len()];
        let mut watched =
            KVVec::<(*const u64, Instant<Monotonic>)>::with_capacity(TURNS, GFP_KERNEL)?;

        for _ in 0..self.pairs {
            for api in Api::ALL {
                let start = Instant::<Monotonic>::now();
                let mut turn = 0;

                while turn < TURNS || !watched.is_empty() {
                    for nth in 0..if turn < TURNS { each } else { 0 } {
                        let pushed = Instant::now();
                        let mark = (nth == 0).then_some(MARK);
                        let word = self.hand_over::<REST>(api, mark)?;
                        if nth == 0 {
                            watched.push_within_capacity((word, pushed))?;
                        }
                    }
                    turn += 1;
                    fsleep(PACE);
                    watched.retain(|(word, pushed)| {
                        // SAFETY: kmalloc()'s memory stays mapped when it was freed.
                        let waits = unsafe { nolocks_native_holds(*word, MARK) };
                        if !waits {
                            let us = (pushed.elapsed().as_nanos() / 1_000).max(1) as u64;
                            counts[api as usize][(us.ilog2() as usize).min(BUCKETS - 1)] += 1;
                        }
                        waits
                    });
                    if start.elapsed() > PATIENCE {
                        pr_err!("{} objects were never freed\n", watched.len());
                        return Err(ETIMEDOUT);
                    }
                }
            }
        }
        for (api, counts) in Api::ALL.into_iter().zip(&counts) {
            for (bucket, count) in counts.iter().enumerate().filter(|(_, n)| **n != 0) {
                pr_info!(
                    "# wait: api={} size={} log2_us={bucket} objects={count}\n",
                    api.name(),
                    size_of::<Object<REST>>()
                );
            }
        }
        Ok(())
    }
}

/// Bucket `n` counts what took 2^n microseconds or more, but less than twice that.
const BUCKETS: usize = 27;

struct Native;

impl kernel::Module for Native {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let barrier = module_parameters::barrier.value() as usize;
        let pairs = module_parameters::pairs.value();

        if barrier == 0 {
            return Err(EINVAL);
        }
        let bench = Bench {
            queue: BulkQueue::new(c"nolocks_bench_native")?,
            barrier,
            pairs,
        };
        match module_parameters::what.value() {
            0 => bench.throughput()?,
            1 => {
                bench.waits::<{ 64 - HEAD - 8 }>(64)?;
                bench.waits::<{ 16384 - HEAD - 8 }>(4)?;
            }
            // SAFETY: A thread of one CPU.
            _ => threads::run(1, &|_| to_result(unsafe { nolocks_native_share(pairs) }))?,
        }
        Ok(Self)
    }
}
