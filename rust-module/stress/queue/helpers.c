// SPDX-License-Identifier: GPL-2.0

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/seq_file.h>
#include <linux/uio.h>

#include "helpers.h"
#include "../../harness/case.c"
#include "../../harness/context.c"
#include "../../harness/oracle.c"
#include "../../lib/queue/helpers.c"

/*
 * debugfs has no read_iter, without which kernel_read() does nothing. The file
 * is closed before the module whose functions it calls can go.
 */
ssize_t nolocks_read_seq_file(const char *path, char *buffer, size_t length)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	struct kvec vec = { buffer, length };
	struct kiocb kiocb;
	struct iov_iter to;
	ssize_t read;

	if (IS_ERR(file))
		return PTR_ERR(file);
	init_sync_kiocb(&kiocb, file);
	iov_iter_kvec(&to, ITER_DEST, &vec, 1, length);
	read = seq_read_iter(&kiocb, &to);
	__fput_sync(file);
	return read;
}

ssize_t nolocks_write_file(const char *path, const char *buffer, size_t length)
{
	struct file *file = filp_open(path, O_WRONLY, 0);
	ssize_t written;
	loff_t pos = 0;

	if (IS_ERR(file))
		return PTR_ERR(file);
	written = kernel_write(file, buffer, length, &pos);
	__fput_sync(file);
	return written;
}
