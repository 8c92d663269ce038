// SPDX-License-Identifier: GPL-2.0

//! Threads that are bound to a CPU and joined before anybody returns.

use core::num::NonZero;

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*,
    sync::Completion, //
};

extern "C" {
    fn nolocks_online_cpu(nth: c_uint) -> c_uint;
    fn nolocks_online_cpus() -> c_uint;
}

/// How many CPUs are online.
pub(crate) fn online_cpus() -> NonZero<u32> {
    // SAFETY: Only reads a number.
    NonZero::new(unsafe { nolocks_online_cpus() }).unwrap_or(NonZero::<u32>::MIN)
}

/// The CPU that thread `nth` of [`run()`] is bound to.
pub(crate) fn cpu_of(nth: u32) -> u32 {
    // SAFETY: Only reads the mask of online CPUs.
    unsafe { nolocks_online_cpu(nth) }
}

#[pin_data]
struct Thread<'a> {
    nth: u32,
    func: &'a (dyn Fn(u32) -> Result + Sync),
    result: kernel::sync::SetOnce<Result>,
    #[pin]
    done: Completion,
}

/// # Safety
///
/// `data` must point to a `Thread` that lives until this task has exited.
unsafe extern "C" fn enter(data: *mut c_void) -> c_int {
    // SAFETY: `data` points to a `Thread` that lives until this task has exited.
    let thread = unsafe { &*data.cast::<Thread<'_>>() };

    thread.result.populate((thread.func)(thread.nth));
    thread.done.complete_all();
    0
}

/// Calls `func` with 0 to `n` exclusive, each in a thread of its own bound to [`cpu_of()`] it.
///
/// Returns when all of them have, with the first error of any.
pub(crate) fn run(n: u32, func: &(dyn Fn(u32) -> Result + Sync)) -> Result {
    let mut threads = KVec::with_capacity(n as usize, GFP_KERNEL)?;
    let mut result = Ok(());

    for nth in 0..n {
        let thread = KBox::pin_init(
            pin_init!(Thread {
                nth,
                func,
                result: kernel::sync::SetOnce::new(),
                done <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        threads.push((thread, core::ptr::null_mut()), GFP_KERNEL)?;
    }
    for (thread, task) in threads.iter_mut() {
        let data: *const Thread<'_> = &**thread;
        // SAFETY: `data` stays valid until the task has exited, which is waited for below.
        let created = from_err_ptr(unsafe {
            bindings::kthread_create_on_cpu(
                Some(enter),
                data.cast_mut().cast(),
                cpu_of(thread.nth),
                c"nolocks/%u".as_char_ptr(),
            )
        });

        match created {
            Ok(created) => {
                // SAFETY: The task has not run yet, so it is alive. The reference lets it be
                // stopped after it has exited.
                unsafe { bindings::get_task_struct(created) };
                *task = created;
            }
            Err(err) => {
                result = Err(err);
                break;
            }
        }
    }
    // All or none, because one may wait for another.
    let all = result.is_ok();
    for (_, task) in threads.iter().filter(|_| all) {
        // SAFETY: All tasks were created, and we hold a reference to each.
        unsafe { bindings::wake_up_process(*task) };
    }
    for (thread, task) in threads.iter().filter(|(_, task)| !task.is_null()) {
        // A thread that is stopped before it was woken, or soon after, never calls `enter()`.
        if all {
            thread.done.wait_for_completion();
        }
        // SAFETY: We hold a reference, which this puts once the task has left our code.
        unsafe { bindings::kthread_stop_put(*task) };
        result = result.and(thread.result.copy().unwrap_or(Err(EINTR)));
    }
    result
}
