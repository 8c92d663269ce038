// SPDX-License-Identifier: GPL-2.0
//! Lanes from their files.

use crate::base::exit::{Exit, fail};
use crate::lane::cases::Cases;
use crate::lane::head::names;
use crate::lane::spec::Lane;
use crate::lane::whole::Whole;
use anyhow::Result;
use std::path::Path;

impl Lane {
    pub fn load(dir: &Path, name: &str) -> Result<Lane> {
        let path = dir.join(format!("{name}.config"));
        if !path.is_file() {
            return Err(fail(
                Exit::Usage,
                format!("no lane {name:?}; there are: {}", names(dir)?.join(", ")),
            ));
        }
        let whole = Whole::of(&path)?;
        Lane::named(name, &whole.text, &Cases::builtin())
            .map_err(|(line, what)| whole.error(line, &what))
    }

    pub fn load_all(dir: &Path) -> Result<Vec<Lane>> {
        names(dir)?.iter().map(|n| Lane::load(dir, n)).collect()
    }
}
