// SPDX-License-Identifier: GPL-2.0
//! A lane: what its file says, and the configuration that it asks for.

pub mod cases;
pub mod config;
pub mod plan;
pub mod spec;
