// SPDX-License-Identifier: GPL-2.0
//! What follows from what a boot left.

pub mod check;
pub mod judge;
pub mod standards;
pub mod tally;
