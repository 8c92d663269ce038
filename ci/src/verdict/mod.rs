// SPDX-License-Identifier: GPL-2.0
//! What follows from what a console says.

pub mod judge;
pub mod tally;
