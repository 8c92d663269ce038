// SPDX-License-Identifier: GPL-2.0
//! Kernels and modules.

pub mod kernel;
