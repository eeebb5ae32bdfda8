//! A driver for tests of the server: steps it through pieces of input and writes down what it
//! tells.

use super::{super::head::FieldSpace, After, Phase, Request, Server, ServerEof, Step};
use crate::{http1::refusal::Refusal, limits};

/// When the driver under test says that a response is done.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Answer {
    /// With the head; a body is drained.
    AtHead,
    /// When the request is complete.
    AtEnd,
    /// Only when all input of a receive is stepped through.
    Late,
}

/// Drives a server over pieces of input and writes down what it told, adjacent content joined.
pub(super) fn run(pieces: &[&[u8]], answer: Answer) -> Vec<String> {
    let mut told = Vec::new();
    let mut server = Server::new(1000);
    for piece in pieces {
        drive(&mut server, piece, answer, &mut told);
        while answer == Answer::Late && server.is_outstanding() && server.phase_is_head() {
            done(&mut server, &mut told);
            drive(&mut server, b"", answer, &mut told);
        }
    }
    if !told.iter().any(|told| told.starts_with("refused") || told == "close") {
        // Wrong bytes may be told of only now if no line was complete.
        told.push(match server.eof() {
            ServerEof::Refused(refusal) if refusal != Refusal::Truncated => {
                format!("refused {refusal:?}")
            }
            other => format!("{other:?}"),
        });
    }
    told
}

fn done(server: &mut Server, told: &mut Vec<String>) {
    if server.response_done() == After::Close {
        told.push("close".into());
    }
}

pub(super) fn drive(server: &mut Server, mut input: &[u8], answer: Answer, told: &mut Vec<String>) {
    for _ in 0..10_000 {
        let mut space = FieldSpace::new();
        let mut complete = false;
        match server.step(&mut input, &mut space) {
            Step::Head(request) => {
                let Request { head, body, keep_alive, expect_continue } = request;
                let line =
                    (head.method.as_str(), head.target.path_and_query(), head.authority.host);
                told.push(format!(
                    "{line:?} {body:?} {keep_alive} {expect_continue} {:?}",
                    head.fields
                ));
                complete = !body.has_content() || answer == Answer::AtHead;
            }
            Step::Body(content) => {
                assert!(!content.is_empty());
                let content = String::from_utf8_lossy(content);
                match told.last_mut() {
                    Some(last) if last.starts_with("body ") => last.push_str(&content),
                    _ => told.push(format!("body {content}")),
                }
            }
            Step::BodyEnd(trailers) => {
                told.push(format!("end {:?}", trailers.iter().collect::<Vec<_>>()));
                complete = true;
            }
            Step::Refused(refusal) => return told.push(format!("refused {refusal:?}")),
            Step::Close => return told.push("close".into()),
            Step::Again => {}
            Step::NeedMore => {
                assert!(input.is_empty(), "all input is used up or kept");
                assert!(server.kept_bytes() <= limits::PIPELINE_BYTES_MAX);
                return;
            }
        }
        if complete && answer != Answer::Late {
            done(server, told);
        }
    }
    panic!("no end of steps");
}

impl Server {
    fn phase_is_head(&self) -> bool {
        self.state.phase == Phase::Head
    }
}

/// What is told of `input`, which must not depend on how it is cut.
pub(super) fn told(input: &[u8], answer: Answer) -> Vec<String> {
    let whole = run(&[input], answer);
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    let text = String::from_utf8_lossy(&input[..input.len().min(400)]).into_owned();
    assert_eq!(run(&bytes, answer), whole, "{text:?} byte by byte");
    whole
}
