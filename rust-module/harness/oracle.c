// SPDX-License-Identifier: GPL-2.0
/*
 * Lets oracle.rs see every lock that is taken.
 */
#include <linux/ftrace.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/rtmutex.h>
#include <linux/rwsem.h>
#include <linux/tracepoint.h>

#include "helpers.h"

/* The only watcher's. */
static void (*nolocks_lock_taken)(const char *name) __maybe_unused;

#ifdef CONFIG_LOCKDEP
static struct tracepoint *nolocks_lock_acquire;

static void nolocks_match_tracepoint(struct tracepoint *tp, void *priv)
{
	if (!strcmp(tp->name, "lock_acquire"))
		nolocks_lock_acquire = tp;
}

static void nolocks_on_lock_acquire(void *data, struct lockdep_map *lock,
				    unsigned int subclass, int trylock,
				    int read, int check,
				    struct lockdep_map *nest_lock,
				    unsigned long ip)
{
	nolocks_lock_taken(lock->name);
}

/* The tracepoint is not exported, so it has to be searched for. */
int nolocks_watch_locks(void (*taken)(const char *name))
{
	nolocks_lock_taken = taken;
	for_each_kernel_tracepoint(nolocks_match_tracepoint, NULL);
	if (!nolocks_lock_acquire)
		return -EOPNOTSUPP;
	return tracepoint_probe_register(nolocks_lock_acquire,
					 nolocks_on_lock_acquire, NULL);
}

void nolocks_unwatch_locks(void)
{
	tracepoint_probe_unregister(nolocks_lock_acquire,
				    nolocks_on_lock_acquire, NULL);
	tracepoint_synchronize_unregister();
}
#elif defined(CONFIG_DYNAMIC_FTRACE) && defined(CONFIG_SMP) && \
	!defined(CONFIG_INLINE_SPIN_TRYLOCK)
#define NOLOCKS_FUNCTION(func)	{ (unsigned long)(func), #func }

/* All that takes a lock or tries to, and is a function without lockdep. */
static const struct nolocks_function {
	unsigned long start;
	const char *name;
} nolocks_functions[] = {
	NOLOCKS_FUNCTION(_raw_spin_lock),
	NOLOCKS_FUNCTION(_raw_spin_lock_irqsave),
	NOLOCKS_FUNCTION(_raw_spin_lock_irq),
	NOLOCKS_FUNCTION(_raw_spin_lock_irq_disable),
	NOLOCKS_FUNCTION(_raw_spin_lock_bh),
	NOLOCKS_FUNCTION(_raw_spin_trylock),
	NOLOCKS_FUNCTION(_raw_spin_trylock_bh),
#ifdef CONFIG_PREEMPT_RT
	NOLOCKS_FUNCTION(rt_spin_lock),
	NOLOCKS_FUNCTION(rt_spin_trylock),
	NOLOCKS_FUNCTION(rt_spin_trylock_bh),
	NOLOCKS_FUNCTION(rt_read_lock),
	NOLOCKS_FUNCTION(rt_read_trylock),
	NOLOCKS_FUNCTION(rt_write_lock),
	NOLOCKS_FUNCTION(rt_write_trylock),
#else
	NOLOCKS_FUNCTION(_raw_read_lock),
	NOLOCKS_FUNCTION(_raw_read_lock_irqsave),
	NOLOCKS_FUNCTION(_raw_read_lock_irq),
	NOLOCKS_FUNCTION(_raw_read_lock_bh),
	NOLOCKS_FUNCTION(_raw_read_trylock),
	NOLOCKS_FUNCTION(_raw_write_lock),
	NOLOCKS_FUNCTION(_raw_write_lock_nested),
	NOLOCKS_FUNCTION(_raw_write_lock_irqsave),
	NOLOCKS_FUNCTION(_raw_write_lock_irq),
	NOLOCKS_FUNCTION(_raw_write_lock_bh),
	NOLOCKS_FUNCTION(_raw_write_trylock),
#endif
	NOLOCKS_FUNCTION(mutex_lock),
	NOLOCKS_FUNCTION(mutex_lock_interruptible),
	NOLOCKS_FUNCTION(mutex_lock_killable),
	NOLOCKS_FUNCTION(mutex_lock_io),
	NOLOCKS_FUNCTION(mutex_trylock),
#ifdef CONFIG_RT_MUTEXES
	NOLOCKS_FUNCTION(rt_mutex_lock),
	NOLOCKS_FUNCTION(rt_mutex_lock_interruptible),
	NOLOCKS_FUNCTION(rt_mutex_lock_killable),
	NOLOCKS_FUNCTION(rt_mutex_trylock),
#endif
	NOLOCKS_FUNCTION(down_read),
	NOLOCKS_FUNCTION(down_read_interruptible),
	NOLOCKS_FUNCTION(down_read_killable),
	NOLOCKS_FUNCTION(down_read_trylock),
	NOLOCKS_FUNCTION(down_write),
	NOLOCKS_FUNCTION(down_write_killable),
	NOLOCKS_FUNCTION(down_write_trylock),
	/*
	 * In the scheduler, which takes its locks in the name of the task that
	 * an interrupt has left, and may stay with it.
	 */
	{ (unsigned long)rcu_note_context_switch, NULL },
};

/* On its way out an interrupt may wake a softirq's thread, as if a task did. */
static unsigned char nolocks_irq_enter[] = "irq_enter_rcu";

/*
 * In any context, NMIs included. Neither ftrace's protection from recursion is
 * asked for nor RCU's: it calls nothing that is traced and looks at nothing but
 * its own module, and a call that they drop is a lock that nobody saw.
 */
static void notrace nolocks_on_function(unsigned long ip,
					unsigned long parent_ip,
					struct ftrace_ops *ops,
					struct ftrace_regs *fregs)
{
	/* The call is among a function's first instructions, if not the first. */
	const unsigned long before = 16;
	const char *name = NULL;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(nolocks_functions); i++) {
		if (ip - nolocks_functions[i].start < before) {
			name = nolocks_functions[i].name;
			break;
		}
	}
	nolocks_lock_taken(name);
}

static struct ftrace_ops nolocks_ops = {
	.func = nolocks_on_function,
};

int nolocks_watch_locks(void (*taken)(const char *name))
{
	size_t i;
	int err;

	nolocks_lock_taken = taken;
	err = ftrace_set_filter(&nolocks_ops, nolocks_irq_enter,
				sizeof(nolocks_irq_enter) - 1, 0);
	for (i = 0; i < ARRAY_SIZE(nolocks_functions) && !err; i++)
		err = ftrace_set_filter_ip(&nolocks_ops,
					   nolocks_functions[i].start, 0, 0);
	if (!err)
		err = register_ftrace_function(&nolocks_ops);
	if (err)
		ftrace_free_filter(&nolocks_ops);
	return err;
}

void nolocks_unwatch_locks(void)
{
	/* Waits for callbacks that still run: the ops are a module's. */
	unregister_ftrace_function(&nolocks_ops);
	ftrace_free_filter(&nolocks_ops);
}
#else
int nolocks_watch_locks(void (*taken)(const char *name))
{
	return -EOPNOTSUPP;
}

void nolocks_unwatch_locks(void)
{
}
#endif
