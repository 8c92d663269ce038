// SPDX-License-Identifier: GPL-2.0
//! One check of a run, which the screen, the reports and the exit code are made of.

use crate::base::exit::{Exit, explained, stage};
use anyhow::Result;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    Passed,
    Skipped { why: String },
    Failed { exit: Exit, why: String },
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Check {
    pub name: String,
    pub found: Found,
    /// One of many, which are not listed one by one while they pass.
    pub is_case: bool,
}

impl Check {
    pub fn new(name: impl Into<String>, result: Result<()>) -> Check {
        let found = match result {
            Ok(()) => Found::Passed,
            Err(e) => {
                let e = explained(e);
                let exit = stage(&e).unwrap_or(Exit::Test);
                let why = format!("{e:#}");
                Found::Failed { exit, why }
            }
        };
        Check {
            name: name.into(),
            found,
            is_case: false,
        }
    }

    pub fn failed(name: impl Into<String>, exit: Exit, why: impl Into<String>) -> Check {
        Check {
            name: name.into(),
            found: Found::Failed {
                exit,
                why: why.into(),
            },
            is_case: false,
        }
    }

    pub fn case(name: impl Into<String>, found: Found) -> Check {
        Check {
            name: name.into(),
            found,
            is_case: true,
        }
    }

    /// What is said of it if it failed.
    pub fn failure(&self) -> Option<(Exit, String)> {
        match &self.found {
            Found::Failed { exit, why } => Some((*exit, format!("{}: {why}", self.name))),
            _ => None,
        }
    }
}
