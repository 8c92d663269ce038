// SPDX-License-Identifier: GPL-2.0
//! The guest: its root, its accelerator, its boot.

pub mod accel;
pub mod boot;
pub mod root;
pub mod wedged;
