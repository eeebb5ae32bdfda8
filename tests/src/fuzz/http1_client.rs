//! The upstream machine: any bytes as responses, cut anyhow.

use proto::{
    http1::{
        chunked,
        client::{Client, ClientEof, ClientStep, Response, ResponseError},
        encode,
        framing::BodyFraming,
        head::{FieldSpace, ResponseHead, parse_response},
    },
    limits,
};

use super::Plan;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(plan) = Plan::of(data) else { return };
    let to_head = plan.mode % 2 == 1;
    let whole = told(&[plan.input], to_head);
    assert_eq!(told(&plan.pieces(), to_head), whole, "cutting the input changes nothing");
    check_complete(&whole);
}

/// What the machine told, in a form that does not depend on how content is cut.
#[derive(PartialEq, Debug)]
enum Told {
    Informational(Vec<u8>),
    Head(Vec<u8>, BodyFraming),
    Body(Vec<u8>),
    End(Vec<(String, Vec<u8>)>),
    EndAtEof,
    Failed(ResponseError),
    Reusable(bool),
}

fn told(pieces: &[&[u8]], to_head: bool) -> Vec<Told> {
    let mut told = Vec::new();
    let mut client = Client::new();
    client.begin(to_head);
    for piece in pieces {
        let mut input = *piece;
        loop {
            let mut space = FieldSpace::new();
            match client.step(&mut input, &mut space) {
                ClientStep::Informational(head) => {
                    told.push(Told::Informational(write_again(&head)));
                }
                ClientStep::Head(Response { head, body }) => {
                    told.push(Told::Head(write_again(&head), body));
                }
                ClientStep::Body(content) => {
                    assert!(!content.is_empty());
                    match told.last_mut() {
                        Some(Told::Body(joined)) => joined.extend_from_slice(content),
                        _ => told.push(Told::Body(content.to_vec())),
                    }
                }
                ClientStep::End(trailers) => {
                    let rows = trailers.iter().map(|(n, v)| (n.to_owned(), v.to_vec()));
                    told.push(Told::End(rows.collect()));
                }
                ClientStep::Failed(error) => {
                    told.push(Told::Failed(error));
                    return told;
                }
                ClientStep::NeedMore => break,
            }
        }
        assert!(input.is_empty(), "all input is used up or kept");
        assert!(client.kept_bytes() <= limits::HEAD_BYTES_MAX.max(limits::TRAILER_BYTES_MAX));
    }
    // Bytes that are no head may be told of only now, if no line was complete.
    if matches!(told.last(), Some(Told::End(_))) {
        told.push(Told::Reusable(client.is_reusable()));
    }
    match client.eof() {
        ClientEof::Idle => {}
        ClientEof::End => told.push(Told::EndAtEof),
        ClientEof::Failed(error) => told.push(Told::Failed(error)),
    }
    told
}

/// A response that has ended holds exactly what its framing says, and its content survives being
/// sent in chunks.
fn check_complete(told: &[Told]) {
    let ended = told.iter().any(|told| matches!(told, Told::End(_)));
    let framing = told.iter().find_map(|told| match told {
        Told::Head(_, framing) => Some(*framing),
        _ => None,
    });
    let content = told.iter().find_map(|told| match told {
        Told::Body(content) => Some(&content[..]),
        _ => None,
    });
    let content = content.unwrap_or_default();
    match framing {
        Some(BodyFraming::None) => assert!(content.is_empty()),
        Some(BodyFraming::Length(length)) if ended => assert_eq!(content.len() as u64, length),
        Some(BodyFraming::UntilClose) => assert!(!ended, "only the close ends such a body"),
        _ => {}
    }
    let mut chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for part in content.chunks(7) {
        chunked::chunk(&mut chunks, part);
    }
    chunks.extend_from_slice(chunked::BODY_END);
    let again = self::told(&[&chunks], false);
    let read = again.iter().find_map(|told| match told {
        Told::Body(content) => Some(&content[..]),
        _ => None,
    });
    assert_eq!(read.unwrap_or_default(), content, "chunked and read back");
    assert_eq!(again.last(), Some(&Told::Reusable(true)));
}

/// Writes an accepted head as for the next hop; what is written must be read back equal.
fn write_again(head: &ResponseHead<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode::status_line(&mut out, head.status);
    for (name, value) in head.fields.iter() {
        encode::field(&mut out, name, value).expect("an accepted field is sendable");
    }
    encode::end(&mut out);
    if out.len() <= limits::HEAD_BYTES_MAX {
        let mut space = FieldSpace::new();
        let parsed = parse_response(&out, &mut space).expect("what is written is accepted");
        let (again, len) = parsed.expect("complete");
        assert_eq!((len, again.status), (out.len(), head.status));
        assert_eq!(again.fields, head.fields);
    }
    out
}
