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

fn main() -> ExitCode {
    command::main()
}
