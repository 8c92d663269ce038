// SPDX-License-Identifier: GPL-2.0
//! What a boot left, read once.

pub mod boot;
pub mod ending;
pub mod ktap;
pub mod kunit;
#[cfg(test)]
pub mod made_up;
pub mod scan;
pub mod suite;
