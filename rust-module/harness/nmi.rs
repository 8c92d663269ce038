// SPDX-License-Identifier: GPL-2.0

//! NMIs: sent to call a function, or watched as they come.

use kernel::{
    bindings,
    prelude::*,
    sync::atomic::{
        ordering::{
            Acquire,
            Full,
            Release, //
        },
        Atomic, //
    }, //
};

use crate::{
    mailbox::Mailbox,
    task::{
        level,
        IN_NMI, //
    }, //
};

extern "C" {
    fn nolocks_nmi_register(handler: extern "C" fn(c_ulong) -> bool) -> c_int;
    fn nolocks_nmi_unregister();
    fn nolocks_nmi_start(cpu: c_uint);
    fn nolocks_nmi_stop(cpu: c_uint);
    fn nolocks_nmi_send(cpu: c_uint);
}

static NMI_MAIL: [Mailbox; bindings::NR_CPUS as usize] =
    [const { Mailbox::new() }; bindings::NR_CPUS as usize];

/// The right to use [`Context::Nmi`]: our handler is registered, and was seen to run in an NMI.
pub(crate) struct Nmi(());

impl Nmi {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called once, from the module's init.
        kernel::error::to_result(unsafe { nolocks_nmi_register(on_nmi) })?;
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
    pub(crate) fn if_any() -> Result<Option<Self>> {
        match Self::new() {
            Ok(nmi) => Ok(Some(nmi)),
            Err(err) if err == EOPNOTSUPP => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// What sends them does not survive a CPU that goes offline. To be called while nobody sends.
    pub(crate) fn renew(&self) -> Result {
        // SAFETY: Registered in `new()`.
        unsafe { nolocks_nmi_unregister() };
        // SAFETY: Taken back right above.
        kernel::error::to_result(unsafe { nolocks_nmi_register(on_nmi) })
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
pub(crate) fn kick_nmi(cpu: u32) {
    // SAFETY: Under the conditions of `watch_nmis()` the CPU is online.
    unsafe { nolocks_nmi_send(cpu) }
}

extern "C" fn on_nmi(ip: c_ulong) -> bool {
    // SAFETY: An NMI stays on its CPU.
    let cpu = unsafe { bindings::raw_smp_processor_id() } as usize;
    let answered = NMI_MAIL.get(cpu).is_some_and(|mail| mail.answer(ip));

    WATCHES.get(cpu).is_some_and(|watch| watch.call(ip)) || answered
}
