// SPDX-License-Identifier: GPL-2.0

//! How large a block is. Apart from `shard.rs`, which the models compile with small blocks.

use kernel::page::PAGE_SIZE;

/// How many objects fit in a block: what is left of a page beside the block's own fields.
pub const CAPACITY: usize = PAGE_SIZE / core::mem::size_of::<*mut u8>() - 7;
