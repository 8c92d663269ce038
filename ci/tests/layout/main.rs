// SPDX-License-Identifier: GPL-2.0
//! The shape of the code: no circle of files that use each other, in the runner and in each kernel module, nor of the
//! runner's folders, no file too long to be read at one go, no reason for unsafe code that does not say which
//! requirement it means, and no macro that a crate with the library in it could put another in the place of.
//!
//! A file uses another if a path in it leads to an item there. To declare a module is no use of it. The tests
//! in a file are a part of it; those in a file of their own are a file like any other.

mod c;
mod folders;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Component, Path, PathBuf};
use walkdir::WalkDir;

const LONGEST: usize = 600;

/// Longer ones, with the reason why each stays whole.
const LONGER: [(&str, &str); 1] = [(
    "rust-module/lib/queue/shard.rs",
    "the models compile it, and their bugs and those of ci/mutants are put in, as one file",
)];

type Uses = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

fn checkout() -> PathBuf {
    normal(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
}

/// Without `..`, which `#[path]` has: one name for one file.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// The words and signs of a text; of a string only what is in it, behind a quotation mark.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(c) = rest.chars().next() {
        let end_of = |what: &str| rest.find(what).map_or(rest.len(), |at| at + what.len());
        let raw = rest.strip_prefix('r').map(|r| r.trim_start_matches('#'));
        let len = if rest.starts_with("//") {
            end_of("\n")
        } else if rest.starts_with("/*") {
            end_of("*/")
        } else if raw.is_some_and(|r| r.starts_with('"')) {
            let hashes = rest.len() - 1 - raw.map_or(0, str::len);
            let open = hashes + 2;
            let close = format!("\"{}", "#".repeat(hashes));
            let end = rest[open..].find(&close);
            end.map_or(rest.len(), |at| open + at + close.len())
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let is_end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                is_end
            });
            let end = end.map_or(rest.len(), |at| at + 2);
            tokens.push(rest[..end - 1].to_owned());
            end
        } else if c == '\'' {
            character(rest)
        } else if is_word(c) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[len..];
    }
    tokens
}

/// The length of a character, or of the mark before a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            after + text[after..].find('\'').map_or(0, |at| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// A module, in a file of its own or within another's.
#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Where its children's files are looked for.
    folder: PathBuf,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Every path that it names, from its own point of view.
    paths: Vec<Vec<String>>,
    /// The modules whose names are its own as well, by `use NAME::*`.
    globs: Vec<Vec<String>>,
}

/// The modules of one crate, the root first.
#[derive(Default)]
struct Crate {
    modules: Vec<Module>,
}

impl Crate {
    /// `read` gives the text of a file, if there is one.
    fn load(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Crate {
        let mut found = Crate::default();
        let folder = root.parent().unwrap().to_owned();
        found.add(None, root.to_owned(), folder);
        let mut next = 0;
        while next < found.modules.len() {
            // Modules within a file come while it is read.
            if found.is_of_file(next) {
                let file = found.modules[next].file.clone();
                let text = read(&file).unwrap_or_else(|| panic!("no {}", file.display()));
                found.read(next, &tokens(&text), read);
            }
            next += 1;
        }
        found
    }

    fn add(&mut self, parent: Option<usize>, file: PathBuf, folder: PathBuf) -> usize {
        self.modules.push(Module {
            file,
            folder,
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    fn is_of_file(&self, module: usize) -> bool {
        let parent = self.modules[module].parent;
        parent.is_none_or(|parent| self.modules[parent].file != self.modules[module].file)
    }

    fn read(&mut self, module: usize, tokens: &[String], read: &dyn Fn(&Path) -> Option<String>) {
        let word = |at: usize| tokens.get(at).map_or("", String::as_str);
        let mut inside = vec![(module, 0)];
        let (mut at, mut depth, mut place) = (0, 0, None);
        while at < tokens.len() {
            let here = inside.last().unwrap().0;
            match (word(at), word(at + 1), word(at + 2)) {
                ("mod", name, ";") => {
                    let folder = &self.modules[here].folder;
                    let files = match place.take() {
                        Some(path) => vec![self.modules[here].file.parent().unwrap().join(path)],
                        None => vec![
                            folder.join(format!("{name}.rs")),
                            folder.join(name).join("mod.rs"),
                        ],
                    };
                    let there = files.iter().map(|f| normal(f));
                    let file = there.clone().find(|f| read(f).is_some());
                    let file = file.unwrap_or_else(|| panic!("no {:?}", files));
                    let folder = match file.file_name().unwrap() == "mod.rs" {
                        true => file.parent().unwrap().to_owned(),
                        false => file.parent().unwrap().join(name),
                    };
                    let child = self.add(Some(here), file, folder);
                    self.modules[here].children.insert(name.to_owned(), child);
                    at += 3;
                }
                ("mod", name, "{") => {
                    let module = &self.modules[here];
                    let (file, folder) = (module.file.clone(), module.folder.join(name));
                    let child = self.add(Some(here), file, folder);
                    self.modules[here].children.insert(name.to_owned(), child);
                    depth += 1;
                    inside.push((child, depth));
                    at += 3;
                }
                ("path", "=", path) if at > 0 && word(at - 1) == "[" => {
                    place = Some(path[1..].to_owned());
                    at += 3;
                }
                ("use", ..) => at = self.read_use(here, tokens, at + 1, &[]),
                ("{", ..) => {
                    depth += 1;
                    at += 1;
                }
                ("}", ..) => {
                    if inside.len() > 1 && inside.last().unwrap().1 == depth {
                        inside.pop();
                    }
                    depth -= 1;
                    at += 1;
                }
                // What begins with `$crate` is a path of who expands the macro.
                (first, "::", _) if at == 0 || !["::", "$"].contains(&word(at - 1)) => {
                    let mut path = vec![first.to_owned()];
                    while word(at + 1) == "::" && word(at + 2).starts_with(char::is_alphabetic) {
                        path.push(word(at + 2).to_owned());
                        at += 2;
                    }
                    self.modules[here].paths.push(path);
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// The tree of one `use` from `at`, behind `before`; returns where it ends.
    fn read_use(
        &mut self,
        here: usize,
        tokens: &[String],
        mut at: usize,
        before: &[String],
    ) -> usize {
        let mut path = before.to_vec();
        loop {
            match tokens[at].as_str() {
                "{" => {
                    at += 1;
                    while tokens[at] != "}" {
                        at = self.read_use(here, tokens, at, &path);
                        at += usize::from(tokens[at] == ",");
                    }
                    return at + 1;
                }
                "*" => {
                    self.modules[here].globs.push(path.clone());
                    path.push("*".to_owned());
                    at += 1;
                }
                "::" | "$" => at += 1,
                "as" => at += 2,
                "," | "}" | ";" => {
                    self.modules[here].paths.push(path);
                    return at;
                }
                word => {
                    path.push(word.to_owned());
                    at += 1;
                }
            }
        }
    }

    fn child(&self, module: usize, name: &str) -> Option<usize> {
        let module_of = &self.modules[module];
        let by_glob = || {
            let globs = module_of.globs.iter();
            let outside = globs.filter(|g| g.first().is_some_and(|first| first != name));
            // Only what is a module itself: `use super::*` in tests would lead back here.
            let from = outside.filter(|g| !["super", "self", "crate"].contains(&g[0].as_str()));
            let mut from = from.filter_map(|glob| self.module(module, glob));
            from.find_map(|from| self.modules[from].children.get(name).copied())
        };
        module_of.children.get(name).copied().or_else(by_glob)
    }

    /// The module that a path ends in, or the item that it leads to.
    fn module(&self, from: usize, path: &[String]) -> Option<usize> {
        let mut at = from;
        let mut words = path.iter().map(String::as_str).peekable();
        match words.peek() {
            Some(&"crate") => {
                words.next();
                at = 0;
            }
            Some(&"self") => drop(words.next()),
            Some(&"super") => {
                while words.next_if(|word| *word == "super").is_some() {
                    at = self.modules[at].parent?;
                }
            }
            Some(first) if *first != "*" => {
                at = self.child(at, first)?;
                words.next();
            }
            _ => return None,
        }
        for word in words {
            match self.child(at, word) {
                Some(child) => at = child,
                None => break,
            }
        }
        Some(at)
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (here, module) in self.modules.iter().enumerate() {
            let used = uses.entry(module.file.clone()).or_default();
            for path in &module.paths {
                let there = self.module(here, path).map(|m| &self.modules[m].file);
                used.extend(there.filter(|file| **file != module.file).cloned());
            }
        }
        uses
    }
}

/// The shortest way from a file back to itself.
fn circle(uses: &Uses, start: &PathBuf) -> Option<Vec<PathBuf>> {
    let mut from = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(file) = next.pop_front() {
        for used in uses.get(file).into_iter().flatten() {
            if used == start {
                let back = |at: &&PathBuf| from.get(*at).copied();
                let mut way = Vec::from_iter(std::iter::successors(Some(file), back).cloned());
                way.reverse();
                way.push(start.clone());
                return Some(way);
            }
            if !from.contains_key(used) {
                from.insert(used, file);
                next.push_back(used);
            }
        }
    }
    None
}

/// Each circle once, as people read it.
fn circles(uses: &Uses, below: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut told = Vec::new();
    for way in uses.keys().filter_map(|file| circle(uses, file)) {
        if seen.insert(BTreeSet::from_iter(way.clone())) {
            let names = way.iter().map(|f| f.strip_prefix(below).unwrap_or(f));
            let names = names.map(|f| f.display().to_string());
            told.push(names.collect::<Vec<_>>().join(" -> "));
        }
    }
    told
}

fn source_files(folders: &[&str]) -> Vec<PathBuf> {
    let files = folders
        .iter()
        .flat_map(|f| WalkDir::new(checkout().join(f)));
    let files = files.map(|entry| entry.unwrap().into_path());
    let is_code = |file: &PathBuf| {
        let extension = file.extension().and_then(|e| e.to_str());
        matches!(extension, Some("rs" | "c" | "h"))
    };
    files.filter(is_code).collect()
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// The runner's, and each kernel module's.
fn roots() -> Vec<PathBuf> {
    let modules = source_files(&["rust-module"]).into_iter().filter(|file| {
        let is_root = |text: String| text.lines().any(|line| line.starts_with("module!"));
        !file.iter().any(|part| part == "compile_fail") && read(file).is_some_and(is_root)
    });
    modules.chain([checkout().join("ci/src/main.rs")]).collect()
}

#[test]
fn no_circle_of_files() {
    let mut found = BTreeSet::new();
    let mut read_files = BTreeSet::new();
    for root in roots() {
        let uses = Crate::load(&root, &read).uses();
        found.extend(circles(&uses, &checkout()));
        read_files.extend(uses.into_keys());
    }
    let is_missed = |file: &PathBuf| {
        let is_rust = file.extension().is_some_and(|e| e == "rs");
        is_rust && !read_files.contains(file) && !file.iter().any(|part| part == "compile_fail")
    };
    let all = source_files(&["ci/src", "rust-module"]);
    let missed: Vec<PathBuf> = all.into_iter().filter(is_missed).collect();
    assert!(missed.is_empty(), "part of no crate: {missed:?}");
    let found = Vec::from_iter(found).join("\n");
    assert!(found.is_empty(), "circles of files:\n{found}");
}

/// These tests were of another checkout, gone by then, when it was the last to build them.
#[test]
fn each_test_is_built_for_its_checkout() {
    let told_by_cargo = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    assert_eq!(env!("CARGO_MANIFEST_DIR"), told_by_cargo);
}

#[test]
fn no_file_is_too_long() {
    let mut longer = BTreeMap::from(LONGER);
    let mut found = String::new();
    for file in source_files(&["ci/src", "ci/tests", "ci/mutants", "rust-module", "models"]) {
        let lines = read(&file).unwrap().lines().count();
        let name = file.strip_prefix(checkout()).unwrap().display().to_string();
        if lines > LONGEST && longer.remove(&*name).is_none() {
            found += &format!("{name}: {lines} lines\n");
        }
    }
    assert!(found.is_empty(), "over {LONGEST} lines:\n{found}");
    assert!(longer.is_empty(), "not longer any more: {longer:?}");
}

/// What comments say of unsafe code and of invariants, with the line that each begins in.
fn reasons(text: &str) -> Vec<(usize, String)> {
    let mut reasons: Vec<(usize, Vec<&str>)> = Vec::new();
    let mut is_reason = false;
    for (line, number) in text.lines().zip(1..) {
        let comment = line.trim_start().strip_prefix("//");
        let comment = comment.filter(|comment| !comment.starts_with(['/', '!']));
        is_reason &= comment.is_some();
        for word in comment.unwrap_or_default().split_whitespace() {
            match word {
                "SAFETY:" | "INVARIANT:" => {
                    is_reason = true;
                    reasons.push((number, Vec::new()));
                }
                word if is_reason => reasons.last_mut().unwrap().1.push(word),
                _ => {}
            }
        }
    }
    let reasons = reasons.into_iter();
    reasons
        .map(|(line, words)| (line, words.join(" ")))
        .collect()
}

/// Whether a reason leaves it to the reader to find out which requirement is meant.
fn names_none(reason: &str) -> bool {
    let which = reason.strip_prefix("By the safety requirement");
    let which = which.map(|which| which.trim_start_matches('s').trim_end_matches('.'));
    matches!(
        which,
        Some("" | " of this function" | ", which are the same")
    )
}

#[test]
fn each_reason_names_its_requirement() {
    let mut found = String::new();
    for file in source_files(&["rust-module"]) {
        let name = file.strip_prefix(checkout()).unwrap().display().to_string();
        for (line, reason) in reasons(&read(&file).unwrap()) {
            if names_none(&reason) {
                found += &format!("{name}:{line}: {reason}\n");
            }
        }
    }
    assert!(found.is_empty(), "which requirement?\n{found}");
}

#[test]
fn a_reason_that_names_none_is_found() {
    let text = "// SAFETY: By the safety requirements.\nf();\n\
        /// By the safety requirements.\n\
        // One more. INVARIANT: By the\n    // safety requirement of this function.\n/// Of `g`.\n\
        // SAFETY: By the safety requirements, which are the same. INVARIANT: It is 1.\n\
        // SAFETY: By the safety requirements.\n// The lock is held.\n\
        // SAFETY: By the safety requirement on `h`.\n";
    let found = reasons(text).into_iter().filter(|(_, r)| names_none(r));
    assert_eq!(Vec::from_iter(found.map(|(line, _)| line)), [1, 4, 7]);
}

/// Macros that are called by a bare name: if a crate defines one of that name before its modules, it is that one,
/// unless the file has one itself.
fn bare_macros(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let is_own = |name: &String| {
        let mut triples = tokens.windows(3);
        triples.any(|t| t[0] == "macro_rules" && t[1] == "!" && t[2] == *name)
    };
    let is_bare = |t: &&[String]| {
        let is_call = t[2] == "!" && ["(", "[", "{"].contains(&&*t[3]);
        let is_name = t[1].starts_with(char::is_alphabetic) && !["if", "return"].contains(&&*t[1]);
        is_call && is_name && t[0] != "::"
    };
    tokens
        .windows(4)
        .filter(is_bare)
        .map(|t| t[1].clone())
        .filter(|name| !is_own(name))
        .collect()
}

#[test]
fn the_librarys_macros_have_paths() {
    for file in source_files(&["rust-module/lib"]) {
        let found = bare_macros(&read(&file).unwrap());
        assert!(found.is_empty(), "{}: {found:?}", file.display());
    }
    let text = "macro_rules! m { () => { core::panic!() }; }\nif !(a != b[0]) { assert!(!a); m!() }\n// f!()\n";
    assert_eq!(bare_macros(text), ["assert"]);
}

/// The uses of a tree that is made up.
fn made_up(files: &[(&str, &str)]) -> Uses {
    let files: BTreeMap<PathBuf, String> = files
        .iter()
        .map(|(name, text)| (PathBuf::from(name), (*text).to_owned()))
        .collect();
    Crate::load(Path::new("main.rs"), &|file| files.get(file).cloned()).uses()
}

/// A tree of which each file is used as it should be.
const TREE: [(&str, &str); 5] = [
    (
        "main.rs",
        "mod a;\n#[path = \"x/other.rs\"]\nmod b;\nuse a::*;\n",
    ),
    (
        "a/mod.rs",
        "pub mod c;\nmod tests { use super::*; }\nfn f<'a>(_: &'a str) -> char { c::D; '\"' }\n",
    ),
    (
        "a/c.rs",
        "use crate::{b::E, b::{F, g::G}};\n// crate::a::f()\n\
        const S: [&str; 2] = [\"super::f\", r#\"a\" super::f\"#];\n\
        macro_rules! m { () => { $crate::a::f() } }\n",
    ),
    (
        "x/other.rs",
        "pub struct E; pub mod g { pub struct G; }\n#[cfg(test)]\nmod tests;\n",
    ),
    ("x/b/tests.rs", "use super::*;\n"),
];

#[test]
fn a_tree_without_a_circle_has_none() {
    let uses = made_up(&TREE);
    let used =
        |file: &str| Vec::from_iter(uses[Path::new(file)].iter().map(|f| f.to_str().unwrap()));
    assert_eq!(used("main.rs"), ["a/mod.rs"]);
    assert_eq!(used("a/mod.rs"), ["a/c.rs"]);
    assert_eq!(used("a/c.rs"), ["x/other.rs"]);
    assert_eq!(used("x/b/tests.rs"), ["x/other.rs"]);
    assert!(circles(&uses, Path::new("")).is_empty());
}

#[test]
fn a_circle_is_found_and_told() {
    for (file, line, told) in [
        ("a/c.rs", "use super::f;", "a/c.rs -> a/mod.rs -> a/c.rs"),
        (
            "a/c.rs",
            "fn h() { super::f() }",
            "a/c.rs -> a/mod.rs -> a/c.rs",
        ),
        // By the name that the root has of it.
        (
            "x/other.rs",
            "use crate::c::D;",
            "a/c.rs -> x/other.rs -> a/c.rs",
        ),
        (
            "x/other.rs",
            "mod h { use crate::{a::{self, c as d, f}}; }",
            "a/c.rs -> x/other.rs -> a/c.rs",
        ),
        (
            "x/other.rs",
            "use super::X;",
            "a/c.rs -> x/other.rs -> main.rs -> a/mod.rs -> a/c.rs",
        ),
        (
            "x/other.rs",
            "use tests::x;",
            "x/b/tests.rs -> x/other.rs -> x/b/tests.rs",
        ),
    ] {
        let text = TREE.map(|(name, text)| match name == file {
            true => (name, format!("{text}{line}\n")),
            false => (name, text.to_owned()),
        });
        let uses = made_up(&text.each_ref().map(|(name, text)| (*name, text.as_str())));
        let found = circles(&uses, Path::new(""));
        assert!(found.iter().any(|f| f == told), "{line}: {found:?}");
    }
}
