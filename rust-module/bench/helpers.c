// SPDX-License-Identifier: GPL-2.0
/*
 * What kvfree_rcu() costs in C, for queue.rs to hold itself against.
 */
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "bench.h"
#include "../lib/nolocks/helpers.c"
#include "../lib/queue/helpers.c"

struct nolocks_object {
	struct kvfree_rcu_head rcu;
	char rest[64 - sizeof(struct kvfree_rcu_head)];
};

enum { NOLOCKS_KFREE_RCU, NOLOCKS_KFREE_RCU_MIGHTSLEEP, NOLOCKS_KFREE_RCU_NOLOCK };

/*
 * Nanoseconds to queue all @objects, of 64 bytes, by @how. They may come from
 * vmalloc() too: kfree_rcu() and kvfree_rcu() are one.
 */
u64 nolocks_bench_kfree_rcu(unsigned int how, void **objects, unsigned int nr)
{
	struct nolocks_object **at = (struct nolocks_object **)objects;

	switch (how) {
	case NOLOCKS_KFREE_RCU:
		return NOLOCKS_BEST(1, nr, kfree_rcu(at[op], rcu));
	case NOLOCKS_KFREE_RCU_MIGHTSLEEP:
		return NOLOCKS_BEST(1, nr, kfree_rcu_mightsleep(at[op]));
	default:
		return NOLOCKS_BEST(1, nr, kfree_rcu_nolock(at[op], rcu));
	}
}

/*
 * Leaves the workers of both to a later time: to queue an object is one thing,
 * to free it another, and whether a worker gets in between is up to chance.
 */
void nolocks_bench_before_workers(void)
{
	sched_set_fifo(current);
}
