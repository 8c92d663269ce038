// SPDX-License-Identifier: GPL-2.0
/*
 * How much of a burst is obtained under a raw spinlock, and by whom.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/printk.h>
#include <linux/spinlock.h>

#include "native.h"

/* Bursts of 1, 2, 4 and so on, to 4096 pages. */
#define SIZES	13
#define LARGEST	(1U << (SIZES - 1))
/* All that can be had. */
#define DEPTH	64
/* What the lists hold then */
#define ROW	896
/* Of a zone of 2 GiB they hold 32768 pages at most, on a single CPU twice that. */
#define ROOM	(65536 + 2 * LARGEST)

static struct page *nolocks_pages[ROOM];

static struct page *nolocks_no_locks(void)
{
	return alloc_page(__GFP_NO_LOCKS);
}

/* Zeroes the page. */
static struct page *nolocks_nolock(void)
{
	return alloc_pages_nolock(0, NUMA_NO_NODE, 0);
}

static struct page *nolocks_nowait(void)
{
	return alloc_page(GFP_NOWAIT);
}

static struct page *nolocks_kernel(void)
{
	return alloc_page(GFP_KERNEL);
}

/* From the one with the number @n on; returns the number of the first that is not there. */
static __always_inline unsigned int
nolocks_take(unsigned int n, unsigned int size, struct page *(*alloc)(void))
{
	unsigned int end = n + size;

	while (n < end && (nolocks_pages[n] = alloc()))
		n++;
	return n;
}

/* All but the first @left */
static void nolocks_give_back(unsigned int n, unsigned int left)
{
	while (n > left)
		__free_page(nolocks_pages[--n]);
}

/* Of lists that were emptied and then got a row, and of full slots. */
static __always_inline void
nolocks_burst(const char *api, unsigned int size, struct page *(*alloc)(void))
{
	static DEFINE_RAW_SPINLOCK(lock);
	unsigned int held, n;

	n = nolocks_take(0, ROW, nolocks_kernel);
	n = nolocks_take(n, ROOM - LARGEST - n, nolocks_no_locks);
	/* The thread that fills the slots comes at once. */
	usleep_range(5000, 10000);
	held = n - min(n, ROW);
	nolocks_give_back(n, held);
	raw_spin_lock(&lock);
	n = nolocks_take(held, size, alloc);
	raw_spin_unlock(&lock);
	nolocks_give_back(n, 0);
	pr_info("# share: api=%s size=%u obtained=%u\n", api, size, n - held);
}

/* Of each kind in turn. By a task that is bound to its CPU. */
int nolocks_native_share(unsigned int pairs)
{
	int granted = page_slots_register(DEPTH);

	if (granted < 0)
		return granted;
	for (unsigned int nth = 0; nth < SIZES * pairs; nth++) {
		unsigned int size = 1U << nth % SIZES;

		nolocks_burst("no_locks", size, nolocks_no_locks);
		nolocks_burst("nolock", size, nolocks_nolock);
		nolocks_burst("nowait", size, nolocks_nowait);
	}
	page_slots_unregister(DEPTH);
	return 0;
}
