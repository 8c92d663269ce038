// SPDX-License-Identifier: GPL-2.0
//! The runner behind `make`: docs/runner.md says what each command does and how it ends.

mod base;
mod build;
mod command;
mod facts;
mod guest;
mod host;
mod lane;
mod report;
mod run;
mod source;
mod verdict;

use std::process::ExitCode;

// Cargo goes by a file's time: another checkout's older one would count as compiled.
const _: Option<&str> = option_env!("NOLOCKS_CHECKOUT");

fn main() -> ExitCode {
    command::main()
}
