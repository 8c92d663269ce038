/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_QUEUE_STRESS_HELPERS_H
#define NOLOCKS_QUEUE_STRESS_HELPERS_H

#include <linux/types.h>

void nolocks_flush_ordinary_work(void);
unsigned int nolocks_reclaim_begin(void);
void nolocks_reclaim_end(unsigned int flags);
ssize_t nolocks_read_seq_file(const char *path, char *buffer, size_t length);
ssize_t nolocks_write_file(const char *path, const char *buffer, size_t length);

#endif
