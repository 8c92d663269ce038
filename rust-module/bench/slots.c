// SPDX-License-Identifier: GPL-2.0
/*
 * What a page costs that no lock may be waited for, from lists and from slots.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/tracepoint.h>

#include "pages.h"
#include "../harness/context.c"

/* What the slots are asked to hold, and the largest burst takes. */
#define DEPTH	64
/* Bursts of 1, 2, 4 and so on. */
#define SIZES	7

#define NOLOCKS_FREE(page)	free_pages_nolock(page, 0)

static struct page *nolocks_alloc(void)
{
	return alloc_page(__GFP_NO_LOCKS);
}

/* Zeroes the page, and falls back to the slots. */
static struct page *nolocks_alloc_nolock(void)
{
	return alloc_pages_nolock(0, NUMA_NO_NODE, 0);
}

static struct page *nolocks_alloc_zeroed(void)
{
	return alloc_page(__GFP_NO_LOCKS | __GFP_ZERO);
}

static struct page *nolocks_alloc_nowait(void)
{
	return alloc_page(GFP_NOWAIT);
}

/* The least that bursts of each size took, and whether a page of one was missing. */
struct nolocks_bursts {
	u64 alloc[SIZES];
	u64 free[SIZES];
	bool missing[SIZES];
};

/* With @alloc a constant, so that it is inlined. In any context. */
static __always_inline void nolocks_time_bursts(struct nolocks_bursts *bursts,
						struct page *(*alloc)(void))
{
	memset(bursts->alloc, 0xff, sizeof(bursts->alloc));
	memset(bursts->free, 0xff, sizeof(bursts->free));
	memset(bursts->missing, 0, sizeof(bursts->missing));
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (unsigned int size = 0; size < SIZES; size++) {
			u64 begin = ktime_get_mono_fast_ns(), mid, end;
			unsigned int nr = 0;

			while (nr < 1U << size && (nolocks_pages[nr] = alloc()))
				nr++;
			mid = ktime_get_mono_fast_ns();
			for (unsigned int i = 0; i < nr; i++)
				NOLOCKS_FREE(nolocks_pages[i]);
			end = ktime_get_mono_fast_ns();
			bursts->alloc[size] = min(bursts->alloc[size], mid - begin);
			bursts->free[size] = min(bursts->free[size], end - mid);
			if (nr < 1U << size)
				bursts->missing[size] = true;
		}
	}
}

static struct nolocks_bursts nolocks_bursts;

static void nolocks_no_locks(void)
{
	nolocks_time_bursts(&nolocks_bursts, nolocks_alloc);
}

static void nolocks_nolock(void)
{
	nolocks_time_bursts(&nolocks_bursts, nolocks_alloc_nolock);
}

static void nolocks_nowait(void)
{
	nolocks_time_bursts(&nolocks_bursts, nolocks_alloc_nowait);
}

static void (*nolocks_visit)(void);

static void nolocks_in_task(void)
{
	nolocks_visit();
}

static void nolocks_irqs_off(void)
{
	unsigned long flags;

	local_irq_save(flags);
	nolocks_visit();
	local_irq_restore(flags);
}

static void nolocks_on_hard_irq_work(struct irq_work *work)
{
	nolocks_visit();
}

static void nolocks_in_hardirq(void)
{
	static struct irq_work work = IRQ_WORK_INIT_HARD(nolocks_on_hard_irq_work);

	irq_work_queue(&work);
	irq_work_sync(&work);
}

static bool nolocks_nmi_is_sent;

static bool nolocks_on_nmi(unsigned long ip)
{
	if (!nolocks_nmi_is_sent)
		return false;
	nolocks_visit();
	nolocks_nmi_is_sent = false;
	return true;
}

static void nolocks_in_nmi(void)
{
	nolocks_nmi_start(0);
	nolocks_nmi_is_sent = true;
	nolocks_nmi_send(0);
	while (READ_ONCE(nolocks_nmi_is_sent))
		cpu_relax();
	nolocks_nmi_stop(0);
}

static void nolocks_print_bursts(const char *api, const char *where,
				 void (*bursts)(void), void (*visit)(void))
{
	nolocks_visit = bursts;
	/* All that the last one took is there again. */
	msleep(100);
	visit();
	for (unsigned int size = 0; size < SIZES; size++) {
		if (nolocks_bursts.missing[size])
			pr_info("# note: %s in %s: no burst of %u was whole each time\n",
				api, where, 1U << size);
		else
			pr_info("# burst: api=%s where=%s size=%u alloc_ns=%llu free_ns=%llu\n",
				api, where, 1U << size, nolocks_bursts.alloc[size],
				nolocks_bursts.free[size]);
	}
}

/*
 * Takes all that there is beside the @n that were taken before, and returns how many
 * these are then: where there is nothing, that is one call that fails.
 */
static __always_inline unsigned int nolocks_take(unsigned int n)
{
	while (n < NOLOCKS_ROOM && (nolocks_pages[n] = nolocks_alloc()))
		n++;
	return n;
}

static void nolocks_free_all(unsigned int n)
{
	while (n)
		__free_page(nolocks_pages[--n]);
}

/* Nobody has registered. In a task PREEMPT_RT tries the lists before it fails, too. */
static void nolocks_bench_failing_unregistered(void)
{
	unsigned int n = nolocks_take(0);
	u64 in_task, irqs_off;

	/* Once more if somebody has freed a page to the lists meanwhile. */
	in_task = NOLOCKS_BEST(ROUNDS, OPS, n = nolocks_take(n));
	scoped_guard(irqsave) {
		n = nolocks_take(n);
		irqs_off = NOLOCKS_BEST(ROUNDS, OPS, nolocks_alloc());
	}
	nolocks_free_all(n);
	NOLOCKS_PRINT("no_locks_failing_in_task", OPS, in_task - nolocks_loop);
	NOLOCKS_PRINT("no_locks_failing_unregistered", OPS, irqs_off - nolocks_loop);
}

/*
 * The same as with interrupts disabled, where a step of gdb's does not come back on
 * arm64. There is one CPU: who would fill the slots does not run meanwhile.
 */
static void nolocks_profile_preempt_off(void)
{
	unsigned int n;
	u64 fail;

	scoped_guard(preempt) {
		NOLOCKS_PROFILE("no_locks_irqs_off", NOLOCKS_FREE(nolocks_alloc()));
		NOLOCKS_PROFILE("no_locks_zero_irqs_off",
				NOLOCKS_FREE(nolocks_alloc_zeroed()));
		NOLOCKS_PROFILE("alloc_pages_nolock_irqs_off",
				NOLOCKS_FREE(nolocks_alloc_nolock()));
		n = nolocks_take(0);
		/*
		 * This is not the same: the irq_work that the first one asked for
		 * has run, and the others do not ask again.
		 */
		fail = NOLOCKS_BEST(ROUNDS, OPS, nolocks_alloc());
		NOLOCKS_PROFILE("no_locks_failing_preempt_off", nolocks_alloc());
	}
	nolocks_free_all(n);
	NOLOCKS_PRINT("no_locks_failing_preempt_off", OPS, fail - nolocks_loop);
}

/* With interrupts disabled it is the slots alone that serve PREEMPT_RT. */
static void nolocks_bench_irqs_off(void)
{
	unsigned long flags;
	unsigned int n;
	u64 pair, row, zero, nolock, fail;

	local_irq_save(flags);
	pair = NOLOCKS_BEST(ROUNDS, DEPTH / 2, NOLOCKS_FREE(nolocks_alloc()));
	row = NOLOCKS_BEST(ROUNDS, 1,
			   NOLOCKS_ROW(DEPTH / 2, nolocks_alloc(), NOLOCKS_FREE));
	zero = NOLOCKS_BEST(ROUNDS, DEPTH / 2, NOLOCKS_FREE(nolocks_alloc_zeroed()));
	nolock = NOLOCKS_BEST(ROUNDS, DEPTH / 2,
			      NOLOCKS_FREE(nolocks_alloc_nolock()));
	n = nolocks_take(0);
	fail = NOLOCKS_BEST(ROUNDS, OPS, nolocks_alloc());
	local_irq_restore(flags);
	nolocks_free_all(n);

	NOLOCKS_PRINT("no_locks_irqs_off", DEPTH / 2, pair);
	NOLOCKS_PRINT("no_locks_irqs_off_row", DEPTH / 2, row);
	NOLOCKS_PRINT("no_locks_zero_irqs_off", DEPTH / 2, zero);
	NOLOCKS_PRINT("alloc_pages_nolock_irqs_off", DEPTH / 2, nolock);
	NOLOCKS_PRINT("no_locks_failing", OPS, fail - nolocks_loop);
}

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

static void nolocks_burst(void)
{
	NOLOCKS_ROW(DEPTH / 2, nolocks_alloc(), NOLOCKS_FREE);
}

/* How many a burst takes; not a matter of instructions, so counted apart. */
static void nolocks_count_irq_works(void)
{
	unsigned int before;

	for_each_kernel_tracepoint(nolocks_match, NULL);
	if (!nolocks_tp ||
	    tracepoint_probe_register(nolocks_tp, nolocks_on_irq_work, NULL))
		return;
	/* All asked for again. */
	msleep(100);
	before = READ_ONCE(nolocks_irq_works);
	nolocks_visit = nolocks_burst;
	nolocks_irqs_off();
	udelay(10);
	pr_info("# irq_works: op=burst ops=1 n=%u\n",
		READ_ONCE(nolocks_irq_works) - before);
	tracepoint_probe_unregister(nolocks_tp, nolocks_on_irq_work, NULL);
	tracepoint_synchronize_unregister();
}

/* Everything but what is in pages.c */
int nolocks_bench_slots(void)
{
	int granted;

	if (page_slots_count(raw_smp_processor_id())) {
		pr_err("somebody has registered for slots: boot with rcutree.rcu_min_cached_objs=0\n");
		return -EBUSY;
	}
	NOLOCKS_BENCH("no_locks", __free_page(nolocks_alloc()));
	NOLOCKS_BENCH("no_locks_zero", __free_page(nolocks_alloc_zeroed()));
	NOLOCKS_PROFILE("no_locks_zero", __free_page(nolocks_alloc_zeroed()));
	NOLOCKS_BENCH("no_locks_free_nolock", NOLOCKS_FREE(nolocks_alloc()));
	NOLOCKS_PROFILE("no_locks_free_nolock", NOLOCKS_FREE(nolocks_alloc()));
	nolocks_print_bursts("nowait", "task", nolocks_nowait, nolocks_in_task);
	nolocks_print_bursts("no_locks", "task", nolocks_no_locks, nolocks_in_task);
	nolocks_print_bursts("nolock", "task", nolocks_nolock, nolocks_in_task);
	nolocks_bench_failing_unregistered();

	granted = page_slots_register(DEPTH);
	if (granted < 0)
		return granted;
	NOLOCKS_BENCH("gfp_kernel_registered", __free_page(alloc_page(GFP_KERNEL)));
	NOLOCKS_BENCH("no_locks_registered", NOLOCKS_FREE(nolocks_alloc()));
	nolocks_bench_irqs_off();
	/* All that was taken is there again. */
	msleep(100);
	nolocks_profile_preempt_off();
	nolocks_print_bursts("no_locks", "task_registered", nolocks_no_locks,
			     nolocks_in_task);
	nolocks_print_bursts("no_locks", "irqs_off", nolocks_no_locks,
			     nolocks_irqs_off);
	nolocks_print_bursts("nolock", "irqs_off", nolocks_nolock, nolocks_irqs_off);
	nolocks_print_bursts("no_locks", "hardirq", nolocks_no_locks,
			     nolocks_in_hardirq);
	nolocks_print_bursts("nolock", "hardirq", nolocks_nolock, nolocks_in_hardirq);
	if (!nolocks_nmi_register(nolocks_on_nmi)) {
		nolocks_print_bursts("no_locks", "nmi", nolocks_no_locks,
				     nolocks_in_nmi);
		nolocks_print_bursts("nolock", "nmi", nolocks_nolock, nolocks_in_nmi);
		nolocks_nmi_unregister();
	}
	nolocks_count_irq_works();
	page_slots_unregister(DEPTH);
	return 0;
}
