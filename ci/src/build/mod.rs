// SPDX-License-Identifier: GPL-2.0
//! Kernels and modules.

pub mod kernel;
pub mod make;
pub mod modules;
pub mod tools;
pub mod users_kernel;
