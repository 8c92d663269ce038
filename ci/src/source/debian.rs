// SPDX-License-Identifier: GPL-2.0
//! Debian's packaged kernel source: fetched, verified by apt and unpacked once.

use crate::base::cache::{self, Cache, remove_dir, sha256_file, write_json};
use crate::base::exit::{Exit, OrExit, fail, perhaps_network};
use crate::base::pins::{PINS, source_package, supported};
use crate::base::proc::{check_interrupt, output, run_lines};
use crate::base::progress::Progress;
use crate::source::tree::{Origin, Tree};
use crate::source::version::{check_supported, version_of};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

pub fn fetch_unless_cached(cache: &Cache) -> Result<Tree> {
    let base = cache.dir("tree")?;
    if let Some(tree) = find_newest_cached(&base)? {
        return Ok(tree);
    }
    let _alone = cache.lock("tree")?;
    if let Some(tree) = find_newest_cached(&base)? {
        return Ok(tree);
    }
    fetch(cache, &base, None)?;
    find_newest_cached(&base)?.context("the tree that was just extracted is gone")
}

/// The one that is there, if any.
pub fn find_cached(cache: &Cache) -> Result<Option<Tree>> {
    find_newest_cached(&cache.dir("tree")?)
}

/// Asks Debian for a newer tree than the cached one, for `make setup`; says what came of it.
pub fn fetch_newer(cache: &Cache) -> Result<String> {
    let base = cache.dir("tree")?;
    let _alone = cache.lock("tree")?;
    let have = find_newest_cached(&base)?.map(|t| t.origin);
    let Err(e) = fetch(cache, &base, have.as_ref()) else {
        let now = find_newest_cached(&base)?.context("the tree that was just extracted is gone")?;
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

fn find_newest_cached(base: &Path) -> Result<Option<Tree>> {
    let mut found: Vec<(std::time::SystemTime, Tree)> = Vec::new();
    for entry in fs::read_dir(base)?.flatten() {
        // The description is written last, so that an interrupted extraction is not taken for one.
        let description = entry.path().join("origin.json");
        if let Some(origin) = cache::read_json::<Origin>(&description) {
            let tree = Tree::debian(entry.path().join("linux"), origin);
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
    let package = source_package();
    let mut progress = Progress::new(format!("{package} {version} from Debian {suite}"), 0);
    progress.say("downloading");
    let mut said = String::new();
    let status = run_lines(
        apt.command("apt-get")
            .args(["--quiet=2", "download", &format!("{package}={version}")])
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
    let tarball = temp.path().join(format!("deb/usr/src/{package}.tar.xz"));
    let id = sha256_file(&tarball)?;
    install_tarball(
        base,
        &tarball,
        &format!("Debian {package} {version} ({suite})"),
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
        first(&PINS.debian.suites, |suite| {
            self.ask(suite)?;
            newest(&output(
                self.command("apt-cache")
                    .args(["madison", &source_package()]),
            )?)
        })
    }
}

/// The first suite that has a version. A mirror may lack one, and that is said only where no other
/// has any.
fn first(
    suites: &[String],
    mut version: impl FnMut(&str) -> Result<Option<String>>,
) -> Result<(&str, String)> {
    let mut lacking = None;
    for suite in suites {
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
            "Debian has no {} in {}: give a {} tree with KDIR=",
            source_package(),
            suites.join(", "),
            supported()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;
    use crate::source::series::tests::fixture;
    use crate::source::tree::tests::cache;

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
        assert!(find_newest_cached(&base).unwrap().is_none());
        install_tarball(&base, &tarball(&f), "test", id).unwrap();
        let tree = find_newest_cached(&base).unwrap().unwrap();
        assert_eq!(
            (tree.origin.version.as_str(), tree.origin.id.as_str()),
            (PINS.kernel.base.as_str(), id)
        );
        assert!(!tree.pristine().unwrap().join("mm/half.c").exists());
        let done = tree.prepare(&cache, &f.series, "").unwrap();
        assert!(
            fs::read_to_string(done.dir.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
        // The pristine tree shares files with the copy by hard links, and stays pristine.
        let pristine = find_newest_cached(&base)
            .unwrap()
            .unwrap()
            .pristine()
            .unwrap();
        assert!(
            !fs::read_to_string(pristine.join("mm/page_alloc.c"))
                .unwrap()
                .contains("B\n")
        );
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
        let suites = ["backports", "sid"].map(str::to_owned);
        let lacks = |suite: &str| match suite {
            "sid" => Ok(Some("7.3.4-1".to_owned())),
            _ => Err(anyhow::anyhow!("{suite} does not have a Release file")),
        };
        assert_eq!(
            first(&suites, lacks).unwrap(),
            ("sid", "7.3.4-1".to_owned())
        );
        let e = first(&suites, |s| if s == "sid" { Ok(None) } else { lacks(s) }).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Tree));
        assert!(
            e.to_string().contains("backports does not have") && !e.to_string().contains("network"),
            "{e}"
        );
        assert!(
            first(&suites, |_| Ok(None))
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
