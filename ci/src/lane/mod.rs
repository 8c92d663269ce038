// SPDX-License-Identifier: GPL-2.0
//! A lane: what its file says, and the configuration that it asks for.

pub mod cases;
pub mod config;
mod controls;
pub mod head;
pub mod load;
pub mod plan;
#[cfg(test)]
mod shipped;
pub mod spec;
mod whole;
