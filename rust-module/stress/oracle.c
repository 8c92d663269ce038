// SPDX-License-Identifier: GPL-2.0
/*
 * Lets oracle.rs see every lock that is taken.
 */
#include <linux/lockdep.h>
#include <linux/tracepoint.h>

#include "helpers.h"

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
int nolocks_watch_locks(void)
{
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
#else
int nolocks_watch_locks(void)
{
	return -EOPNOTSUPP;
}

void nolocks_unwatch_locks(void)
{
}
#endif
