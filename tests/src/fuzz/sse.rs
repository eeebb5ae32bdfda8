//! The parser of event streams: any bytes, cut anyhow.

use proto::sse::{
    encode::{self, EventText},
    parse::Parser,
};

use super::Plan;

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(plan) = Plan::of(data) else { return };
    let bytes_max = if plan.mode % 2 == 0 { 1 << 16 } else { 64 };
    let whole = told(&[plan.input], bytes_max);
    assert_eq!(told(&plan.pieces(), bytes_max), whole, "cutting the input changes nothing");
    for event in whole.iter().filter(|event| !event.too_large) {
        check_written_again(event);
    }
}

#[derive(PartialEq, Debug)]
struct Told {
    name: String,
    data: String,
    last_event_id: String,
    has_id: bool,
    retry_ms: Option<u64>,
    too_large: bool,
}

fn told(pieces: &[&[u8]], bytes_max: usize) -> Vec<Told> {
    let mut parser = Parser::new(bytes_max);
    let mut told = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(event) = parser.step(&mut input) {
            told.push(Told {
                name: event.name.into_owned(),
                data: event.data.into_owned(),
                last_event_id: event.last_event_id.into_owned(),
                has_id: event.has_id,
                retry_ms: event.retry_ms,
                too_large: event.too_large,
            });
        }
        assert!(input.is_empty(), "all input is used up or kept");
        assert!(parser.kept_bytes() <= bytes_max, "what is kept is bounded");
    }
    told
}

/// An event that was told is written and read back equal.
fn check_written_again(event: &Told) {
    let text = EventText {
        name: Some(&event.name),
        id: event.has_id.then_some(&event.last_event_id),
        data: Some(&event.data),
        retry_ms: event.retry_ms,
    };
    let mut out = Vec::new();
    if encode::event(&mut out, &text).is_err() {
        assert!(event.name.contains('\0'), "only a NUL in a name can be read and not written");
        assert!(out.is_empty());
        return;
    }
    let again = told(&[&out], usize::MAX);
    assert_eq!(again.len(), 1);
    let again = &again[0];
    assert_eq!((&again.name, &again.data), (&event.name, &event.data));
    assert_eq!((again.has_id, again.retry_ms), (event.has_id, event.retry_ms));
    if event.has_id {
        assert_eq!(again.last_event_id, event.last_event_id);
    }
}
