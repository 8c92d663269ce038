// SPDX-License-Identifier: GPL-2.0

//! Allocations interrupted by others that allocate.

use core::ops::Range;

use kernel::{
    bindings,
    impl_has_hr_timer,
    prelude::*,
    str::BStr,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    time::{
        hrtimer::{
            HrTimer,
            HrTimerCallback,
            HrTimerCallbackContext,
            HrTimerRestart,
            RelativePinnedHardMode,
            ScopedHrTimerPointer, //
        },
        Delta,
        Monotonic, //
    }, //
};

use crate::{
    api::{
        Api,
        Held, //
    },
    context::Context,
    env::{
        Env,
        Stat, //
    },
    ktap::Outcome,
    nmi::{
        send_nmi,
        Nmis, //
    },
    nolocks::page::NoLocksFlags,
    task::{
        breathe,
        Pinned, //
    },
    threads,
    warmer::Warmer, //
};

extern "C" {
    fn nolocks_interrupted_ip() -> c_ulong;
}

/// Hits that a case must have seen, in the allocation and in the free.
const WANTED: usize = 1000;
/// Interrupts to record, more than wanted since some hit our own code on the way.
const RECORDED: usize = 2 * WANTED;
/// Pages that an interrupt asks for.
const BURST: usize = 4;

/// Where the interrupts hit one half of the work.
struct Hits {
    ips: KVVec<Atomic<usize>>,
    next: Atomic<usize>,
}

impl Hits {
    fn new() -> Result<Self> {
        let mut ips = KVVec::with_capacity(RECORDED, GFP_KERNEL)?;
        for _ in 0..RECORDED {
            ips.push(Atomic::new(0), GFP_KERNEL)?;
        }
        Ok(Self {
            ips,
            next: Atomic::new(0),
        })
    }

    fn record(&self, ip: usize) {
        if let Some(slot) = self.ips.get(self.next.fetch_add(1, Relaxed)) {
            slot.store(ip, Relaxed);
        }
    }

    fn is_full(&self) -> bool {
        self.next.load(Relaxed) >= self.ips.len()
    }

    /// How many hit the kernel's code rather than ours; prints where most did.
    fn report(&self, context: &str, what: &str) -> Result<usize> {
        let mut names: KVVec<(Symbol, usize)> = KVVec::new();
        let mut inside = 0;

        for ip in self.ips.iter().map(|ip| ip.load(Relaxed)) {
            let symbol = Symbol::of(ip);
            if !symbol.is_kernels() {
                continue;
            }
            inside += 1;
            match names.iter_mut().find(|(known, _)| *known == symbol) {
                Some((_, count)) => *count += 1,
                None => names.push((symbol, 1), GFP_KERNEL)?,
            }
        }
        names
            .as_mut_slice()
            .sort_unstable_by_key(|(_, count)| core::cmp::Reverse(*count));
        pr_info!("# nested: context={context} interrupted={what} hits={inside}\n");
        for (symbol, count) in names.iter().take(8) {
            pr_info!("# nested: {count} in {}\n", symbol.name());
        }
        Ok(inside)
    }
}

/// The function that an address is in.
#[derive(PartialEq, Eq)]
pub(crate) struct Symbol([u8; 256]);

impl Symbol {
    fn of(ip: usize) -> Self {
        Self::print(c"%ps", ip)
    }

    /// `format` is `%p` and what makes it a symbol.
    fn print(format: &CStr, ip: usize) -> Self {
        let mut name = [0; 256];

        // SAFETY: The buffer is as long as we say, and such formats take any address.
        unsafe {
            bindings::scnprintf(
                name.as_mut_ptr(),
                name.len(),
                format.as_char_ptr(),
                ip as *const c_void,
            )
        };
        Self(name)
    }

    /// The function that `ip` is in, and all addresses of it; just this one if that is unknown.
    pub(crate) fn with_range(ip: usize) -> (Self, Range<usize>) {
        // As in "function+0x1c/0x120", perhaps with a module behind.
        let full = Self::print(c"%pS", ip);
        let hex = |bytes: &[u8]| usize::from_str_radix(str::from_utf8(bytes).ok()?, 16).ok();
        let mut words = full.bytes().split(|byte| b"+/ ".contains(byte)).skip(1);
        let mut next = || hex(words.next()?.strip_prefix(b"0x")?);
        let range = match (next(), next()) {
            (Some(offset), Some(size)) => ip - offset..ip - offset + size,
            _ => ip..ip + 1,
        };
        (Self::of(ip), range)
    }

    fn bytes(&self) -> &[u8] {
        self.0.split(|byte| *byte == 0).next().unwrap_or(&self.0)
    }

    fn name(&self) -> &BStr {
        BStr::from_bytes(self.bytes())
    }

    /// Whether it is the function `name`, or a part of it that the compiler split off.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.bytes()
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
    }

    /// Whether it is a function of the kernel, and of none of its modules.
    fn is_kernels(&self) -> bool {
        // A module's symbols carry its name in brackets; an unknown address is bare.
        !(self.bytes().contains(&b'[') || self.bytes().starts_with(b"0x"))
    }
}

const OUTSIDE: u32 = 0;
const ALLOCATING: u32 = 1;
const FREEING: u32 = 2;

/// What the victim and those who interrupt it share.
#[pin_data]
struct Scene {
    /// What the victim is doing.
    doing: Atomic<u32>,
    /// Whether the victim has left, or should.
    over: Atomic<bool>,
    allocating: Hits,
    freeing: Hits,
    attempts: Atomic<u64>,
    obtained: Atomic<u64>,
    #[pin]
    timer: HrTimer<Self>,
}

impl Scene {
    /// Room between two interrupts for the victim to get anywhere under emulation.
    const PERIOD: Delta = Delta::from_micros(200);

    fn new() -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                doing: Atomic::new(OUTSIDE),
                over: Atomic::new(false),
                allocating: Hits::new()?,
                freeing: Hits::new()?,
                attempts: Atomic::new(0),
                obtained: Atomic::new(0),
                timer <- HrTimer::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Allocates in a loop, to be interrupted.
    fn play_victim(&self) -> Result {
        let mut warmer = Warmer::new(2 * BURST)?;

        while !(self.over.load(Relaxed) || self.allocating.is_full() && self.freeing.is_full()) {
            let _pinned = Pinned::new();

            self.doing.store(ALLOCATING, Relaxed);
            let held = Held::obtain_unmarked(Api::NoLocks, NoLocksFlags::NONE);
            self.doing.store(OUTSIDE, Relaxed);
            if held.is_none() {
                warmer.warm(2 * BURST)?;
            }
            self.doing.store(FREEING, Relaxed);
            drop(held);
            self.doing.store(OUTSIDE, Relaxed);
            breathe();
        }
        Ok(())
    }

    /// What an interrupt does.
    fn interrupt(&self, ip: usize) {
        match self.doing.load(Relaxed) {
            ALLOCATING => self.allocating.record(ip),
            FREEING => self.freeing.record(ip),
            _ => return,
        }

        let mut held = [const { None }; BURST];
        for slot in &mut held {
            *slot = Held::obtain(Api::NoLocks, NoLocksFlags::NONE);
        }
        self.attempts.add(BURST as u64, Relaxed);
        self.obtained
            .add(held.iter().flatten().count() as u64, Relaxed);
    }

    fn verdict(&self, ctx: Context) -> Result<Outcome> {
        let name = match ctx {
            Context::Nmi => "nested_nmi",
            _ => "nested_hardirq",
        };
        let stat = Stat {
            attempts: self.attempts.load(Relaxed),
            obtained: self.obtained.load(Relaxed),
        };
        let allocating = self.allocating.report(name, "allocation")?;
        let freeing = self.freeing.report(name, "free")?;

        stat.print(name, Api::NoLocks);
        Ok(Outcome::Passed
            .check(
                allocating >= WANTED && freeing >= WANTED,
                fmt!("{allocating} hits in the allocator and {freeing} in the free of {WANTED}"),
            )
            .check(
                4 * stat.obtained >= 3 * stat.attempts && stat.obtained != 0,
                fmt!(
                    "the interrupts obtained {} pages of {}",
                    stat.obtained,
                    stat.attempts
                ),
            ))
    }
}

impl HrTimerCallback for Scene {
    type Pointer<'a> = Pin<&'a Self>;

    fn run(this: Pin<&Self>, mut ctx: HrTimerCallbackContext<'_, Self>) -> HrTimerRestart {
        // SAFETY: This is a timer's callback.
        this.interrupt(unsafe { nolocks_interrupted_ip() });
        ctx.forward_now(Self::PERIOD);
        HrTimerRestart::Restart
    }
}

impl_has_hr_timer! {
    impl HasHrTimer<Self> for Scene {
        mode: RelativePinnedHardMode<Monotonic>, field: self.timer
    }
}

/// By NMIs from another CPU.
pub(crate) fn in_nmi(env: &Env) -> Result<Outcome> {
    if env.nmi.is_none() {
        return Ok(Outcome::Skipped("no NMI can be sent on this machine"));
    }
    if threads::online_cpus().get() < 2 {
        return Ok(Outcome::Skipped(
            "one CPU cannot interrupt itself at any place",
        ));
    }

    let scene = Scene::new()?;
    let shared = &*scene;
    env.fill_slots()?;
    threads::run(2, &|nth| {
        if nth == 0 {
            let result = shared.play_victim();
            shared.over.store(true, Relaxed);
            return result;
        }
        let cpu = threads::cpu_of(0);
        let _nmis = Nmis::new(cpu);
        while !shared.over.load(Relaxed) {
            if !send_nmi(cpu, &mut |ip| shared.interrupt(ip)) {
                shared.over.store(true, Relaxed);
                return Err(ETIMEDOUT);
            }
            breathe();
        }
        Ok(())
    })?;
    scene.verdict(Context::Nmi)
}

/// By a timer on the same CPU.
pub(crate) fn in_hardirq(env: &Env) -> Result<Outcome> {
    let scene = Scene::new()?;
    let shared = scene.as_ref();

    env.fill_slots()?;
    threads::run(1, &|_| {
        shared.start_scoped(Scene::PERIOD, || shared.play_victim())
    })?;
    scene.verdict(Context::Hardirq)
}
