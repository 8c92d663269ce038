// SPDX-License-Identifier: GPL-2.0

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/uio.h>
#include <linux/workqueue.h>

#include "helpers.h"
#include "../../harness/case.c"
#include "../../harness/context.c"
#include "../../harness/oracle.c"
#include "../../lib/queue/helpers.c"

static void nolocks_do_nothing(struct work_struct *work)
{
}

/* Warns where the caller is a work that memory reclaim may wait for. */
void nolocks_flush_ordinary_work(void)
{
	struct work_struct work;

	INIT_WORK_ONSTACK(&work, nolocks_do_nothing);
	queue_work(system_dfl_wq, &work);
	flush_work(&work);
	destroy_work_on_stack(&work);
}

/* From here on the caller frees memory, and must not wait for who may not. */
unsigned int nolocks_reclaim_begin(void)
{
	return memalloc_noreclaim_save();
}

void nolocks_reclaim_end(unsigned int flags)
{
	memalloc_noreclaim_restore(flags);
}

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
