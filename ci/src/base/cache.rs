// SPDX-License-Identifier: GPL-2.0
//! `$NOLOCKS_CACHE`: everything that is fetched, built or recorded lives below it.

use crate::base::exit::{Exit, OrExit, fail};
use crate::base::proc::check_interrupt;
use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The lock of everything at once.
const WHOLE: &str = "cache";

pub struct Cache {
    pub root: PathBuf,
}

/// What `make clean` leaves: it costs a download, and holds nothing of a run.
const KEPT: &[&str] = &["apt", "locks", "roots", "tools", "tree"];
/// What it removes.
const MADE: &[&str] = &[
    "bpftool",
    "build",
    "clippy",
    "compile-fail",
    "home",
    "modules",
    "modules-bench",
    "modules-bench-native",
    "mutants",
    "perf",
    "runs",
    "src",
];

/// Of one folder of the cache: alone to write it, shared while a build reads it. A boot needs none,
/// because it runs from copies in its own run folder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Cache {
    pub fn open(given: Option<&Path>) -> Result<Cache> {
        let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let root = place(given.map(Path::to_owned), var("NOLOCKS_CACHE"), var("HOME"))?;
        buildable("NOLOCKS_CACHE=", &root)?;
        fs::create_dir_all(&root)
            .with_context(|| {
                format!(
                    "cannot create {}: set NOLOCKS_CACHE to a folder you may write",
                    root.display()
                )
            })
            .or_exit(Exit::Setup)?;
        Ok(Cache { root })
    }

    pub fn dir(&self, relative: &str) -> Result<PathBuf> {
        debug_assert!(
            KEPT.iter()
                .chain(MADE)
                .any(|p| Path::new(relative).starts_with(p)),
            "clean does not know {relative}"
        );
        let dir = self.root.join(relative);
        fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))
            .or_exit(Exit::Setup)?;
        Ok(dir)
    }

    /// `make clean`.
    pub fn clean(&self) -> Result<()> {
        let _alone = self.lock(WHOLE)?;
        for part in MADE {
            remove_dir(&self.root.join(part)).or_exit(Exit::Setup)?;
        }
        // Where KVM is no good, it is asked again.
        match fs::remove_file(self.root.join("kvm.json")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).or_exit(Exit::Setup),
            _ => Ok(()),
        }
    }

    /// Held by each command for as long as it lives, so that none is cleaned away below it.
    pub fn in_use(&self) -> Result<Lock> {
        self.share(WHOLE)
    }

    pub fn lock(&self, what: &str) -> Result<Lock> {
        self.take(what, File::try_lock)
    }

    pub fn share(&self, what: &str) -> Result<Lock> {
        self.take(what, File::try_lock_shared)
    }

    /// Asks again and again, because the system call that waits cannot be left by Ctrl-C.
    fn take(&self, what: &str, try_: fn(&File) -> Result<(), TryLockError>) -> Result<Lock> {
        let file = self.lock_file(what)?;
        let mut told = false;
        loop {
            match try_(&file) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::Error(e)) => {
                    return Err(e).with_context(|| format!("cannot lock {what}"));
                }
                Err(TryLockError::WouldBlock) => check_interrupt()?,
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!("another run works on {what}; waiting for it");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn lock_file(&self, what: &str) -> Result<File> {
        let path = self.dir("locks")?.join(what);
        File::create(&path).with_context(|| format!("cannot open {}", path.display()))
    }

    /// Refuses work that would fill the disk half way, when the numbers still mean something.
    pub fn need_space(&self, what: &str, need_mib: u64) -> Result<()> {
        check_space(what, &self.root, need_mib, available_mib(&self.root)?)
    }
}

fn place(
    given: Option<PathBuf>,
    variable: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf> {
    // A variable that is set to nothing is not set.
    let set = |path: &PathBuf| !path.as_os_str().is_empty();
    match (given.or(variable.filter(set)), home.filter(set)) {
        (Some(dir), _) => Ok(std::path::absolute(dir)?),
        (None, Some(home)) => Ok(home.join(".cache/nolocks")),
        (None, None) => Err(fail(Exit::Usage, "set NOLOCKS_CACHE or HOME")),
    }
}

/// Kbuild refuses such paths late and in other words, or fails; virtme-ng splits at blanks.
pub fn buildable(what: &str, path: &Path) -> Result<()> {
    let bad = |c: char| c.is_whitespace() || ":%'#$".contains(c);
    if path.to_string_lossy().contains(bad) {
        return Err(fail(
            Exit::Usage,
            format!(
                "{what}{}: the kernel's build needs a path without blanks and without any of : % ' # $",
                path.display()
            ),
        ));
    }
    Ok(())
}

pub fn available_mib(path: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64 / (1 << 20))
}

fn check_space(what: &str, path: &Path, need_mib: u64, have_mib: u64) -> Result<()> {
    if have_mib < need_mib {
        return Err(fail(
            Exit::Setup,
            format!(
                "{what} needs {need_mib} MiB below {}, and {have_mib} MiB are free: make room, or set NOLOCKS_CACHE to a larger disk",
                path.display()
            ),
        ));
    }
    Ok(())
}

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    hex(Sha256::digest(bytes.as_ref()))
}

pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hex(hash.finalize()));
        }
        hash.update(&buffer[..n]);
    }
}

pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Writes through a rename, so that a reader finds the old text or the new, never half of one.
pub fn write_atomic(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().context("a file lies in a folder")?;
    let mut temp = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut temp, text.as_bytes())
        .and_then(|()| temp.as_file().sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    use std::os::unix::fs::PermissionsExt;
    temp.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    temp.persist(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomic(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::exit::stage;

    #[test]
    fn too_little_space_says_path_need_and_have() {
        let e = check_space("a kernel build", Path::new("/x"), 4000, 17).unwrap_err();
        assert_eq!(stage(&e), Some(Exit::Setup));
        let text = e.to_string();
        for part in ["/x", "4000 MiB", "17 MiB", "NOLOCKS_CACHE"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(check_space("x", Path::new("/x"), 17, 17).is_ok());
    }

    #[test]
    fn the_real_file_system_has_some_space_and_not_all() {
        let cache = Cache {
            root: std::env::temp_dir(),
        };
        assert!(cache.need_space("x", u64::MAX).is_err());
        assert!(cache.need_space("x", 0).is_ok());
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        let (one, two) = (cache.share("x").unwrap(), cache.share("x").unwrap());
        let probe = || cache.lock_file("x").unwrap().try_lock().is_ok();
        assert!(!probe());
        drop(one);
        assert!(!probe());
        drop(two);
        assert!(probe());
        let _alone = cache.lock("x").unwrap();
        assert!(cache.lock_file("x").unwrap().try_lock_shared().is_err());
        assert!(cache.lock_file("y").unwrap().try_lock().is_ok());
    }

    #[test]
    fn a_lock_is_waited_for_until_it_is_free_or_ctrl_c() {
        const NAME: &str = "base::cache::tests::a_lock_is_waited_for_until_it_is_free_or_ctrl_c";
        crate::base::proc::tests::alone(NAME, || {
            let dir = tempfile::tempdir().unwrap();
            let cache = Cache::open(Some(dir.path())).unwrap();
            let held = cache.lock("x").unwrap();
            std::thread::scope(|s| {
                let waiting = s.spawn(|| cache.share("x").is_ok());
                std::thread::sleep(Duration::from_millis(300));
                assert!(!waiting.is_finished());
                drop(held);
                assert!(waiting.join().unwrap());
            });
            let _held = cache.share("x").unwrap();
            std::thread::scope(|s| {
                let waiting = s.spawn(|| cache.lock("x").unwrap_err());
                std::thread::sleep(Duration::from_millis(300));
                crate::base::proc::tests::interrupt();
                assert_eq!(stage(&waiting.join().unwrap()), Some(Exit::Interrupted));
            });
        });
    }

    #[test]
    fn a_cache_path_kbuild_cannot_take_is_refused() {
        for bad in ["/tmp/a b", "/tmp/a:b", "/tmp/a'b", "/tmp/a%b"] {
            let e = Cache::open(Some(Path::new(bad))).err().expect(bad);
            assert_eq!(stage(&e), Some(Exit::Usage));
        }
    }

    #[test]
    fn clean_leaves_downloads_and_waits_for_runs() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(dir.path())).unwrap();
        for part in KEPT.iter().chain(MADE) {
            fs::write(cache.dir(part).unwrap().join("x"), "").unwrap();
        }
        fs::write(dir.path().join("kvm.json"), "").unwrap();
        let run = cache.in_use().unwrap();
        let there = |part: &&&str| dir.path().join(part).join("x").exists();
        std::thread::scope(|s| {
            let clean = s.spawn(|| cache.clean());
            std::thread::sleep(Duration::from_millis(300));
            assert!(!clean.is_finished());
            assert_eq!(MADE.iter().filter(there).count(), MADE.len());
            drop(run);
            clean.join().unwrap().unwrap();
        });
        assert_eq!(MADE.iter().filter(there).count(), 0);
        assert_eq!(KEPT.iter().filter(there).count(), KEPT.len());
        assert!(!dir.path().join("kvm.json").exists());
    }

    #[test]
    fn an_empty_variable_means_the_default() {
        let path = |text: &str| Some(PathBuf::from(text));
        let default = Path::new("/h/.cache/nolocks");
        assert_eq!(place(None, None, path("/h")).unwrap(), default);
        assert_eq!(place(None, path(""), path("/h")).unwrap(), default);
        assert_eq!(
            place(None, path("/c"), path("/h")).unwrap(),
            Path::new("/c")
        );
        assert!(place(None, path(""), path("")).is_err());
    }

    #[test]
    fn sha256_is_sha256() {
        assert_eq!(
            sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
