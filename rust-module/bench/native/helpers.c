// SPDX-License-Identifier: GPL-2.0
/*
 * What native.rs needs in C: kfree_rcu(), and how much memory is in use while
 * others work.
 */
#include <linux/cpumask.h>
#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/vmstat.h>

#include "../../lib/nolocks/helpers.c"
#include "../../lib/queue/helpers.c"
#include "../bench.h"
#include "native.h"

/* For threads.rs. */
unsigned int nolocks_online_cpu(unsigned int nth)
{
	return cpumask_nth(nth % num_online_cpus(), cpu_online_mask);
}

unsigned int nolocks_online_cpus(void)
{
	return num_online_cpus();
}

/* As large as the head that it lies in, of an object in native.rs. */
struct nolocks_native_head {
	struct kvfree_rcu_head rcu;
};

void nolocks_native_kfree_rcu(void *object)
{
	struct nolocks_native_head *head = object;

	kfree_rcu(head, rcu);
}

/* kvfree_rcu_barrier() is not exported: who loads the module looks it up. */
void nolocks_native_call(unsigned long function)
{
	((void (*)(void))function)();
}

/* How many were begun; kernel/rcu/rcu.h has the state in the low two bits. */
unsigned long nolocks_native_grace_periods(void)
{
	return get_state_synchronize_rcu() >> 2;
}

/* Also of memory that was freed, which stays in the linear map. */
bool nolocks_native_holds(const u64 *word, u64 value)
{
	return READ_ONCE(*word) == value;
}

/* Once a millisecond, by a timer: on busy CPUs a thread would come too late. */
#define NOLOCKS_SAMPLES	8192
/* So many points of a picture. */
#define NOLOCKS_POINTS	100

static struct hrtimer nolocks_timer;
static unsigned long nolocks_before;
static struct {
	u64 ns;
	unsigned long used;
} nolocks_points[NOLOCKS_SAMPLES];
static u64 nolocks_begin;
static unsigned int nolocks_samples;
static unsigned long nolocks_peak;

static unsigned long nolocks_free_pages(void)
{
	return global_zone_page_state(NR_FREE_PAGES);
}

static enum hrtimer_restart nolocks_sample(struct hrtimer *timer)
{
	unsigned long free = nolocks_free_pages();
	unsigned long used = nolocks_before - min(nolocks_before, free);

	if (nolocks_samples < NOLOCKS_SAMPLES) {
		nolocks_points[nolocks_samples].ns = ktime_get_ns() - nolocks_begin;
		nolocks_points[nolocks_samples++].used = used;
	}
	nolocks_peak = max(nolocks_peak, used);
	hrtimer_forward_now(timer, ms_to_ktime(1));
	return HRTIMER_RESTART;
}

void nolocks_native_watch_memory(void)
{
	nolocks_before = nolocks_free_pages();
	nolocks_begin = ktime_get_ns();
	nolocks_samples = 0;
	nolocks_peak = 0;
	hrtimer_setup(&nolocks_timer, nolocks_sample, CLOCK_MONOTONIC,
		      HRTIMER_MODE_REL);
	hrtimer_start(&nolocks_timer, ms_to_ktime(1), HRTIMER_MODE_REL);
}

/* Ends the watch. */
u64 nolocks_native_peak_kib(void)
{
	hrtimer_cancel(&nolocks_timer);
	return (u64)nolocks_peak << (PAGE_SHIFT - 10);
}

/* Of the last watch. */
void nolocks_native_print_memory(const char *api)
{
	unsigned int step = DIV_ROUND_UP(nolocks_samples, NOLOCKS_POINTS);

	for (unsigned int i = 0; i < nolocks_samples; i += step)
		pr_info("# memory: api=%s us=%llu kib=%lu\n", api,
			nolocks_points[i].ns / 1000,
			nolocks_points[i].used << (PAGE_SHIFT - 10));
}

/* A pair of local_irq_save() and local_irq_restore(), in picoseconds. */
u64 nolocks_native_toggle_ps(void)
{
	unsigned long flags;

	return NOLOCKS_BEST(20, 1000, ({
		local_irq_save(flags);
		local_irq_restore(flags);
	}));
}
