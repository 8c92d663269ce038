// SPDX-License-Identifier: GPL-2.0
/*
 * What share of alloc_pages_nolock() succeeds, beside whatever else the machine
 * does: on each CPU a burst in a hard interrupt and under a raw lock, again and
 * again. Nothing of it needs the series.
 */
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/vmstat.h>

/* What a CPU's slots hold, and what a burst takes. */
#define DEPTH	64
#define BURST	16
/* An emulated machine needs this to fill what a burst has left empty. */
#define PERIOD	ms_to_ktime(16)

static unsigned int bursts = 1000;
module_param(bursts, uint, 0444);
MODULE_PARM_DESC(bursts, "how often each CPU asks");

struct nolocks_asker {
	struct hrtimer timer;
	raw_spinlock_t lock;
	struct list_head taken;
	unsigned int bursts;
	/* Of them, when free memory was between the min and the low watermark. */
	unsigned int below_low;
	unsigned int obtained;
	/* Failed though free memory was above the min watermark, and below. */
	unsigned int refused;
	unsigned int below_min;
};

static DEFINE_PER_CPU(struct nolocks_asker, nolocks_askers);

/* The zone that is asked first. */
static struct zone *nolocks_zone;

static bool nolocks_is_below(enum zone_watermarks mark)
{
	unsigned long free = zone_page_state(nolocks_zone, NR_FREE_PAGES);

	return free <= READ_ONCE(nolocks_zone->nr_free_highatomic) +
		       wmark_pages(nolocks_zone, mark);
}

static void nolocks_ask_for_page(struct nolocks_asker *asker)
{
	struct page *page = alloc_pages_nolock(0, NUMA_NO_NODE, 0);

	if (page) {
		list_add(&page->lru, &asker->taken);
		asker->obtained++;
	} else if (nolocks_is_below(WMARK_MIN)) {
		asker->below_min++;
	} else {
		asker->refused++;
	}
}

static enum hrtimer_restart nolocks_ask(struct hrtimer *timer)
{
	struct nolocks_asker *asker = container_of(timer, typeof(*asker), timer);

	hrtimer_forward_now(timer, PERIOD);
	asker->below_low += nolocks_is_below(WMARK_LOW) && !nolocks_is_below(WMARK_MIN);

	guard(raw_spinlock)(&asker->lock);
	for (unsigned int i = 0; i < BURST; i++)
		nolocks_ask_for_page(asker);
	/* Behind all that it took. */
	smp_store_release(&asker->bursts, asker->bursts + 1);
	return asker->bursts < bursts ? HRTIMER_RESTART : HRTIMER_NORESTART;
}

static void nolocks_start_asking(void *unused)
{
	struct nolocks_asker *asker = this_cpu_ptr(&nolocks_askers);

	raw_spin_lock_init(&asker->lock);
	INIT_LIST_HEAD(&asker->taken);
	hrtimer_setup(&asker->timer, nolocks_ask, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL_PINNED_HARD);
	hrtimer_start(&asker->timer, PERIOD, HRTIMER_MODE_REL_PINNED_HARD);
}

/* Frees what one CPU has taken. Says whether it takes more. */
static bool nolocks_free_taken(struct nolocks_asker *asker)
{
	/* What it took is listed before. Pairs with the one in nolocks_ask(). */
	bool is_over = smp_load_acquire(&asker->bursts) >= bursts;
	struct page *page, *next;
	LIST_HEAD(pages);

	scoped_guard(raw_spinlock_irqsave, &asker->lock)
		list_splice_init(&asker->taken, &pages);
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_page(page);
	return !is_over;
}

/* Frees on one CPU what all have taken, so that the others' lists run dry. */
static void nolocks_free_until_over(void)
{
	bool is_over = false;
	int cpu;

	while (!is_over) {
		usleep_range(500, 1000);
		is_over = true;
		for_each_online_cpu(cpu)
			is_over &= !nolocks_free_taken(per_cpu_ptr(&nolocks_askers, cpu));
	}
	for_each_online_cpu(cpu)
		hrtimer_cancel(&per_cpu_ptr(&nolocks_askers, cpu)->timer);
}

static void nolocks_print_shares(void)
{
	struct nolocks_asker all = {};
	int cpu;

	for_each_online_cpu(cpu) {
		const struct nolocks_asker *asker = per_cpu_ptr(&nolocks_askers, cpu);

		all.bursts += asker->bursts;
		all.below_low += asker->below_low;
		all.obtained += asker->obtained;
		all.refused += asker->refused;
		all.below_min += asker->below_min;
	}
	pr_info("# share: bursts=%u below_low=%u obtained=%u refused=%u below_min=%u\n",
		all.bursts, all.below_low, all.obtained, all.refused, all.below_min);
}

static int __init nolocks_share_init(void)
{
	struct page *page;

#ifdef CONFIG_PAGE_SLOTS
	int err = page_slots_register(DEPTH);

	if (err < 0)
		return err;
#endif
	page = alloc_page(GFP_KERNEL | __GFP_NOFAIL);
	nolocks_zone = page_zone(page);
	__free_page(page);

	/* Otherwise what else is runnable leaves no time to free. */
	sched_set_fifo_low(current);
	on_each_cpu(nolocks_start_asking, NULL, true);
	nolocks_free_until_over();
	sched_set_normal(current, 0);
	nolocks_print_shares();
#ifdef CONFIG_PAGE_SLOTS
	page_slots_unregister(DEPTH);
#endif
	return 0;
}
module_init(nolocks_share_init);

static void __exit nolocks_share_exit(void)
{
}
module_exit(nolocks_share_exit);

MODULE_DESCRIPTION("What share of alloc_pages_nolock() succeeds");
MODULE_LICENSE("GPL");
