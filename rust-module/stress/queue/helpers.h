/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_QUEUE_STRESS_HELPERS_H
#define NOLOCKS_QUEUE_STRESS_HELPERS_H

#include <linux/types.h>

ssize_t nolocks_read_seq_file(const char *path, char *buffer, size_t length);
ssize_t nolocks_write_file(const char *path, const char *buffer, size_t length);

#endif
