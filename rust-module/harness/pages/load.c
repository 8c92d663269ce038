// SPDX-License-Identifier: GPL-2.0
/*
 * Programs of userspace: loads beside a case that no module wrote, and scripts.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/umh.h>

#include "../helpers.h"

static char *nolocks_envp[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };

/* Has sh run @script. Says whether it went well. May sleep. */
bool nolocks_script(char *script)
{
	char *argv[] = { "/bin/sh", "-c", script, NULL };

	return !call_usermodehelper(argv[0], argv, nolocks_envp, UMH_WAIT_PROC);
}

/* In the new task, before it is the program. */
static int nolocks_load_init(struct subprocess_info *info, struct cred *cred)
{
	struct pid **pid = info->data;

	*pid = get_task_pid(current, PIDTYPE_PID);
	return 0;
}

/*
 * Starts sh with @script and returns its pid, to be given to
 * nolocks_load_stop(). The kernel reaps it, whenever it ends. May sleep.
 */
struct pid *nolocks_load_start(char *script)
{
	char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct subprocess_info *info;
	struct pid *pid = NULL;
	int err;

	info = call_usermodehelper_setup(argv[0], argv, nolocks_envp,
					 GFP_KERNEL, nolocks_load_init, NULL, &pid);
	if (!info)
		return ERR_PTR(-ENOMEM);
	err = call_usermodehelper_exec(info, UMH_WAIT_EXEC);
	if (!err && pid)
		return pid;
	put_pid(pid);
	return ERR_PTR(err ?: -ENOENT);
}

static bool nolocks_load_runs(struct pid *pid)
{
	guard(rcu)();
	return pid_task(pid, PIDTYPE_PID);
}

/*
 * Kills the program and waits until it is gone. Says whether it was still
 * there: a load has no end of its own. May sleep.
 */
bool nolocks_load_stop(struct pid *pid)
{
	bool ran = nolocks_load_runs(pid) && !kill_pid(pid, SIGKILL, 1);

	while (nolocks_load_runs(pid))
		msleep(20);
	put_pid(pid);
	return ran;
}
