// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 */
#include <linux/cpumask.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/perf_event.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/timekeeping.h>
#include <linux/timer.h>
#include <asm/irq_regs.h>

#ifdef CONFIG_X86_64
#include <asm/apic.h>
#include <asm/nmi.h>
#endif

#include "helpers.h"
#include "../lib/nolocks/helpers.c"

unsigned int nolocks_where(void)
{
	return (in_nmi() ? NOLOCKS_IN_NMI : 0) |
	       (in_hardirq() ? NOLOCKS_IN_HARDIRQ : 0) |
	       (in_serving_softirq() ? NOLOCKS_IN_SOFTIRQ : 0) |
	       (irqs_disabled() ? NOLOCKS_IRQS_OFF : 0) |
	       (preempt_count() ? NOLOCKS_PREEMPT_OFF : 0);
}

void nolocks_preempt_disable(void)
{
	preempt_disable();
}

void nolocks_preempt_enable(void)
{
	preempt_enable();
}

void nolocks_migrate_disable(void)
{
	migrate_disable();
}

void nolocks_migrate_enable(void)
{
	migrate_enable();
}

void nolocks_cond_resched(void)
{
	cond_resched();
}

static struct task_struct *nolocks_alarm_task;

static void nolocks_alarm_fn(struct timer_list *unused)
{
	send_sig(SIGINT, nolocks_alarm_task, 1);
}

static DEFINE_TIMER(nolocks_alarm, nolocks_alarm_fn);

/* Has this task interrupted in @ms milliseconds. One at a time. */
void nolocks_alarm_begin(unsigned int ms)
{
	nolocks_alarm_task = current;
	allow_signal(SIGINT);
	mod_timer(&nolocks_alarm, jiffies + msecs_to_jiffies(ms));
}

/* Says whether it was. */
bool nolocks_alarm_end(void)
{
	bool expired = !timer_delete_sync(&nolocks_alarm);

	flush_signals(current);
	disallow_signal(SIGINT);
	return expired;
}

unsigned long nolocks_pi_lock(void)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&current->pi_lock, flags);
	return flags;
}

void nolocks_pi_unlock(unsigned long flags)
{
	raw_spin_unlock_irqrestore(&current->pi_lock, flags);
}

/* Enabling softirqs runs the tasklet here unless ksoftirqd is at it already. */
void nolocks_run_tasklet(struct tasklet_struct *tasklet)
{
	local_bh_disable();
	tasklet_schedule(tasklet);
	local_bh_enable();
}

void nolocks_init_hard_irq_work(struct irq_work *work,
				void (*func)(struct irq_work *work))
{
	*work = IRQ_WORK_INIT_HARD(func);
}

/* For a timer's callback, the only interrupt that keeps its registers. */
unsigned long nolocks_interrupted_ip(void)
{
	struct pt_regs *regs = get_irq_regs();

	return regs ? instruction_pointer(regs) : 0;
}

unsigned int nolocks_online_cpu(unsigned int nth)
{
	return cpumask_nth(nth % num_online_cpus(), cpu_online_mask);
}

unsigned int nolocks_online_cpus(void)
{
	return num_online_cpus();
}

/* The only user's; there is no NMI before it is set. */
static bool (*nolocks_nmi_handler)(unsigned long ip) __maybe_unused;

#ifdef CONFIG_X86_64
static int nolocks_nmi(unsigned int type, struct pt_regs *regs)
{
	return nolocks_nmi_handler(instruction_pointer(regs)) ? NMI_HANDLED :
								NMI_DONE;
}

int nolocks_nmi_register(bool (*handler)(unsigned long ip))
{
	nolocks_nmi_handler = handler;
	return register_nmi_handler(NMI_LOCAL, nolocks_nmi, 0, "nolocks");
}

void nolocks_nmi_unregister(void)
{
	unregister_nmi_handler(NMI_LOCAL, "nolocks");
}

/* An NMI is sent for each call, so there is nothing to start. */
void nolocks_nmi_start(unsigned int cpu)
{
}

void nolocks_nmi_stop(unsigned int cpu)
{
}

/* The static call behind __apic_send_IPI() is not exported. */
void nolocks_nmi_send(unsigned int cpu)
{
	apic->send_IPI(cpu, NMI_VECTOR);
}
#elif defined(CONFIG_ARM64_PSEUDO_NMI) && defined(CONFIG_PERF_EVENTS)
/*
 * No pseudo-NMI can be sent by a module, but a counter's overflow is one. It
 * has to leave the CPU time between two of them, under emulation too, where a
 * cycle is a nanosecond: the PMU's driver stops the counter while it handles
 * the overflow, so that all of this is the interrupted code's.
 */
#define NOLOCKS_NMI_CYCLES	100000
/*
 * On a busy host the way out of an interrupt may take longer than that, and the
 * interrupted code never gets anywhere: it gets twice the time that the handler
 * took, and after so many overflows in a row that found no call the time between
 * them doubles, up to 128 times.
 */
#define NOLOCKS_NMI_IDLE	64
#define NOLOCKS_NMI_SHIFT	7

static DEFINE_PER_CPU(struct perf_event *, nolocks_cycles);
static DEFINE_PER_CPU(unsigned int, nolocks_cycles_users);
static DEFINE_PER_CPU(unsigned int, nolocks_cycles_idle);
static DEFINE_MUTEX(nolocks_cycles_mutex);

static void nolocks_overflow(struct perf_event *event,
			     struct perf_sample_data *data,
			     struct pt_regs *regs)
{
	unsigned int *idle = this_cpu_ptr(&nolocks_cycles_idle);
	u64 took = ktime_get_mono_fast_ns();

	if (nolocks_nmi_handler(instruction_pointer(regs)))
		*idle = 0;
	else if (*idle < NOLOCKS_NMI_IDLE * NOLOCKS_NMI_SHIFT)
		(*idle)++;
	took = ktime_get_mono_fast_ns() - took;
	/* The driver takes it for the overflow after the next. */
	event->hw.sample_period = clamp(2 * took, (u64)NOLOCKS_NMI_CYCLES
					<< *idle / NOLOCKS_NMI_IDLE,
					(u64)NOLOCKS_NMI_CYCLES << NOLOCKS_NMI_SHIFT);
}

int nolocks_nmi_register(bool (*handler)(unsigned long ip))
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_CPU_CYCLES,
		.sample_period = NOLOCKS_NMI_CYCLES,
		.pinned = 1,
		.disabled = 1,
	};
	struct perf_event *event;
	unsigned int cpu;

	nolocks_nmi_handler = handler;
	for_each_online_cpu(cpu) {
		event = perf_event_create_kernel_counter(&attr, cpu, NULL,
							 nolocks_overflow,
							 NULL);
		if (IS_ERR(event)) {
			nolocks_nmi_unregister();
			/* No PMU at all is no failure either. */
			return PTR_ERR(event) == -ENOENT ? -EOPNOTSUPP :
							   PTR_ERR(event);
		}
		per_cpu(nolocks_cycles, cpu) = event;
	}
	return 0;
}

void nolocks_nmi_unregister(void)
{
	unsigned int cpu;

	for_each_possible_cpu(cpu) {
		if (!per_cpu(nolocks_cycles, cpu))
			continue;
		perf_event_release_kernel(per_cpu(nolocks_cycles, cpu));
		per_cpu(nolocks_cycles, cpu) = NULL;
	}
}

void nolocks_nmi_start(unsigned int cpu)
{
	guard(mutex)(&nolocks_cycles_mutex);
	if (!per_cpu(nolocks_cycles_users, cpu)++)
		perf_event_enable(per_cpu(nolocks_cycles, cpu));
}

void nolocks_nmi_stop(unsigned int cpu)
{
	guard(mutex)(&nolocks_cycles_mutex);
	if (!--per_cpu(nolocks_cycles_users, cpu))
		perf_event_disable(per_cpu(nolocks_cycles, cpu));
}

/* The counter's next overflow finds the call. */
void nolocks_nmi_send(unsigned int cpu)
{
}
#else
int nolocks_nmi_register(bool (*handler)(unsigned long ip))
{
	return -EOPNOTSUPP;
}

void nolocks_nmi_unregister(void)
{
}

void nolocks_nmi_start(unsigned int cpu)
{
}

void nolocks_nmi_stop(unsigned int cpu)
{
}

void nolocks_nmi_send(unsigned int cpu)
{
}
#endif
