// SPDX-License-Identifier: GPL-2.0
//! `make decode`: the stack traces of a run by file and line. The kernel's own scripts/decode_stacktrace.sh
//! does it, with a kernel that has debug info and its functions at the same addresses as the run's.

use crate::base::cache::{read_json, write_atomic};
use crate::base::exit::{Exit, OrExit, fail};
use crate::base::pins::LLVM;
use crate::base::proc::{capture, clear_environment, output};
use crate::base::progress::Progress;
use crate::build::kernel::Build;
use crate::build::modules::Modules;
use crate::command::job::{Job, check_users_tree};
use crate::command::repro::{LaneFolder, boots};
use crate::host::setup::{self, Need};
use crate::report::page::{DECODED, render_page};
use crate::report::run::RunReport;
use crate::source::tree::Prepared;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What the script takes for a line of a trace. Others do not go through it: it would disassemble `Code:`
/// with the machine's own tools, whatever the guest was.
static FRAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"[^+ ]+\+0x[0-9a-f]+/0x[0-9a-f]+").expect("a constant"));

impl Job {
    /// Each console of `run` that has a trace gets its copy beside it.
    pub fn decode(&self, run: &Path, kdir: Option<&Path>) -> Result<()> {
        let mut lanes = Vec::new();
        for old in self.lane_folders(run)? {
            let consoles = traced(&old.folder)?;
            if !consoles.is_empty() {
                lanes.push((old, consoles));
            }
        }
        if lanes.is_empty() {
            println!("no console of RUN={} has a stack trace", run.display());
            return Ok(());
        }
        check_users_tree(kdir)?;
        setup::ensure(&self.cache, Need::Lanes, self.yes)?;
        let series = self.series()?;
        let source = self.source(kdir, &series, "")?;
        for (old, _) in &lanes {
            same_source(&old.metadata, &source)?;
        }
        // Whoever builds takes it anew.
        drop(source);
        for (old, consoles) in lanes {
            let run = old.folder.parent().map(Path::to_owned);
            self.decode_lane(old, &consoles, kdir)?;
            run.map_or(Ok(()), |run| link_decoded(&run))?;
        }
        Ok(())
    }

    fn decode_lane(
        &self,
        old: LaneFolder,
        consoles: &[PathBuf],
        kdir: Option<&Path>,
    ) -> Result<()> {
        let name = old.lane.name.clone();
        let lane = self.with_debug_info(old.lane)?;
        let (source, builds) = self.build_kernels_of(vec![lane], kdir)?;
        let (lane, build) = builds.first().context("no lane")?;
        same_code(&old.folder, build)?;
        let modules = self.build_lane_modules(lane, build)?;
        let (same, other) = same_modules(&old.folder.join("modules"), &modules)?;
        for module in other {
            println!(
                "{name}: {module}.ko is not the run's any more, and its frames stay as they are"
            );
        }
        let mut progress = Progress::new(format!("decode {name}"), 0);
        let texts = consoles.iter().map(fs::read_to_string);
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        // Only modules that are the run's are there to be found.
        let found = tempfile::tempdir()?;
        for module in same {
            let file = module.file_name().context("a module has a name")?;
            std::os::unix::fs::symlink(&module, found.path().join(file))?;
        }
        let texts = decoded(&texts, |frames| {
            let script = script(&source.dir, &build.dir.join("vmlinux"), found.path());
            run(script, frames)
        })?;
        progress.step("writing");
        progress.finish(&format!("{} consoles", consoles.len()));
        for (console, text) in consoles.iter().zip(texts) {
            let file = console.with_file_name(DECODED);
            write_atomic(&file, &text)?;
            println!("{}", file.display());
        }
        Ok(())
    }
}

/// Has the run's page show what was decoded; not that of a run whose report this runner cannot read.
fn link_decoded(run: &Path) -> Result<()> {
    let Some(mut report) = read_json::<RunReport>(&run.join("report.json")) else {
        return Ok(());
    };
    for lane in &mut report.lanes {
        let folder = run.join(&lane.name);
        let is_decoded = |boot: &&String| folder.join(boot).join(DECODED).exists();
        lane.decoded = lane.consoles.iter().filter(is_decoded).cloned().collect();
    }
    write_atomic(&run.join("report.html"), &render_page(&report)?)
}

/// The consoles of a lane that have a stack trace.
fn traced(lane: &Path) -> Result<Vec<PathBuf>> {
    let mut consoles = Vec::new();
    for boot in boots(lane)? {
        let console = boot.join("console.txt");
        if FRAME.is_match(&fs::read_to_string(&console)?) {
            consoles.push(console);
        }
    }
    consoles.sort();
    Ok(consoles)
}

/// Before anything is built of another source than the run's.
fn same_source(metadata: &Value, source: &Prepared) -> Result<()> {
    for (what, was, is) in [
        (
            "kernel tree",
            &metadata["tree"]["id"],
            source.origin.id.as_str(),
        ),
        ("series", &metadata["series"], source.series.as_str()),
    ] {
        if was == is {
            continue;
        }
        let short = |id: &str| id.chars().take(12).collect::<String>();
        let yours = if metadata["changes"].is_null() {
            ""
        } else {
            "; its kernel was of a tree with changes of its own: KDIR= names that tree as it was then"
        };
        let what = format!(
            "{}: its {what} was {}, and here it is {}, so that the lines would be wrong ones. The checkout that it was made in: \
             git worktree add ../then {}; make decode there{yours}",
            metadata["lane"].as_str().unwrap_or("the run"),
            short(was.as_str().unwrap_or("another")),
            short(is),
            short(metadata["project"].as_str().unwrap_or("COMMIT")),
        );
        return Err(fail(Exit::Tree, what));
    }
    Ok(())
}

/// The debug info of ci/debug-info.config moves no function and no call (on arm64 the first instructions of
/// a function come in another order); a configuration or a compiler of another day does. Each function's
/// address tells.
fn same_code(lane: &Path, build: &Build) -> Result<()> {
    let map = |dir: &Path| {
        let file = dir.join("System.map");
        fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))
            .or_exit(Exit::Usage)
    };
    let (was, is) = (map(lane)?, map(&build.dir)?);
    let (was, is) = (functions(&was), functions(&is));
    if was != is {
        let what = format!(
            "{}: {} of the {} functions are at other addresses in {}, so that the lines would be wrong ones: Kconfig.fragment or the \
             compilers have changed since the run",
            lane.display(),
            was.difference(&is).count(),
            was.len(),
            build.dir.display()
        );
        return Err(fail(Exit::Build, what));
    }
    Ok(())
}

/// Of what nm prints: address and name of what is code, that of initialisation from its own beginning,
/// because data lies below it.
fn functions(symbols: &str) -> BTreeSet<(u64, &str)> {
    let mut base = 0;
    let mut found = BTreeSet::new();
    for line in symbols.lines() {
        let mut words = line.split_whitespace();
        let (address, kind) = (words.next().unwrap_or_default(), words.next());
        let (Ok(address), Some("t" | "T")) = (u64::from_str_radix(address, 16), kind) else {
            continue;
        };
        let name = words.next().unwrap_or_default();
        if name == "_sinittext" {
            base = address;
        }
        found.insert((address.wrapping_sub(base), name));
    }
    found
}

/// Those of the run that are built here just so, and the names of those that are not.
fn same_modules(old: &Path, new: &Modules) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut same, mut other) = (Vec::new(), Vec::new());
    let nm = |file: &Path| output(Command::new(format!("llvm-nm{}", *LLVM)).arg(file));
    for entry in fs::read_dir(old).into_iter().flatten() {
        let file = entry?.path();
        let name = file.file_stem().context("a module has a name")?;
        let name = name.to_string_lossy().into_owned();
        match new.path(&name) {
            Ok(twin) if functions(&nm(&file)?) == functions(&nm(&twin)?) => same.push(twin),
            _ => other.push(name),
        }
    }
    Ok((same, other))
}

fn script(source: &Path, vmlinux: &Path, modules: &Path) -> Command {
    let mut bash = Command::new("bash");
    clear_environment(&mut bash);
    bash.arg(source.join("scripts/decode_stacktrace.sh"))
        .arg(vmlinux)
        .arg(source)
        .arg(modules)
        .env("LLVM", &*LLVM);
    bash
}

fn run(mut script: Command, frames: &str) -> Result<String> {
    let mut stdin = tempfile::tempfile()?;
    std::io::Write::write_all(&mut stdin, frames.as_bytes())?;
    std::io::Seek::rewind(&mut stdin)?;
    let out = capture(&mut script, stdin)?;
    ensure!(
        out.status.success(),
        "decode_stacktrace.sh: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The consoles with each frame as `decode` has it. It is asked once: the script remembers what it has
/// looked up, and each look at a vmlinux takes a second.
fn decoded(
    consoles: &[String],
    decode: impl FnOnce(&str) -> Result<String>,
) -> Result<Vec<String>> {
    let lines = consoles.iter().flat_map(|text| text.lines());
    let frames: Vec<&str> = lines.filter(|l| FRAME.is_match(l)).collect();
    let said = decode(&(frames.join("\n") + "\n"))?;
    ensure!(
        said.lines().count() == frames.len(),
        "decode_stacktrace.sh made {} lines of {}",
        said.lines().count(),
        frames.len()
    );
    let mut said = said.lines();
    let count = |line: &str| FRAME.find_iter(line).count();
    let mut line = |line: &str| match count(line) {
        0 => format!("{line}\n"),
        // One that it could not look up comes back without the module's brackets.
        n => match said.next() {
            Some(said) if count(said) < n => format!("{said}\n"),
            _ => format!("{line}\n"),
        },
    };
    Ok(consoles
        .iter()
        .map(|text| text.lines().map(&mut line).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::cache::write_json;
    use crate::base::exit::stage;
    use crate::base::proc::show;
    use crate::command::job::tests::job;
    use crate::report::made_up;
    use crate::source::series::tests::{fixture, sh};
    use crate::source::tree::open_users_tree;

    #[test]
    fn only_frames_change_and_each_console_gets_its_own() {
        let consoles = [
            "[ 1.0] a\n[ 1.1]  f+0x1/0x2\n[ 1.2] Code: 00 +0x\n",
            "",
            "[ 2.0]  ? g+0x10/0x20 [m]\n[ 2.1] b\n",
        ]
        .map(str::to_owned);
        let mut asked = String::new();
        let texts = decoded(&consoles, |frames| {
            frames.clone_into(&mut asked);
            Ok(frames.replace("f+0x1/0x2", "f (x.c:1)").replace("[m]", "m"))
        });
        assert_eq!(
            texts.unwrap(),
            [
                "[ 1.0] a\n[ 1.1]  f (x.c:1)\n[ 1.2] Code: 00 +0x\n",
                "",
                "[ 2.0]  ? g+0x10/0x20 [m]\n[ 2.1] b\n",
            ]
        );
        assert_eq!(asked, "[ 1.1]  f+0x1/0x2\n[ 2.0]  ? g+0x10/0x20 [m]\n");
        assert!(decoded(&consoles, |_| Ok("one line\n".into())).is_err());
    }

    #[test]
    fn the_kernels_script_is_asked_with_llvm() {
        let line = script(Path::new("/src"), Path::new("/b/vmlinux"), Path::new("/m"));
        assert_eq!(
            show(&line),
            "bash /src/scripts/decode_stacktrace.sh /b/vmlinux /src /m"
        );
        assert!(line.get_envs().any(|(name, _)| name == "LLVM"));
        let said = run(Command::new("rev"), "ab\n").unwrap();
        assert_eq!(said, "ba\n");
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo no >&2; exit 2"]);
        assert!(run(failing, "").unwrap_err().to_string().contains("no"));
    }

    #[test]
    fn functions_are_compared_and_data_is_not() {
        let map = "00 T a\n10 t b\n20 d c\n";
        let of = |change: &str| map.replace("20 d c", change);
        assert_eq!(functions(map), functions(&of("28 d c")));
        assert_ne!(functions(map), functions(&map.replace("10 t", "14 t")));
        assert_ne!(functions(map), functions(&of("20 t c")));
        let later = |at: u64| format!("{map}{at:x} T _sinittext\n{:x} t init\n", at + 16);
        assert_eq!(functions(&later(0x1000)), functions(&later(0x2000)));
        assert_eq!(functions(&later(0x1000)).len(), 4);
    }

    #[test]
    fn another_source_than_the_runs_is_refused() {
        let f = fixture(true);
        let cache = tempfile::tempdir().unwrap();
        let job = job(cache.path());
        let source = open_users_tree(&f.tree)
            .unwrap()
            .prepare(&job.cache, &f.series, "");
        let source = source.unwrap();
        let mut run = serde_json::json!({
            "lane": "l", "project": "0123456789abcdef", "changes": null,
            "tree": { "id": source.origin.id }, "series": source.series,
        });
        same_source(&run, &source).unwrap();
        run["series"] = "other".into();
        let e = same_source(&run, &source).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree));
        let text = e.to_string();
        assert!(
            text.contains("its series was other") && text.contains("add ../then 0123456789ab;"),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_a_trace_needs_no_kernel() {
        let dir = tempfile::tempdir().unwrap();
        sh(
            dir.path(),
            "mkdir main out; echo all is well >main/console.txt; echo 'f+0x1/0x2' >out/x",
        );
        assert!(traced(dir.path()).unwrap().is_empty());
        sh(dir.path(), "echo '[ 1.0]  f+0x1/0x2' >>main/console.txt");
        assert_eq!(
            traced(dir.path()).unwrap(),
            [dir.path().join("main/console.txt")]
        );
    }
    #[test]
    fn the_page_of_a_run_links_what_was_decoded() {
        let run = tempfile::tempdir().unwrap();
        let report = made_up::run(vec![made_up::lane("good")]);
        write_json(&run.path().join("report.json"), &report).unwrap();
        let page = || {
            link_decoded(run.path()).unwrap();
            fs::read_to_string(run.path().join("report.html")).unwrap()
        };
        assert!(!page().contains(DECODED));
        sh(
            run.path(),
            &format!("mkdir -p good/main; echo a >good/main/{DECODED}"),
        );
        assert_eq!(page().matches(DECODED).count(), 1);
    }
}
