/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_QUEUE_HELPERS_H
#define NOLOCKS_QUEUE_HELPERS_H

#include <linux/irq_work.h>
#include <linux/rcupdate.h>
#include <linux/workqueue.h>

void nolocks_queue_init_works(struct irq_work *irq_work,
			      void (*on_irq)(struct irq_work *work),
			      struct delayed_work *delayed,
			      work_func_t on_time, struct rcu_work *rcu,
			      work_func_t on_grace_period,
			      struct work_struct *reclaim,
			      work_func_t on_reclaim);
int nolocks_queue_node(unsigned int cpu);
struct page *nolocks_queue_page_mightsleep(void);
void nolocks_queue_end_elsewhere(int (*end)(void *queue), void *queue);
int nolocks_queue_ended(void);
bool nolocks_queue_same(struct rcu_gp_seq *one, struct rcu_gp_seq *other);
void nolocks_queue_snapshot(struct rcu_gp_seq *snapshot);
bool nolocks_queue_elapsed(struct rcu_gp_seq *snapshot);
bool nolocks_queue_adopt(void *object, bool scan);
void nolocks_queue_disown(void *object);
void nolocks_queue_breathe(void);

#endif
