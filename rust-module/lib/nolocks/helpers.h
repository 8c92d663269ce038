/* SPDX-License-Identifier: GPL-2.0 */
#ifndef NOLOCKS_HELPERS_H
#define NOLOCKS_HELPERS_H

#include <linux/mm_types.h>
#include <linux/spinlock.h>

void nolocks_raw_spin_lock_init(raw_spinlock_t *lock, const char *name,
				struct lock_class_key *key);
unsigned long nolocks_raw_spin_lock_irqsave(raw_spinlock_t *lock);
bool nolocks_raw_spin_trylock_irqsave(raw_spinlock_t *lock,
				      unsigned long *flags);
void nolocks_raw_spin_unlock_irqrestore(raw_spinlock_t *lock,
					unsigned long flags);
void nolocks_raw_spin_assert_held(raw_spinlock_t *lock);
void *nolocks_page_address(struct page *page);

#endif
