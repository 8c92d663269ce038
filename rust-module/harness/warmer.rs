// SPDX-License-Identifier: GPL-2.0

//! Fills this CPU's pcp lists the ordinary way.

use kernel::{
    page::Page,
    prelude::*, //
};

pub(crate) struct Warmer(KVVec<Page>);

impl Warmer {
    pub(crate) fn new(room: usize) -> Result<Self> {
        Ok(Self(KVVec::with_capacity(room, GFP_KERNEL)?))
    }

    /// Leaves `n` pages there, as far as they have room. To be called pinned.
    pub(crate) fn warm(&mut self, n: usize) -> Result {
        for _ in 0..n {
            self.0.push_within_capacity(Page::alloc_page(GFP_KERNEL)?)?;
        }
        self.0.clear();
        Ok(())
    }
}
