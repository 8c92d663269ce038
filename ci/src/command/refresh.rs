// SPDX-License-Identifier: GPL-2.0
//! `make refresh`: patches/ from the commits of the user's tree, and whether their form is right.

use crate::command::form;
use crate::source::series::Series;
use crate::verdict::tally::Tally;
use anyhow::Result;
use std::path::Path;

pub fn run(checkout: &Path, kdir: &Path, base: Option<&str>) -> Result<()> {
    let patches = checkout.join("patches");
    println!("{}", Series::load(&patches)?.refresh(&patches, kdir, base)?);
    let mut tally = Tally::default();
    form::check(&Series::load(&patches)?, &patches, kdir, &mut tally)?;
    println!("{}", tally.closing());
    tally.result()
}
