// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 */
#include <linux/debugobjects.h>
#include <linux/kmemleak.h>
#include <linux/rcupdate.h>

#include "helpers.h"

void nolocks_queue_init_works(struct irq_work *irq_work,
			      void (*on_irq)(struct irq_work *work),
			      struct delayed_work *delayed,
			      work_func_t on_time, struct rcu_work *rcu,
			      work_func_t on_grace_period)
{
	/* Hard, or PREEMPT_RT would leave it to a thread. */
	*irq_work = IRQ_WORK_INIT_HARD(on_irq);
	INIT_DELAYED_WORK(delayed, on_time);
	INIT_RCU_WORK(rcu, on_grace_period);
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
