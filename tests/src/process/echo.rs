//! An origin that answers with what it was asked: the head, and how many bytes of a body came.
//! It takes a WebSocket up as far as its `101`.
//!
//! Leaves to others: everything that a real origin knows (`nginx`), orders (`origin`).
#![expect(clippy::disallowed_types, reason = "a test origin owns its socket")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Starts one; it ends with the test's process.
pub fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("bound");
    let accept = move || {
        for stream in listener.incoming().flatten() {
            thread::Builder::new().spawn(move || answer(&stream)).expect("a thread");
        }
    };
    thread::Builder::new().name("echo".into()).spawn(accept).expect("a thread");
    address
}

/// Answers one connection's requests; `None` when it ends.
fn answer(stream: &TcpStream) -> Option<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            let begin = head.len();
            if input.read_line(&mut head).ok()? == 0 {
                return None;
            }
            let line = head[begin..].to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        if head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") {
            output.write_all(SWITCHED).ok()?;
            return None;
        }
        let came = std::io::copy(&mut (&mut input).take(length), &mut std::io::sink()).ok()?;
        let body = format!("{head}body: {came}\r\n");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        output.write_all(answer.as_bytes()).ok()?;
    }
}

/// What stands behind the head is the other protocol's.
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\nswitched\n";
