//! The `pharos` command.

fn main() {}
