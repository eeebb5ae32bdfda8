//! An origin that serves the files of a folder, of the kinds that a page needs.
//!
//! Leaves to others: everything that a real origin knows (`nginx`).
#![expect(clippy::disallowed_types, reason = "a test origin owns its socket")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

/// Starts one; it ends with the test's process.
pub fn serve(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("bound");
    let accept = move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            let one = move || answer(&stream, &folder);
            thread::Builder::new().spawn(one).expect("a thread");
        }
    };
    thread::Builder::new().name("files".into()).spawn(accept).expect("a thread");
    address
}

/// Answers one connection's requests, none of which has a body; `None` when it ends.
fn answer(stream: &TcpStream, folder: &Path) -> Option<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let target = head.split(' ').nth(1)?;
        let path = target.split('?').next()?.trim_start_matches('/');
        let safe = !path.split('/').any(|part| part == "..");
        let (status, body) = match fs::read(folder.join(path)).ok().filter(|_| safe) {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", Vec::new()),
        };
        let kind = match Path::new(path).extension().and_then(|kind| kind.to_str()) {
            Some("html") => "text/html; charset=utf-8",
            Some("js" | "mjs") => "text/javascript",
            _ => "application/octet-stream",
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        output.write_all(&[head.as_bytes(), &body].concat()).ok()?;
    }
}
