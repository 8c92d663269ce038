// SPDX-License-Identifier: GPL-2.0
/*
 * What a page costs. C, and without the flag where the kernel has none, so that
 * the same source runs on the tree with the series and on the one without.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "pages.h"

/* More than the lists give in one go, so that zone->lock is in it. */
#define ROW	512

static void nolocks_bench_order(unsigned int order, const char *alone,
				const char *row)
{
	NOLOCKS_BENCH(alone, __free_pages(alloc_pages(GFP_KERNEL, order), order));
#define NOLOCKS_FREE(page)	__free_pages(page, order)
	NOLOCKS_PRINT(row, ROW,
		      NOLOCKS_BEST(ROUNDS, 1,
				   NOLOCKS_ROW(ROW, alloc_pages(GFP_KERNEL, order),
					       NOLOCKS_FREE)));
#undef NOLOCKS_FREE
}

/* Enough that two of them are buddies. */
static struct page *nolocks_held[64];

/*
 * Leaves first on its list a block whose buddy is in use: it is not split off what
 * is larger and not merged with anything. What the list begins with otherwise
 * differs from boot to boot.
 */
static void nolocks_hold_buddies(unsigned int order)
{
	unsigned int n = ARRAY_SIZE(nolocks_held);

	for (unsigned int i = 0; i < n; i++)
		nolocks_held[i] = alloc_pages(GFP_KERNEL, order);
	for (unsigned int i = 0; i < n; i++) {
		unsigned long buddy = page_to_pfn(nolocks_held[i]) ^ (1UL << order);

		for (unsigned int j = 0; j < n; j++) {
			if (page_to_pfn(nolocks_held[j]) != buddy)
				continue;
			__free_pages(nolocks_held[i], order);
			nolocks_held[i] = NULL;
			return;
		}
	}
}

static void nolocks_release_buddies(unsigned int order)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(nolocks_held); i++) {
		if (nolocks_held[i])
			__free_pages(nolocks_held[i], order);
	}
}

static int __init nolocks_bench_init(void)
{
	nolocks_loop = NOLOCKS_BEST(ROUNDS, OPS, barrier());

	nolocks_bench_order(0, "gfp_kernel", "gfp_kernel_row");
	NOLOCKS_PROFILE("gfp_kernel", __free_page(alloc_page(GFP_KERNEL)));
	nolocks_bench_order(1, "gfp_kernel_order_1", "gfp_kernel_order_1_row");
	nolocks_hold_buddies(4);
	nolocks_bench_order(4, "gfp_kernel_order_4", "gfp_kernel_order_4_row");
	NOLOCKS_PROFILE("gfp_kernel_order_4",
			__free_pages(alloc_pages(GFP_KERNEL, 4), 4));
	nolocks_release_buddies(4);
	NOLOCKS_BENCH("gfp_nowait", __free_page(alloc_page(GFP_NOWAIT)));
	NOLOCKS_PROFILE("gfp_nowait", __free_page(alloc_page(GFP_NOWAIT)));
	NOLOCKS_BENCH("gfp_kernel_zero",
		      __free_page(alloc_page(GFP_KERNEL | __GFP_ZERO)));
	/* Zeroes the page in any case. */
	NOLOCKS_BENCH("alloc_pages_nolock",
		      __free_page(alloc_pages_nolock(0, NUMA_NO_NODE, 0)));
	NOLOCKS_PROFILE("alloc_pages_nolock",
			__free_page(alloc_pages_nolock(0, NUMA_NO_NODE, 0)));
#ifdef CONFIG_PAGE_SLOTS
	return nolocks_bench_slots();
#else
	return 0;
#endif
}
module_init(nolocks_bench_init);

static void __exit nolocks_bench_exit(void)
{
}
module_exit(nolocks_bench_exit);

MODULE_DESCRIPTION("What a page costs, in instructions");
MODULE_LICENSE("GPL");
