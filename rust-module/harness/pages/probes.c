// SPDX-License-Identifier: GPL-2.0
/*
 * What can be seen of workers and of interrupts that a CPU sends to itself, a way
 * to run on a CPU that is going offline, and one to move who fills the slots.
 */
#include <linux/cpuhotplug.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/tracepoint.h>

#include "../helpers.h"

/*
 * Kworkers that wait for something in the middle of a work: those without one
 * are TASK_IDLE. Racy, a sample.
 */
unsigned int nolocks_blocked_kworkers(void)
{
	struct task_struct *task;
	unsigned int n = 0;

	guard(rcu)();
	for_each_process(task)
		n += task->flags & PF_WQ_WORKER &&
		     READ_ONCE(task->__state) == TASK_UNINTERRUPTIBLE;
	return n;
}

unsigned int nolocks_kworkers(void)
{
	struct task_struct *task;
	unsigned int n = 0;

	guard(rcu)();
	for_each_process(task)
		n += !!(task->flags & PF_WQ_WORKER);
	return n;
}

/* The thread that fills the slots, to be put. */
static struct task_struct *nolocks_filler(void)
{
	struct task_struct *task;

	guard(rcu)();
	for_each_process(task)
		if (!strcmp(task->comm, "kpageslots"))
			return get_task_struct(task);
	return NULL;
}

/* Has it run on @cpu only, or, if negative, anywhere. */
int nolocks_move_filler(int cpu)
{
	struct task_struct *filler = nolocks_filler();
	int err;

	if (!filler)
		return -ESRCH;
	err = set_cpus_allowed_ptr(filler, cpu < 0 ? cpu_possible_mask :
						     cpumask_of(cpu));
	put_task_struct(filler);
	return err;
}

/*
 * Whether it was woken on @cpu, and is still there: TASK_WAKING, if that CPU has
 * yet to put it on its runqueue.
 */
bool nolocks_filler_is_woken_on(unsigned int cpu)
{
	struct task_struct *filler = nolocks_filler();
	bool is_woken;

	if (!filler)
		return false;
	is_woken = !(READ_ONCE(filler->__state) & TASK_NORMAL) &&
		   task_cpu(filler) == cpu;
	put_task_struct(filler);
	return is_woken;
}

#ifdef CONFIG_HOTPLUG_CPU
/*
 * Of an interrupt controller that no machine with this module has, and after
 * CPUHP_AP_SMPCFD_DYING in the way down: what a CPU queues there as irq_work it
 * does not run before it is back.
 */
#define NOLOCKS_DYING	CPUHP_AP_IRQ_MIPS_GIC_STARTING

/* The only watcher's. */
static void (*nolocks_on_dying)(void);

static int nolocks_cpu_dying(unsigned int cpu)
{
	nolocks_on_dying();
	return 0;
}

/* @on_dying is called on each CPU that goes offline, interrupts disabled. */
int nolocks_watch_dying(void (*on_dying)(void))
{
	nolocks_on_dying = on_dying;
	return cpuhp_setup_state_nocalls(NOLOCKS_DYING, "nolocks:dying", NULL,
					 nolocks_cpu_dying);
}

void nolocks_unwatch_dying(void)
{
	cpuhp_remove_state_nocalls(NOLOCKS_DYING);
}
#else
int nolocks_watch_dying(void (*on_dying)(void))
{
	return -EOPNOTSUPP;
}

void nolocks_unwatch_dying(void)
{
}
#endif

/*
 * The interrupt that runs irq_works: x86 has a tracepoint for it, and arm64 one
 * for each that is sent, by name. Neither is exported.
 */
static struct tracepoint *nolocks_irq_work_tp;
/* The only watcher's. */
static void (*nolocks_irq_work_ran)(void);

#ifdef CONFIG_X86
#define NOLOCKS_IRQ_WORK_TP	"irq_work_entry"

static void nolocks_on_irq_work(void *data, int vector)
{
	nolocks_irq_work_ran();
}
#else
#define NOLOCKS_IRQ_WORK_TP	"ipi_raise"

static void nolocks_on_irq_work(void *data, const struct cpumask *mask,
				const char *reason)
{
	if (!strcmp(reason, "IRQ work interrupts"))
		nolocks_irq_work_ran();
}
#endif

static void nolocks_match_irq_work(struct tracepoint *tp, void *priv)
{
	if (!strcmp(tp->name, NOLOCKS_IRQ_WORK_TP))
		nolocks_irq_work_tp = tp;
}

int nolocks_watch_irq_works(void (*ran)(void))
{
	nolocks_irq_work_ran = ran;
	for_each_kernel_tracepoint(nolocks_match_irq_work, NULL);
	if (!nolocks_irq_work_tp)
		return -EOPNOTSUPP;
	return tracepoint_probe_register(nolocks_irq_work_tp,
					 nolocks_on_irq_work, NULL);
}

void nolocks_unwatch_irq_works(void)
{
	tracepoint_probe_unregister(nolocks_irq_work_tp, nolocks_on_irq_work,
				    NULL);
	tracepoint_synchronize_unregister();
}
