// SPDX-License-Identifier: GPL-2.0
//! Kernel trees: Debian's packaged 7.3, or the user's own, of which only a copy is ever built.

use crate::base::cache::{self, Cache, Lock, remove_dir, sha256, sha256_file, write_json};
use crate::base::exit::{Exit, OrExit, fail, perhaps_network};
use crate::base::proc::{check_interrupt, output, run_lines};
use crate::base::progress::Progress;
use crate::source::series::{Series, State};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use walkdir::WalkDir;

const PACKAGE: &str = "linux-source-7.3";
/// In the order asked; the first that has the package is used.
const SUITES: [&str; 3] = ["trixie-backports", "sid", "experimental"];
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
pub const SUPPORTED: &str = "7.3-rc7 to 7.3.x";

/// What a tree is, for metadata.json.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Origin {
    pub version: String,
    /// Where it came from: a Debian package version, or the user's folder.
    pub from: String,
    /// SHA-256 of the tarball, git's tree id, or a SHA-256 over all files.
    pub id: String,
}

pub struct Tree {
    pub origin: Origin,
    slot: String,
    source: Source,
}

enum Source {
    Pristine(PathBuf),
    Git(PathBuf),
    Folder(PathBuf),
}

/// A tree with the series on it, in the cache, ready to be built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    pub dir: PathBuf,
    pub origin: Origin,
    pub series: String,
    /// No other run may put another series on it while this one builds.
    #[serde(skip)]
    _hold: Option<Arc<Lock>>,
}

// ---- Debian's tree ------------------------------------------------------------------------------

pub fn debian(cache: &Cache) -> Result<Tree> {
    let base = cache.dir("tree")?;
    if let Some(tree) = newest_cached(&base)? {
        return Ok(tree);
    }
    let _alone = cache.lock("tree")?;
    if let Some(tree) = newest_cached(&base)? {
        return Ok(tree);
    }
    fetch(cache, &base, None)?;
    newest_cached(&base)?.context("the tree that was just extracted is gone")
}

/// Asks Debian for a newer tree than the cached one, for `make setup`; says what came of it.
pub fn renewed(cache: &Cache) -> Result<String> {
    let base = cache.dir("tree")?;
    let _alone = cache.lock("tree")?;
    let have = newest_cached(&base)?.map(|t| t.origin);
    let Err(e) = fetch(cache, &base, have.as_ref()) else {
        let now = newest_cached(&base)?.context("the tree that was just extracted is gone")?;
        return Ok(format!(
            "the newest kernel source is there: {}",
            now.origin.from
        ));
    };
    check_interrupt()?;
    match have {
        Some(have) => Ok(format!("{e:#}\nthe kernel source stays {}", have.from)),
        None => Err(e),
    }
}

impl Origin {
    /// The version of Debian's package, which may differ where the kernel's does not.
    fn package(&self) -> Option<&str> {
        self.from.strip_prefix("Debian ")?.split(' ').nth(1)
    }
}

fn newest_cached(base: &Path) -> Result<Option<Tree>> {
    let mut found: Vec<(std::time::SystemTime, Tree)> = Vec::new();
    for entry in fs::read_dir(base)?.flatten() {
        // The description is written last, so that an interrupted extraction is not taken for one.
        let description = entry.path().join("origin.json");
        if let Some(origin) = cache::read_json::<Origin>(&description) {
            let tree = Tree {
                slot: "debian".into(),
                source: Source::Pristine(entry.path().join("linux")),
                origin,
            };
            found.push((fs::metadata(&description)?.modified()?, tree));
        }
    }
    found.sort_by_key(|(time, _)| *time);
    Ok(found.pop().map(|(_, tree)| tree))
}

/// Nothing is fetched that is not newer than `have`.
fn fetch(cache: &Cache, base: &Path, have: Option<&Origin>) -> Result<()> {
    download(cache, base, have)
        .context("fetching the kernel source")
        .or_exit(Exit::Tree)
}

fn download(cache: &Cache, base: &Path, have: Option<&Origin>) -> Result<()> {
    let apt = Apt::new(cache)?;
    let (suite, version) = apt.find()?;
    if let Some(have) = have.and_then(Origin::package)
        && !newer(&version, have)?
    {
        return Ok(());
    }
    cache.need_space("the kernel source", 4500)?;
    let temp = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(base)?;
    let mut progress = Progress::new(format!("{PACKAGE} {version} from Debian {suite}"), 0);
    progress.say("downloading");
    let mut said = String::new();
    let status = run_lines(
        apt.command("apt-get")
            .args(["--quiet=2", "download", &format!("{PACKAGE}={version}")])
            .current_dir(temp.path()),
        |line| {
            progress.say(line);
            said += &format!("{line}\n");
        },
    )?;
    if !status.success() {
        return Err(fail(
            Exit::Tree,
            no_archive("downloading the kernel source failed", &said),
        ));
    }
    let deb = fs::read_dir(temp.path())?
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "deb"))
        .context("apt-get downloaded nothing")?;
    progress.say("unpacking");
    output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&deb)
            .arg(temp.path().join("deb")),
    )?;
    let tarball = temp.path().join(format!("deb/usr/src/{PACKAGE}.tar.xz"));
    let id = sha256_file(&tarball)?;
    install_tarball(
        base,
        &tarball,
        &format!("Debian {PACKAGE} {version} ({suite})"),
        &id,
    )?;
    progress.finish(&format!("sha256 {id}"));
    Ok(())
}

/// Packages of a suite, extracted below `into` and not installed.
pub fn extract(cache: &Cache, suite: &str, packages: &[&str], into: &Path) -> Result<()> {
    // The private apt has one folder, and asks for one suite at a time.
    let _alone = cache.lock("tree")?;
    let apt = Apt::new(cache)?;
    apt.ask(suite)?;
    let debs = tempfile::tempdir_in(into)?;
    output(
        apt.command("apt-get")
            .args(["--quiet=2", "download"])
            .args(packages.iter().map(|p| format!("{p}/{suite}")))
            .current_dir(debs.path()),
    )?;
    for deb in fs::read_dir(debs.path())? {
        output(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(deb?.path())
                .arg(into),
        )?;
    }
    Ok(())
}

fn no_archive(what: &str, said: &str) -> String {
    let said = said.trim_end();
    format!(
        "{what}{}: `apt-get update` must work; or give your own tree with KDIR=\n{said}",
        perhaps_network(said)
    )
}

fn install_tarball(base: &Path, tarball: &Path, from: &str, id: &str) -> Result<()> {
    let place = base.join(&id[..16]);
    remove_dir(&place)?;
    let temp = tempfile::Builder::new()
        .prefix(".extract-")
        .tempdir_in(base)?;
    let linux = temp.path().join("linux");
    fs::create_dir(&linux)?;
    output(
        Command::new("tar")
            .args(["--extract", "--strip-components=1", "--file"])
            .arg(tarball)
            .arg("--directory")
            .arg(&linux),
    )?;
    let version = version_of(&linux)?;
    check_supported(&version)?;
    let origin = Origin {
        version: version.to_string(),
        from: from.into(),
        id: id.into(),
    };
    write_json(&temp.path().join("origin.json"), &origin)?;
    fs::rename(temp.keep(), &place)?;
    Ok(())
}

/// An apt of its own: another suite is asked without touching the machine's configuration.
struct Apt {
    dir: PathBuf,
    uri: String,
}

impl Apt {
    fn new(cache: &Cache) -> Result<Apt> {
        let uri = machine_archive()?.ok_or_else(|| {
            fail(
                Exit::Setup,
                "apt's configuration names no Debian archive to fetch from; a kernel tree can be given with KDIR=",
            )
        })?;
        let dir = cache.dir("apt")?;
        for sub in ["lists/partial", "archives/partial", "sources"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        Ok(Apt { dir, uri })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", Path::new("/dev/null").to_owned()),
            ("Dir::Etc::sourceparts", self.dir.join("sources")),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.clone()),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        // apt's own user may not enter a cache below a home folder.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }

    fn ask(&self, suite: &str) -> Result<()> {
        let text = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n",
            self.uri
        );
        fs::write(self.dir.join("sources/nolocks.sources"), text)?;
        output(
            self.command("apt-get")
                .args(["--quiet=2", "update", "--error-on=any"]),
        )
        .map(drop)
    }

    fn find(&self) -> Result<(&'static str, String)> {
        first(|suite| {
            self.ask(suite)?;
            newest(&output(
                self.command("apt-cache").args(["madison", PACKAGE]),
            )?)
        })
    }
}

/// The first suite that has a version. A mirror may lack one, and that is said only where no other
/// has any.
fn first(
    mut version: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<(&'static str, String)> {
    let mut lacking = None;
    for suite in SUITES {
        match version(suite) {
            Ok(Some(version)) => return Ok((suite, version)),
            Ok(None) => {}
            Err(e) => {
                check_interrupt()?;
                lacking.get_or_insert(e);
            }
        }
    }
    let what = match lacking {
        Some(e) => no_archive("asking Debian for it failed", &format!("{e:#}")),
        None => format!(
            "Debian has no {PACKAGE} in {}: give a {SUPPORTED} tree with KDIR=",
            SUITES.join(", ")
        ),
    };
    Err(fail(Exit::Tree, what))
}

/// The Debian archive that this machine's own apt uses.
pub fn machine_archive() -> Result<Option<String>> {
    let text =
        output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)|$(LABEL)"]))
            .or_exit(Exit::Setup)?;
    Ok(archive_uri(&text))
}

fn archive_uri(indextargets: &str) -> Option<String> {
    let lines = indextargets.lines().filter_map(|l| l.split_once('|'));
    lines
        .filter(|(uri, label)| {
            // Without downloaded lists there are no labels, and the path alone tells: of the archive, or
            // of a file that lists mirrors of it, mirror+file:/etc/apt/mirrors/debian.list.
            let path = uri.trim_end_matches('/').trim_end_matches(".list");
            let archive = *label == "Debian" || (label.is_empty() && path.ends_with("/debian"));
            // A CD holds one release.
            archive && !uri.starts_with("cdrom:")
        })
        .map(|(uri, _)| uri.to_owned())
        .next()
}

fn newest(madison: &str) -> Result<Option<String>> {
    let mut best: Option<String> = None;
    for version in madison.lines().filter_map(|l| l.split('|').nth(1)) {
        let version = version.trim();
        if best.as_ref().map_or(Ok(true), |b| newer(version, b))? {
            best = Some(version.to_owned());
        }
    }
    Ok(best)
}

fn newer(version: &str, than: &str) -> Result<bool> {
    Ok(Command::new("dpkg")
        .args(["--compare-versions", version, "gt", than])
        .status()?
        .success())
}

// ---- the user's tree ----------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    extra: String,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}.{}.{}{}",
            self.major, self.minor, self.patch, self.extra
        )
    }
}

pub fn version_of(dir: &Path) -> Result<Version> {
    let not_kernel = || {
        fail(
            Exit::Tree,
            format!(
                "{} is not a kernel tree: its Makefile has no VERSION and PATCHLEVEL; give the top folder of a {SUPPORTED} source tree",
                dir.display()
            ),
        )
    };
    let text = fs::read_to_string(dir.join("Makefile")).map_err(|_| not_kernel())?;
    let field = |name: &str| {
        text.lines().take(20).find_map(|l| {
            let (key, value) = l.split_once('=')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let number = |name: &str| field(name).and_then(|v| v.parse().ok());
    match (
        number("VERSION"),
        number("PATCHLEVEL"),
        number("SUBLEVEL"),
        field("EXTRAVERSION"),
    ) {
        (Some(major), Some(minor), Some(patch), Some(extra))
            if dir.join("mm/page_alloc.c").exists() =>
        {
            Ok(Version {
                major,
                minor,
                patch,
                extra,
            })
        }
        _ => Err(not_kernel()),
    }
}

pub fn check_supported(v: &Version) -> Result<()> {
    let rc = v.extra.strip_prefix("-rc").map(|r| {
        r.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap_or(0)
    });
    let good = (v.major, v.minor) == (7, 3) && (v.patch > 0 || rc.is_none_or(|n: u32| n >= 7));
    if !good {
        return Err(fail(
            Exit::Tree,
            format!("the tree is {v}, and the series supports {SUPPORTED}"),
        ));
    }
    Ok(())
}

pub fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir);
    forget_repository(&mut git);
    git
}

/// A git hook's environment names the repository that it runs for, and git would act on that one
/// whatever the folder.
pub fn forget_repository(command: &mut Command) {
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_COMMON_DIR",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
    ] {
        command.env_remove(name);
    }
}

/// A folder inside somebody else's repository is no git tree of its own: git would act on the
/// outer one. One with a .git that git does not take is nothing to guess about.
pub fn is_git(dir: &Path) -> Result<bool> {
    let why = match output(git(dir).args(["rev-parse", "--show-toplevel"])) {
        Ok(top) => {
            let top = PathBuf::from(top.trim_end_matches('\n'));
            if fs::canonicalize(&top)? == fs::canonicalize(dir)? {
                return Ok(true);
            }
            format!("git takes {} for its top folder", top.display())
        }
        Err(e) => format!("{e:#}"),
    };
    check_interrupt()?;
    if dir.join(".git").symlink_metadata().is_ok() {
        let what = format!("{} has a .git, and git cannot use it: {why}", dir.display());
        return Err(fail(Exit::Tree, what));
    }
    Ok(false)
}

/// Refuses a git tree with changes, or in the middle of something.
pub fn check_clean(dir: &Path) -> Result<()> {
    for (name, what) in [
        ("rebase-apply", "git am or git rebase"),
        ("rebase-merge", "git rebase"),
        ("MERGE_HEAD", "git merge"),
        ("CHERRY_PICK_HEAD", "git cherry-pick"),
        ("REVERT_HEAD", "git revert"),
        ("BISECT_LOG", "git bisect"),
    ] {
        let path = output(git(dir).args(["rev-parse", "--git-path", name]))?;
        if dir.join(path.trim()).exists() {
            return Err(fail(
                Exit::Tree,
                format!(
                    "{} is in the middle of {what}: finish or abort it first",
                    dir.display()
                ),
            ));
        }
    }
    let status = output(git(dir).args([
        "--no-optional-locks",
        "status",
        "--porcelain",
        "--untracked-files=no",
    ]))?;
    if !status.is_empty() {
        let first: Vec<&str> = status.lines().take(5).collect();
        return Err(fail(
            Exit::Tree,
            format!(
                "{} has uncommitted changes: commit or stash them first\n  {}",
                dir.display(),
                first.join("\n  ")
            ),
        ));
    }
    Ok(())
}

/// Products of a build inside the tree, which would make an O= build refuse the copy.
const PRODUCTS: &[&str] = &[
    "*.o",
    "*.ko",
    "*.a",
    "*.cmd",
    "*.mod",
    "*.mod.c",
    "*.order",
    "*.so",
    "*.rmeta",
    "*.symvers",
    "*.dtb",
    "/.config",
    "/.config.old",
    "/vmlinux*",
    "/System.map",
    "/include/config",
    "/include/generated",
    "/arch/*/include/generated",
    "/.tmp*",
    "/.git",
    "/modules.builtin*",
    "/.nolocks*",
];

pub fn own(dir: &Path) -> Result<Tree> {
    let dir = fs::canonicalize(dir)
        .map_err(|e| fail(Exit::Tree, format!("KDIR={}: {e}", dir.display())))?;
    let version = version_of(&dir)?;
    check_supported(&version)?;
    let slot = format!("kdir-{}", &sha256(dir.as_os_str().as_encoded_bytes())[..12]);
    let (source, id) = if is_git(&dir)? {
        check_clean(&dir)?;
        let id = output(git(&dir).args(["rev-parse", "HEAD^{tree}"]))?
            .trim()
            .to_owned();
        (Source::Git(dir.clone()), id)
    } else {
        (Source::Folder(dir.clone()), String::new())
    };
    let origin = Origin {
        version: version.to_string(),
        from: dir.display().to_string(),
        id,
    };
    Ok(Tree {
        origin,
        slot,
        source,
    })
}

// ---- the copy that is built ---------------------------------------------------------------------

impl Tree {
    /// The unpatched tree as it was fetched, to be read only.
    pub fn pristine(&self) -> Result<PathBuf> {
        match &self.source {
            Source::Pristine(dir) => Ok(dir.clone()),
            Source::Git(_) | Source::Folder(_) => {
                Err(fail(Exit::Tree, "the user's tree is not the pristine one"))
            }
        }
    }

    /// Puts the tree with `series` on it into its place in the cache. Files that are the same as
    /// before keep their times, so that make builds only what a new series touches.
    pub fn prepare(mut self, cache: &Cache, series: &Series, use_: &str) -> Result<Prepared> {
        let slot = format!("{}{use_}", self.slot);
        let lock = format!("src-{slot}");
        loop {
            let hold = cache.share(&lock)?;
            let base = cache.dir("src")?;
            let done: Option<Prepared> = cache::read_json(&base.join(format!("{slot}.json")));
            if let Some(done) = done
                && !self.origin.id.is_empty()
                && done.origin == self.origin
                && done.series == series.hash
                && done.dir == base.join(&slot)
                && done.dir.is_dir()
            {
                return Ok(Prepared {
                    _hold: Some(Arc::new(hold)),
                    ..done
                });
            }
            drop(hold);
            // Between this lock and the next one another run may change the copy again: hence the loop.
            let _alone = cache.lock(&lock)?;
            self.write(cache, series, &base, &slot)?;
        }
    }

    fn write(&mut self, cache: &Cache, series: &Series, base: &Path, slot: &str) -> Result<()> {
        let dir = base.join(slot);
        let record = base.join(format!("{slot}.json"));
        cache.need_space("a copy of the kernel source", 2500)?;
        let mut progress = Progress::new(format!("source {}", self.origin.version), 0);
        let next = base.join(format!("{slot}.next"));
        remove_dir(&next)?;
        progress.say("copying");
        self.export(&next).or_exit(Exit::Tree)?;
        if self.origin.id.is_empty() {
            self.origin.id = tree_hash(&next)?;
        }
        progress.say("applying the series");
        match series.state(&next)? {
            State::None => series.apply_files(&next)?,
            State::All => {}
            State::Some(n) => return Err(series.half(n, &next)),
        }
        progress.say("comparing with the last copy");
        // From here to the end the copy is neither the old one nor the new.
        let _ = fs::remove_file(&record);
        let changed = if dir.exists() {
            format!("{} files differ from the last copy", sync(&next, &dir)?)
        } else {
            fs::rename(&next, &dir)?;
            "a new copy".to_owned()
        };
        remove_dir(&next)?;
        let prepared = Prepared {
            dir,
            origin: self.origin.clone(),
            series: series.hash.clone(),
            _hold: None,
        };
        write_json(&record, &prepared)?;
        progress.finish(&format!("series {} applied, {changed}", &series.hash[..12]));
        Ok(())
    }

    fn export(&self, to: &Path) -> Result<()> {
        match &self.source {
            Source::Pristine(from) => {
                output(
                    Command::new("cp")
                        .args(["--archive", "--link"])
                        .arg(from)
                        .arg(to),
                )?;
            }
            Source::Git(from) => {
                fs::create_dir_all(to)?;
                let tar = tempfile::NamedTempFile::new_in(to.parent().context("in src")?)?;
                output(
                    git(from)
                        .args(["archive", "--format=tar", "--output"])
                        .arg(tar.path())
                        .arg("HEAD"),
                )?;
                output(
                    Command::new("tar")
                        .arg("--extract")
                        .arg("--file")
                        .arg(tar.path())
                        .arg("-C")
                        .arg(to),
                )?;
            }
            Source::Folder(from) => {
                let mut rsync = Command::new("rsync");
                rsync.arg("--archive");
                for pattern in PRODUCTS {
                    rsync.arg(format!("--exclude={pattern}"));
                }
                output(rsync.arg(format!("{}/", from.display())).arg(to))?;
            }
        }
        Ok(())
    }
}

fn files(dir: &Path) -> impl Iterator<Item = Result<walkdir::DirEntry>> {
    WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .filter(|e| !e.as_ref().is_ok_and(|e| e.file_type().is_dir()))
        .map(|e| Ok(e?))
}

fn content(path: &Path) -> Result<Vec<u8>> {
    let text = if path.is_symlink() {
        fs::read_link(path)?.into_os_string().into_encoded_bytes()
    } else {
        fs::read(path)?
    };
    Ok(text)
}

pub fn tree_hash(dir: &Path) -> Result<String> {
    let mut list = Vec::new();
    for entry in files(dir) {
        let entry = entry?;
        let name = entry.path().strip_prefix(dir)?;
        writeln!(
            list,
            "{} {}",
            sha256(content(entry.path())?),
            name.display()
        )?;
    }
    Ok(sha256(list))
}

/// Makes `to` equal to `from`; what differs gets a new time, what does not keeps its own.
fn sync(from: &Path, to: &Path) -> Result<usize> {
    let mut changed = 0;
    for entry in files(from) {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from)?);
        if let Ok(old) = fs::symlink_metadata(&target) {
            let new = entry.path().symlink_metadata()?;
            let same_inode = (old.dev(), old.ino()) == (new.dev(), new.ino());
            let same = old.file_type() == new.file_type()
                && old.mode() == new.mode()
                && (same_inode
                    || (old.len() == new.len() && content(&target)? == content(entry.path())?));
            if same {
                continue;
            }
            if old.is_dir() {
                fs::remove_dir_all(&target)?;
            } else {
                // Not written in place: other copies may share the file by a hard link.
                fs::remove_file(&target)?;
            }
        }
        changed += 1;
        fs::create_dir_all(target.parent().context("a file lies in a folder")?)?;
        if entry.path_is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
    }
    for entry in files(to) {
        let entry = entry?;
        if !from.join(entry.path().strip_prefix(to)?).exists() && !entry.path_is_symlink() {
            changed += 1;
            fs::remove_file(entry.path())?;
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::source::series::tests::fixture;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        (dir, cache)
    }

    #[test]
    fn the_users_tree_is_only_copied() {
        for git in [false, true] {
            let f = fixture(git);
            let (_dir, cache) = cache();
            fs::write(f.tree.join("mm/x.o"), "product").unwrap();
            let before = tree_hash(&f.tree).unwrap();
            let done = own(&f.tree)
                .unwrap()
                .prepare(&cache, &f.series, "")
                .unwrap();
            assert_eq!(tree_hash(&f.tree).unwrap(), before);
            let text = fs::read_to_string(done.dir.join("mm/page_alloc.c")).unwrap();
            assert!(text.contains("B\n") && text.contains("H\n"));
            assert!(!done.dir.join("mm/x.o").exists());
            assert!(!done.origin.id.is_empty());
        }
    }

    #[test]
    fn a_tree_that_has_the_series_is_taken_as_it_is() {
        let f = fixture(true);
        let (_dir, cache) = cache();
        f.series.apply(&f.tree).unwrap();
        let done = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap();
        assert!(
            fs::read_to_string(done.dir.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
    }

    #[test]
    fn a_dirty_tree_is_not_built() {
        let f = fixture(true);
        fs::write(
            f.tree.join("Makefile"),
            format!("{}\n", crate::source::series::tests::MAKEFILE),
        )
        .unwrap();
        let e = own(&f.tree).err().unwrap();
        assert_eq!(stage(&e), Some(Exit::Tree));
        assert!(e.to_string().contains("uncommitted changes"), "{e}");
    }

    #[test]
    fn a_repository_that_git_refuses_is_no_plain_folder() {
        let f = fixture(true);
        let before = fs::read(f.tree.join("mm/page_alloc.c")).unwrap();
        fs::remove_dir_all(f.tree.join(".git")).unwrap();
        fs::write(f.tree.join(".git"), "gitdir: /no/such/repository\n").unwrap();
        for e in [
            own(&f.tree).err().unwrap(),
            f.series.apply(&f.tree).unwrap_err(),
            f.series.unapply(&f.tree).unwrap_err(),
        ] {
            assert_eq!(stage(&e), Some(Exit::Tree));
            assert!(e.to_string().contains("/no/such/repository"), "{e}");
        }
        assert_eq!(fs::read(f.tree.join("mm/page_alloc.c")).unwrap(), before);
    }

    #[test]
    fn a_hooks_repository_is_forgotten() {
        let git = git(Path::new("/x"));
        for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"] {
            assert!(git.get_envs().any(|e| e == (name.as_ref(), None)), "{name}");
        }
    }

    #[test]
    fn another_series_touches_only_what_differs() {
        let f = fixture(false);
        let (_dir, cache) = cache();
        let time = |d: &Path, name: &str| fs::metadata(d.join(name)).unwrap().modified().unwrap();
        let one = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series.prefix(1), "")
            .unwrap()
            .dir;
        assert!(
            !fs::read_to_string(one.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
        let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        for name in ["Makefile", "mm/new.c", "mm/page_alloc.c"] {
            fs::File::options()
                .append(true)
                .open(one.join(name))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        let two = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap()
            .dir;
        assert_eq!(one, two);
        assert_eq!((time(&two, "Makefile"), time(&two, "mm/new.c")), (old, old));
        assert!(time(&two, "mm/page_alloc.c") > old);
        assert!(
            fs::read_to_string(two.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
        own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series.prefix(1), "")
            .unwrap();
        assert!(
            !fs::read_to_string(two.join("mm/page_alloc.c"))
                .unwrap()
                .contains("H\n")
        );
    }

    fn tarball(f: &crate::source::series::tests::Fixture) -> PathBuf {
        let tar = f.dir.path().join("linux.tar");
        output(
            Command::new("tar")
                .arg("-cf")
                .arg(&tar)
                .arg("-C")
                .arg(f.dir.path())
                .arg("linux"),
        )
        .unwrap();
        tar
    }

    #[test]
    fn an_interrupted_extraction_is_done_again() {
        let f = fixture(false);
        let (_dir, cache) = cache();
        let base = cache.dir("tree").unwrap();
        let id = "0123456789abcdef0123";
        // What a killed run may leave: files, and no description.
        fs::create_dir_all(base.join(&id[..16]).join("linux/mm")).unwrap();
        fs::write(base.join(&id[..16]).join("linux/mm/half.c"), "x").unwrap();
        assert!(newest_cached(&base).unwrap().is_none());
        install_tarball(&base, &tarball(&f), "test", id).unwrap();
        let tree = newest_cached(&base).unwrap().unwrap();
        assert_eq!(
            (tree.origin.version.as_str(), tree.origin.id.as_str()),
            ("7.3.4", id)
        );
        assert!(!tree.pristine().unwrap().join("mm/half.c").exists());
        let done = tree.prepare(&cache, &f.series, "").unwrap();
        assert!(
            fs::read_to_string(done.dir.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
        // The pristine tree shares files with the copy by hard links, and stays pristine.
        let pristine = newest_cached(&base).unwrap().unwrap().pristine().unwrap();
        assert!(
            !fs::read_to_string(pristine.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
    }

    #[test]
    fn an_interrupted_copy_is_finished() {
        let f = fixture(true);
        let (_dir, cache) = cache();
        let dir = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap()
            .dir;
        // Killed between the first file and the last: the record is gone and files are missing.
        fs::remove_file(dir.with_extension("json")).unwrap();
        fs::remove_file(dir.join("mm/new.c")).unwrap();
        fs::create_dir_all(dir.with_extension("next").join("junk")).unwrap();
        let again = own(&f.tree)
            .unwrap()
            .prepare(&cache, &f.series, "")
            .unwrap();
        assert!(again.dir.join("mm/new.c").exists());
    }

    #[test]
    fn apts_own_archive_is_the_one_asked() {
        let text =
            "http://a.example/debian-security/|Debian-Security\nhttp://b.example/debian/|Debian\n";
        assert_eq!(
            archive_uri(text).as_deref(),
            Some("http://b.example/debian/")
        );
        let fresh = "http://a.example/debian-security|\nhttps://c.example/linux|\nhttp://b.example/debian|\n";
        assert_eq!(
            archive_uri(fresh).as_deref(),
            Some("http://b.example/debian")
        );
        assert_eq!(archive_uri("https://c.example/linux|Other\n"), None);
        // As in Debian's cloud images, before and after the first update.
        let mirrors = "mirror+file:/etc/apt/mirrors/debian.list/";
        for label in ["", "Debian"] {
            let text = format!(
                "cdrom://[x]/|Debian\nmirror+file:/etc/apt/mirrors/debian-security.list/|\n{mirrors}|{label}\n"
            );
            assert_eq!(archive_uri(&text).as_deref(), Some(mirrors));
        }
    }

    #[test]
    fn a_suite_that_a_mirror_lacks_is_passed_over() {
        let lacks = |suite: &str| match suite {
            "sid" => Ok(Some("7.3.4-1".to_owned())),
            _ => Err(anyhow::anyhow!("{suite} does not have a Release file")),
        };
        assert_eq!(first(lacks).unwrap(), ("sid", "7.3.4-1".to_owned()));
        let e = first(|s| if s == "sid" { Ok(None) } else { lacks(s) }).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree));
        assert!(
            e.to_string().contains("trixie-backports does not have")
                && !e.to_string().contains("network"),
            "{e}"
        );
        assert!(
            first(|_| Ok(None))
                .unwrap_err()
                .to_string()
                .contains("Debian has no")
        );
    }

    #[test]
    fn a_trees_package_is_what_a_newer_one_is_measured_by() {
        let origin = |from: &str| Origin {
            version: "7.3.4".into(),
            from: from.into(),
            id: "x".into(),
        };
        let debian = origin("Debian linux-source-7.3 7.3.4-1~bpo13+1 (trixie-backports)");
        let have = debian.package().unwrap();
        assert_eq!(have, "7.3.4-1~bpo13+1");
        assert!(newer("7.3.5-1~bpo13+1", have).unwrap() && newer("7.3.4-1", have).unwrap());
        assert!(!newer(have, have).unwrap() && !newer("7.3~rc7-1", have).unwrap());
        assert_eq!(origin("/home/x/linux").package(), None);
    }

    #[test]
    fn the_newest_package_wins() {
        let madison = " linux-source-7.3 | 7.3~rc7-1 | x\n linux-source-7.3 | 7.3.10-1 | x\n linux-source-7.3 | 7.3.4-1 | x\n";
        assert_eq!(newest(madison).unwrap().as_deref(), Some("7.3.10-1"));
        assert_eq!(newest("").unwrap(), None);
    }
}
