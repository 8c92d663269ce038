// SPDX-License-Identifier: GPL-2.0
//! `make rust-analyzer`: the kernel's own rust-project.json of a lane's build, with the modules' crates. The
//! kernel's generator looks for crates only where a Kbuild lies in the same folder.

use crate::base::cache::{read_json, write_json};
use crate::base::exit::{Exit, OrExit};
use crate::base::progress::Progress;
use crate::build::make::{make, run_logged};
use crate::command::args::Where;
use crate::command::job::Job;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "rust-project.json";
/// What the kernel's generator gives a module of its own tree.
const DEPENDENCIES: [&str; 5] = ["core", "kernel", "pin_init", "zerocopy", "zerocopy_derive"];

pub fn write(job: &Job, at: &Where) -> Result<()> {
    at.one_lane("rust-analyzer")?;
    let (source, builds) = job.build_kernels(at)?;
    let (lane, build) = builds.first().context("no lane")?;
    let mut progress = Progress::new("rust-analyzer", 0);
    let mut make = make(&job.cache, lane.arch.kernel(), &source.dir, &build.dir);
    let log = build.dir.join("nolocks-rust-analyzer.log");
    run_logged(make.arg("rust-analyzer"), &log, &mut progress).or_exit(Exit::Build)?;
    let mut project: Value =
        read_json(&build.dir.join(FILE)).context("the kernel's make wrote no rust-project.json")?;
    let roots = roots(&job.checkout.join("rust-module"))?;
    add(&mut project, &roots)?;
    write_json(&job.checkout.join(FILE), &project)?;
    progress.finish(&format!("{} modules, kernel of {}", roots.len(), lane.name));
    println!(
        "{}: open the checkout in an editor with rust-analyzer",
        job.checkout.join(FILE).display()
    );
    Ok(())
}

/// The Rust files that some Kbuild makes an object of.
fn roots(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut roots = BTreeSet::new();
    for entry in walkdir::WalkDir::new(dir) {
        let entry = entry?;
        if entry.file_name() == "Kbuild" {
            let folder = entry.path().parent().context("a file lies in a folder")?;
            let text = fs::read_to_string(entry.path())?;
            let objects = text.split_whitespace().filter(|word| word.ends_with(".o"));
            let files = objects.map(|word| folder.join(word).with_extension("rs"));
            roots.extend(files.filter(|file| file.is_file()));
        }
    }
    ensure!(
        !roots.is_empty(),
        "no Kbuild below {} names a crate",
        dir.display()
    );
    Ok(roots)
}

fn add(project: &mut Value, roots: &BTreeSet<PathBuf>) -> Result<()> {
    let crates = project["crates"]
        .as_array_mut()
        .context("no crates in rust-project.json")?;
    let index = |name: &str| {
        let found = crates.iter().position(|c| c["display_name"] == name);
        found.with_context(|| format!("the kernel's rust-project.json has no crate {name}"))
    };
    let mut dependencies = Vec::new();
    for name in DEPENDENCIES {
        dependencies.push(json!({ "crate": index(name)?, "name": name }));
    }
    // The kernel's configuration, as --cfg.
    let cfg = crates[index("kernel")?]["cfg"].clone();
    for root in roots {
        let name = root.file_stem().unwrap_or_default().to_string_lossy();
        crates.push(json!({
            "display_name": name,
            "root_module": root,
            "is_workspace_member": true,
            "deps": dependencies,
            "cfg": cfg,
            "edition": "2021",
            "env": { "RUST_MODFILE": "This is only for rust-analyzer" },
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_of_the_checkout_is_a_crate() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rust-module");
        let roots = roots(&dir).unwrap();
        for module in [
            "stress/pages/stress.rs",
            "stress/queue/stress.rs",
            "example/example.rs",
        ] {
            assert!(roots.contains(&dir.join(module)), "{roots:?}");
        }
    }

    #[test]
    fn a_crate_has_the_kernels_configuration() {
        let kernel = DEPENDENCIES.map(|n| json!({ "display_name": n, "cfg": [n] }));
        let mut project = json!({ "crates": kernel });
        add(&mut project, &BTreeSet::from(["/x/a.rs".into()])).unwrap();
        let added = &project["crates"][5];
        assert_eq!(added["cfg"], json!(["kernel"]));
        assert_eq!(added["deps"][1], json!({ "crate": 1, "name": "kernel" }));
        assert!(add(&mut json!({ "crates": [] }), &BTreeSet::new()).is_err());
    }
}
