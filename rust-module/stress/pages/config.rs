// SPDX-License-Identifier: GPL-2.0

//! What the parameters come to.

use core::num::NonZero;

pub(crate) struct Config {
    pub(crate) seconds: u32,
    pub(crate) threads: NonZero<u32>,
    pub(crate) seed: u64,
    pub(crate) pages: u64,
    pub(crate) tick_seconds: u32,
    pub(crate) tick_ms: u32,
    pub(crate) tick_permille: u32,
    pub(crate) hits: u32,
}
