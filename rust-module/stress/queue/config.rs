// SPDX-License-Identifier: GPL-2.0

//! What the parameters come to.

pub(crate) struct Config {
    pub(crate) objects: usize,
    pub(crate) seed: u64,
    /// Whether blocks fail at random places, so that nothing can be promised.
    pub(crate) fail: bool,
}
