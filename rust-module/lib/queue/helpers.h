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
			      work_func_t on_grace_period);
void nolocks_queue_snapshot(struct rcu_gp_seq *snapshot);
bool nolocks_queue_elapsed(struct rcu_gp_seq *snapshot);
bool nolocks_queue_adopt(void *object, bool scan);
void nolocks_queue_disown(void *object);
void nolocks_queue_breathe(void);

#endif
