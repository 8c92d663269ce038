/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_BENCH_H
#define NOLOCKS_BENCH_H

#include <linux/printk.h>
#include <linux/timekeeping.h>

/*
 * Nanoseconds that @statement takes @ops times over, at best in @rounds: the
 * least is one that no interrupt got into. Under QEMU's -icount shift=0 each
 * nanosecond is one instruction.
 */
#define NOLOCKS_BEST(rounds, ops, statement)				\
({									\
	u64 __best = U64_MAX;						\
									\
	for (unsigned int __round = 0; __round < (rounds); __round++) {	\
		u64 __start = ktime_get_ns();				\
									\
		for (unsigned int op = 0; op < (ops); op++)		\
			statement;					\
		__best = min(__best, ktime_get_ns() - __start);		\
	}								\
	__best;								\
})

#define NOLOCKS_PRINT(name, ops, ns)					\
	pr_info("# bench: op=%s ops=%u ns=%llu\n", name, ops, ns)

/*
 * Operations between two marks for gdb, which counts by function what stands
 * there: ci/bench/profile.py. Few enough to step through.
 */
#define NOLOCKS_STEPPED	16

void nolocks_begin_profile(const char *name, unsigned int ops);
void nolocks_end_profile(void);
int nolocks_filler_start(void);
void nolocks_filler_stop(void);
u64 nolocks_busy_ns(void);
void nolocks_before_workers(void);
void nolocks_behind_workers(void);

#endif
