// SPDX-License-Identifier: GPL-2.0

//! A small random generator of its own, so that a seed repeats a run.

pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        // Xorshift does not get away from 0.
        Self((seed ^ (stream + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1))
    }

    /// A number below `n`, or 0 if there is none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as usize).checked_rem(n).unwrap_or(0)
    }

    pub(crate) fn pick<T>(&mut self, mut from: impl Iterator<Item = T> + Clone) -> Option<T> {
        let n = from.clone().count();
        from.nth(self.below(n))
    }
}
