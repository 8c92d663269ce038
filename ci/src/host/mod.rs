// SPDX-License-Identifier: GPL-2.0
//! The machine that the runner is on.

pub mod cargo;
pub mod other_suite;
pub mod own_tools;
pub mod qemu;
pub mod setup;
