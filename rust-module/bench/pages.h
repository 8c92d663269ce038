/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_BENCH_PAGES_H
#define NOLOCKS_BENCH_PAGES_H

#include <linux/printk.h>
#include <linux/string.h>

#include "bench.h"

#define OPS	100
#define ROUNDS	50
/* More than the lists of a 1 GB machine hold. */
#define NOLOCKS_ROOM	32768

/* What the loop around them takes. */
extern u64 nolocks_loop;
extern struct page *nolocks_pages[NOLOCKS_ROOM];

/*
 * Marks for gdb, which stops at memparse() and counts by function what stands
 * between two of them: ci/bench/profile.py. Without gdb they do nothing. Once
 * before, because another benchmark may have left caches and lists otherwise.
 */
#define NOLOCKS_PROFILE(name, statement)				\
do {									\
	statement;							\
	memparse("nolocks:" name, NULL);				\
	statement;							\
	memparse("nolocks:", NULL);					\
} while (0)

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

int nolocks_bench_slots(void);

#endif
