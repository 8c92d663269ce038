/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_BENCH_SYMBOL_H
#define NOLOCKS_BENCH_SYMBOL_H

#include <linux/kprobes.h>

/* The address of a function that mainline does not export, or NULL. */
static inline void *nolocks_symbol(const char *name)
{
	struct kprobe probe = { .symbol_name = name };

	if (register_kprobe(&probe))
		return NULL;
	unregister_kprobe(&probe);
	return probe.addr;
}

#endif
