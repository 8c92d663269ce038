// SPDX-License-Identifier: GPL-2.0
/*
 * What the Rust side cannot name because it is a macro or an inline function.
 * Kbuild knows no library of modules, so each module includes this file.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/preempt.h>

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

void nolocks_raw_spin_lock(raw_spinlock_t *lock)
{
	raw_spin_lock(lock);
}

/*
 * Without SMP a trylock that fails is a bug to DEBUG_SPINLOCK, which alone can tell
 * that it will.
 */
static bool nolocks_may_try(raw_spinlock_t *lock)
{
	return IS_ENABLED(CONFIG_SMP) || !raw_spin_is_locked(lock);
}

bool nolocks_raw_spin_trylock(raw_spinlock_t *lock)
{
	return nolocks_may_try(lock) && raw_spin_trylock(lock);
}

void nolocks_raw_spin_unlock(raw_spinlock_t *lock)
{
	raw_spin_unlock(lock);
}

void nolocks_raw_spin_lock_irq_disable(raw_spinlock_t *lock)
{
	raw_spin_lock_irq_disable(lock);
}

/*
 * local_interrupt_disable() warns in NMI, where interrupts are disabled anyway,
 * and until after the unlock: a lock that is taken there is given up there.
 */
bool nolocks_raw_spin_trylock_irq_disable(raw_spinlock_t *lock)
{
	if (in_nmi())
		return nolocks_raw_spin_trylock(lock);
	return nolocks_may_try(lock) && raw_spin_trylock_irq_disable(lock);
}

void nolocks_raw_spin_unlock_irq_enable(raw_spinlock_t *lock)
{
	if (in_nmi())
		raw_spin_unlock(lock);
	else
		raw_spin_unlock_irq_enable(lock);
}

#if defined(CONFIG_SMP) && !defined(CONFIG_DEBUG_SPINLOCK)
/*
 * Nobody is preempted with interrupts disabled, so the lock need not count that
 * nobody may be, which is a third of what it costs. Whoever wakes a task under
 * it has to see to it himself that the task comes to run.
 */
unsigned long nolocks_raw_spin_lock_irqsave(raw_spinlock_t *lock)
{
	unsigned long flags;

	local_irq_save(flags);
	do_raw_spin_lock(lock);
	return flags;
}

struct nolocks_tried nolocks_raw_spin_trylock_irqsave(raw_spinlock_t *lock)
{
	struct nolocks_tried tried;

	local_irq_save(tried.flags);
	tried.is_taken = do_raw_spin_trylock(lock);
	if (!tried.is_taken)
		local_irq_restore(tried.flags);
	return tried;
}

void nolocks_raw_spin_unlock_irqrestore(raw_spinlock_t *lock,
					unsigned long flags)
{
	do_raw_spin_unlock(lock);
	local_irq_restore(flags);
}
#else
/* Lockdep sees all of it; without SMP there is no lock to count for. */
unsigned long nolocks_raw_spin_lock_irqsave(raw_spinlock_t *lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(lock, flags);
	return flags;
}

struct nolocks_tried nolocks_raw_spin_trylock_irqsave(raw_spinlock_t *lock)
{
	struct nolocks_tried tried;

	tried.is_taken = nolocks_may_try(lock) &&
			 raw_spin_trylock_irqsave(lock, tried.flags);
	return tried;
}

void nolocks_raw_spin_unlock_irqrestore(raw_spinlock_t *lock,
					unsigned long flags)
{
	raw_spin_unlock_irqrestore(lock, flags);
}
#endif

/* Inline functions where CONFIG_PAGE_SLOTS is not set, as on loongarch. */
int nolocks_page_slots_register(unsigned int nr_pages)
{
	return page_slots_register(nr_pages);
}

void nolocks_page_slots_unregister(unsigned int nr_pages)
{
	page_slots_unregister(nr_pages);
}

/* Not for a page of high memory: page_address() would take a lock. */
void *nolocks_page_address(struct page *page)
{
	return lowmem_page_address(page);
}

struct page *nolocks_virt_to_page(void *address)
{
	return virt_to_page(address);
}

phys_addr_t nolocks_page_to_phys(struct page *page)
{
	return page_to_phys(page);
}
