//! What the documents say of keys, limits and metrics, held against the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pharos_tests::process::node::run;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The example with this name in docs/configuration.md.
fn example(name: &str) -> String {
    let text = read("docs/configuration.md");
    let block = text.split(&format!("```toml {name}\n")).nth(1);
    let block = block.and_then(|rest| rest.split("```").next());
    block.unwrap_or_else(|| panic!("docs/configuration.md has no example {name}")).to_owned()
}

/// Runs a role's `--check` on this text: whether it is right, and what it said.
fn check(role: &str, text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file.toml");
    fs::write(&file, text).expect("written");
    let output = run(&[role, "--config", &file.display().to_string(), "--check"]);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What the role expects in a section: it says so when it meets something else.
fn keys_of(role: &str, section: &str) -> Vec<String> {
    let (right, said) = check(role, &format!("{section}\nno_such_key = 1\n"));
    assert!(!right, "an unknown key is an error: {section}");
    let expected = said.split("expected").nth(1).unwrap_or_else(|| panic!("{section}: {said}"));
    let names = expected.lines().next().unwrap_or_default().split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// Keys that an example gives in a section, and the sections that it has.
fn given(example: &str, section: &str) -> BTreeSet<String> {
    let (mut keys, mut at) = (BTreeSet::new(), String::new());
    for line in example.lines() {
        if line.starts_with('[') {
            at = line.split('#').next().unwrap_or_default().trim().to_owned();
            if section.is_empty() {
                keys.insert(at.trim_matches(['[', ']']).to_owned());
            }
        } else if let Some((key, _)) = line.split_once('=').filter(|_| at == section) {
            keys.insert(key.trim().to_owned());
        }
    }
    keys
}

#[test]
fn every_example_is_accepted_and_holds_every_key_there_is() {
    let (edge, site, control) = (example("edge"), example("edge-site"), example("control"));
    for (role, text) in [("edge", &edge), ("edge", &site), ("control", &control)] {
        let (right, said) = check(role, text);
        assert!(right, "{said}");
    }
    let both = format!("{edge}\n{site}");
    let cases = [
        ("edge", &both, "", 14),
        ("edge", &both, "[control]", 2),
        ("edge", &both, "[cache]", 2),
        ("edge", &both, "[compression]", 5),
        ("edge", &both, "[forward]", 3),
        ("edge", &both, "[explain]", 3),
        ("edge", &both, "[streams]", 1),
        ("edge", &both, "[limits]", 1),
        ("edge", &both, "[timeouts]", 8),
        ("edge", &both, "[log]", 2),
        ("edge", &both, "[[site]]", 8),
        ("control", &control, "", 6),
        ("control", &control, "[retention]", 3),
    ];
    for (role, text, section, least) in cases {
        let (keys, given) = (keys_of(role, section), given(text, section));
        assert!(keys.len() >= least, "{role} {section}: {keys:?}");
        for key in keys {
            assert!(given.contains(&key), "{key} of {section} is not in the example: {given:?}");
        }
    }
}

#[test]
fn every_limit_and_metric_in_the_table_exists() {
    let text = read("docs/limits.md");
    let constants: String = ["src", "proto/src", "cache/src", "dataplane/src", "control/src"]
        .map(|folder| read(&format!("{folder}/limits.rs")))
        .concat();
    let (edge, control) = (
        read("dataplane/src/shard/observe.rs") + &read("dataplane/src/shard/admin.rs"),
        read("control/src/observe.rs"),
    );
    let mut problems = Vec::new();
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if cells[0] == "limit" {
            continue;
        }
        rows += 1;
        if cells.len() != 5 || cells.iter().any(|cell| cell.is_empty()) {
            problems.push(format!("five cells, none empty: {line}"));
        }
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted {
            let plain = name.split('{').next().unwrap_or(name);
            let is_constant = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            let is_known = if is_constant {
                constants.contains(&format!("const {name}:"))
            } else if let Some(metric) = plain.strip_prefix("pharos_control_") {
                control.contains(&format!("\"{metric}\""))
            } else if plain.starts_with("pharos_") {
                let label = name.split(['{', '}']).nth(1).unwrap_or_default();
                let label = label.replace('"', "\\\"");
                edge.lines().any(|line| {
                    line.contains(&format!("\"{plain}\""))
                        && (label.is_empty() || line.contains(&label))
                })
            } else {
                true
            };
            if !is_known {
                problems.push(format!("{name} does not exist: {line}"));
            }
        }
        let key = cells[0].trim_matches('`');
        if let Some((section, key)) = key.split_once('.') {
            let is_key = ["edge", "control"]
                .iter()
                .any(|name| given(&example(name), &format!("[{section}]")).contains(key));
            if !is_key {
                problems.push(format!("{section}.{key} is no key: {line}"));
            }
        }
    }
    assert!(rows > 50, "the tables are read: {rows} rows");
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}
