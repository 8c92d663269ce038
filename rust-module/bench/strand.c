// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of a page that free_pages_nolock() cannot free at once. Mainline
 * leaves it to the next free that takes zone->lock, whenever that is.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/vmstat.h>

#include "symbol.h"

#define ROUNDS	20
/* Not for the pcp lists, so that zone->lock decides. */
#define ORDER	(PAGE_ALLOC_COSTLY_ORDER + 1)
/* An idle machine's worker is there within a tick or two. */
#define PATIENCE_MS	500

#ifdef CONFIG_PAGE_SLOTS
/* There is one CPU. */
static unsigned long nolocks_event(enum vm_event_item item)
{
	return READ_ONCE(per_cpu(vm_event_states, 0).event[item]);
}

static unsigned long nolocks_deferred_so_far(struct zone *zone)
{
	return nolocks_event(PGFREE_DEFERRED);
}

static bool nolocks_waits(struct zone *zone)
{
	return nolocks_event(PGFREE_DEFERRED) != nolocks_event(PGFREE_UNDEFERRED);
}
#else
/* Nothing else takes a page off that list, or puts one on it. */
static bool nolocks_waits(struct zone *zone)
{
	return !llist_empty(&zone->trylock_free_pages);
}

static unsigned long nolocks_deferred_so_far(struct zone *zone)
{
	return nolocks_waits(zone);
}
#endif

static int __init nolocks_strand_init(void)
{
	/* Mainline exports the allocation only. */
	void (*free)(struct page *page, unsigned int order) =
		nolocks_symbol("free_pages_nolock");
	unsigned int deferred = 0, stranded = 0;

	if (!free)
		return -ENOENT;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct page *page = alloc_pages(GFP_KERNEL, ORDER);
		struct page *next = alloc_pages(GFP_KERNEL, ORDER);
		unsigned long flags, before;
		struct zone *zone;

		if (!page || !next) {
			if (page)
				__free_pages(page, ORDER);
			if (next)
				__free_pages(next, ORDER);
			return -ENOMEM;
		}

		zone = page_zone(page);
		/* As if an interrupt had come while the lock was held. */
		spin_lock_irqsave(&zone->lock, flags);
		before = nolocks_deferred_so_far(zone);
		free(page, ORDER);
		/* On PREEMPT_RT somebody may be freeing it by now. */
		deferred += nolocks_deferred_so_far(zone) != before;
		spin_unlock_irqrestore(&zone->lock, flags);

		for (unsigned int ms = 0; ms < PATIENCE_MS; ms += 20) {
			if (!nolocks_waits(zone))
				break;
			msleep(20);
		}
		stranded += nolocks_waits(zone);
		__free_pages(next, ORDER);
	}
	pr_info("# strand: deferred=%u stranded=%u of=%u\n", deferred, stranded,
		ROUNDS);
	return 0;
}
module_init(nolocks_strand_init);

static void __exit nolocks_strand_exit(void)
{
}
module_exit(nolocks_strand_exit);

MODULE_DESCRIPTION("Whether pages that could not be freed at once are stranded");
MODULE_LICENSE("GPL");
