// SPDX-License-Identifier: GPL-2.0
//! A run: its folder, what it boots, and what it leaves.

pub mod beside;
pub mod finish;
pub mod folder;
pub mod lane;
pub mod ready;
