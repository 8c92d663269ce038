/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What mm/page_slots.c needs to run on the host. Whatever two CPUs can tell apart
 * is a call of model.rs, which may run others before it.
 *
 * A page is a number, a list of pages a set of these: neither is followed.
 */
#include <stdbool.h>
#include <stddef.h>

#define PAGE_SLOTS_MAX	4

struct irq_work { };
struct list_head { unsigned long pages; };
struct page { struct list_head pcp_list; };
struct task_struct;
struct timer_list;
struct zone;
struct zonelist;

#include "page_slots.h"

/* One CPU's, as all that runs sees it. Its words are those of model.rs. */
struct cpu {
	struct page_slots slots;
	unsigned long asking;
	unsigned long filling;
	struct task_struct *task;
};

_Static_assert(offsetof(struct page_slots, full) == 0 * sizeof(long), "FULL");
_Static_assert(offsetof(struct page_slots, usable) == 1 * sizeof(long), "USABLE");
_Static_assert(offsetof(struct page_slots, zone) == 2 * sizeof(long), "ZONE");
_Static_assert(offsetof(struct page_slots, pages) == 3 * sizeof(long), "PAGES");
_Static_assert(offsetof(struct cpu, asking) == 7 * sizeof(long), "ASKING");
_Static_assert(offsetof(struct cpu, filling) == 8 * sizeof(long), "FILLING");
_Static_assert(offsetof(struct cpu, task) == 9 * sizeof(long), "TASK");

struct cpu *model_cpu(void);
unsigned long model_read(const void *word);
void model_write(void *word, unsigned long value);
unsigned long model_cmpxchg(void *word, unsigned long old, unsigned long new, bool ordered);
void model_set_bit(unsigned long nr, void *word);
bool model_test_and_set_bit(unsigned long nr, void *word);
bool model_test_and_clear_bit(unsigned long nr, void *word, bool ordered);
void model_mb(void);
int model_lock(void);
void model_unlock(int *held);
int model_rmqueue(int nr_pages, unsigned long *pages);
void model_free(unsigned long pages);
void model_set_asleep(void);
void model_wake(void);
void model_schedule(void);
void model_schedule_timeout(void);
void model_arm_timer(void);
bool model_timer_pending(void);
struct zone *model_zone(void);
unsigned int model_limit(void);
struct zone *model_zone_of(struct page *page);
bool model_usable(struct page *page);

#define likely(x)			(x)
#define data_race(x)			(x)
#define BIT(nr)				(1UL << (nr))
#define GENMASK(high, low)		((BIT((high) + 1) - 1) & ~(BIT(low) - 1))
#define __ffs(word)			((unsigned int)__builtin_ctzl(word))
#define hweight_long(word)		__builtin_popcountl(word)

#define READ_ONCE(x)			((typeof(x))model_read(&(x)))
#define WRITE_ONCE(x, value)		model_write(&(x), (unsigned long)(value))
#define __cmpxchg(p, old, new, ordered)	\
	((typeof(*(p)))model_cmpxchg(p, (unsigned long)(old), (unsigned long)(new), ordered))
#define cmpxchg(p, old, new)		__cmpxchg(p, old, new, true)
#define cmpxchg_relaxed(p, old, new)	__cmpxchg(p, old, new, false)
#define set_bit(nr, p)			model_set_bit(nr, p)
#define test_and_clear_bit(nr, p)	model_test_and_clear_bit(nr, p, true)
#define smp_mb()			model_mb()
#define smp_mb__after_atomic()		model_mb()

/* There is one CPU that all look at, and its bit is the only one. */
#define guard(name)			guard_##name
#define guard_preempt()			((void)0)
#define guard_spinlock_irqsave(lock)	\
	int held __attribute__((cleanup(model_unlock), unused)) = model_lock()
#define smp_processor_id()		0
#define this_cpu_ptr(p)			(&model_cpu()->slots)
#define per_cpu_ptr(p, cpu)		((void)(cpu), &model_cpu()->slots)
#define page_slots_asking		(model_cpu()->asking)
#define page_slots_filling		(model_cpu()->filling)
#define page_slots_task			(model_cpu()->task)
#define cpumask_empty(mask)		(!model_read(mask))
#define cpumask_test_cpu(cpu, mask)	(model_read(mask) >> (cpu) & 1)
#define cpumask_set_cpu(cpu, mask)	model_set_bit(cpu, mask)
#define cpumask_test_and_set_cpu(cpu, mask)	model_test_and_set_bit(cpu, mask)
#define cpumask_test_and_clear_cpu(cpu, mask)	model_test_and_clear_bit(cpu, mask, true)
#define for_each_possible_cpu(cpu)	for ((cpu) = 0; (cpu) < 1; (cpu)++)
#define for_each_cpu(cpu, mask)		for_each_possible_cpu(cpu)
#define for_each_cpu_wrap(cpu, mask, first)	for ((cpu) = 0, (void)(first); (cpu) < 1; (cpu)++)

/* The lists are all called pages. */
#define LIST_HEAD(name)			struct list_head name = { 0 }
#define list_add(entry, head)		((head)->pages |= BIT((unsigned long)(entry)))
#define list_del(entry)			(pages.pages &= ~BIT((unsigned long)(entry)))
#define list_for_each_entry_safe(page, next, head, member)	\
	for (unsigned long left = (head)->pages;		\
	     (next) = NULL, left && ((page) = (struct page *)(unsigned long)__ffs(left)); \
	     left &= left - 1)
#define page_slots_rmqueue(zone, nr_pages, list)	\
	((void)(zone), model_rmqueue(nr_pages, &(list)->pages))
#define free_prepared_pages(list)	model_free((list)->pages)
#define defer_free_page(page, order, prepared)	model_free(BIT((unsigned long)(page)))

#define page_slots_enabled()		true
#define page_zone(page)			model_zone_of(page)
#define page_usable_no_locks(page, migratetype)	((void)(migratetype), model_usable(page))
#define count_vm_event(item)		((void)0)
#define count_vm_events(item, nr)	((void)0)

/* What update_cpu() finds out. There is one who does, as all hold its mutex. */
#define lockdep_assert_held(lock)	((void)0)
#define page_slots_disabled_zone	((struct zone *)NULL)
#define cpu_to_node(cpu)		(cpu)
#define node_zonelist(node, gfp)	((void)(node), (struct zonelist *)NULL)
#define gfp_zone(gfp)			0
#define first_zones_zonelist(zonelist, zone, nodes)	(zonelist)
#define zonelist_zone(zoneref)		((void)(zoneref), model_zone())
#define slots_limit(cpu, zone)		model_limit()

/* Right behind who raised it, on the CPU that it was raised on. */
#define irq_work_runs_here()		true
#define irq_work_queue(work)		page_slots_irq_work_fn(work)
#define current				NULL
#define sched_set_fifo_low(task)	((void)(task))
#define set_current_state(state)	model_set_asleep()
#define __set_current_state(state)	((void)0)
#define schedule()			model_schedule()
#define sleep_before_retry()		model_schedule_timeout()
#define cond_resched_tasks_rcu_qs()	((void)0)
#define wake_up_process(task)		((void)(task), model_wake())
#define mod_timer(timer, expires)	model_arm_timer()
#define timer_pending(timer)		model_timer_pending()

static struct page *page_slots_pop(struct zone *zone, int migratetype);
static void page_slots_drain(struct zone *zone);
static void page_slots_irq_work_fn(struct irq_work *irq_work);

/* What model.rs calls */
struct code {
	struct page *(*push)(struct page_slots *slots, struct zone *zone, struct page *page);
	struct page *(*pop)(struct zone *zone, int migratetype);
	unsigned int (*drain)(struct page_slots *slots, unsigned long which);
	void (*update)(unsigned int cpu);
	void (*drain_zone)(struct zone *zone);
	int (*thread)(void *unused);
	void (*late)(struct timer_list *unused);
};
