// SPDX-License-Identifier: GPL-2.0
//! What README.md shows of another page is still there.

use std::fs;
use std::path::Path;

fn page(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(file).unwrap()
}

#[test]
fn the_screen_in_readme_begins_that_of_results_md() {
    let (readme, results) = (page("README.md"), page("docs/results.md"));
    let screen = results.split("\n```\n").nth(1).unwrap();
    let mut blocks = readme.split("\n```\n");
    let shown = blocks.find_map(|block| block.strip_suffix("\n..."));
    let shown = shown.expect("a block that ends in ...");
    assert!(shown.starts_with("lane ") && shown.lines().count() > 2);
    assert!(
        screen.starts_with(&format!("{shown}\n")),
        "README.md needs the first lines of:\n{screen}"
    );
}
