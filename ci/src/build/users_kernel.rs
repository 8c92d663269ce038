// SPDX-License-Identifier: GPL-2.0
//! A kernel that the user has built, which is looked at before modules are built for it.

use crate::base::arch::Arch;
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::pins::LLVM;
use crate::base::proc::output;
use crate::host::setup::RUSTC;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Of a kernel that the user has built: what it was built for, and its .config.
pub fn check_users_kernel(kdir: &Path) -> Result<(Arch, String)> {
    let refuse = |what: String| Err(fail(Exit::Tree, format!("{} {what}", kdir.display())));
    // A folder of O= has a link to its source.
    let tops = ["", "source"].map(|top| kdir.join(top));
    let Some(top) = tops.iter().find(|t| t.join("mm/page_alloc.c").exists()) else {
        return refuse("is neither a kernel tree nor its folder of O=".into());
    };
    for file in [".config", "Module.symvers"] {
        if !kdir.join(file).exists() {
            return refuse(format!(
                "has no {file}: `make apply KDIR=...`, configure with Kconfig.fragment and build the kernel there first; without KDIR= the runner builds its own"
            ));
        }
    }
    let flags = fs::read_to_string(top.join("include/linux/gfp_types.h"));
    if !flags.is_ok_and(|text| text.contains("__GFP_NO_LOCKS")) {
        return refuse(
            "does not have the series: `make apply KDIR=...` and build the kernel again".into(),
        );
    }
    let config = fs::read_to_string(kdir.join(".config")).or_exit(Exit::Tree)?;
    if !config.lines().any(|l| l == "CONFIG_RUST=y") {
        return refuse(
            "was built without CONFIG_RUST=y: configure with Kconfig.fragment and build it again"
                .into(),
        );
    }
    let arch = if config.contains("CONFIG_ARM64=y") {
        Arch::Arm64
    } else {
        Arch::X86
    };
    Ok((arch, config))
}

/// Modules of other compilers than the kernel's are refused by make at best, and broken at worst.
pub fn check_same_tools(kdir: &Path, config: &str) -> Result<()> {
    compare_tools(kdir, config, |program| {
        output(Command::new(program).arg("--version")).or_exit(Exit::Setup)
    })
}

fn compare_tools(
    kdir: &Path,
    config: &str,
    version: impl Fn(&str) -> Result<String>,
) -> Result<()> {
    for (option, program) in [
        ("CONFIG_CC_VERSION_TEXT", &*format!("clang{}", *LLVM)),
        ("CONFIG_RUSTC_VERSION_TEXT", RUSTC),
    ] {
        // As the kernel's Makefile takes it.
        let said = version(program)?.replace('#', "");
        let ours = said.lines().next().unwrap_or_default();
        let theirs = config.lines().find_map(|l| {
            l.strip_prefix(option)?
                .strip_prefix("=\"")?
                .strip_suffix('"')
        });
        if theirs != Some(ours) {
            return Err(fail(
                Exit::Tree,
                format!(
                    "{} was built by another compiler than the modules would be:\n  its {option} is {}\n  {program} is {ours:?}\nbuild it again with LLVM={} RUSTC={RUSTC} and CONFIG_RUST=y, or the modules by hand with its own tools, as README.md says",
                    kdir.display(),
                    theirs.map_or("not set".to_owned(), |t| format!("{t:?}")),
                    *LLVM,
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    fn text(e: anyhow::Error) -> String {
        assert_eq!(stage(&e), Some(Exit::Tree), "{e:#}");
        e.to_string()
    }

    #[test]
    fn a_users_kernel_without_the_series_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kdir = dir.path();
        let refused = || text(check_users_kernel(kdir).unwrap_err());
        assert!(refused().contains("neither a kernel tree"));
        fs::create_dir_all(kdir.join("source/mm")).unwrap();
        fs::write(kdir.join("source/mm/page_alloc.c"), "").unwrap();
        assert!(refused().contains("has no .config"));
        fs::write(kdir.join(".config"), "CONFIG_ARM64=y\n").unwrap();
        // Configured, and never built.
        assert!(refused().contains("has no Module.symvers"));
        fs::write(kdir.join("Module.symvers"), "").unwrap();
        let include = kdir.join("source/include/linux");
        fs::create_dir_all(&include).unwrap();
        fs::write(include.join("gfp_types.h"), "#define __GFP_ZERO\n").unwrap();
        assert!(refused().contains("does not have the series"));
        fs::write(include.join("gfp_types.h"), "#define __GFP_NO_LOCKS\n").unwrap();
        assert!(refused().contains("without CONFIG_RUST=y"));
        fs::write(kdir.join(".config"), "CONFIG_ARM64=y\nCONFIG_RUST=y\n").unwrap();
        assert_eq!(check_users_kernel(kdir).unwrap().0, Arch::Arm64);
    }

    #[test]
    fn a_users_kernel_of_other_compilers_is_refused() {
        let ours = |program: &str| Ok(format!("{program} 1 #2\nmore\n"));
        let check = |config: &str| compare_tools(Path::new("/k"), config, ours);
        let clang = format!("clang{}", *LLVM);
        let config = format!(
            "CONFIG_CC_VERSION_TEXT=\"{clang} 1 2\"\nCONFIG_RUSTC_VERSION_TEXT=\"{RUSTC} 1 2\"\n"
        );
        check(&config).unwrap();
        for (old, new, said) in [
            (&*clang, "gcc", "gcc 1 2"),
            ("rustc", "rustc0", "rustc0 1 2"),
            ("RUSTC", "X", "not set"),
        ] {
            let e = text(check(&config.replace(old, new)).unwrap_err());
            assert!(e.contains(said), "{e}");
        }
    }
}
