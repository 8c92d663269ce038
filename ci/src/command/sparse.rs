// SPDX-License-Identifier: GPL-2.0
//! `make sparse`: what the series touches in mm/ gives sparse nothing new to warn of.

use crate::base::cache::{Cache, write_atomic};
use crate::base::exit::{Exit, OrExit};
use crate::base::pins::PINS;
use crate::base::proc::{check_interrupt, output};
use crate::base::progress::Progress;
use crate::build::make::{make, run_logged};
use crate::command::args::Where;
use crate::command::job::Job;
use crate::host::other_suite::{Packages, started_with_its_libc};
use crate::source::debian;
use crate::verdict::check::{Check, Found};
use crate::verdict::tally::Tally;
use anyhow::{Context, Result, ensure};
use regex::Regex;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Empty without the kernel's flags, because checker-valid.sh gives none.
const SEEDED: &str = "#ifdef __KERNEL__
#include <linux/types.h>
static unsigned int seeded(gfp_t gfp)
{
	return gfp;
}
#endif
";

/// Of a trace event with the names of all flags, mainline's too, sparse makes no string but the error "too long token
/// expansion", and then it evaluates nothing: no string is made of anything.
const NO_STRINGS: &str = r#"-D__LINUX_STRINGIFY_H '-D__stringify(x...)=""' '-DFILE_LINE=""'"#;

pub fn run(job: &Job) -> Result<()> {
    let mut tally = Tally::default();
    let checked = check(job, &mut tally)?;
    println!("{}", tally.closing());
    // Where no sparse can be had, saying so is all that was asked for.
    if checked { tally.result() } else { Ok(()) }
}

/// Whether there was a sparse to check with.
pub fn check(job: &Job, tally: &mut Tally) -> Result<bool> {
    const NAME: &str = "sparse: the seeded error is reported, and nothing new";
    let (source, builds) = match job.build_kernels(&Where::default()) {
        Ok(built) => built,
        Err(e) => return tally.check(NAME, Err(e)).map(|()| true),
    };
    let (lane, build) = builds.first().context("no lane")?;
    let trees = CheckedTrees {
        new: &source.dir,
        old: &debian::fetch_unless_cached(&job.cache)?.pristine()?,
        touched: job.series()?.files().into_iter().cloned().collect(),
    };
    let wrapper = match working(&job.cache, &trees, &build.dir) {
        Ok(wrapper) => wrapper,
        Err(e) => {
            check_interrupt()?;
            let why = format!("sparse was not checked: {e:#}");
            println!("{}", why.lines().next().unwrap_or_default());
            tally.take(&[Check::case(NAME, Found::Skipped { why })]);
            return Ok(false);
        }
    };
    let log = build.dir.join("nolocks-sparse.log");
    let mut progress = Progress::new("sparse", 0);
    // C=2 looks at objects that are up to date, and leaves them as they are.
    let mut make = make(&job.cache, lane.arch.kernel(), trees.new, &build.dir);
    make.arg("C=2")
        .arg(format!("CHECK=sh {}", wrapper.display()))
        .args(trees.checked().map(|f| f.with_extension("o")));
    let ran = run_logged(&mut make, &log, &mut progress).or_exit(Exit::Build);
    progress.finish("ran");
    let result = ran.and_then(|()| trees.judge_log(&fs::read_to_string(&log)?));
    tally.check(NAME, result)?;
    Ok(true)
}

struct CheckedTrees<'a> {
    new: &'a Path,
    old: &'a Path,
    touched: BTreeSet<PathBuf>,
}

impl CheckedTrees<'_> {
    fn checked(&self) -> impl Iterator<Item = &PathBuf> {
        let c = |f: &&PathBuf| f.starts_with("mm") && f.extension().is_some_and(|e| e == "c");
        self.touched.iter().filter(c)
    }

    /// Each file goes to sparse together with the seeded error, so that both meet the same flags;
    /// then the file that it was before, with the headers of before.
    fn wrapper(&self, dir: &Path, sparse: &str) -> Result<PathBuf> {
        let (script, seeded) = (dir.join("nolocks-sparse.sh"), dir.join("nolocks-seeded.c"));
        write_atomic(&seeded, SEEDED)?;
        let sparse = format!("{sparse} {NO_STRINGS}");
        let text = format!(
            r#"for file; do :; done
{sparse} "$@" {seeded} || exit
old={old}/${{file#{new}/}}
[ -e "$old" ] || exit 0
for arg; do
	shift
	[ "$arg" = "$file" ] || set -- "$@" "$arg"
done
exec {sparse} -I{old}/include "$@" "$old"
"#,
            seeded = seeded.display(),
            new = self.new.display(),
            old = self.old.display(),
        );
        write_atomic(&script, &text)?;
        Ok(script)
    }

    fn judge_log(&self, log: &str) -> Result<()> {
        let lines = log.lines().filter_map(|l| l.strip_prefix("  CHECK "));
        let ran: Vec<&Path> = lines.map(|l| Path::new(l.trim())).collect();
        for file in self.checked() {
            let there = ran.contains(&file.as_path());
            ensure!(there, "make did not check {}", file.display());
        }
        let complaint = Regex::new(r"(?m)^(\S+?):[0-9:]+ ((?:warning|error): .*)$")?;
        let said = complaint.captures_iter(log).map(|c| c.extract().1);
        let said: Vec<(&Path, &str)> = said.map(|[file, what]| (Path::new(file), what)).collect();
        let seeded = said
            .iter()
            .filter(|(f, what)| f.ends_with("nolocks-seeded.c") && what.contains("incorrect type"))
            .count();
        let files = ran.len();
        ensure!(
            seeded == files,
            "the seeded error was reported {seeded} times with {files} files"
        );
        let of = |tree: &Path| -> Vec<(&Path, &str)> {
            said.iter()
                .filter_map(|(f, what)| Some((f.strip_prefix(tree).ok()?, *what)))
                .filter(|(f, _)| self.touched.contains(*f))
                .collect()
        };
        let mut fresh = of(self.new);
        for known in of(self.old) {
            if let Some(i) = fresh.iter().position(|f| *f == known) {
                fresh.swap_remove(i);
            }
        }
        ensure!(fresh.is_empty(), "{fresh:?}");
        Ok(())
    }
}

/// With a sparse that its own test refuses, the kernel's make checks nothing and succeeds.
fn working(cache: &Cache, trees: &CheckedTrees, dir: &Path) -> Result<PathBuf> {
    let valid = |sparse: &str| -> Result<PathBuf> {
        let wrapper = trees.wrapper(dir, sparse)?;
        let test = trees.new.join("scripts/checker-valid.sh");
        let said = output(Command::new("sh").arg(test).arg("sh").arg(&wrapper))?;
        ensure!(said.trim() == "1", "checker-valid.sh refuses {sparse}");
        Ok(wrapper)
    };
    if which::which("sparse").is_ok()
        && let Ok(wrapper) = valid("sparse")
    {
        return Ok(wrapper);
    }
    // With the C library that it was linked to.
    let other = Packages {
        folder: "sparse",
        suite: &PINS.debian.sparse,
        names: &["sparse", "libc6"],
    };
    let words = started_with_its_libc(&other.fetched(cache)?, "usr/bin/sparse")?;
    valid(&words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees<'a>(new: &'a Path, old: &'a Path) -> CheckedTrees<'a> {
        let touched = ["mm/a.c", "mm/internal.h", "tools/b.c"].map(PathBuf::from);
        CheckedTrees {
            new,
            old,
            touched: touched.into(),
        }
    }

    #[test]
    fn only_what_is_new_in_a_touched_file_counts_and_the_control_must() {
        let good = "  CHECK   mm/a.c\n/new/mm/a.c:9:1: warning: x\n/old/mm/a.c:7:1: warning: x\n/new/mm/other.h:1:1: warning: y\n/b/nolocks-seeded.c:5:16: warning: incorrect type in return\n";
        let judge = |log: &str| trees(Path::new("/new"), Path::new("/old")).judge_log(log);
        judge(good).unwrap();
        for bad in [
            good.replace("/old/mm/a.c", "/old/mm/z.c"),
            good.replace("other.h", "internal.h"),
            good.replace("mm/other.h:1:1: warning: y", "mm/a.c:2:1: warning: x"),
            good.replace("new/mm/other.h:1:1: warning", "new/mm/a.c:1:1: error"),
            good.replace("incorrect type", "else"),
            good.replace("CHECK   mm/a.c", "CC      mm/a.c"),
            good.replace("CHECK   mm/a.c", "CHECK   mm/a.c\n  CHECK   mm/c.c"),
            String::new(),
        ] {
            assert!(judge(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sparse_gets_the_file_with_the_control_and_then_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("old/mm")).unwrap();
        fs::write(dir.path().join("old/mm/a.c"), "").unwrap();
        let (new, old) = (dir.path().join("new"), dir.path().join("old"));
        let script = trees(&new, &old).wrapper(dir.path(), "echo").unwrap();
        let said = |file: &str| {
            let args = [script.as_os_str(), "-Wx".as_ref()];
            output(Command::new("sh").args(args).arg(new.join(file))).unwrap()
        };
        let d = dir.path().display();
        let no_strings = NO_STRINGS.replace('\'', "");
        let all = format!(
            "{no_strings} -Wx {d}/new/mm/a.c {d}/nolocks-seeded.c\n{no_strings} -I{d}/old/include -Wx {d}/old/mm/a.c\n"
        );
        assert_eq!(said("mm/a.c"), all);
        let created = format!("{no_strings} -Wx {d}/new/mm/new.c {d}/nolocks-seeded.c\n");
        assert_eq!(said("mm/new.c"), created);
    }
}
