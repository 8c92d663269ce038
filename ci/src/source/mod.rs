// SPDX-License-Identifier: GPL-2.0
//! The kernel's source, and the series on it.

pub mod series;
pub mod tree;
