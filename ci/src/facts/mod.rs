// SPDX-License-Identifier: GPL-2.0
//! What a console says.

pub mod ktap;
pub mod scan;
