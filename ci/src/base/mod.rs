// SPDX-License-Identifier: GPL-2.0
//! What everything stands on: exit codes, architectures, processes, progress and the cache.

pub mod arch;
pub mod cache;
pub mod exit;
pub mod pins;
pub mod proc;
pub mod progress;
