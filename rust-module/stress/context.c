// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 */
#include <linux/cpumask.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <asm/irq_regs.h>

#ifdef CONFIG_X86_64
#include <asm/apic.h>
#include <asm/nmi.h>
#endif

#include "helpers.h"
#include "../nolocks/helpers.c"

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

void nolocks_raw_spin_lock(raw_spinlock_t *lock)
{
	raw_spin_lock(lock);
}

void nolocks_raw_spin_unlock(raw_spinlock_t *lock)
{
	raw_spin_unlock(lock);
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

#ifdef CONFIG_X86_64
static int nolocks_nmi(unsigned int type, struct pt_regs *regs)
{
	return nolocks_nmi_handler(instruction_pointer(regs)) ? NMI_HANDLED :
								NMI_DONE;
}

int nolocks_nmi_register(void)
{
	return register_nmi_handler(NMI_LOCAL, nolocks_nmi, 0, "nolocks");
}

void nolocks_nmi_unregister(void)
{
	unregister_nmi_handler(NMI_LOCAL, "nolocks");
}

/* The static call behind __apic_send_IPI() is not exported. */
void nolocks_nmi_send(unsigned int cpu)
{
	apic->send_IPI(cpu, NMI_VECTOR);
}
#else
int nolocks_nmi_register(void)
{
	return -EOPNOTSUPP;
}

void nolocks_nmi_unregister(void)
{
}

void nolocks_nmi_send(unsigned int cpu)
{
}
#endif
