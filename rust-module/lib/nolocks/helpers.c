// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 * Kbuild knows no library of modules, so each module includes this file.
 */
#include <linux/lockdep.h>
#include <linux/mm.h>

#include "helpers.h"

void nolocks_raw_spin_lock_init(raw_spinlock_t *lock, const char *name,
				struct lock_class_key *key)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	__raw_spin_lock_init(lock, name, key, LD_WAIT_SPIN);
#else
	raw_spin_lock_init(lock);
#endif
}

unsigned long nolocks_raw_spin_lock_irqsave(raw_spinlock_t *lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(lock, flags);
	return flags;
}

/*
 * Without SMP a lock is the disabled interrupts and has no state to look at, and
 * a trylock succeeds for an NMI that came while the lock was held.
 */
bool nolocks_raw_spin_trylock_irqsave(raw_spinlock_t *lock,
				      unsigned long *flags)
{
	if (!IS_ENABLED(CONFIG_SMP) && irqs_disabled())
		return false;
	return raw_spin_trylock_irqsave(lock, *flags);
}

void nolocks_raw_spin_unlock_irqrestore(raw_spinlock_t *lock,
					unsigned long flags)
{
	raw_spin_unlock_irqrestore(lock, flags);
}

void nolocks_raw_spin_assert_held(raw_spinlock_t *lock)
{
	lockdep_assert_held(lock);
}

/* page_address() takes a lock for a highmem page, so it is not for us. */
void *nolocks_page_address(struct page *page)
{
	return PageHighMem(page) ? NULL : lowmem_page_address(page);
}
