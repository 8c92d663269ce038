// SPDX-License-Identifier: GPL-2.0

//! The last object that was charged to a memory cgroup may be freed anywhere, when the cgroup is gone.

use core::ptr::NonNull;

use kernel::{
    prelude::*,
    str::CString, //
};

use crate::{
    context::Site,
    env::Env,
    ktap::Outcome,
    load,
    task::{
        wait_for,
        Pinned, //
    }, //
};

/// Cgroups that stay: twice as many as a CPU keeps charges of, as those that it has already push out
/// none.
const OTHERS: usize = 10;

/// `struct mem_cgroup`.
#[repr(C)]
struct MemCgroup {
    _opaque: [u8; 0],
}

/// `struct obj_cgroup`.
#[repr(C)]
struct ObjCgroup {
    _opaque: [u8; 0],
}

extern "C" {
    fn nolocks_memcg_get(path: *const c_char) -> *mut MemCgroup;
    fn nolocks_memcg_put(memcg: *mut MemCgroup);
    fn nolocks_alloc_charged(memcg: *mut MemCgroup) -> *mut c_void;
    fn nolocks_free_charged(object: *mut c_void);
    fn nolocks_objcg(memcg: *mut MemCgroup) -> *mut ObjCgroup;
    fn nolocks_objcg_has_one(objcg: *mut ObjCgroup) -> bool;
    fn nolocks_memcg_inherits(memcg: *mut MemCgroup) -> bool;
}

/// A reference to a memory cgroup.
///
/// # Invariants
///
/// The pointer came from `nolocks_memcg_get()`.
struct Cgroup(NonNull<MemCgroup>);

impl Cgroup {
    /// May sleep, as all that is done with it may.
    fn open(path: &CStr) -> Option<Self> {
        // SAFETY: The path is a string; this is a task that may sleep.
        // INVARIANT: Obtained just now.
        NonNull::new(unsafe { nolocks_memcg_get(path.as_char_ptr()) }).map(Self)
    }

    fn charge(&self) -> Result<Object> {
        let object = core::cell::Cell::new(None);

        // A trylock may fail; that all of them do is no memory.
        wait_for(|| {
            // SAFETY: By the invariant; this is a task that may sleep.
            object.set(NonNull::new(unsafe {
                nolocks_alloc_charged(self.0.as_ptr())
            }));
            object.get().is_some()
        });
        // INVARIANT: Obtained just now.
        object.get().map(Object).ok_or(ENOMEM)
    }

    /// Whether something has the charges of a child that was removed.
    fn inherits(&self) -> bool {
        // SAFETY: By the invariant. Only reads.
        unsafe { nolocks_memcg_inherits(self.0.as_ptr()) }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // SAFETY: By the invariant, and once.
        unsafe { nolocks_memcg_put(self.0.as_ptr()) }
    }
}

/// An object that is charged to a memory cgroup.
///
/// # Invariants
///
/// The pointer came from `nolocks_alloc_charged()`.
struct Object(NonNull<c_void>);

// SAFETY: Objects belong to no task.
unsafe impl Send for Object {}

impl Drop for Object {
    /// In any context.
    fn drop(&mut self) {
        // SAFETY: By the invariant, and once.
        unsafe { nolocks_free_charged(self.0.as_ptr()) }
    }
}

/// A cgroup whose children come and go, with [`OTHERS`] that stay. The task is in none of them.
struct Family {
    parent: Cgroup,
    others: KVec<Cgroup>,
}

impl Family {
    /// `None` where there is no such cgroup to be had.
    fn new() -> Result<Option<Self>> {
        load::run_script(
            c"cd /sys/fs/cgroup && echo +memory >cgroup.subtree_control && mkdir -p nolocks_stress &&
            cd nolocks_stress && echo +memory >cgroup.subtree_control &&
            mkdir -p 0 1 2 3 4 5 6 7 8 9",
        );
        let Some(parent) = Cgroup::open(c"/nolocks_stress") else {
            return Ok(None);
        };
        let mut family = Self {
            parent,
            others: KVec::with_capacity(OTHERS, GFP_KERNEL)?,
        };
        for nth in 0..OTHERS {
            let path = CString::try_from_fmt(fmt!("/nolocks_stress/{nth}"))?;
            let other = Cgroup::open(&path).ok_or(ENOENT)?;
            family.others.push(other, GFP_KERNEL)?;
        }
        Ok(Some(family))
    }

    /// An object of each cgroup that stays. Each that is allocated or freed has this CPU keep a charge of
    /// its cgroup, in the place of another's.
    fn one_of_each(&self) -> Result<[Option<Object>; OTHERS]> {
        let mut objects = [const { None }; OTHERS];

        for (object, other) in objects.iter_mut().zip(self.others.iter()) {
            *object = Some(other.charge()?);
        }
        Ok(objects)
    }

    /// An object that is all that is left of a cgroup, and one of each that stays. To be called pinned.
    fn orphan(&self) -> Result<(Object, [Option<Object>; OTHERS])> {
        if !load::run_script(c"mkdir /sys/fs/cgroup/nolocks_stress/dead") {
            return Err(ENOENT);
        }
        let dead = Cgroup::open(c"/nolocks_stress/dead").ok_or(ENOENT)?;
        let orphan = dead.charge()?;
        // SAFETY: By the invariant. The object was charged on this CPU, and so to what this has.
        let objcg = unsafe { nolocks_objcg(dead.0.as_ptr()) };
        let others = self.one_of_each()?;

        drop(dead);
        if !load::run_script(c"rmdir /sys/fs/cgroup/nolocks_stress/dead") {
            return Err(EBUSY);
        }
        // SAFETY: The object has it as long as it is not freed.
        if !wait_for(|| unsafe { nolocks_objcg_has_one(objcg) }) {
            return Err(ETIMEDOUT);
        }
        Ok((orphan, others))
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        load::run_script(c"cd /sys/fs/cgroup && rmdir nolocks_stress/*/ nolocks_stress");
    }
}

pub(crate) fn dead_cgroup(env: &Env) -> Result<Outcome> {
    let site = KBox::pin_init(Site::new(), GFP_KERNEL)?;
    let Some(family) = Family::new()? else {
        return Ok(Outcome::Skipped(
            "there are no memory cgroups in /sys/fs/cgroup",
        ));
    };
    let mut outcome = Outcome::Passed;

    for ctx in env.contexts() {
        let _pinned = Pinned::new();
        let (orphan, mut others) = family.orphan()?;
        let mut orphan = Some(orphan);

        site.run(ctx, || {
            // Where this CPU's charges may be had it is kept among them, with a reference: then who takes
            // its place puts the last one.
            drop(orphan.take());
            others.iter_mut().for_each(|object| drop(object.take()));
        });
        let released = wait_for(|| !family.parent.inherits());
        pr_info!(
            "# dead_cgroup: context={} released={released}\n",
            ctx.name()
        );
        outcome = outcome.check(
            released,
            fmt!(
                "{}: what a dead cgroup was charged is never released",
                ctx.name()
            ),
        );
        if !released {
            // The next ones could not be told from it.
            break;
        }
    }
    Ok(site.check(outcome))
}
