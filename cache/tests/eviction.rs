//! The example in docs/eviction.md, run: a trace from a file, and the table that comes of it.

#![allow(unreachable_pub, reason = "modules of the example")]

use std::{fs, path::Path};

#[path = "../examples/eviction/policies.rs"]
mod policies;
#[allow(dead_code, reason = "the cache's own file, with its tests")]
#[path = "../src/eviction/s3fifo.rs"]
mod s3fifo;
#[allow(dead_code, reason = "the generated sequences are not used here")]
#[path = "../examples/eviction/sequences.rs"]
mod sequences;
#[path = "../examples/eviction/table.rs"]
mod table;

/// What stands between the fence of this name and its end.
fn block<'t>(text: &'t str, fence: &str) -> &'t str {
    let rest = text.split_once(&format!("```{fence}\n")).expect(fence).1;
    rest.split_once("```").expect("an end").0
}

fn read(name: &str, text: &str) -> Result<sequences::Sequence, String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).expect("a place for a trace");
    sequences::read(path.to_str().expect("text"))
}

/// The cells of a row, apart from what an entry of the cache costs: that changes with it.
fn cells(line: &str) -> Vec<&str> {
    let cells = line.split(" | ").enumerate().filter(|(at, _)| *at != CACHE + 2);
    cells.map(|(_, cell)| cell).collect()
}

/// Its place among the policies.
const CACHE: usize = 4;

#[test]
fn the_trace_in_the_documentation_gives_the_table_beside_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/eviction.md")).expect("docs/eviction.md");
    let trace = fs::read_to_string(root.join("docs/examples/shop.trace")).expect("a trace");
    assert!(trace.starts_with(block(&text, "text trace")));
    let name = "docs/examples/shop.trace";
    let path = root.join(name);
    let sequence = sequences::read(path.to_str().expect("text")).expect("a trace");
    let rows = table::PERCENTS.map(|percent| {
        let row = table::row(&sequence, percent);
        let (s3fifo, cache) = (row[CACHE - 1], row[CACHE]);
        assert!((s3fifo - cache).abs() < 0.03, "{percent}: {row:?}");
        table::line(name, percent, &row)
    });
    let found = format!("{}\n{}", table::heading(), rows.join("\n"));
    let expected = block(&text, "text table");
    let both = found.lines().zip(expected.lines());
    assert_eq!(found.lines().count(), expected.lines().count());
    both.for_each(|(found, expected)| assert_eq!(cells(found), cells(expected)));
}

#[test]
fn a_trace_with_a_mistake_is_refused_by_its_line() {
    let refusal = |text| read("wrong.trace", text).err().unwrap_or_default();
    assert!(refusal("/a 1\n\n/b x\n").ends_with("wrong.trace:3: a key and a size were expected"));
    assert!(refusal("/a -1\n").ends_with(":1: a key and a size were expected"));
    assert!(refusal("\n \n").ends_with("no requests"));
    assert!(sequences::read("/nowhere").is_err());
}

#[test]
fn what_is_larger_than_the_cache_takes_nobody_s_place() {
    let mut text = String::new();
    for at in 0..200 {
        text += &format!("/small/{} 100\n", at % 4);
        text += if at % 10 == 0 { "/large 20000\n" } else { "" };
    }
    let sequence = read("large.trace", &text).expect("a trace");
    // The four small ones fit into a tenth of 20,400 bytes, the large one does not.
    let row = table::row(&sequence, 10);
    let is_kept = |(at, ratio): (usize, &f64)| at == CACHE || (0.85..1.0).contains(ratio);
    assert!(row.iter().enumerate().all(is_kept), "{row:?}");
}
