//! What no compiler checks: file headers, sizes, import directions as ARCHITECTURE.md states them,
//! and where `unsafe` may stand.

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOTS: [&str; 7] =
    ["src", "proto/src", "cache/src", "dataplane/src", "control/src", "bench/src", "tests/src"];
/// STYLE: 1,000 lines at most, tests apart.
const LINES_MAX: usize = 1000;
/// STYLE: 100 columns. rustfmt keeps code within them, this keeps comments.
const COLUMNS_MAX: usize = 100;
/// Texts that people read and recorded bytes may be longer than a line of code.
const LITERAL_COLUMNS_MAX: usize = 130;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// All Rust files below `folder` with their text, paths relative to the workspace.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    let (root, mut found, mut open) = (root(), Vec::new(), vec![root().join(folder)]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path).expect("readable").map(|entry| entry.expect("entry").path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&root).expect("below root").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("UTF-8")));
        }
    }
    found.sort();
    found
}

/// The text before the test module, without comments and string contents: what imports and `unsafe`
/// are looked for in.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = body.lines().map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

fn fail_on(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let problems: Vec<String> = ROOTS
        .iter()
        .flat_map(|folder| rust_files(folder))
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(name, _)| format!("{name}: no `//!` header"))
        .collect();
    fail_on(&problems);
}

#[test]
fn files_stay_small() {
    let mut problems = Vec::new();
    for (name, text) in ROOTS.iter().flat_map(|folder| rust_files(folder)) {
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("").lines().count();
        if lines > LINES_MAX {
            problems.push(format!("{name}: {lines} lines before its tests, at most {LINES_MAX}"));
        }
        for (at, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            let columns_max = if is_comment { COLUMNS_MAX } else { LITERAL_COLUMNS_MAX };
            if line.chars().count() > columns_max {
                problems.push(format!("{name}:{}: over {columns_max} columns", at + 1));
            }
        }
    }
    fail_on(&problems);
}

#[test]
fn unsafe_stands_only_in_the_engine() {
    const EXCEPTIONS: [&str; 2] = ["bench/src/floor.rs", "tests/src/sim/sqlite_disk.rs"];
    let is_unsafe = |text: &str| {
        code(text).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    };
    let problems: Vec<String> = ROOTS
        .iter()
        .flat_map(|folder| rust_files(folder))
        .filter(|(name, _)| !name.starts_with("dataplane/src/engine"))
        .filter(|(name, _)| !EXCEPTIONS.contains(&name.as_str()))
        .filter(|(_, text)| is_unsafe(text))
        .map(|(name, _)| format!("{name}: `unsafe` outside dataplane/src/engine"))
        .collect();
    fail_on(&problems);
}

#[test]
fn imports_run_the_way_architecture_says() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let block = architecture.split("```imports\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.expect("ARCHITECTURE.md has an ```imports block");
    let ours = ["proto", "cache", "dataplane", "control", "bench"];
    let (mut problems, mut rules) = (Vec::new(), 0);
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        rules += 1;
        for (name, text) in rust_files(words[0]) {
            let code = code(&text);
            match words[1] {
                "never" => {
                    if names_path(&code, words[2]) {
                        problems.push(format!(
                            "{name}: names {}, forbidden by ARCHITECTURE.md",
                            words[2]
                        ));
                    }
                }
                "may" => {
                    let own = words[0].trim_end_matches("/src");
                    for other in ours.iter().filter(|other| **other != own) {
                        let allowed: Vec<&str> = words[2..]
                            .iter()
                            .copied()
                            .filter(|path| path.split("::").next() == Some(other))
                            .collect();
                        if !paths_of(&code, other).iter().all(|path| {
                            allowed.iter().any(|allowed| {
                                path == allowed || path.starts_with(&format!("{allowed}::"))
                            })
                        }) {
                            problems.push(format!(
                                "{name}: names {other}:: beyond {:?}",
                                words[2..].join(" ")
                            ));
                        }
                    }
                }
                other => problems.push(format!("ARCHITECTURE.md: unknown rule {other:?}")),
            }
        }
    }
    assert!(rules >= 6, "the imports block lost its rules");
    fail_on(&problems);
}

fn names_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + path.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Every path in `code` that starts with `krate::`, with `use krate::{a, b::c}` spread out to its
/// first level.
fn paths_of(code: &str, krate: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let start = format!("{krate}::");
    for (at, _) in code.match_indices(&start) {
        if code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        {
            continue;
        }
        let rest = &code[at + start.len()..];
        let word = |text: &str| -> String {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut item) = (0, String::new());
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        paths.push(format!("{krate}::{}", word(&item)));
                        item.clear();
                        continue;
                    }
                    _ => {}
                }
                item.push(c);
            }
            if !item.trim().is_empty() {
                paths.push(format!("{krate}::{}", word(&item)));
            }
        } else {
            paths.push(format!("{krate}::{}", word(rest)));
        }
    }
    paths
}
