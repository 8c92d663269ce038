// SPDX-License-Identifier: GPL-2.0
/*
 * What a page costs. C, and without the flag where the kernel has none, so that
 * the same source runs on the tree with the series and on the one without.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/tracepoint.h>

#include "bench.h"

#define OPS	100
#define ROUNDS	50
/* More than the lists give in one go, so that zone->lock is in it. */
#define ROW	512
/* What the slots are asked to hold, and a burst takes. */
#define BURST	64
/* More than the lists of a 1 GB machine hold. */
#define ROOM	32768

static u64 nolocks_loop;
static struct page *nolocks_pages[ROOM];

#define NOLOCKS_PRINT(name, ops, ns)					\
	pr_info("# bench: op=%s ops=%u ns=%llu\n", name, ops, ns)

#define NOLOCKS_BENCH(name, statement)					\
	NOLOCKS_PRINT(name, OPS,					\
		      NOLOCKS_BEST(ROUNDS, OPS, statement) - nolocks_loop)

/* Allocates @n and then frees @n, as what takes a row of pages does. */
#define NOLOCKS_ROW(n, alloc, free)					\
({									\
	for (unsigned int i = 0; i < (n); i++)				\
		nolocks_pages[i] = alloc;				\
	for (unsigned int i = 0; i < (n); i++)				\
		free(nolocks_pages[i]);					\
})

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

#ifdef CONFIG_PAGE_SLOTS
#define NOLOCKS_ALLOC()		alloc_page(__GFP_NO_LOCKS)
#define NOLOCKS_FREE(page)	free_pages_nolock(page, 0)

/*
 * Interrupts that run irq_works on the one CPU. The architectures count them
 * where no module can look.
 */
static unsigned int nolocks_irq_works;
static struct tracepoint *nolocks_tp;

#ifdef CONFIG_X86
#define NOLOCKS_TP		"irq_work_entry"

static void nolocks_on_irq_work(void *data, int vector)
{
	nolocks_irq_works++;
}
#else
#define NOLOCKS_TP		"ipi_raise"

static void nolocks_on_irq_work(void *data, const struct cpumask *mask,
				const char *reason)
{
	nolocks_irq_works += !strcmp(reason, "IRQ work interrupts");
}
#endif

static void nolocks_match(struct tracepoint *tp, void *priv)
{
	if (!strcmp(tp->name, NOLOCKS_TP))
		nolocks_tp = tp;
}

/* How many @statement takes; not a matter of instructions, so counted apart. */
#define NOLOCKS_IRQ_WORKS(name, calls, statement)			\
({									\
	unsigned int __before = READ_ONCE(nolocks_irq_works);		\
									\
	for (unsigned int op = 0; op < (calls); op++)			\
		statement;						\
	pr_info("# irq_works: op=%s ops=%u n=%u\n", name, calls,	\
		READ_ONCE(nolocks_irq_works) - __before);		\
})

/* Takes all that there is, with interrupts disabled. */
static unsigned int nolocks_take_all(void)
{
	unsigned int n = 0;

	while (n < ROOM && (nolocks_pages[n] = NOLOCKS_ALLOC()))
		n++;
	return n;
}

static void nolocks_free_all(unsigned int n)
{
	while (n)
		__free_page(nolocks_pages[--n]);
}

/* With @irqs off it is the slots alone that serve PREEMPT_RT. */
static void nolocks_bench_irqs_off(void)
{
	unsigned long flags;
	unsigned int n;
	u64 pair, row, fail;

	local_irq_save(flags);
	pair = NOLOCKS_BEST(ROUNDS, BURST / 2, NOLOCKS_FREE(NOLOCKS_ALLOC()));
	row = NOLOCKS_BEST(ROUNDS, 1,
			   NOLOCKS_ROW(BURST / 2, NOLOCKS_ALLOC(),
				       NOLOCKS_FREE));
	n = nolocks_take_all();
	fail = NOLOCKS_BEST(ROUNDS, OPS, NOLOCKS_ALLOC());
	local_irq_restore(flags);
	nolocks_free_all(n);

	NOLOCKS_PRINT("no_locks_irqs_off", BURST / 2, pair);
	NOLOCKS_PRINT("no_locks_irqs_off_row", BURST / 2, row);
	NOLOCKS_PRINT("no_locks_failing", OPS, fail - nolocks_loop);
}

static void nolocks_irqs_off(void (*func)(void))
{
	unsigned long flags;

	local_irq_save(flags);
	func();
	local_irq_restore(flags);
}

static void nolocks_burst(void)
{
	NOLOCKS_ROW(BURST / 2, NOLOCKS_ALLOC(), NOLOCKS_FREE);
}

static void nolocks_fail(void)
{
	WARN_ON_ONCE(NOLOCKS_ALLOC());
}

static int nolocks_bench_registered(void)
{
	int err = page_slots_register(BURST);
	unsigned long flags;
	unsigned int n;

	if (err)
		return err;
	NOLOCKS_BENCH("no_locks_registered", NOLOCKS_FREE(NOLOCKS_ALLOC()));
	nolocks_bench_irqs_off();

	for_each_kernel_tracepoint(nolocks_match, NULL);
	if (nolocks_tp &&
	    !tracepoint_probe_register(nolocks_tp, nolocks_on_irq_work, NULL)) {
		/* All asked for again. */
		msleep(100);
		NOLOCKS_IRQ_WORKS("burst", 1, nolocks_irqs_off(nolocks_burst));
		msleep(100);
		local_irq_save(flags);
		n = nolocks_take_all();
		local_irq_restore(flags);
		NOLOCKS_IRQ_WORKS("failing", OPS, nolocks_irqs_off(nolocks_fail));
		nolocks_free_all(n);
		tracepoint_probe_unregister(nolocks_tp, nolocks_on_irq_work, NULL);
		tracepoint_synchronize_unregister();
	}
	page_slots_unregister(BURST);
	return 0;
}
#else
static int nolocks_bench_registered(void)
{
	return 0;
}
#endif

static int __init nolocks_bench_init(void)
{
	nolocks_loop = NOLOCKS_BEST(ROUNDS, OPS, barrier());

	nolocks_bench_order(0, "gfp_kernel", "gfp_kernel_row");
	nolocks_bench_order(1, "gfp_kernel_order_1", "gfp_kernel_order_1_row");
	nolocks_bench_order(4, "gfp_kernel_order_4", "gfp_kernel_order_4_row");
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
	return nolocks_bench_registered();
}
module_init(nolocks_bench_init);

static void __exit nolocks_bench_exit(void)
{
}
module_exit(nolocks_bench_exit);

MODULE_DESCRIPTION("What a page costs, in instructions");
MODULE_LICENSE("GPL");
