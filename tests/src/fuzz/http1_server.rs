//! The downstream machine: any bytes, cut anyhow, answered at once or late.

use proto::{
    field::name::{self, Known},
    http1::{
        encode,
        head::{FieldSpace, RequestHead, parse_request},
        refusal::Refusal,
        server::{After, Server, ServerEof, Step, Waiting},
    },
    limits,
};

use super::Plan;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(plan) = Plan::of(data) else { return };
    let answer = match plan.mode % 3 {
        0 => Answer::AtHead,
        1 => Answer::AtEnd,
        _ => Answer::Late,
    };
    let whole = told(&[plan.input], answer);
    assert_eq!(told(&plan.pieces(), answer), whole, "cutting the input changes nothing");
    if answer == Answer::Late {
        assert_eq!(told(&[plan.input], Answer::AtEnd), whole, "answering late changes nothing");
    }
}

/// When a response is said to be done.
#[derive(Clone, Copy, PartialEq)]
enum Answer {
    /// With the head; a body is drained.
    AtHead,
    /// When the request is complete.
    AtEnd,
    /// When all that was received is stepped through.
    Late,
}

/// What the machine told, in a form that does not depend on how content is cut.
#[derive(PartialEq, Debug)]
enum Told {
    Head(Vec<u8>),
    Body(Vec<u8>),
    End(Vec<(String, Vec<u8>)>),
    Refused(Refusal),
    Close,
    Eof(ServerEof),
}

fn told(pieces: &[&[u8]], answer: Answer) -> Vec<Told> {
    let mut told = Vec::new();
    let mut server = Server::new(BODY_BYTES_MAX);
    for piece in pieces {
        let mut complete = drive(&mut server, piece, answer, &mut told);
        while answer == Answer::Late && complete && server.is_outstanding() {
            done(&mut server, &mut told);
            complete = drive(&mut server, b"", answer, &mut told);
        }
        if matches!(told.last(), Some(Told::Refused(_) | Told::Close)) {
            return told;
        }
    }
    // Bytes that are no head may be told of only now, if no line was complete.
    told.push(match server.eof() {
        ServerEof::Refused(refusal) if refusal != Refusal::Truncated => Told::Refused(refusal),
        eof => Told::Eof(eof),
    });
    told
}

/// Steps through one piece; whether only a response is missing then.
fn drive(server: &mut Server, mut input: &[u8], answer: Answer, told: &mut Vec<Told>) -> bool {
    loop {
        let mut space = FieldSpace::new();
        let complete = match server.step(&mut input, &mut space) {
            Step::Head(request) => {
                told.push(Told::Head(write_again(&request.head)));
                !request.body.has_content() || answer == Answer::AtHead
            }
            Step::Body(content) => {
                assert!(!content.is_empty());
                match told.last_mut() {
                    Some(Told::Body(joined)) => joined.extend_from_slice(content),
                    _ => told.push(Told::Body(content.to_vec())),
                }
                false
            }
            Step::BodyEnd(trailers) => {
                let rows = trailers.iter().map(|(name, value)| (name.to_owned(), value.to_vec()));
                told.push(Told::End(rows.collect()));
                true
            }
            Step::Refused(refusal) => {
                told.push(Told::Refused(refusal));
                return false;
            }
            Step::Close => {
                told.push(Told::Close);
                return false;
            }
            Step::Again => false,
            Step::NeedMore => {
                assert!(input.is_empty(), "all input is used up or kept");
                assert!(server.kept_bytes() <= limits::PIPELINE_BYTES_MAX);
                return server.waiting() == Waiting::Nothing;
            }
        };
        if complete && answer != Answer::Late {
            done(server, told);
        }
    }
}

fn done(server: &mut Server, told: &mut Vec<Told>) {
    if server.response_done() == After::Close {
        told.push(Told::Close);
    }
}

/// Writes an accepted head as for the next hop; what is written must be read back equal.
fn write_again(head: &RequestHead<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    let target = head.target.path_and_query();
    encode::request_line(&mut out, &head.method, target).expect("an accepted target is sendable");
    let port = head.authority.port.map_or(String::new(), |port| format!(":{port}"));
    let host = format!("{}{port}", head.authority.host);
    encode::known_field(&mut out, Known::Host, host.as_bytes()).expect("an accepted host");
    for (name, value) in head.fields.iter() {
        if Known::of(name) != Some(Known::Host) {
            encode::field(&mut out, name, value).expect("an accepted field is sendable");
        }
    }
    encode::end(&mut out);
    // What was added (a Host) may be over the limits; nothing else may.
    if head.fields.len() < limits::FIELD_COUNT_MAX {
        let mut space = FieldSpace::new();
        let parsed = parse_request(&out, &mut space).expect("what is written is accepted");
        let (again, len) = parsed.expect("complete");
        assert_eq!(len, out.len());
        assert_eq!((again.method, again.target.path_and_query()), (head.method, target));
        assert_eq!(again.authority, head.authority);
        let others = |head: &RequestHead<'_>| -> Vec<(String, Vec<u8>)> {
            let rows = head.fields.iter().filter(|(name, _)| !name::same(name, "host"));
            rows.map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
        };
        assert_eq!(others(&again), others(head));
    }
    out
}

const BODY_BYTES_MAX: u64 = 1000;
