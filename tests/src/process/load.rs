//! Load on edges by the bench role: requests at a fixed rate and open streams, each a process of
//! its own, and the count of what an edge has really answered.
//!
//! Leaves to others: what is checked under that load (the tests); nothing here looks at answers.

use std::{net::SocketAddr, path::Path};

use super::node::{Process, get};

/// Asks for `path` at `rate` requests a second for as long as the value lives.
pub fn requests(folder: &Path, name: &str, edge: SocketAddr, path: &str, rate: u32) -> Process {
    let (url, rate) = (format!("http://{edge}{path}"), rate.to_string());
    let arguments = ["bench", "http", "--url", &url, "--rate", &rate, "--connections", "32"];
    // Bodies change with each incident: only their framing can be checked.
    let arguments = [&arguments[..], &["--check", "framing"], &LASTING].concat();
    Process::start(folder, name, &arguments)
}

/// Holds `count` streams of `path` open for as long as the value lives.
pub fn streams(folder: &Path, name: &str, edge: SocketAddr, path: &str, count: u32) -> Process {
    let (url, count) = (format!("http://{edge}{path}"), count.to_string());
    let arguments = ["bench", "sse", "--url", &url, "--streams", &count];
    Process::start(folder, name, &[&arguments[..], &LASTING].concat())
}

/// The sum of an edge's metric over its labels, as its admin listener tells it.
pub fn metric(admin: SocketAddr, name: &str) -> f64 {
    let reply = get(admin, "/metrics").expect("the admin listener answers");
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    text.lines().filter(of_name).filter_map(value).sum()
}

/// Longer than any test.
const LASTING: [&str; 2] = ["--duration", "3600s"];
