// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro, an inline function or
 * not exported.
 */
#include <linux/cma.h>
#include <linux/cpu.h>
#include <linux/dma-map-ops.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>

#include "helpers.h"

bool nolocks_init_on_alloc_or_free(void)
{
	return want_init_on_alloc(0) || want_init_on_free();
}

/* drain_all_pages() is not exported, but isolating a pageblock calls it. */
bool nolocks_drain_pcp_lists(void)
{
#ifdef CONFIG_CONTIG_ALLOC
	struct page *block = alloc_contig_pages(pageblock_nr_pages, GFP_KERNEL,
						numa_mem_id(), NULL);

	if (block)
		free_contig_range(page_to_pfn(block), pageblock_nr_pages);
	return block;
#else
	return false;
#endif
}

#ifdef CONFIG_HOTPLUG_CPU
int nolocks_remove_cpu(unsigned int cpu)
{
	return remove_cpu(cpu);
}

int nolocks_add_cpu(unsigned int cpu)
{
	return add_cpu(cpu);
}
#else
int nolocks_remove_cpu(unsigned int cpu)
{
	return -EOPNOTSUPP;
}

int nolocks_add_cpu(unsigned int cpu)
{
	return -EOPNOTSUPP;
}
#endif

/*
 * Uses all memory that can be had without reclaiming it, for a moment. Returns
 * how many pages that were.
 */
u64 nolocks_use_memory(void)
{
	struct page *page, *next;
	LIST_HEAD(pages);
	u64 used = 0;

	for (int order = MAX_PAGE_ORDER; order >= 0; order--) {
		while ((page = alloc_pages(GFP_NOWAIT | __GFP_NOWARN, order))) {
			set_page_private(page, order);
			list_add(&page->lru, &pages);
			used += 1 << order;
			cond_resched();
		}
	}
	list_for_each_entry_safe(page, next, &pages, lru) {
		unsigned int order = page_private(page);

		set_page_private(page, 0);
		__free_pages(page, order);
		cond_resched();
	}
	return used;
}

/* In all zones. */
unsigned int nolocks_in_slots(unsigned int cpu)
{
	unsigned int n = 0;

#ifdef CONFIG_PAGE_SLOTS
	for (int nid = 0; nid < MAX_NUMNODES; nid++) {
		if (!node_online(nid))
			continue;
		for (int i = 0; i < MAX_NR_ZONES; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];
			struct per_cpu_pages *pcp;

			if (!populated_zone(zone))
				continue;
			pcp = per_cpu_ptr(zone->per_cpu_pageset, cpu);
			for (int slot = 0; slot < PAGE_SLOTS_MAX; slot++)
				n += !!READ_ONCE(pcp->slots[slot]);
		}
	}
#endif
	return n;
}

#ifdef CONFIG_MEMCG
/* Charged to this task's memory cgroup; negative for the root's. */
long nolocks_charged_pages(void)
{
	struct mem_cgroup *memcg;

	guard(rcu)();
	memcg = mem_cgroup_from_task(current);
	return !memcg || mem_cgroup_is_root(memcg) ?
		-1 : page_counter_read(&memcg->memory);
}

/* Each CPU may keep a batch for later that counts as charged. */
long nolocks_charge_slack(void)
{
	return MEMCG_CHARGE_BATCH * num_online_cpus();
}
#else
long nolocks_charged_pages(void)
{
	return -1;
}

long nolocks_charge_slack(void)
{
	return 0;
}
#endif

#ifdef CONFIG_CMA
/* One by one: only a page that was alone goes back through the pcp lists. */
struct page *nolocks_cma_alloc(void)
{
	struct cma *cma = dev_get_cma_area(NULL);

	return cma ? cma_alloc(cma, 1, 0, true) : NULL;
}

void nolocks_cma_release(struct page *page)
{
	cma_release(dev_get_cma_area(NULL), page, 1);
}

/* get_pfnblock_migratetype() is not exported. */
bool nolocks_page_is_cma(struct page *page)
{
	unsigned long pfn = page_to_pfn(page);
	unsigned long *map;

#ifdef CONFIG_SPARSEMEM
	map = section_to_usemap(__pfn_to_section(pfn));
	pfn &= PAGES_PER_SECTION - 1;
#else
	map = page_zone(page)->pageblock_flags;
	pfn -= pageblock_start_pfn(page_zone(page)->zone_start_pfn);
#endif
	pfn = (pfn >> pageblock_order) * NR_PAGEBLOCK_BITS;
	return ((map[BIT_WORD(pfn)] >> (pfn % BITS_PER_LONG)) &
		PAGEBLOCK_MIGRATETYPE_MASK) == MIGRATE_CMA;
}

/* How many such pages wait on this CPU's lists of @page's zone. */
unsigned int nolocks_pcp_cma_pages(struct page *page)
{
	struct per_cpu_pages *pcp;
	unsigned int n = 0;

	migrate_disable();
	pcp = this_cpu_ptr(page_zone(page)->per_cpu_pageset);
	spin_lock(&pcp->lock);
	list_for_each_entry(page, &pcp->lists[MIGRATE_MOVABLE], pcp_list)
		n += nolocks_page_is_cma(page);
	spin_unlock(&pcp->lock);
	migrate_enable();
	return n;
}
#else
struct page *nolocks_cma_alloc(void)
{
	return NULL;
}

void nolocks_cma_release(struct page *page)
{
}

bool nolocks_page_is_cma(struct page *page)
{
	return false;
}

unsigned int nolocks_pcp_cma_pages(struct page *page)
{
	return 0;
}
#endif
