//! Style that a machine can check: headers, sizes, what may not be named where, which way arrows run.

mod arrows;
mod supply;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is above").to_owned()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}

/// Every Rust file of the members, with its text.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    for member in ["protocol", "node", "cli", "tests"] {
        walk(&root.join(member), &mut found);
    }
    found.retain(|path| path.extension().is_some_and(|ext| ext == "rs"));
    found.sort();
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("sources are text");
        let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        (name, text)
    };
    found.into_iter().map(named).collect()
}

/// The part before the unit tests.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

/// Whether a file holds tests only.
fn tests_only(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.contains("/benches/")
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare = sources().into_iter().filter(|(_, text)| !text.starts_with("//! "));
    report(&bare.map(|(name, _)| format!("{name}: no //! header")).collect::<Vec<_>>());
}

#[test]
fn no_file_is_longer_than_six_hundred_lines() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let lines = production(&text).lines().count();
        if lines > 600 {
            faults.push(format!("{name}: {lines} lines"));
        }
    }
    report(&faults);
}

/// Functions with their lengths, by indentation: rustfmt closes a function where its line began.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = ["fn ", "pub fn ", "pub(crate) fn ", "async fn ", "pub async fn ", "const fn "];
        let begins = words.iter().any(|word| code.starts_with(word));
        if !begins || code.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[at..].iter().position(|line| *line == close) {
            found.push((code.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn no_function_is_longer_than_seventy_lines() {
    let mut faults = Vec::new();
    // The rivals' programs are one table of commands each, and no part of swarmkv.
    let ours = |name: &str| !name.contains("tests/rivals/") || name.contains("/swarmkv/");
    for (name, text) in sources().into_iter().filter(|(name, _)| ours(name)) {
        for (function, length) in functions(&text).into_iter().filter(|(_, length)| *length > 70) {
            faults.push(format!("{name}: {length} lines in {function}"));
        }
    }
    report(&faults);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let call = concat!(".unwrap", "()");
    let bad = sources()
        .into_iter()
        .filter(|(name, text)| !tests_only(name) && production(text).contains(call));
    report(&bad.map(|(name, _)| format!("{name}: {call}")).collect::<Vec<_>>());
}

#[test]
fn arrows_run_from_cli_to_node_to_protocol() {
    let manifest = |member: &str| {
        fs::read_to_string(root().join(member).join("Cargo.toml")).expect("members have manifests")
    };
    let depends = |member: &str, on: &str| {
        let names = |line: &str| {
            let line = line.trim();
            line.starts_with(&format!("{on}.")) || line.starts_with(&format!("{on} "))
        };
        manifest(member).lines().any(names)
    };
    for (from, to) in [
        ("protocol", "swarmkv-node"),
        ("protocol", "swarmkv"),
        ("node", "swarmkv"),
        ("node", "swarmkv-tests"),
        ("protocol", "swarmkv-tests"),
        ("cli", "swarmkv-tests"),
    ] {
        assert!(!depends(from, to), "{from} depends on {to}");
    }
}

#[test]
fn the_core_knows_no_clock_no_chance_no_network_and_no_hash_order() {
    let banned =
        ["tokio", "libp2p::", "HashMap", "HashSet", "Instant::now", "SystemTime::now", "rand::"];
    let mut faults = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("protocol/src")) {
        for word in banned.iter().filter(|word| text.contains(**word)) {
            faults.push(format!("{name}: {word}"));
        }
    }
    report(&faults);
}

#[test]
fn nothing_names_a_path_outside_the_repository() {
    let outside = concat!("..", "/shared");
    let mut found = Vec::new();
    walk(&root(), &mut found);
    let names = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains(outside));
    let faults: Vec<String> =
        found.into_iter().filter(names).map(|path| path.display().to_string()).collect();
    report(&faults);
}

#[test]
fn files_that_the_documents_name_are_there() {
    let mut found = Vec::new();
    walk(&root().join("docs"), &mut found);
    let mut faults = Vec::new();
    for document in found.into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&document).expect("documents are text");
        // Every second part stands between marks for code.
        for name in text.split('`').skip(1).step_by(2) {
            let ours = ["protocol/", "node/", "cli/", "tests/"].iter().any(|s| name.starts_with(s));
            if ours && !name.contains(char::is_whitespace) && !root().join(name).exists() {
                faults.push(format!("{}: {name}", document.display()));
            }
        }
    }
    report(&faults);
}
