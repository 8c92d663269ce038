// SPDX-License-Identifier: GPL-2.0
/*
 * What everybody on the one CPU does while somebody waits. QEMU's clock jumps
 * over the time in which a CPU is idle, so a thread that counts its turns keeps
 * it busy, and what the thread took is known.
 */
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

#include "bench.h"

/*
 * Of a loop that does nothing: what is measured is wrong by a turn at most. Then
 * turns that take less than a tick, to be timed together, at best of so many.
 */
#define NOLOCKS_TURN	1000
#define NOLOCKS_TURNS	200
#define NOLOCKS_TRIES	20

static struct task_struct *nolocks_filler;
static bool nolocks_filler_is_over;
static unsigned long nolocks_turns;
static u64 nolocks_ns_of_turns;

/* Not inlined, so that a turn takes as long where it is timed as anywhere. */
static noinline void nolocks_take_turn(void)
{
	for (unsigned int i = 0; i < NOLOCKS_TURN; i++)
		barrier();
	WRITE_ONCE(nolocks_turns, nolocks_turns + 1);
	cond_resched();
}

static int nolocks_fill(void *unused)
{
	while (!READ_ONCE(nolocks_filler_is_over))
		nolocks_take_turn();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/* Starts it, with the least of priorities. May sleep. */
int nolocks_filler_start(void)
{
	nolocks_ns_of_turns = NOLOCKS_BEST(NOLOCKS_TRIES, NOLOCKS_TURNS,
					   nolocks_take_turn());
	nolocks_filler = kthread_create(nolocks_fill, NULL, "nolocks_filler");
	if (IS_ERR(nolocks_filler))
		return PTR_ERR(nolocks_filler);
	sched_set_normal(nolocks_filler, MAX_NICE);
	wake_up_process(nolocks_filler);
	return 0;
}

void nolocks_filler_stop(void)
{
	WRITE_ONCE(nolocks_filler_is_over, true);
	kthread_stop(nolocks_filler);
}

/* What gdb reads beside the name: words, as it knows no types. */
struct nolocks_mark {
	char *end;
	unsigned long ops;
	void *symbols;
	unsigned long nr_symbols;
	char *names;
	char name[64];
};

/* As NOLOCKS_PROFILE(), for @ops operations and with the module's own symbols. */
void nolocks_begin_profile(const char *name, unsigned int ops)
{
	static struct nolocks_mark mark;
	struct mod_kallsyms *kallsyms;

	/* The module is being loaded, and so nobody takes them away. */
	kallsyms = rcu_dereference_protected(THIS_MODULE->kallsyms, true);
	mark.ops = ops;
	mark.symbols = kallsyms->symtab;
	mark.nr_symbols = kallsyms->num_symtab;
	mark.names = kallsyms->strtab;
	scnprintf(mark.name, sizeof(mark.name), "nolocks:%s", name);
	memparse(mark.name, &mark.end);
}

void nolocks_end_profile(void)
{
	memparse("nolocks:", NULL);
}

/* Nanoseconds that have not been the filler's. */
u64 nolocks_busy_ns(void)
{
	return ktime_get_ns() -
	       READ_ONCE(nolocks_turns) * nolocks_ns_of_turns / NOLOCKS_TURNS;
}

/*
 * Leaves the workers to a later time: to queue an object is one thing, to free
 * it another, and whether a worker gets in between is up to chance.
 */
void nolocks_before_workers(void)
{
	sched_set_fifo(current);
}

/* Ends that: the thread that fills the slots goes before this task again. */
void nolocks_behind_workers(void)
{
	sched_set_normal(current, 0);
}
