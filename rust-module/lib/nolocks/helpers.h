/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_HELPERS_H
#define NOLOCKS_HELPERS_H

#include <linux/mm_types.h>
#include <linux/spinlock.h>

/* What became of a trylock, and what interrupts were before. In two registers. */
struct nolocks_tried {
	unsigned long flags;
	bool is_taken;
};

void nolocks_raw_spin_lock_init(raw_spinlock_t *lock, const char *name,
				struct lock_class_key *key);
void nolocks_raw_spin_lock(raw_spinlock_t *lock);
bool nolocks_raw_spin_trylock(raw_spinlock_t *lock);
void nolocks_raw_spin_unlock(raw_spinlock_t *lock);
void nolocks_raw_spin_lock_irq_disable(raw_spinlock_t *lock);
bool nolocks_raw_spin_trylock_irq_disable(raw_spinlock_t *lock);
void nolocks_raw_spin_unlock_irq_enable(raw_spinlock_t *lock);
unsigned long nolocks_raw_spin_lock_irqsave(raw_spinlock_t *lock);
struct nolocks_tried nolocks_raw_spin_trylock_irqsave(raw_spinlock_t *lock);
void nolocks_raw_spin_unlock_irqrestore(raw_spinlock_t *lock,
					unsigned long flags);
int nolocks_page_slots_register(unsigned int nr_pages);
void nolocks_page_slots_unregister(unsigned int nr_pages);
void *nolocks_page_address(struct page *page);
struct page *nolocks_virt_to_page(void *address);
phys_addr_t nolocks_page_to_phys(struct page *page);

#endif
