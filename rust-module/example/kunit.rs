// SPDX-License-Identifier: GPL-2.0

//! How each part of the library is used by safe code, as a KUnit suite that runs when the module is
//! loaded. In a kernel without KUnit nothing is left of it.

use kernel::prelude::*;

// An assertion that fails ends the task and drops nothing, so no guard and no queue lives until one.
#[kunit_tests(page_alloc_nolocks_rust)]
mod tests {
    use kernel::{
        alloc::flags::__GFP_NOWARN,
        bindings,
        interrupt::local_interrupt_disable,
        page::PAGE_SIZE,
        prelude::*,
        sync::{
            atomic::{
                ordering::Relaxed,
                Atomic, //
            },
            rcu,
            Arc, //
        },
        time::{
            delay::{
                fsleep,
                udelay, //
            },
            Delta, //
        }, //
    };

    use crate::{
        nolocks::{
            alloc::{
                NoLocksBox,
                NoLocksVec, //
            },
            page::{
                alloc_page_nolocks,
                NoLocksFlags,
                NoLocksPage, //
            },
            raw_spin_lock::{
                new_raw_spin_lock,
                RawSpinLock, //
            }, //
        },
        queue::{
            self,
            impl_has_bulk_head,
            BulkHead,
            BulkQueue,
            DropQueue,
            RcuPointer,
            Stats, //
        },
    };

    const NAME: &CStr = c"nolocks_example_kunit";

    // It only reads this CPU's state.
    unsafe extern "C" {
        safe fn nolocks_example_irqs_disabled() -> bool;
    }

    struct Entry {
        head: BulkHead,
        value: u64,
    }

    impl_has_bulk_head! {
        impl HasBulkHead for Entry { self.head }
    }

    fn entry(value: u64) -> Result<KBox<Entry>> {
        let head = BulkHead::new();
        Ok(KBox::new(Entry { head, value }, GFP_KERNEL)?)
    }

    /// A page is had, filled and given back where `PREEMPT_RT` has nothing but the slots.
    #[cfg(CONFIG_PAGE_SLOTS)]
    #[test]
    fn page_under_raw_spinlock() -> Result {
        use crate::nolocks::slots::PageSlots;

        let _slots = PageSlots::register(1)?;
        let place: Pin<KBox<RawSpinLock<Option<NoLocksPage>>>> =
            KBox::pin_init(new_raw_spin_lock!(None, "nolocks_example_page"), GFP_KERNEL)?;
        let (fits, refused) = {
            let mut place = place.lock();
            let page = place.insert(alloc_page_nolocks(NoLocksFlags::NONE.zeroed())?);
            (page.write(0, b"all"), page.write(PAGE_SIZE - 2, b"all"))
        };
        let is_kept = {
            let mut place = place.lock();
            place.take().is_some()
        };
        assert_eq!(fits, Ok(()));
        assert_eq!(refused, Err(EINVAL));
        assert!(is_kept);
        Ok(())
    }

    /// A box has a page of its own, which can be had back, and holds no more than fits in one.
    #[test]
    fn box_in_a_page() -> Result {
        let mut bytes = NoLocksBox::<[u8; PAGE_SIZE]>::zeroed(__GFP_NOWARN)?;
        bytes[PAGE_SIZE - 1] = 7;
        assert_eq!(bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 7);
        assert!(NoLocksBox::<[u8; PAGE_SIZE + 1]>::zeroed(__GFP_NOWARN).is_err());
        let page = alloc_page_nolocks(NoLocksFlags::NONE)?;
        let phys = page.phys();
        assert_eq!(NoLocksPage::from(NoLocksBox::from(page)).phys(), phys);
        Ok(())
    }

    /// A vector asks for its room at the start, and never moves.
    #[test]
    fn vector_in_a_page() -> Result {
        const ROOM: usize = PAGE_SIZE / size_of::<usize>();
        let mut list = NoLocksVec::<usize>::with_capacity(ROOM, __GFP_NOWARN)?;
        for n in 0..ROOM {
            list.push(n, __GFP_NOWARN)?;
        }
        assert!(list.push(ROOM, __GFP_NOWARN).is_err());
        assert!((0..ROOM).eq(list.iter().copied()));
        Ok(())
    }

    /// Guards go in any order, and a token stands in for disabling interrupts once more.
    #[test]
    fn guards_in_any_order() -> Result {
        let one: Pin<KBox<RawSpinLock<u32>>> =
            KBox::pin_init(new_raw_spin_lock!(0, "nolocks_example_one"), GFP_KERNEL)?;
        let other: Pin<KBox<RawSpinLock<u32>>> =
            KBox::pin_init(new_raw_spin_lock!(0, "nolocks_example_other"), GFP_KERNEL)?;
        let first = one.lock();
        let mut second = other.lock();
        drop(first);
        let are_still_off = nolocks_example_irqs_disabled();
        *second += 1;
        // As for a type that must not move.
        *second.as_mut() += 1;
        let is_busy = other.try_lock().is_none();
        drop(second);
        let are_off = nolocks_example_irqs_disabled();
        let token = local_interrupt_disable();
        let value = *other.lock_with(&token);
        drop(token);
        assert!(are_still_off);
        assert!(!are_off);
        assert!(is_busy);
        assert_eq!(value, 2);
        Ok(())
    }

    /// What is replaced under its readers is pushed to a queue, or waited for.
    #[test]
    fn pointer_replaced_under_readers() -> Result {
        let queue = BulkQueue::new(NAME)?;
        let place = RcuPointer::new(entry(1)?);
        let second = entry(2)?;
        let reader = rcu::read_lock();
        let found = place.get(&reader);
        if let Some(old) = place.replace(second) {
            queue.push(old);
        }
        queue.flush();
        // As long as a queue needs that waits for nobody.
        for _ in 0..100 {
            if queue.backlog() == 0 {
                break;
            }
            udelay(Delta::from_millis(1));
        }
        let waiting = queue.backlog();
        let found = found.map(|entry| entry.value);
        drop(reader);
        let taken = place.take().map(|old| old.wait().value);
        let is_empty = place.get(&rcu::read_lock()).is_none();
        queue.barrier();
        let freed = queue.stats().freed;
        drop(queue);
        assert_eq!(waiting, 1);
        assert_eq!(found, Some(1));
        assert_eq!(taken, Some(2));
        assert!(is_empty);
        assert_eq!(freed, 1);
        Ok(())
    }

    /// Where there can be no reader, the owner changes the object and takes it out.
    #[test]
    fn pointer_without_readers() -> Result {
        let mut place = RcuPointer::new(entry(1)?);
        if let Some(entry) = place.get_mut() {
            entry.value += 1;
        }
        let found = place.get(&rcu::read_lock()).map(|entry| entry.value);
        let taken = place.into_inner().map(|entry| entry.value);
        assert_eq!(found, Some(2));
        assert_eq!(taken, Some(2));
        assert!(RcuPointer::<KBox<Entry>>::none().into_inner().is_none());
        Ok(())
    }

    /// Boxes, vectors and pages go to the same queue. What finds no memory for a block comes back.
    #[test]
    fn push_retry_and_flush() -> Result {
        let queue = BulkQueue::new(NAME)?;
        queue.push(entry(1)?);
        if let Err(page) = queue.try_push(alloc_page_nolocks(NoLocksFlags::NONE)?) {
            drop(page.wait());
        }
        queue.push_mightsleep(KVec::from_elem(1u8, 100, GFP_KERNEL)?);
        if let Err(object) = queue.push_headless(KBox::new(1u64, GFP_KERNEL)?) {
            if let Err(object) = object.retry(&queue) {
                drop(object.wait());
            }
        }
        queue.flush();
        // Nobody need wait for it: a minute is for what never comes.
        for _ in 0..6000 {
            if queue.backlog() == 0 {
                break;
            }
            fsleep(Delta::from_millis(10));
        }
        let Stats {
            pushed,
            freed,
            twice,
            ..
        } = queue.stats();
        drop(queue);
        // Those that came back for want of memory are not among them.
        assert!((1..=4).contains(&pushed));
        assert_eq!(freed, pushed);
        assert_eq!(twice, 0);
        Ok(())
    }

    static IN_TIME: Atomic<u64> = Atomic::new(0);

    /// Knows how long it has to live.
    struct Timed(bindings::rcu_gp_seq);

    impl Drop for Timed {
        fn drop(&mut self) {
            IN_TIME.add(u64::from(queue::rcu::elapsed(self.0)), Relaxed);
        }
    }

    /// An `Arc` cannot be pushed, but in a box: that reference is dropped after a grace period.
    #[test]
    fn destructors_after_a_grace_period() -> Result {
        let queue = DropQueue::new(NAME)?;
        let before = IN_TIME.load(Relaxed);
        let last = Arc::new(Timed(queue::rcu::snapshot()), GFP_KERNEL)?;
        queue.push_mightsleep(KBox::new(last, GFP_KERNEL)?);
        queue.wait_until_empty();
        drop(queue);
        assert_eq!(IN_TIME.load(Relaxed) - before, 1);
        Ok(())
    }
}
