// SPDX-License-Identifier: GPL-2.0

//! Memory and locking for code that runs where the kernel may neither sleep nor wait.
//!
//! Kbuild builds no library out of a crate of ours, so every module of this project includes this
//! tree with `mod`.

pub mod alloc;
pub mod page;
pub mod raw_spin_lock;
pub mod slots;
