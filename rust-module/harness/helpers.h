/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_STRESS_HELPERS_H
#define NOLOCKS_STRESS_HELPERS_H

#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/mm_types.h>
#include <linux/spinlock.h>

/* Mirrored in context.rs. */
#define NOLOCKS_IN_NMI		BIT(0)
#define NOLOCKS_IN_HARDIRQ	BIT(1)
#define NOLOCKS_IN_SOFTIRQ	BIT(2)
#define NOLOCKS_IRQS_OFF	BIT(3)
#define NOLOCKS_PREEMPT_OFF	BIT(4)

const char *nolocks_case_parameter(void);

unsigned int nolocks_where(void);
void nolocks_preempt_disable(void);
void nolocks_preempt_enable(void);
void nolocks_migrate_disable(void);
void nolocks_migrate_enable(void);
void nolocks_cond_resched(void);
void nolocks_alarm_begin(unsigned int ms);
bool nolocks_alarm_end(void);
unsigned long nolocks_pi_lock(void);
void nolocks_pi_unlock(unsigned long flags);
void nolocks_run_tasklet(struct tasklet_struct *tasklet);
void nolocks_init_hard_irq_work(struct irq_work *work,
				void (*func)(struct irq_work *work));
unsigned long nolocks_interrupted_ip(void);
bool nolocks_overwritten_anyway(void);
unsigned int nolocks_online_cpu(unsigned int nth);
unsigned int nolocks_online_cpus(void);

unsigned int nolocks_in_slots(unsigned int cpu);
void nolocks_wait_for_a_work(void);
unsigned long nolocks_unused_pages(void);
bool nolocks_zone_is_locked(void);
unsigned long nolocks_reclaimed_pages(void);
int nolocks_pcp_excess(void);
unsigned int nolocks_zones(int nid);
unsigned long nolocks_page_pfn(struct page *page);
unsigned int nolocks_page_zone(struct page *page);
unsigned long nolocks_page_block(void);
int nolocks_this_node(void);
long nolocks_charged_pages(void);
long nolocks_charge_slack(void);

int nolocks_nmi_register(bool (*handler)(unsigned long ip));
void nolocks_nmi_unregister(void);
void nolocks_nmi_start(unsigned int cpu);
void nolocks_nmi_stop(unsigned int cpu);
void nolocks_nmi_send(unsigned int cpu);

int nolocks_watch_locks(void (*taken)(const char *name));
void nolocks_unwatch_locks(void);

struct mem_cgroup;
struct obj_cgroup;
struct pid;
struct pid *nolocks_load_start(char *script);
bool nolocks_load_stop(struct pid *pid);
bool nolocks_script(char *script);

struct mem_cgroup *nolocks_memcg_get(const char *path);
void nolocks_memcg_put(struct mem_cgroup *memcg);
void *nolocks_alloc_charged(struct mem_cgroup *memcg);
void nolocks_free_charged(void *object);
struct obj_cgroup *nolocks_objcg(struct mem_cgroup *memcg);
bool nolocks_objcg_has_one(struct obj_cgroup *objcg);
bool nolocks_memcg_inherits(struct mem_cgroup *memcg);

struct nolocks_object;
int nolocks_objects_begin(void);
void nolocks_objects_end(void);
struct nolocks_object *nolocks_objects_alloc(unsigned int nr);
void nolocks_objects_kvfree_rcu(struct nolocks_object *chain);
void nolocks_objects_kvfree_rcu_mightsleep(struct nolocks_object *chain);

unsigned int nolocks_blocked_kworkers(void);
unsigned int nolocks_kworkers(void);
int nolocks_move_filler(int cpu);
bool nolocks_filler_is_woken_on(unsigned int cpu);
int nolocks_watch_dying(void (*on_dying)(void));
void nolocks_unwatch_dying(void);
int nolocks_watch_irq_works(void (*ran)(void));
void nolocks_unwatch_irq_works(void);

struct page *nolocks_cma_alloc(void);
void nolocks_cma_release(struct page *page);
bool nolocks_page_is_cma(struct page *page);
unsigned int nolocks_pcp_cma_pages(struct page *page);

void nolocks_spoil_page(struct page *page);
void nolocks_pool_page(struct page *page);
struct page *nolocks_alloc_tail(void);

#endif
