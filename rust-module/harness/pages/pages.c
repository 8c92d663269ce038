// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro, an inline function or
 * not exported.
 */
#include <linux/cma.h>
#include <linux/dma-map-ops.h>
#include <linux/llist.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/workqueue.h>

#include "../helpers.h"

bool nolocks_overwritten_anyway(void)
{
	return want_init_on_alloc(0) || want_init_on_free() ||
	       page_poisoning_enabled_static();
}

static void nolocks_no_work(struct work_struct *work)
{
}

/* Of the same kind as the refill's, and queued behind it. */
void nolocks_wait_for_a_work(void)
{
	struct work_struct work;

	INIT_WORK_ONSTACK(&work, nolocks_no_work);
	queue_work(system_dfl_wq, &work);
	flush_work(&work);
	destroy_work_on_stack(&work);
}

/* pageblock_nr_pages, a macro of many meanings. */
unsigned long nolocks_page_block(void)
{
	return pageblock_nr_pages;
}

int nolocks_this_node(void)
{
	return numa_node_id();
}

unsigned long nolocks_page_pfn(struct page *page)
{
	return page_to_pfn(page);
}

unsigned int nolocks_page_zone(struct page *page)
{
	return page_zonenum(page);
}

/* for_each_populated_zone() needs what is not exported. */
#define nolocks_for_each_zone(zone, nid)				\
	for (zone = NODE_DATA(nid)->node_zones;				\
	     zone < NODE_DATA(nid)->node_zones + MAX_NR_ZONES; zone++)	\
		if (populated_zone(zone))

/* The zones of an online node that have memory, a bit for each. */
unsigned int nolocks_zones(int nid)
{
	unsigned int zones = 0;
	struct zone *zone;

	nolocks_for_each_zone(zone, nid)
		zones |= BIT(zone_idx(zone));
	return zones;
}

/* An inline function where there are no slots. */
unsigned int nolocks_in_slots(unsigned int cpu)
{
	return page_slots_count(cpu);
}

/* In the buddy allocator or on pcp lists, of all CPUs. */
unsigned long nolocks_unused_pages(void)
{
	unsigned long pages = 0;
	struct zone *zone;
	unsigned int cpu;
	int nid;

	for_each_online_node(nid) {
		nolocks_for_each_zone(zone, nid) {
			pages += zone_page_state_snapshot(zone, NR_FREE_PAGES);
			for_each_possible_cpu(cpu)
				pages += READ_ONCE(per_cpu_ptr(zone->per_cpu_pageset, cpu)->count);
		}
	}
	return pages;
}

bool nolocks_zone_is_locked(void)
{
	struct zone *zone;
	int nid;

	for_each_online_node(nid)
		nolocks_for_each_zone(zone, nid)
			if (spin_is_locked(&zone->lock))
				return true;
	return false;
}

/* Since boot. */
unsigned long nolocks_reclaimed_pages(void)
{
	return global_node_page_state(PGSTEAL_KSWAPD) +
	       global_node_page_state(PGSTEAL_DIRECT);
}

/*
 * Of what a list of this CPU's may ever hold: its present limit sinks with time, and
 * what is too much then is freed bit by bit. On a CPU that the caller stays on.
 */
int nolocks_pcp_excess(void)
{
	struct per_cpu_pages *pcp;
	int excess = INT_MIN;
	struct zone *zone;
	int nid;

	for_each_online_node(nid) {
		nolocks_for_each_zone(zone, nid) {
			pcp = raw_cpu_ptr(zone->per_cpu_pageset);
			excess = max(excess, READ_ONCE(pcp->count) -
				     READ_ONCE(pcp->high_max) -
				     READ_ONCE(pcp->batch));
		}
	}
	return excess;
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
