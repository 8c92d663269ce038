// SPDX-License-Identifier: GPL-2.0

//! What more than one of the test modules needs.

pub(crate) mod api;
pub(crate) mod choice;
pub(crate) mod context;
pub(crate) mod ktap;
pub(crate) mod mailbox;
pub(crate) mod nmi;
pub(crate) mod oracle;
pub(crate) mod rng;
pub(crate) mod task;
pub(crate) mod threads;
pub(crate) mod warmer;
