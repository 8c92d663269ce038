// SPDX-License-Identifier: GPL-2.0
//! `make refresh`: patches/ from the commits of the user's tree, the release that they are of, and whether
//! their form is right.

use crate::base::cache::write_atomic;
use crate::base::exit::{Exit, OrExit};
use crate::base::pins;
use crate::command::form;
use crate::source::series::Series;
use crate::source::version::version_of;
use crate::verdict::tally::Tally;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

pub fn run(checkout: &Path, kdir: &Path, base: Option<&str>) -> Result<()> {
    let patches = checkout.join("patches");
    let said = Series::load(&patches)?.refresh(&patches, kdir, base)?;
    println!("{said}");
    if let Some(said) = record(checkout, kdir)? {
        println!("{said}");
    }
    let mut tally = Tally::default();
    form::check(&Series::load(&patches)?, &patches, kdir, &mut tally)?;
    println!("{}", tally.closing());
    tally.result()
}

/// Writes the release of the tree that the patches were made of into kernel.toml.
fn record(checkout: &Path, kdir: &Path) -> Result<Option<String>> {
    let file = checkout.join("kernel.toml");
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))
        .or_exit(Exit::Config)?;
    let base = version_of(kdir)?.to_string();
    let Some(text) = pins::with_base(&text, &base)? else {
        return Ok(None);
    };
    write_atomic(&file, &text).or_exit(Exit::Config)?;
    Ok(Some(format!(
        "kernel.toml: patches/ is of {base} now; `make check` names the prose that says otherwise"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::series::tests::{fixture, makefile, newer_release};

    #[test]
    fn the_release_that_the_patches_are_of_is_recorded() {
        let f = fixture(true);
        let checkout = f.dir.path();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel.toml");
        fs::copy(ours, checkout.join("kernel.toml")).unwrap();
        let newer = newer_release();
        fs::write(f.tree.join("Makefile"), makefile(&newer)).unwrap();
        let said = record(checkout, &f.tree).unwrap().unwrap();
        assert!(said.contains(&newer), "{said}");
        let text = fs::read_to_string(checkout.join("kernel.toml")).unwrap();
        assert!(text.contains(&format!("\nbase = {newer:?}\n")), "{text}");
        assert_eq!(record(checkout, &f.tree).unwrap(), None);
    }
}
