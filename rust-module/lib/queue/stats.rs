// SPDX-License-Identifier: GPL-2.0

//! What a queue has done, in numbers.

use kernel::fmt;

/// What a queue has done. Objects unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Taken from their owners.
    pub pushed: u64,
    /// Freed after a grace period.
    pub freed: u64,
    /// Given back to their owners, or freed after one that the owner waited for.
    pub returned: u64,
    /// Not freed because they had been pushed before.
    pub twice: u64,
    /// Queued by their heads.
    pub listed: u64,
    /// Blocks that were sealed because they were full.
    pub full: u64,
    /// Blocks that were sealed because they were old, or because somebody asked.
    pub aged: u64,
    /// Lists that were taken because they were as long as a block or old, or because somebody asked.
    pub lists: u64,
    /// Pushes that found no block.
    pub blockless: u64,
    /// How often somebody came for what a CPU had pushed.
    pub drains: u64,
}

impl Stats {
    /// Objects that are waiting to be freed. Nothing bounds it but memory: where the workers get no
    /// processor or a reader does not end, it is the number to watch.
    pub fn backlog(&self) -> u64 {
        self.pushed.saturating_sub(self.freed + self.twice)
    }

    /// A line for each, for debugfs.
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        core::writeln!(f, "pushed {}", self.pushed)?;
        core::writeln!(f, "freed {}", self.freed)?;
        core::writeln!(f, "returned {}", self.returned)?;
        core::writeln!(f, "backlog {}", self.backlog())?;
        core::writeln!(f, "twice {}", self.twice)?;
        core::writeln!(f, "listed {}", self.listed)?;
        core::writeln!(f, "blocks_full {}", self.full)?;
        core::writeln!(f, "blocks_aged {}", self.aged)?;
        core::writeln!(f, "lists {}", self.lists)?;
        core::writeln!(f, "blockless {}", self.blockless)?;
        core::writeln!(f, "drains {}", self.drains)
    }
}
