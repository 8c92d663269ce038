// SPDX-License-Identifier: GPL-2.0
//! The kernel's source, and the series on it.

pub mod apply;
pub mod changes;
pub mod debian;
pub mod files;
pub mod git;
pub mod rebase;
pub mod refresh;
pub mod series;
pub mod tree;
pub mod version;
