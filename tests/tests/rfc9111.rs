//! `docs/rfc9111.md` against the sources: every test that it names as a proof exists, and every row
//! names one or gives a reason.

use std::{collections::HashSet, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Names of functions behind `#[test]` in all Rust files of a folder.
fn tests_in(folder: &Path, found: &mut HashSet<String>) {
    let entries = fs::read_dir(folder).expect("a folder of the workspace");
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let names = text.split("#[test]").skip(1).filter_map(|rest| {
                let (_, rest) = rest.split_once("fn ")?;
                rest.split_once('(').map(|(name, _)| name.to_owned())
            });
            found.extend(names);
        }
    }
}

#[test]
fn every_rule_names_a_test_that_exists_or_a_reason() {
    let mut tests = HashSet::new();
    for folder in ["cache", "dataplane/src", "proto/src", "tests/tests"] {
        tests_in(&root().join(folder), &mut tests);
    }
    let text = fs::read_to_string(root().join("docs/rfc9111.md")).expect("docs/rfc9111.md");
    let mut problems = Vec::new();
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [place, .., proof] = cells[..] else { continue };
        if cells.len() != 4 || matches!(place, "§" | "source") {
            continue;
        }
        rows += 1;
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && proof != "reason given" {
            problems.push(format!("no proof: {line}"));
        }
        let missing = names.into_iter().filter(|name| !tests.contains(*name));
        problems.extend(missing.map(|name| format!("no test {name}: {line}")));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(rows > 130, "{rows} rows");
}
