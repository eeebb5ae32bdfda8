//! The server half of a connection: requests out of bytes, answers through a pipe that may be full.

use std::collections::BTreeMap;

use crate::sim::net::{End, Net, Notice};

/// A request as a peer sees it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// Fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// Whole body.
    pub body: Vec<u8>,
}

impl Request {
    /// The first field of that (lower case) name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default, Debug)]
struct Wire {
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    close_when_sent: bool,
}

/// All connections of a serving peer.
#[derive(Default, Debug)]
pub struct Wires(BTreeMap<End, Wire>);

impl Wires {
    /// Takes a notice; returns the requests it completed, and whether the end is gone.
    pub fn notice(
        &mut self,
        now_ns: u64,
        net: &mut Net,
        notice: Notice,
    ) -> (Vec<(End, Request)>, bool) {
        match notice {
            Notice::Arrived(end, _) => {
                self.0.insert(end, Wire::default());
                (Vec::new(), false)
            }
            Notice::Readable(end) => {
                let Some(wire) = self.0.get_mut(&end) else { return (Vec::new(), true) };
                let waiting = net.readable(end);
                wire.inbound.extend(net.read(now_ns, end, waiting));
                let mut requests = Vec::new();
                while let Some(request) = take_request(&mut wire.inbound) {
                    requests.push((end, request));
                }
                let ended = net.is_eof(end);
                if ended {
                    self.drop_end(now_ns, net, end, false);
                }
                (requests, ended)
            }
            Notice::Writable(end) => {
                self.flush(now_ns, net, end);
                (Vec::new(), false)
            }
            Notice::Reset(end) => {
                self.0.remove(&end);
                (Vec::new(), true)
            }
            Notice::Connected(_) | Notice::Refused(_) => (Vec::new(), false),
        }
    }

    /// Sends bytes, now or when there is room.
    pub fn send(&mut self, now_ns: u64, net: &mut Net, end: End, bytes: &[u8]) {
        if let Some(wire) = self.0.get_mut(&end) {
            wire.outbound.extend_from_slice(bytes);
            self.flush(now_ns, net, end);
        }
    }

    /// Bytes that could not be sent yet.
    pub fn unsent(&self, end: End) -> usize {
        self.0.get(&end).map_or(0, |wire| wire.outbound.len())
    }

    /// Ends a connection once everything is out.
    pub fn finish(&mut self, now_ns: u64, net: &mut Net, end: End) {
        if let Some(wire) = self.0.get_mut(&end) {
            wire.close_when_sent = true;
            self.flush(now_ns, net, end);
        }
    }

    /// Ends a connection now.
    pub fn drop_end(&mut self, now_ns: u64, net: &mut Net, end: End, reset: bool) {
        if self.0.remove(&end).is_some() {
            net.close(now_ns, end, reset);
        }
    }

    /// Forgets all connections, as a crash does.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn flush(&mut self, now_ns: u64, net: &mut Net, end: End) {
        let Some(wire) = self.0.get_mut(&end) else { return };
        match net.write(now_ns, end, &wire.outbound) {
            Some(taken) => {
                wire.outbound.drain(..taken);
            }
            None => {
                self.0.remove(&end);
                return;
            }
        }
        if wire.outbound.is_empty() && wire.close_when_sent {
            self.drop_end(now_ns, net, end, false);
        }
    }
}

/// One whole request from the front of `inbound`. A peer of the edge may rely on well-formed
/// requests; anything else is the edge's mistake and ends the run.
fn take_request(inbound: &mut Vec<u8>) -> Option<Request> {
    let end = inbound.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8(inbound[..end].to_vec()).expect("the edge sends ASCII heads");
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    assert_eq!(words.next(), Some("HTTP/1.1"), "request line of {head:?}");
    let fields: Vec<(String, String)> = lines
        .map(|line| {
            let (name, value) = line.split_once(':').expect("a field has a colon");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        })
        .collect();
    let hosts = fields.iter().filter(|(name, _)| name == "host").count();
    assert_eq!(hosts, 1, "one Host in {head:?}");
    let length = fields.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse::<usize>().expect("a number"));
    let request =
        Request { method: method.into(), target: target.into(), fields, body: Vec::new() };
    if inbound.len() < end + 4 + length {
        return None;
    }
    let rest = inbound.split_off(end + 4 + length);
    let body = inbound.split_off(end + 4);
    *inbound = rest;
    Some(Request { body, ..request })
}
