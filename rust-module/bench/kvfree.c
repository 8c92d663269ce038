// SPDX-License-Identifier: GPL-2.0
/*
 * What an object costs, and one that is given to kvfree_rcu() and its kin: to queue
 * it, and all that is done until it is free. C, and nothing that mainline lacks, so
 * that the same source runs on the tree with the series and on the one without.
 */
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "filler.c"
#include "symbol.h"

/* Two blocks' worth and more, so that what a block costs is in it. */
#define OPS	1024
/* So that waiting for a grace period, which is one for all, is little of it. */
#define MANY	(16 * OPS)
#define ROUNDS	10

/* As large as the object in queue.rs. */
struct nolocks_object {
	struct kvfree_rcu_head rcu;
	char rest[64 - sizeof(struct kvfree_rcu_head)];
};

static struct nolocks_object *nolocks_objects[MANY];
static void (*nolocks_barrier)(void);

static void *nolocks_kmalloc(void)
{
	return kmalloc_obj(struct nolocks_object);
}

static void *nolocks_vmalloc(void)
{
	return vmalloc(sizeof(struct nolocks_object));
}

static int nolocks_alloc_all(unsigned int nr, void *(*alloc)(void))
{
	for (unsigned int i = 0; i < nr; i++) {
		nolocks_objects[i] = alloc();
		if (!nolocks_objects[i]) {
			while (i)
				kvfree(nolocks_objects[--i]);
			return -ENOMEM;
		}
	}
	return 0;
}

/* One after the other, and a row of them, which needs new slabs. */
static void nolocks_bench_kmalloc(void)
{
	u64 pair = NOLOCKS_BEST(ROUNDS, OPS, kfree(nolocks_kmalloc()));
	u64 row = NOLOCKS_BEST(ROUNDS, 1, ({
		if (!nolocks_alloc_all(OPS, nolocks_kmalloc))
			for (unsigned int i = 0; i < OPS; i++)
				kfree(nolocks_objects[i]);
	}));

	NOLOCKS_PRINT("kmalloc_64", OPS, pair);
	NOLOCKS_PRINT("kmalloc_64_row", OPS, row);
}

static u64 nolocks_kfree_rcu(unsigned int nr)
{
	return NOLOCKS_BEST(1, nr, kfree_rcu(nolocks_objects[op], rcu));
}

static u64 nolocks_kfree_rcu_mightsleep(unsigned int nr)
{
	return NOLOCKS_BEST(1, nr, kfree_rcu_mightsleep(nolocks_objects[op]));
}

static u64 nolocks_kfree_rcu_nolock(unsigned int nr)
{
	return NOLOCKS_BEST(1, nr, kfree_rcu_nolock(nolocks_objects[op], rcu));
}

static int nolocks_bench_queueing(const char *name, void *(*alloc)(void),
				  u64 (*queue)(unsigned int nr))
{
	u64 best = U64_MAX;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		if (nolocks_alloc_all(OPS, alloc))
			return -ENOMEM;
		best = min(best, queue(OPS));
		nolocks_barrier();
	}
	NOLOCKS_PRINT(name, OPS, best);

	/* Once before, because the first has more to do than the others. */
	for (unsigned int round = 0; round < 2; round++) {
		if (nolocks_alloc_all(NOLOCKS_STEPPED, alloc))
			return -ENOMEM;
		if (round)
			nolocks_begin_profile(name, NOLOCKS_STEPPED);
		queue(NOLOCKS_STEPPED);
	}
	nolocks_end_profile();
	nolocks_barrier();
	return 0;
}

/* The least that is done from the first of @nr objects on until all are free. */
static u64 nolocks_to_free(unsigned int nr)
{
	u64 best = U64_MAX;

	for (unsigned int round = 0; round < ROUNDS; round++) {
		u64 begin;

		if (nolocks_alloc_all(nr, nolocks_kmalloc))
			return 0;
		begin = nolocks_busy_ns();
		nolocks_kfree_rcu(nr);
		nolocks_barrier();
		best = min(best, nolocks_busy_ns() - begin);
	}
	return best;
}

static int __init nolocks_bench_init(void)
{
	u64 one, all;
	int err;

	nolocks_barrier = nolocks_symbol("kvfree_rcu_barrier");
	if (!nolocks_barrier)
		return -ENOENT;
	nolocks_before_workers();
	nolocks_bench_kmalloc();
	err = nolocks_bench_queueing("kfree_rcu", nolocks_kmalloc,
				     nolocks_kfree_rcu) ?:
	      nolocks_bench_queueing("kfree_rcu_mightsleep", nolocks_kmalloc,
				     nolocks_kfree_rcu_mightsleep) ?:
	      nolocks_bench_queueing("kfree_rcu_nolock", nolocks_kmalloc,
				     nolocks_kfree_rcu_nolock) ?:
	      /* kfree_rcu() and kvfree_rcu() are one. */
	      nolocks_bench_queueing("kvfree_rcu_vmalloc", nolocks_vmalloc,
				     nolocks_kfree_rcu) ?:
	      nolocks_filler_start();
	if (err)
		return err;
	nolocks_behind_workers();
	one = nolocks_to_free(1);
	all = nolocks_to_free(MANY);
	nolocks_filler_stop();
	if (!one || !all)
		return -ENOMEM;
	NOLOCKS_PRINT("kfree_rcu_to_free", MANY, all - one);
	return 0;
}
module_init(nolocks_bench_init);

static void __exit nolocks_bench_exit(void)
{
}
module_exit(nolocks_bench_exit);

MODULE_DESCRIPTION("What an object costs that is freed after a grace period");
MODULE_LICENSE("GPL");
