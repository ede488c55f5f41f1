//! Which file names which, read from the sources: no circle of files in a crate, and the core's folders in
//! their order.
//!
//! An arrow is a `use` or a path in the code that leads to another file. A folder's `mod.rs` stands for the
//! folder; that it declares a child is no arrow. What is compiled for tests only does not count.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{report, sources, tests_only};

/// The core's files and folders, each below those that may name it.
const LAYERS: [&str; 22] = [
    "plant", "meter", "limits", "codec", "later", "time", "random", "blame", "id", "crypto",
    "model", "store", "header", "roster", "log", "io", "message", "replica", "repair", "engine",
    "memory", "lib",
];

/// Whom each file names, by their names below the crate's `src`.
type Arrows = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_circle_of_files_in_any_crate() {
    let mut faults = Vec::new();
    for member in ["protocol", "node", "cli"] {
        let circles = circles(&arrows(&files(member)));
        faults.extend(circles.into_iter().map(|circle| format!("{member}: {circle}")));
    }
    report(&faults);
}

#[test]
fn arrows_between_the_folders_of_the_core_run_downwards() {
    let place = |file: &str| {
        let top = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
        LAYERS.iter().position(|layer| *layer == top)
    };
    let mut faults = Vec::new();
    for (file, named) in arrows(&files("protocol")) {
        let Some(from) = place(&file) else {
            faults.push(format!("{file}: has no place in the order of folders"));
            continue;
        };
        for other in named.iter().filter(|other| place(other).is_some_and(|to| to > from)) {
            faults.push(format!("{file} names {other}, which lies above it"));
        }
    }
    report(&faults);
}

#[test]
fn a_circle_is_found_and_named() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mut files = vec![
        file("lib.rs", "mod a;\nmod b;\nmod c;\n"),
        file("a.rs", "use crate::{b::{self, Thing}, c};\n"),
        file("b/mod.rs", "mod part;\npub use part::Thing;\n"),
        file("b/part.rs", "pub(in super::super) struct Thing; // super::Other\n"),
        file(
            "c.rs",
            "const WORDS: &str = \"crate::a\";\n#[cfg(test)]\nmod tests { use crate::a; }\n",
        ),
    ];
    assert_eq!(circles(&arrows(&files)), Vec::<String>::new());
    files[3].1.push_str("fn f() { inner::g::<crate::a::X>() }\nmod inner { use super::Thing; }\n");
    assert_eq!(circles(&arrows(&files)), ["a.rs -> b/mod.rs -> b/part.rs -> a.rs"]);
    files[3].1 = "use super::Thing;".to_owned();
    assert_eq!(circles(&arrows(&files)), ["b/mod.rs -> b/part.rs -> b/mod.rs"]);
}

/// The production files of a member, by their names below its `src`.
fn files(member: &str) -> Vec<(String, String)> {
    let below = format!("{member}/src/");
    let ours = |(name, text): (String, String)| {
        let file = name.strip_prefix(&below).filter(|_| !tests_only(&name))?;
        Some((file.to_owned(), text))
    };
    sources().into_iter().filter_map(ours).collect()
}

/// The module that a file holds.
fn module(file: &str) -> Vec<String> {
    let mut parts: Vec<String> =
        file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

fn arrows(files: &[(String, String)]) -> Arrows {
    let by_module: BTreeMap<Vec<String>, &str> =
        files.iter().map(|(file, _)| (module(file), file.as_str())).collect();
    let mut arrows = Arrows::new();
    for (file, text) in files {
        let named = arrows.entry(file.clone()).or_default();
        for mut path in paths(&module(file), &tokens(text), &by_module) {
            while !by_module.contains_key(&path) {
                path.pop();
            }
            let other = by_module[&path];
            if other != file {
                named.insert(other.to_owned());
            }
        }
    }
    arrows
}

/// For each file that is part of a circle the shortest one through it, each once.
fn circles(arrows: &Arrows) -> Vec<String> {
    let mut known = BTreeSet::new();
    let mut circles = Vec::new();
    for file in arrows.keys() {
        let Some(circle) = shortest_back_to(file, arrows) else { continue };
        let members: BTreeSet<&str> = circle.iter().copied().collect();
        if known.insert(members) {
            circles.push(circle.join(" -> "));
        }
    }
    circles
}

fn shortest_back_to<'a>(file: &'a str, arrows: &'a Arrows) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![file]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in arrows.get(*way.last()?).into_iter().flatten() {
            let longer: Vec<&str> = way.iter().copied().chain([next.as_str()]).collect();
            if next == file {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// Names, `::` and single signs of a source; comments, text, characters and lifetimes left out.
fn tokens(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            raw.find("\"#").map_or(rest.len(), |end| end + 5)
        } else if first == '"' {
            quoted(rest)
        } else if first == '\'' {
            character(rest)
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, left) = rest.split_at(length);
        if token == "::" || token.len() == length && !token.starts_with(['"', '\'', '/', ' ', '\n'])
        {
            found.push(token.to_owned());
        }
        rest = left;
    }
    found
}

/// Length of the text at the begin.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text[1..].find(|c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// Length of the character at the begin; of a lifetime only its sign.
fn character(text: &str) -> usize {
    let mut chars = text[1..].char_indices();
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(text.len(), |end| end + 4),
        (Some(_), Some((end, '\''))) => end + 2,
        _ => 1,
    }
}

/// Every path that is named in a module, from the crate's root.
fn paths(
    module: &[String],
    tokens: &[String],
    modules: &BTreeMap<Vec<String>, &str>,
) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    // Modules that stand in the file itself, each with the depth of braces that it began at.
    let mut within: Vec<(String, usize)> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    let is = |at: usize, token: &str| tokens.get(at).is_some_and(|found| found == token);
    while at < tokens.len() {
        let here = || module.iter().cloned().chain(within.iter().map(|(name, _)| name.clone()));
        let mut end = at + 1;
        match tokens[at].as_str() {
            "#" if tokens[at..].iter().map(String::as_str).take(7).eq(CFG_TEST) => {
                end = item_end(tokens, at + 7);
            }
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                within.pop_if(|(_, began)| *began == depth);
            }
            "mod" if is(at + 2, "{") => {
                within.push((tokens[at + 1].clone(), depth));
                end = at + 2;
            }
            "pub" if is(at + 1, "(") => {
                end = at + tokens[at..].iter().position(|token| token == ")").unwrap_or(0) + 1;
            }
            "use" => {
                end = at + tokens[at..].iter().position(|token| token == ";").unwrap_or(0);
                for path in spread(&tokens[at + 1..end]) {
                    found.extend(resolved(&path, here().collect(), modules));
                }
            }
            _ if is(at + 1, "::") && !(at > 0 && is(at - 1, "::")) => {
                let mut path = vec![tokens[at].clone()];
                while is(end, "::") && tokens.get(end + 1).is_some_and(|next| is_name(next)) {
                    path.push(tokens[end + 1].clone());
                    end += 2;
                }
                found.extend(resolved(&path, here().collect(), modules));
            }
            _ => {}
        }
        at = end.max(at + 1);
    }
    found
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Where the item ends that begins here: at its `;`, or with its braces.
fn item_end(tokens: &[String], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at + 1,
            "}" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// The single paths of a `use`.
fn spread(tree: &[String]) -> Vec<Vec<String>> {
    let names = |tokens: &[String]| {
        let path = tokens.iter().take_while(|token| *token != "as");
        path.filter(|token| is_name(token)).cloned().collect::<Vec<String>>()
    };
    let Some(open) = tree.iter().position(|token| token == "{") else { return vec![names(tree)] };
    let front = names(&tree[..open]);
    let mut found = Vec::new();
    let (mut depth, mut began) = (0_usize, open + 1);
    for (at, token) in tree.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        let ends = depth == 1 && token == "," || depth == 0 && token == "}";
        if ends && at > began {
            let parts = spread(&tree[began..at]);
            found.extend(parts.into_iter().map(|part| [front.clone(), part].concat()));
        }
        if ends {
            began = at + 1;
        }
    }
    found
}

/// A path from the crate's root; `None` if it does not lead to this crate.
fn resolved(
    path: &[String],
    here: Vec<String>,
    modules: &BTreeMap<Vec<String>, &str>,
) -> Option<Vec<String>> {
    let (first, mut rest) = path.split_first()?;
    let mut at = here;
    match first.as_str() {
        "crate" => at.clear(),
        "self" => {}
        "super" => {
            at.pop();
            while let Some((next, left)) = rest.split_first().filter(|(next, _)| *next == "super") {
                debug_assert_eq!(next, "super");
                at.pop();
                rest = left;
            }
        }
        child => {
            at.push(child.to_owned());
            modules.get(&at)?;
        }
    }
    at.extend(rest.iter().filter(|name| *name != "self").cloned());
    Some(at)
}
