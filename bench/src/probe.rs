//! One request, blocking: asks whether a server answers yet, and captures its answer byte for byte.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    limits::BODY_KEPT_BYTES_MAX,
    response::{BadResponse, Head, Part, ResponseReader},
};

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) content: Vec<u8>,
    /// All bytes as they came, head and framing included.
    pub(crate) raw: Vec<u8>,
}

/// Sends one request and reads its answer. `body` goes with a length.
///
/// # Errors
/// Not connected, not answered within [`WAIT`], or answered with something else than HTTP.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    fields: &[String],
    body: &[u8],
) -> io::Result<Answer> {
    let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&to.into(), WAIT)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.set_write_timeout(Some(WAIT))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
        request += &format!("Host: {to}\r\n");
    }
    fields.iter().for_each(|field| request += &format!("{field}\r\n"));
    if method != "GET" && method != "HEAD" {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    request += "\r\n";
    socket.write_all(request.as_bytes())?;
    socket.write_all(body)?;
    read(&mut socket)
}

fn read(socket: &mut Socket) -> io::Result<Answer> {
    let bad = |bad: BadResponse| io::Error::new(io::ErrorKind::InvalidData, format!("{bad:?}"));
    let (mut reader, mut head) = (ResponseReader::default(), None);
    let (mut content, mut raw) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = socket.read(&mut buffer)?;
        let mut bytes = &buffer[..count];
        raw.extend_from_slice(bytes);
        if raw.len() > BODY_KEPT_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let mut ended = false;
        while let Some(part) = reader.next(&mut bytes).map_err(bad)? {
            match part {
                Part::Head(found) => head = Some(found),
                Part::Body(piece) => content.extend_from_slice(piece),
                Part::End => {
                    ended = true;
                    break;
                }
            }
        }
        if count == 0 {
            ended |= reader.end().map_err(bad)?.is_some();
        }
        match (head, ended) {
            (Some(head), true) => return Ok(Answer { head, content, raw }),
            _ if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

/// An address of ours that nobody listens on right now.
///
/// # Errors
/// The kernel has no free port.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("the kernel gave no address"))
}

/// Longest wait for each step.
const WAIT: Duration = Duration::from_secs(5);
