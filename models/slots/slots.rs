// SPDX-License-Identifier: GPL-2.0
//! mm/page_slots.c in every interleaving.

mod model;
mod protocol;
mod refill;

// Cargo goes by a file's time: another checkout's older one would count as compiled.
const _: Option<&str> = option_env!("NOLOCKS_CHECKOUT");
