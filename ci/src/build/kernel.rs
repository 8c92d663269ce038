// SPDX-License-Identifier: GPL-2.0
//! Configuring and building a lane's kernel, and the modules against it.

use crate::base::cache::{self, Cache, Lock, sha256, write_atomic, write_json};
use crate::base::exit::{Exit, FULL, FULL_SAID, OrExit, fail};
use crate::base::pins::LLVM;
use crate::base::proc::{check_interrupt, clear_environment, run_lines};
use crate::base::progress::Progress;
use crate::host::setup::{CLIPPY, RUSTC, tools};
use crate::lane::config::Options;
use crate::lane::spec::{Arch, Lane};
use crate::source::tree::{Prepared, tree_hash};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

impl Arch {
    pub fn kernel(self) -> &'static str {
        match self {
            Arch::X86 => "x86_64",
            Arch::Arm64 => "arm64",
        }
    }

    pub fn image(self) -> &'static str {
        match self {
            Arch::X86 => "arch/x86/boot/bzImage",
            Arch::Arm64 => "arch/arm64/boot/Image",
        }
    }

    pub fn qemu(self) -> &'static str {
        match self {
            Arch::X86 => "qemu-system-x86_64",
            Arch::Arm64 => "qemu-system-aarch64",
        }
    }
}

/// In a build folder: what make said.
pub const LOG: &str = "nolocks-build.log";

/// What a finished build was made from; a build folder whose stamp says the same needs no make.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Stamp {
    pub tree: String,
    pub series: String,
    pub config: String,
    pub toolchain: String,
}

pub struct Build {
    pub dir: PathBuf,
    pub stamp: Stamp,
    options: Options,
    /// Until its image has been copied, no other run may build something else here.
    hold: Option<Lock>,
}

impl Build {
    fn stamp_file(&self) -> PathBuf {
        self.dir.join("nolocks-stamp.json")
    }

    /// The MiB that it still takes.
    fn needs(&self) -> u64 {
        if self.done() {
            0
        } else if self.dir.join("vmlinux").exists() {
            // make replaces what is there.
            300
        } else {
            1000
        }
    }

    fn done(&self) -> bool {
        cache::read_json::<Stamp>(&self.stamp_file()).as_ref() == Some(&self.stamp)
    }
}

pub struct Plan<'a> {
    pub name: &'a str,
    /// As in ARCH=.
    pub arch: &'a str,
    pub fragments: &'a [(&'a str, &'a str)],
    pub goals: &'a [&'a str],
    pub extra: &'a [&'a str],
}

impl Plan<'_> {
    /// Where the build is, finished or not.
    pub fn place(&self, cache: &Cache, source: &Prepared) -> Result<Build> {
        let stamp = self.stamp(cache, &source.origin.id, &source.series)?;
        let slot = source
            .dir
            .file_name()
            .context("a source folder has a name")?
            .to_string_lossy();
        // Series and configuration are in the stamp, not in the name: make builds only what they changed.
        let dir = cache.dir(&format!("build/{slot}-{}", self.name))?;
        Ok(Build {
            dir,
            stamp,
            options: Options::parse(self.fragments)?,
            hold: None,
        })
    }

    pub fn stamp(&self, cache: &Cache, tree: &str, series: &str) -> Result<Stamp> {
        Ok(Stamp {
            tree: tree.to_owned(),
            series: series.to_owned(),
            config: sha256(Options::parse(self.fragments)?.render()),
            toolchain: toolchain(cache)?,
        })
    }

    pub fn build(&self, cache: &Cache, source: &Prepared) -> Result<Build> {
        let mut build = self.place(cache, source)?;
        let name = build.dir.file_name().context("a build folder has a name")?;
        build.hold = Some(cache.lock(&format!("build-{}", name.to_string_lossy()))?);
        if build.done() {
            return Ok(build);
        }
        cache.need_space("a kernel build", build.needs())?;
        let _ = fs::remove_file(build.stamp_file());
        self.configure(cache, source, &build)?;
        self.compile(cache, source, &build)?;
        write_json(&build.stamp_file(), &build.stamp)?;
        Ok(build)
    }

    /// Each time, because a new series may bring new options, and make would stop and ask for them.
    fn configure(&self, cache: &Cache, source: &Prepared, build: &Build) -> Result<()> {
        let dot_config = build.dir.join(".config");
        let asked_file = build.dir.join("nolocks-asked.config");
        write_atomic(&asked_file, &build.options.render()).or_exit(Exit::Config)?;
        let mut progress = Progress::new(format!("config {}", self.name), 0);
        let mut make = make(cache, self.arch, &source.dir, &build.dir);
        make.args(self.extra)
            .env("KCONFIG_ALLCONFIG", &asked_file)
            .arg("allnoconfig");
        logged(
            &mut make,
            &build.dir.join("nolocks-config.log"),
            &mut progress,
        )
        .or_exit(Exit::Config)?;
        let have = fs::read_to_string(&dot_config)
            .context("make wrote no .config")
            .or_exit(Exit::Config)?;
        build.options.assert_in(&have)?;
        progress.finish("every option asked for is there");
        Ok(())
    }

    fn compile(&self, cache: &Cache, source: &Prepared, build: &Build) -> Result<()> {
        let count_file = cache.dir("build")?.join(format!("{}.steps", self.name));
        let expected = fs::read_to_string(&count_file)
            .ok()
            .and_then(|t| t.trim().parse().ok())
            .unwrap_or(2100);
        let objects = fs::read_dir(build.dir.join("kernel")).is_ok();
        let mut progress = Progress::new(
            format!("build {}", self.name),
            // A build that goes on has no total that means anything.
            if objects { 0 } else { expected },
        );
        let mut make = make(cache, self.arch, &source.dir, &build.dir);
        make.args(self.extra).args(self.goals);
        logged(&mut make, &build.dir.join(LOG), &mut progress).or_exit(Exit::Build)?;
        if !objects {
            write_atomic(&count_file, &progress.count().to_string())?;
        }
        progress.finish("built");
        Ok(())
    }
}

fn toolchain(cache: &Cache) -> Result<String> {
    let clang = format!("clang{}", *LLVM);
    let mut text = String::new();
    for program in [Path::new(RUSTC), Path::new(&clang), &tools(cache).bindgen] {
        if let Ok(version) = crate::base::proc::output(Command::new(program).arg("--version")) {
            text += version.lines().next().unwrap_or("");
        }
    }
    Ok(sha256(text))
}

pub fn jobs() -> String {
    format!(
        "-j{}",
        std::thread::available_parallelism().map_or(1, |n| n.get())
    )
}

/// RUSTC must stand on the command line: Kbuild ignores it in the environment.
pub fn make(cache: &Cache, arch: &str, source: &Path, build: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(source)
        .arg(format!("O={}", build.display()))
        .arg(format!("ARCH={arch}"))
        .args(toolchain_args(cache))
        .arg(jobs());
    clean_env(&mut make, &cache.root);
    make
}

fn toolchain_args(cache: &Cache) -> Vec<String> {
    vec![
        format!("LLVM={}", *LLVM),
        format!("RUSTC={RUSTC}"),
        format!("CLIPPY_DRIVER={CLIPPY}"),
        format!("BINDGEN={}", tools(cache).bindgen.display()),
    ]
}

/// What steers a kernel's build stands on make's command line or in its stamp, never in the environment.
pub fn clean_env(command: &mut Command, cache: &Path) {
    clear_environment(command);
    command
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
        .env("KBUILD_BUILD_USER", "nolocks")
        .env("KBUILD_BUILD_HOST", "nolocks")
        // setlocalversion would describe whatever repository the cache lies in.
        .env("GIT_CEILING_DIRECTORIES", cache);
}

/// Runs make with its whole output in `log`; on failure the error holds what matters of it.
pub fn logged(command: &mut Command, log: &Path, progress: &mut Progress) -> Result<()> {
    let mut file = BufWriter::new(
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?,
    );
    let mut lines: Vec<String> = Vec::new();
    let mut written = Ok(());
    let status = run_lines(command, |line| {
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| writeln!(file, "{line}"));
        progress.step(line.trim());
        lines.push(line.to_owned());
    });
    if status
        .as_ref()
        .is_err_and(|e| crate::base::exit::stage(e) == Some(Exit::Interrupted))
    {
        return Err(fail(
            Exit::Interrupted,
            "interrupted; the same command goes on where it stopped",
        ));
    }
    written
        .and_then(|()| file.flush())
        .with_context(|| format!("cannot write {}", log.display()))?;
    if status?.success() {
        return Ok(());
    }
    check_interrupt()?;
    let full = lines
        .iter()
        .any(|l| l.contains(FULL_SAID) || l.contains("ENOSPC"));
    let errors: Vec<&String> = lines
        .iter()
        .filter(|l| l.contains("error:") || l.contains("error[") || l.contains("Error "))
        .take(8)
        .collect();
    let tail = &lines[lines.len().saturating_sub(12)..];
    let mut text = String::new();
    for line in errors.into_iter().filter(|l| !tail.contains(l)).chain(tail) {
        text += line;
        text += "\n";
    }
    text += &format!("the whole log is {}", log.display());
    if full {
        return Err(fail(
            Exit::Setup,
            format!("{FULL}, and run the same command again\n{text}"),
        ));
    }
    anyhow::bail!(text)
}

#[derive(Debug, Clone)]
pub struct Modules {
    pub dir: PathBuf,
}

impl Modules {
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let file = format!("{name}.ko");
        walkdir::WalkDir::new(&self.dir)
            .into_iter()
            .flatten()
            .find(|e| e.file_name() == file.as_str())
            .map(walkdir::DirEntry::into_path)
            .ok_or_else(|| {
                fail(
                    Exit::Build,
                    format!("{file} was not built: {}", self.dir.display()),
                )
            })
    }
}

/// make for modules of `source`, with its products in `out`.
pub fn module_make(cache: &Cache, kernel: &Path, arch: Arch, source: &Path, out: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C")
        .arg(kernel)
        .arg(format!("M={}", source.display()))
        .arg(format!("MO={}", out.display()))
        .arg(format!("ARCH={}", arch.kernel()))
        .args(toolchain_args(cache))
        .arg(jobs());
    clean_env(&mut make, &cache.root);
    make
}

/// Out of tree and out of the checkout: `MO=` puts every product below the cache.
pub fn modules(
    cache: &Cache,
    kernel: &Path,
    arch: Arch,
    checkout: &Path,
    clippy: bool,
) -> Result<Modules> {
    let id = sha256(kernel.as_os_str().as_encoded_bytes());
    let kind = if clippy { "clippy" } else { "modules" };
    let dir = cache.dir(&format!("{kind}/{}", &id[..12]))?;
    let _alone = cache.lock(&format!("{kind}-{}", &id[..12]))?;
    if clippy {
        // A crate that is up to date would not be looked at again, and would have no warnings.
        cache::remove_dir(&dir)?;
        fs::create_dir_all(&dir)?;
    }
    let mut progress = Progress::new(
        if clippy {
            "clippy on the modules"
        } else {
            "modules"
        },
        0,
    );
    let mut make = module_make(cache, kernel, arch, checkout, &dir);
    if clippy {
        make.arg("CLIPPY=1");
    }
    make.arg("modules");
    let log = dir.join("nolocks-modules.log");
    logged(&mut make, &log, &mut progress).or_exit(Exit::Build)?;
    if clippy {
        let text = fs::read_to_string(&log)?;
        let warnings: Vec<&str> = text.lines().filter(|l| l.contains("warning")).collect();
        if !warnings.is_empty() {
            return Err(fail(
                Exit::Test,
                format!(
                    "{} warnings, the first: {}; all are in {}",
                    warnings.len(),
                    warnings[0],
                    log.display()
                ),
            ));
        }
    }
    progress.finish("built");
    Ok(Modules { dir })
}

/// Said of a check that was not made again.
const UNCHANGED: &str = " (unchanged since it passed)";

/// A check of the modules' source against one kernel: what has passed with the same input passes again.
pub struct Passed {
    file: PathBuf,
    input: String,
}

impl Passed {
    pub fn load(folder: &Path, build: &Build, checkout: &Path) -> Result<Passed> {
        let input = [
            serde_json::to_string(&build.stamp)?,
            tree_hash(&checkout.join("rust-module"))?,
            cache::sha256_file(&checkout.join("Kbuild"))?,
        ];
        Ok(Passed {
            file: folder.join("passed"),
            input: sha256(input.concat()),
        })
    }

    /// What to say of the check instead of making it.
    pub fn again(&self) -> Option<&'static str> {
        (fs::read_to_string(&self.file).ok()? == self.input).then_some(UNCHANGED)
    }

    pub fn record(&self) -> Result<()> {
        write_atomic(&self.file, &self.input)
    }
}

/// clippy on the modules; returns what to add to the check's name.
pub fn lint(cache: &Cache, build: &Build, arch: Arch, checkout: &Path) -> Result<&'static str> {
    let passed = Passed::load(&cache.dir("clippy")?, build, checkout)?;
    if let Some(again) = passed.again() {
        return Ok(again);
    }
    modules(cache, &build.dir, arch, checkout, true)?;
    passed.record()?;
    Ok("")
}

/// Of a kernel that the user has built: what it was built for, and its .config.
pub fn users_own(kdir: &Path) -> Result<(Arch, String)> {
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
pub fn same_tools(kdir: &Path, config: &str) -> Result<()> {
    compare_tools(kdir, config, |program| {
        crate::base::proc::output(Command::new(program).arg("--version")).or_exit(Exit::Setup)
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

/// The kernels of lanes.
pub fn lanes(
    cache: &Cache,
    lanes: Vec<Lane>,
    fragment: &str,
    source: &Prepared,
) -> Result<Vec<(Lane, Build)>> {
    // All at once: the last one is built long after the first.
    let mut need = 0;
    for lane in &lanes {
        need += planned(lane, fragment, |plan| plan.place(cache, source))?.needs();
    }
    cache.need_space("building the kernels", need)?;
    lanes
        .into_iter()
        .map(|lane| {
            let build = planned(&lane, fragment, |plan| plan.build(cache, source))?;
            Ok((lane, build))
        })
        .collect()
}

fn planned<T>(lane: &Lane, fragment: &str, act: impl FnOnce(&Plan) -> Result<T>) -> Result<T> {
    let own = format!("ci/lanes/{}.config", lane.name);
    let image = Path::new(lane.arch.image())
        .file_name()
        .context("an image has a name")?
        .to_string_lossy();
    act(&Plan {
        name: &lane.name,
        arch: lane.arch.kernel(),
        fragments: &[("Kconfig.fragment", fragment), (&own, &lane.config)],
        goals: &[&image, "modules"],
        extra: &[],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::base::proc;

    fn failing(script: &str) -> anyhow::Error {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let e = logged(
            Command::new("sh").args(["-c", script]),
            &log,
            &mut Progress::new("x", 0),
        )
        .unwrap_err();
        assert!(fs::read_to_string(&log).unwrap().contains("CC a.o"));
        e
    }

    #[test]
    fn a_variable_of_the_users_does_not_reach_a_build() {
        const NAME: &str = "build::kernel::tests::a_variable_of_the_users_does_not_reach_a_build";
        let names = "KCFLAGS KRUSTFLAGS KCONFIG_CONFIG KCONFIG_ALLCONFIG KBUILD_OUTPUT CROSS_COMPILE \
            LOCALVERSION LIBCLANG_PATH MAKEFLAGS KDIR LANE M O W V GIT_DIR CARGO_HOME LC_MESSAGES";
        let env: Vec<_> = names.split_whitespace().map(|n| (n, "a value")).collect();
        proc::tests::alone_with(NAME, &env, || {
            let mut printenv = Command::new("env");
            clean_env(&mut printenv, Path::new("/c"));
            let said = proc::output(&mut printenv).unwrap();
            for (name, _) in &env {
                assert!(std::env::var_os(name).is_some());
                let line = format!("{name}=a value\n");
                assert!(!said.contains(&line), "{said}");
            }
            for kept in ["PATH=", "LC_ALL=C.UTF-8\n", "KBUILD_BUILD_USER=nolocks\n"] {
                assert!(said.contains(kept), "{said}");
            }
        });
    }

    #[test]
    fn a_failed_build_shows_errors_tail_and_log() {
        let noise = "for i in $(seq 40); do echo CC $i.o; done";
        let text = failing(&format!(
            "echo CC a.o; echo 'x.c:3: error: boom' >&2; {noise}; exit 2"
        ))
        .to_string();
        for part in ["x.c:3: error: boom", "CC 40.o", "the whole log is"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("CC 5.o"), "{text}");
    }

    #[test]
    fn a_full_disk_is_named() {
        let e = failing("echo CC a.o; echo 'clang: error: No space left on device'; exit 1");
        assert_eq!(stage(&e), Some(Exit::Setup));
        let text = e.to_string();
        assert!(text.starts_with("the disk is full"), "{text}");
    }

    fn text(e: anyhow::Error) -> String {
        assert_eq!(stage(&e), Some(Exit::Tree), "{e:#}");
        e.to_string()
    }

    #[test]
    fn a_users_kernel_without_the_series_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kdir = dir.path();
        let refused = || text(users_own(kdir).unwrap_err());
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
        assert_eq!(users_own(kdir).unwrap().0, Arch::Arm64);
    }

    #[test]
    fn a_users_kernel_of_other_compilers_is_refused() {
        let ours = |program: &str| Ok(format!("{program} 1 #2\nmore\n"));
        let check = |config: &str| compare_tools(Path::new("/k"), config, ours);
        let config = "CONFIG_CC_VERSION_TEXT=\"clang-22 1 2\"\nCONFIG_RUSTC_VERSION_TEXT=\"/usr/bin/rustc 1 2\"\n";
        check(config).unwrap();
        for (old, new, said) in [
            ("clang-22", "gcc", "gcc 1 2"),
            ("rustc", "rustc0", "rustc0 1 2"),
            ("RUSTC", "X", "not set"),
        ] {
            let e = text(check(&config.replace(old, new)).unwrap_err());
            assert!(e.contains(said), "{e}");
        }
    }

    #[test]
    fn only_what_is_not_built_needs_space() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        let origin = serde_json::json!({ "version": "7.3.4", "from": "x", "id": "i" });
        let source: Prepared = serde_json::from_value(
            serde_json::json!({ "dir": "/src/debian", "origin": origin, "series": "s" }),
        )
        .unwrap();
        let plan = Plan {
            name: "x",
            arch: "x86_64",
            fragments: &[],
            goals: &[],
            extra: &[],
        };
        let build = plan.place(&cache, &source).unwrap();
        let needs = || build.needs();
        let first = needs();
        fs::write(build.dir.join("vmlinux"), "").unwrap();
        assert!(0 < needs() && needs() < first);
        write_json(&build.stamp_file(), &build.stamp).unwrap();
        assert_eq!(needs(), 0);
        // What passed with this build passes again, until a source changes.
        let checkout = dir.path().join("checkout");
        fs::create_dir_all(checkout.join("rust-module")).unwrap();
        fs::write(checkout.join("Kbuild"), "").unwrap();
        let passed = || Passed::load(dir.path(), &build, &checkout).unwrap();
        assert!(passed().again().is_none());
        passed().record().unwrap();
        assert!(
            passed()
                .again()
                .unwrap()
                .contains("unchanged since it passed")
        );
        fs::write(checkout.join("rust-module/a.rs"), "").unwrap();
        assert!(passed().again().is_none());
    }

    #[test]
    fn a_missing_module_names_its_stage() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rust-module")).unwrap();
        fs::write(dir.path().join("rust-module/a.ko"), "").unwrap();
        let modules = Modules {
            dir: dir.path().to_owned(),
        };
        assert!(modules.path("a").unwrap().ends_with("rust-module/a.ko"));
        assert_eq!(stage(&modules.path("b").unwrap_err()), Some(Exit::Build));
    }
}
