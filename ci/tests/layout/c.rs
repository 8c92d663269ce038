// SPDX-License-Identifier: GPL-2.0
//! C of the kernel modules. A file uses another if it includes it, or names a function that is defined there.

use super::{Uses, checkout, circles, normal, read, source_files, tokens};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Functions with a body, by name.
fn defined(tokens: &[String]) -> Vec<&str> {
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let (mut found, mut depth, mut at) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        match word(at) {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 0 && word(at + 1) == "(" => {
                let mut open = 0;
                let close = (at + 1..tokens.len()).find(|at| {
                    open += match word(*at) {
                        "(" => 1,
                        ")" => -1,
                        _ => 0,
                    };
                    open == 0
                });
                if close.is_some_and(|close| word(close + 1) == "{") {
                    found.push(name);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn uses(files: &BTreeMap<PathBuf, Vec<String>>) -> Uses {
    let mut places: BTreeMap<&str, Vec<&PathBuf>> = BTreeMap::new();
    for (file, tokens) in files {
        for name in defined(tokens) {
            places.entry(name).or_default().push(file);
        }
    }
    let mut uses = Uses::new();
    for (file, tokens) in files {
        let used = uses.entry(file.clone()).or_default();
        for three in tokens.windows(3) {
            if three[0] == "#" && three[1] == "include" && three[2].starts_with('"') {
                used.insert(normal(&file.parent().unwrap().join(&three[2][1..])));
            }
        }
        let mut depth = 0;
        let is_header = file.extension().is_some_and(|e| e == "h");
        let named = tokens.iter().filter(|token| {
            depth += match token.as_str() {
                "{" => 1,
                "}" => -1,
                _ => 0,
            };
            // A header declares them outside of braces.
            depth > 0 || !is_header
        });
        let named = named.filter_map(|name| places.get(name.as_str()));
        // A name of its own is no other's.
        let named = named.filter(|places| !places.contains(&file));
        used.extend(named.flatten().map(|place| (*place).clone()));
    }
    uses
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter();
    let files = files.map(|(name, text)| (PathBuf::from(name), tokens(text)));
    circles(&uses(&files.collect()), Path::new(""))
}

#[test]
fn no_circle_of_c_files() {
    let is_c = |file: &PathBuf| file.extension().is_some_and(|e| e == "c" || e == "h");
    let files = source_files(&["rust-module"]).into_iter().filter(is_c);
    let files = BTreeMap::from_iter(files.map(|file| {
        let text = tokens(&read(&file).unwrap());
        (file, text)
    }));
    assert!(files.len() > 10, "{files:?}");
    let found = circles(&uses(&files), &checkout()).join("\n");
    assert!(found.is_empty(), "circles of files:\n{found}");
}

/// So that there is none through Rust either: C is given what it calls there.
#[test]
fn no_c_calls_rust_by_name() {
    for file in source_files(&["rust-module"]) {
        let is_module = !file.iter().any(|part| part == "compile_fail");
        let exports = tokens(&read(&file).unwrap()).contains(&"no_mangle".to_owned());
        assert!(!(is_module && exports), "{}", file.display());
    }
}

#[test]
fn a_circle_of_c_files_is_found() {
    let header = ("a.h", "int a(void (*f)(void));\nvoid b(void);\n");
    let a = "#include \"a.h\"\nint a(void (*f)(void))\n{\n\tif (f) {\n\t\tf();\n\t}\n}\n";
    let b = "#include \"a.h\"\nvoid b(void)\n{\n\ta(NULL);\n}\n";
    assert_eq!(found(&[header, ("a.c", a), ("b.c", b)]), [""; 0]);
    let calls_back = a.replace("f();", "b();");
    assert_eq!(
        found(&[header, ("a.c", &calls_back), ("b.c", b)]),
        ["a.c -> b.c -> a.c"]
    );
    let included = ("a.h", "#include \"b.c\"\n");
    assert_eq!(found(&[included, ("b.c", b)]), ["a.h -> b.c -> a.h"]);
}
