// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 */
#include <linux/debugobjects.h>
#include <linux/gfp.h>
#include <linux/kmemleak.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/topology.h>

#include "helpers.h"

void nolocks_queue_init_works(struct irq_work *irq_work,
			      void (*on_irq)(struct irq_work *work),
			      struct delayed_work *delayed,
			      work_func_t on_time, struct rcu_work *rcu,
			      work_func_t on_grace_period,
			      struct work_struct *reclaim,
			      work_func_t on_reclaim)
{
	/* Hard, or PREEMPT_RT would leave it to a thread. */
	*irq_work = IRQ_WORK_INIT_HARD(on_irq);
	INIT_DELAYED_WORK(delayed, on_time);
	INIT_RCU_WORK(rcu, on_grace_period);
	INIT_WORK(reclaim, on_reclaim);
}

int nolocks_queue_node(unsigned int cpu)
{
	/* The shards are counted up to nr_cpu_ids, and some may be no CPU. */
	return cpu_possible(cpu) ? cpu_to_node(cpu) : NUMA_NO_NODE;
}

/*
 * Memory reclaim may wait for who asks, so it starts no I/O and gives up where
 * an ordinary task would go on. As kvfree_rcu() does, it leaves the reserves
 * alone.
 */
struct page *nolocks_queue_page_mightsleep(void)
{
	might_sleep();
	return alloc_page(GFP_NOIO | __GFP_NORETRY | __GFP_NOMEMALLOC |
			  __GFP_NOWARN);
}

/*
 * Calls @end in a task of its own. It is to return by nolocks_queue_ended(),
 * until which the module stays, unless that is going already, or its init fails
 * meanwhile, after which no reference keeps it: then it has not waited for the
 * queue's objects, and all is lost anyway.
 */
void nolocks_queue_end_elsewhere(int (*end)(void *queue), void *queue)
{
	WARN_ON(!try_module_get(THIS_MODULE));
	/* For want of memory only, which comes back. */
	while (IS_ERR(kthread_run(end, queue, "nolocks_queue_end")))
		schedule_timeout_uninterruptible(HZ / 10);
}

/* An int, as objtool knows no function of Rust that does not return. */
int nolocks_queue_ended(void)
{
	module_put_and_kthread_exit(0);
}

/* Without SMP and preemption RCU is tiny, and both are inline functions. */
void nolocks_queue_snapshot(struct rcu_gp_seq *snapshot)
{
	get_state_synchronize_rcu_full(snapshot);
}

bool nolocks_queue_elapsed(struct rcu_gp_seq *snapshot)
{
	return poll_state_synchronize_rcu_full(snapshot);
}

bool nolocks_queue_same(struct rcu_gp_seq *one, struct rcu_gp_seq *other)
{
	return same_state_synchronize_rcu_full(one, other);
}

/* Nobody initialises an object for the queue. */
static bool nolocks_queue_is_static_object(void *object)
{
	return true;
}

static const struct debug_obj_descr nolocks_queue_debug_descr = {
	.name = "nolocks_queue",
	.is_static_object = nolocks_queue_is_static_object,
};

/*
 * Called by the worker, because the locks in here are none that an NMI could
 * take. The object's only reference is in a block, where kmemleak does not look;
 * it has to be scanned if it owns others until its destructor runs.
 */
bool nolocks_queue_adopt(void *object, bool scan)
{
	/* Sees an object that kvfree_rcu() was handed too. */
	if (debug_object_activate(object, &nolocks_queue_debug_descr))
		return false;
	if (scan)
		kmemleak_not_leak(object);
	else
		kmemleak_ignore(object);
	return true;
}

void nolocks_queue_disown(void *object)
{
	debug_object_deactivate(object, &nolocks_queue_debug_descr);
	debug_object_free(object, &nolocks_queue_debug_descr);
}

void nolocks_queue_breathe(void)
{
	cond_resched_tasks_rcu_qs();
}
