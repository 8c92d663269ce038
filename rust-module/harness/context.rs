// SPDX-License-Identifier: GPL-2.0

//! Contexts that code can be made to run in, on this CPU and while the caller waits.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Full,
            Relaxed,
            Release, //
        },
        Atomic, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    types::{
        NotThreadSafe,
        Opaque, //
    },
};

use crate::nolocks::raw_spin_lock::{
    new_raw_spin_lock,
    RawSpinLock, //
};

#[allow(
    improper_ctypes,
    reason = "bindgen's empty structs; only pointers cross"
)]
extern "C" {
    fn nolocks_where() -> c_uint;
    fn nolocks_preempt_disable();
    fn nolocks_preempt_enable();
    fn nolocks_migrate_disable();
    fn nolocks_migrate_enable();
    fn nolocks_cond_resched();
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
    fn nolocks_nmi_register() -> c_int;
    fn nolocks_nmi_unregister();
    fn nolocks_nmi_start(cpu: c_uint);
    fn nolocks_nmi_stop(cpu: c_uint);
    fn nolocks_nmi_send(cpu: c_uint);
}

const IN_NMI: u32 = 1 << 0;
const IN_HARDIRQ: u32 = 1 << 1;
const IN_SOFTIRQ: u32 = 1 << 2;
const IRQS_OFF: u32 = 1 << 3;
const PREEMPT_OFF: u32 = 1 << 4;

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
    #[allow(dead_code, reason = "a control enters the one that it needs")]
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
    #[allow(dead_code, reason = "not every module counts locks")]
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
        // SAFETY: Only reads this CPU's and this task's state.
        let here = unsafe { nolocks_where() };
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

/// The kind of interrupt that we are in, if any.
pub(crate) fn level() -> u32 {
    // SAFETY: Only reads this CPU's and this task's state.
    unsafe { nolocks_where() & (IN_NMI | IN_HARDIRQ | IN_SOFTIRQ) }
}

/// Whether another task may run here at any time.
#[allow(dead_code, reason = "not every module counts locks")]
pub(crate) fn preemptible() -> bool {
    // SAFETY: Only reads this CPU's and this task's state.
    unsafe { nolocks_where() == 0 }
}

/// Lets others run, where the caller may sleep.
pub(crate) fn breathe() {
    // SAFETY: Called from task context with nothing held.
    unsafe { nolocks_cond_resched() }
}

/// When something counts as lost: long, because an emulated CPU may stand still for a while.
pub(crate) const PATIENCE: Delta = Delta::from_secs(60);

/// Waits until `done` says so, where the caller may sleep. False when it never did.
#[allow(dead_code, reason = "not every module waits for the allocator")]
pub(crate) fn wait_for(done: impl Fn() -> bool) -> bool {
    let start = Instant::<Monotonic>::now();

    while !done() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        breathe();
    }
    true
}

/// Keeps the task on its CPU, and so on its pcp lists, but preemptible.
pub(crate) struct Pinned(NotThreadSafe);

impl Pinned {
    pub(crate) fn new() -> Self {
        // SAFETY: Undone by the drop, which the type keeps on this task.
        unsafe { nolocks_migrate_disable() };
        Self(NotThreadSafe::default())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: Pairs with the one in `new()`.
        unsafe { nolocks_migrate_enable() }
    }
}

/// A function to run elsewhere, on the stack of the one who waits for it.
struct Call<'a> {
    /// Gets the interrupted instruction pointer, where known.
    func: &'a mut (dyn FnMut(usize) + Send),
    done: Atomic<bool>,
}

/// Where a handler finds what to call.
///
/// # Invariants
///
/// The pointer is null or points to a live `Call` whose owner waits for `done`. Whoever takes it
/// out has sole access until it sets `done`.
struct Mailbox(Atomic<*mut Call<'static>>);

impl Mailbox {
    const fn new() -> Self {
        // INVARIANT: Null.
        Self(Atomic::new(core::ptr::null_mut()))
    }

    /// Runs `func` in the handler that `kick` sets off, and waits by calling `wait`.
    ///
    /// Returns false, without having called `func`, when no handler came.
    fn post(
        &self,
        func: &mut (dyn FnMut(usize) + Send),
        kick: impl FnOnce(),
        wait: impl Fn(),
    ) -> bool {
        /// A machine that lost one handler is not given the time to lose them all.
        static LOST: Atomic<bool> = Atomic::new(false);

        if LOST.load(Relaxed) {
            return false;
        }
        let call = Opaque::new(Call {
            func,
            done: Atomic::new(false),
        });
        let ptr = call.get();

        // INVARIANT: `call` outlives the loops below, which end with `done` or take `call` out.
        while self
            .0
            .cmpxchg(core::ptr::null_mut(), ptr.cast(), Full)
            .is_err()
        {
            wait();
        }
        let start = Instant::<Monotonic>::now();
        kick();
        // SAFETY: `ptr` points to `call`, and `done` is only accessed atomically.
        while !unsafe { (*ptr).done.load(Acquire) } {
            if start.elapsed() > PATIENCE
                && self
                    .0
                    .cmpxchg(ptr.cast(), core::ptr::null_mut(), Full)
                    .is_ok()
            {
                LOST.store(true, Relaxed);
                return false;
            }
            wait();
        }
        true
    }

    /// Answers a call if there is one.
    fn answer(&self, ip: usize) -> bool {
        let call = self.0.xchg(core::ptr::null_mut(), Full);

        if call.is_null() {
            return false;
        }
        // SAFETY: By the invariant the call is live, and as we took it out nobody else uses `func`.
        unsafe { ((*call).func)(ip) };
        // SAFETY: As above; the owner may be gone after this, so it is the last access.
        unsafe { (*call).done.store(true, Release) };
        true
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
        // SAFETY: By the safety requirements it is a `Site`'s field.
        let site = unsafe { &*kernel::container_of!(Opaque::cast_from(tasklet), Self, tasklet) };
        site.tasklet_mail.answer(0);
    }

    /// # Safety
    ///
    /// To be called with the `work` of a live `Site`.
    unsafe extern "C" fn on_irq_work(work: *mut bindings::irq_work) {
        // SAFETY: By the safety requirements it is a `Site`'s field.
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
}

static NMI_MAIL: [Mailbox; bindings::NR_CPUS as usize] =
    [const { Mailbox::new() }; bindings::NR_CPUS as usize];

/// The right to use [`Context::Nmi`]: our handler is registered, and was seen to run in an NMI.
pub(crate) struct Nmi(());

impl Nmi {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called once, from the module's init.
        kernel::error::to_result(unsafe { nolocks_nmi_register() })?;
        let nmi = Self(());
        let mut seen = 0;
        // SAFETY: Only reads a number. Any CPU will do.
        let cpu = unsafe { bindings::raw_smp_processor_id() };

        if !send_nmi(cpu, &mut |_| seen = level()) {
            pr_err!("an NMI was sent to CPU {cpu} and never came\n");
            return Err(ETIMEDOUT);
        }
        if seen & IN_NMI == 0 {
            pr_info!("# note: no NMI but an interrupt: is irqchip.gicv3_pseudo_nmi=1 missing?\n");
            return Err(EOPNOTSUPP);
        }
        Ok(nmi)
    }

    /// None where this machine has no NMIs to send.
    #[allow(dead_code, reason = "a control needs them")]
    pub(crate) fn if_any() -> Result<Option<Self>> {
        match Self::new() {
            Ok(nmi) => Ok(Some(nmi)),
            Err(err) if err == EOPNOTSUPP => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// What sends them does not survive a CPU that goes offline. To be called while nobody sends.
    #[allow(dead_code, reason = "not every module takes a CPU offline")]
    pub(crate) fn renew(&self) -> Result {
        // SAFETY: Registered in `new()`.
        unsafe { nolocks_nmi_unregister() };
        // SAFETY: Taken back right above.
        kernel::error::to_result(unsafe { nolocks_nmi_register() })
    }
}

impl Drop for Nmi {
    fn drop(&mut self) {
        // SAFETY: Registered in `new()`. Waits for handlers that still run.
        unsafe { nolocks_nmi_unregister() }
    }
}

/// Keeps NMIs coming on a CPU, where starting them anew would interrupt it each time.
pub(crate) struct Nmis(u32);

impl Nmis {
    /// Only while an [`Nmi`] exists, on a CPU that is online, from a task that may sleep.
    pub(crate) fn new(cpu: u32) -> Self {
        // SAFETY: Undone by the drop.
        unsafe { nolocks_nmi_start(cpu) };
        Self(cpu)
    }
}

impl Drop for Nmis {
    fn drop(&mut self) {
        // SAFETY: Pairs with the one in `new()`.
        unsafe { nolocks_nmi_stop(self.0) }
    }
}

/// Runs `func` in an NMI on `cpu`, with the instruction pointer that it interrupted. False when no
/// NMI came.
///
/// Under the conditions of [`Nmis::new()`].
pub(crate) fn send_nmi(cpu: u32, func: &mut (dyn FnMut(usize) + Send)) -> bool {
    let _nmis = Nmis::new(cpu);

    NMI_MAIL[cpu as usize].post(
        func,
        // SAFETY: `cpu` is online: we run on it, or its thread is bound to it.
        || unsafe { nolocks_nmi_send(cpu) },
        kernel::processor::cpu_relax,
    )
}

/// How much of a stack an NMI looks at: its own way to here, and what it has interrupted from a lock
/// under `zone->lock` up to the worker.
#[cfg(CONFIG_STACKTRACE)]
const FRAMES: usize = 64;

/// Calls `func` with what was interrupted at `ip`.
#[cfg(CONFIG_STACKTRACE)]
fn with_stack(ip: usize, func: impl FnOnce(&[usize])) {
    let mut frames = [0; FRAMES];
    // SAFETY: The array is as long as we say.
    let n = unsafe { bindings::stack_trace_save(frames.as_mut_ptr(), FRAMES as c_uint, 0) };
    let frames = frames.get(..n as usize).unwrap_or(&frames);

    // `stack_trace_save_regs()`, which would leave out our own functions, is not exported.
    match frames.iter().position(|frame| *frame == ip) {
        Some(first) => func(&frames[first..]),
        None => func(&[ip]),
    }
}

#[cfg(not(CONFIG_STACKTRACE))]
fn with_stack(ip: usize, func: impl FnOnce(&[usize])) {
    func(&[ip]);
}

/// Gets the functions that an NMI has interrupted.
type OnNmi<'a> = &'a mut (dyn FnMut(&[usize]) + Send);

/// What every NMI on a CPU calls, as long as [`watch_nmis()`] has it do so.
///
/// # Invariants
///
/// `func` is null or points to a live function that nobody else calls. Its owner takes it out and
/// has seen `busy` as 0 after that before it goes.
struct Watch {
    func: Atomic<*mut OnNmi<'static>>,
    busy: Atomic<u32>,
}

impl Watch {
    /// To be called in an NMI on the CPU that it belongs to, with what was interrupted.
    fn call(&self, ip: usize) -> bool {
        // Full, as the owner's `xchg()` is: either it sees this or we do not see its function.
        self.busy.xchg(1, Full);
        let func = self.func.load(Acquire);
        if !func.is_null() {
            // SAFETY: By the invariant the function is live while we are `busy`, and ours alone:
            // NMIs on one CPU do not nest.
            with_stack(ip, unsafe { &mut **func });
        }
        self.busy.store(0, Release);
        !func.is_null()
    }
}

static WATCHES: [Watch; bindings::NR_CPUS as usize] = [const {
    Watch {
        // INVARIANT: Null.
        func: Atomic::new(core::ptr::null_mut()),
        busy: Atomic::new(0),
    }
}; bindings::NR_CPUS as usize];

/// Calls `body`, and until it returns `func` in every NMI on `cpu`, with the functions that it has
/// interrupted: the innermost's instruction pointer first, then where each returns to. Without
/// `CONFIG_STACKTRACE` there is but the first.
///
/// One at a time for each CPU. Under the conditions of [`Nmis::new()`].
#[allow(dead_code, reason = "not every module watches")]
pub(crate) fn watch_nmis<T>(cpu: u32, mut func: OnNmi<'_>, body: impl FnOnce() -> T) -> T {
    let watch = &WATCHES[cpu as usize];
    let _nmis = Nmis::new(cpu);

    // INVARIANT: `func` outlives the loop below, and is borrowed for as long.
    watch.func.store((&raw mut func).cast(), Release);
    let value = body();
    watch.func.xchg(core::ptr::null_mut(), Full);
    while watch.busy.load(Acquire) != 0 {
        kernel::processor::cpu_relax();
    }
    value
}

/// Sends an NMI for [`watch_nmis()`], where they do not come by themselves.
#[allow(dead_code, reason = "not every module watches")]
pub(crate) fn kick_nmi(cpu: u32) {
    // SAFETY: Under the conditions of `watch_nmis()` the CPU is online.
    unsafe { nolocks_nmi_send(cpu) }
}

#[no_mangle]
extern "C" fn nolocks_nmi_handler(ip: c_ulong) -> bool {
    // SAFETY: An NMI stays on its CPU.
    let cpu = unsafe { bindings::raw_smp_processor_id() } as usize;
    let answered = NMI_MAIL.get(cpu).is_some_and(|mail| mail.answer(ip));

    WATCHES.get(cpu).is_some_and(|watch| watch.call(ip)) || answered
}
