// SPDX-License-Identifier: GPL-2.0
/*
 * What a page costs. C, and without the flag where the kernel has none, so that
 * the same source runs on the tree with the series and on the one without.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "bench.h"

#define OPS	100
#define ROUNDS	50

static u64 nolocks_loop;

#define NOLOCKS_BENCH(name, statement)					\
	pr_info("# bench: op=%s ops=%u ns=%llu\n", name, OPS,		\
		NOLOCKS_BEST(ROUNDS, OPS, statement) - nolocks_loop)

static int __init nolocks_bench_init(void)
{
	nolocks_loop = NOLOCKS_BEST(ROUNDS, OPS, barrier());

	NOLOCKS_BENCH("gfp_kernel", __free_page(alloc_page(GFP_KERNEL)));
	NOLOCKS_BENCH("gfp_nowait", __free_page(alloc_page(GFP_NOWAIT)));
	NOLOCKS_BENCH("gfp_kernel_zero",
		      __free_page(alloc_page(GFP_KERNEL | __GFP_ZERO)));
	/* Zeroes the page in any case. */
	NOLOCKS_BENCH("alloc_pages_nolock",
		      __free_page(alloc_pages_nolock(0, NUMA_NO_NODE, 0)));
#ifdef __GFP_NO_LOCKS
	NOLOCKS_BENCH("no_locks", __free_page(alloc_page(__GFP_NO_LOCKS)));
	NOLOCKS_BENCH("no_locks_zero",
		      __free_page(alloc_page(__GFP_NO_LOCKS | __GFP_ZERO)));
	NOLOCKS_BENCH("no_locks_free_nolock",
		      free_pages_nolock(alloc_page(__GFP_NO_LOCKS), 0));
#endif
	return 0;
}
module_init(nolocks_bench_init);

static void __exit nolocks_bench_exit(void)
{
}
module_exit(nolocks_bench_exit);

MODULE_DESCRIPTION("What a page costs, in instructions");
MODULE_LICENSE("GPL");
