/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_BENCH_NATIVE_H
#define NOLOCKS_BENCH_NATIVE_H

#include <linux/types.h>

unsigned int nolocks_online_cpu(unsigned int nth);
unsigned int nolocks_online_cpus(void);
void nolocks_native_kfree_rcu(void *object);
void nolocks_native_call(unsigned long function);
unsigned long nolocks_native_grace_periods(void);
bool nolocks_native_holds(const u64 *word, u64 value);

void nolocks_native_watch_memory(void);
u64 nolocks_native_peak_kib(void);
void nolocks_native_print_memory(const char *api);

u64 nolocks_native_toggle_ps(void);
int nolocks_native_share(unsigned int pairs);

#endif
