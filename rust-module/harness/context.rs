// SPDX-License-Identifier: GPL-2.0

//! Contexts that code can be made to run in, on this CPU and while the caller waits.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::Relaxed,
        Atomic, //
    },
    types::Opaque, //
};

use crate::{
    ktap::Outcome,
    mailbox::Mailbox,
    nmi::{
        send_nmi,
        Nmi, //
    },
    nolocks::raw_spin_lock::{
        new_raw_spin_lock,
        RawSpinLock, //
    },
    task::{
        breathe,
        state,
        IN_HARDIRQ,
        IN_NMI,
        IN_SOFTIRQ,
        IRQS_OFF,
        PREEMPT_OFF, //
    }, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_preempt_disable();
    fn nolocks_preempt_enable();
    fn nolocks_raw_spin_lock(lock: *mut bindings::raw_spinlock_t);
    fn nolocks_raw_spin_unlock(lock: *mut bindings::raw_spinlock_t);
    fn nolocks_raw_spin_lock_init(
        lock: *mut bindings::raw_spinlock_t,
        name: *const c_char,
        key: *mut bindings::lock_class_key,
    );
    fn nolocks_pi_lock() -> c_ulong;
    fn nolocks_pi_unlock(flags: c_ulong);
    fn nolocks_run_tasklet(tasklet: *mut bindings::tasklet_struct);
    fn nolocks_init_hard_irq_work(
        work: *mut bindings::irq_work,
        func: unsafe extern "C" fn(*mut bindings::irq_work),
    );
}

/// A context to allocate in.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Context {
    Task,
    RawIrqsave,
    Raw,
    PreemptOff,
    Softirq,
    Hardirq,
    Nmi,
    PiLock,
}

impl Context {
    pub(crate) const ALL: [Self; 8] = [
        Self::Task,
        Self::RawIrqsave,
        Self::Raw,
        Self::PreemptOff,
        Self::Softirq,
        Self::Hardirq,
        Self::Nmi,
        Self::PiLock,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::RawIrqsave => "raw_irqsave",
            Self::Raw => "raw",
            Self::PreemptOff => "preempt_off",
            Self::Softirq => "softirq",
            Self::Hardirq => "hardirq",
            Self::Nmi => "nmi",
            Self::PiLock => "pi_lock",
        }
    }

    /// Those that a machine with or without `nmi` can enter.
    pub(crate) fn possible(nmi: &Option<Nmi>) -> impl Iterator<Item = Self> + Clone + '_ {
        Self::ALL.into_iter().filter(|ctx| ctx.is_possible(nmi))
    }

    pub(crate) fn is_possible(self, nmi: &Option<Nmi>) -> bool {
        self != Self::Nmi || nmi.is_some()
    }

    /// Whether rule 3 of the contract lets an allocation try `pcp->lock` here.
    pub(crate) const fn trylock_allowed(self) -> bool {
        cfg!(CONFIG_SMP) && (!cfg!(CONFIG_PREEMPT_RT) || matches!(self, Self::Task | Self::Softirq))
    }

    /// Whether an interrupt may come at any time.
    pub(crate) const fn irqs_enabled(self) -> bool {
        !matches!(
            self,
            Self::RawIrqsave | Self::Hardirq | Self::Nmi | Self::PiLock
        )
    }

    /// How many pages to obtain in one go, so that an NMI does not count as one that takes too
    /// long under emulation.
    pub(crate) const fn chunk(self, n: usize) -> usize {
        match self {
            Self::Nmi if n > 32 => 32,
            _ => n,
        }
    }

    /// Whether we are where we say we are: a test of the wrong context proves nothing.
    fn is_here(self) -> bool {
        let here = state();
        let interrupt = here & (IN_NMI | IN_HARDIRQ | IN_SOFTIRQ);

        match self {
            Self::Task => here == 0 || !cfg!(CONFIG_PREEMPT_COUNT) && interrupt == 0,
            Self::RawIrqsave | Self::PiLock => interrupt == 0 && here & IRQS_OFF != 0,
            Self::Raw | Self::PreemptOff => {
                interrupt == 0 && (here == PREEMPT_OFF || !cfg!(CONFIG_PREEMPT_COUNT))
            }
            Self::Softirq => interrupt == IN_SOFTIRQ,
            Self::Hardirq => interrupt & (IN_NMI | IN_HARDIRQ) == IN_HARDIRQ,
            Self::Nmi => here & IN_NMI != 0,
        }
    }
}

/// What one task needs to enter every context.
#[pin_data(PinnedDrop)]
pub(crate) struct Site {
    #[pin]
    irqsave: RawSpinLock<()>,
    #[pin]
    plain: Opaque<bindings::raw_spinlock_t>,
    #[pin]
    tasklet: Opaque<bindings::tasklet_struct>,
    tasklet_mail: Mailbox,
    #[pin]
    work: Opaque<bindings::irq_work>,
    work_mail: Mailbox,
    /// How often the context turned out not to be the one asked for.
    strays: Atomic<u64>,
}

#[pinned_drop]
impl PinnedDrop for Site {
    fn drop(self: Pin<&mut Self>) {
        // A handler that has answered may still have a few instructions to go.
        // SAFETY: Set up in `new()`; this is a task that may sleep.
        unsafe { bindings::tasklet_kill(self.tasklet.get()) };
        // SAFETY: As above.
        unsafe { bindings::irq_work_sync(self.work.get()) };
    }
}

impl Site {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            irqsave <- new_raw_spin_lock!((), "nolocks_irqsave"),
            // SAFETY: The slot is valid for writes, the name and the class are static.
            plain <- Opaque::ffi_init(|slot| unsafe {
                nolocks_raw_spin_lock_init(
                    slot,
                    c"nolocks_plain".as_char_ptr(),
                    kernel::static_lock_class!().as_ptr(),
                )
            }),
            // SAFETY: The slot is valid for writes.
            tasklet <- Opaque::ffi_init(|slot| unsafe {
                bindings::tasklet_setup(slot, Some(Self::on_tasklet))
            }),
            tasklet_mail: Mailbox::new(),
            // SAFETY: The slot is valid for writes.
            work <- Opaque::ffi_init(|slot| unsafe {
                nolocks_init_hard_irq_work(slot, Self::on_irq_work)
            }),
            work_mail: Mailbox::new(),
            strays: Atomic::new(0),
        })
    }

    /// # Safety
    ///
    /// To be called with the `tasklet` of a live `Site`.
    unsafe extern "C" fn on_tasklet(tasklet: *mut bindings::tasklet_struct) {
        // SAFETY: `tasklet` is the field of a live `Site`.
        let site = unsafe { &*kernel::container_of!(Opaque::cast_from(tasklet), Self, tasklet) };
        site.tasklet_mail.answer(0);
    }

    /// # Safety
    ///
    /// To be called with the `work` of a live `Site`.
    unsafe extern "C" fn on_irq_work(work: *mut bindings::irq_work) {
        // SAFETY: `work` is the field of a live `Site`.
        let site = unsafe { &*kernel::container_of!(Opaque::cast_from(work), Self, work) };
        site.work_mail.answer(0);
    }

    /// Runs `func` in context `ctx` on this CPU and returns when it has run.
    ///
    /// To be called from a preemptible task that is [`Pinned`].
    pub(crate) fn run(&self, ctx: Context, mut func: impl FnMut() + Send) {
        let strays = &self.strays;
        let mut func = |_| {
            if !ctx.is_here() {
                strays.add(1, Relaxed);
            }
            func();
        };

        let arrived = match ctx {
            Context::Task => {
                func(0);
                true
            }
            Context::RawIrqsave => {
                let _guard = self.irqsave.lock();
                func(0);
                true
            }
            Context::Raw => {
                // SAFETY: `plain` was initialised with the site, and is nowhere taken but here.
                unsafe { nolocks_raw_spin_lock(self.plain.get()) };
                func(0);
                // SAFETY: Locked above.
                unsafe { nolocks_raw_spin_unlock(self.plain.get()) };
                true
            }
            Context::PreemptOff => {
                // SAFETY: Undone right below.
                unsafe { nolocks_preempt_disable() };
                func(0);
                // SAFETY: Pairs with the one above.
                unsafe { nolocks_preempt_enable() };
                true
            }
            Context::PiLock => {
                // SAFETY: A preemptible task holds no lock of the scheduler.
                let flags = unsafe { nolocks_pi_lock() };
                func(0);
                // SAFETY: Locked above.
                unsafe { nolocks_pi_unlock(flags) };
                true
            }
            Context::Softirq => self.tasklet_mail.post(
                &mut func,
                // SAFETY: The tasklet was set up with the site, which outlives this call.
                || unsafe { nolocks_run_tasklet(self.tasklet.get()) },
                breathe,
            ),
            Context::Hardirq => self.work_mail.post(
                &mut func,
                || {
                    // SAFETY: The work was set up with the site, which outlives this call.
                    unsafe { bindings::irq_work_queue(self.work.get()) };
                },
                kernel::processor::cpu_relax,
            ),
            Context::Nmi => {
                // SAFETY: Only reads a number that a pinned task's CPU keeps.
                let cpu = unsafe { bindings::raw_smp_processor_id() };
                send_nmi(cpu, &mut func)
            }
        };
        if !arrived {
            // Counted as a stray; the caller would wait forever for what is never called.
            pr_info!("# failed: {} never came\n", ctx.name());
            func(0);
        }
    }

    pub(crate) fn strays(&self) -> u64 {
        self.strays.load(Relaxed)
    }

    /// That every visit was to where it should be.
    pub(crate) fn check(&self, outcome: Outcome) -> Outcome {
        let strays = self.strays();
        outcome.check(
            strays == 0,
            fmt!("{strays} visits were not in the context asked for"),
        )
    }
}
