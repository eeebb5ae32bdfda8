//! The last things that happened in a run, for whoever looks at a failure: inputs and effects of
//! every shard, in order.
//!
//! Off unless asked for by [`Trace::enable`]: a sweep writes none of it.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use dataplane::seam::{Effect, Input, Now};

/// Lines kept unless said otherwise.
pub const LINES: usize = 80;

/// Lines that a new world keeps; 0 for none.
static LINES_MAX: AtomicUsize = AtomicUsize::new(0);

/// A hand on the lines of one run.
#[derive(Clone, Debug, Default)]
pub struct Trace(Option<Rc<Lines>>);

#[derive(Debug)]
struct Lines {
    lines_max: usize,
    lines: RefCell<VecDeque<String>>,
}

impl Trace {
    /// From now on new worlds keep so many lines.
    pub fn enable(lines_max: usize) {
        LINES_MAX.store(lines_max, Ordering::Relaxed);
    }

    /// The trace of a new world.
    pub fn new() -> Self {
        let lines_max = LINES_MAX.load(Ordering::Relaxed);
        Self((lines_max > 0).then(|| Rc::new(Lines { lines_max, lines: RefCell::default() })))
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a line.
    pub fn say(&self, now: Now, line: std::fmt::Arguments<'_>) {
        if let Some(Lines { lines_max, lines }) = self.0.as_deref() {
            let mut lines = lines.borrow_mut();
            if lines.len() == *lines_max {
                lines.pop_front();
            }
            lines.push_back(format!("{:.6} {line}", now.mono.0 as f64 / 1e9));
        }
    }

    /// What was kept, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.0
            .as_ref()
            .map_or_else(Vec::new, |lines| lines.lines.borrow().iter().cloned().collect())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        // An assertion of the code under test ends the run: this is all that is left of it.
        if std::thread::panicking() {
            let lines = self.lines.borrow();
            lines.iter().for_each(|line| tell(line));
        }
    }
}

#[expect(clippy::print_stderr, reason = "the run is unwinding: there is nobody to return it to")]
fn tell(line: &str) {
    eprintln!("  {line}");
}

/// An input in a few words.
pub fn input<M>(input: &Input<'_, M>) -> String {
    match input {
        Input::Accepted { socket, peer, .. } => format!("Accepted {} from {peer}", name(*socket)),
        Input::Connected { op, result } => format!("Connected {op} {result:?}"),
        Input::Received { socket, bytes } => {
            format!("Received {} {} {:?}", name(*socket), bytes.len(), start(bytes))
        }
        Input::Eof { socket } => format!("Eof {}", name(*socket)),
        Input::Writable { socket } => format!("Writable {}", name(*socket)),
        Input::HungUp { socket } => format!("HungUp {}", name(*socket)),
        Input::Sent { socket, result, .. } => format!("Sent {} {result:?}", name(*socket)),
        Input::SendFailed { socket, sent_bytes, error } => {
            format!("SendFailed {} after {sent_bytes}: {error:?}", name(*socket))
        }
        Input::Closed { socket } => format!("Closed {}", name(*socket)),
        Input::Mail { from, .. } => format!("Mail from {from}"),
        Input::File { op, result } => {
            format!("File {op} {:?}", result.as_ref().map(Vec::len).map_err(|error| error.kind()))
        }
        Input::Cold { op, .. } => format!("Cold {op}"),
        Input::Resolved { op, .. } => format!("Resolved {op}"),
        Input::Deadline => "Deadline".to_owned(),
        Input::Continue => "Continue".to_owned(),
        Input::Control(control) => format!("Control {control:?}"),
    }
}

/// An effect in a few words.
pub fn effect<M>(effect: &Effect<M>) -> String {
    match effect {
        Effect::Connect { op, to, .. } => format!("Connect {op} to {to}"),
        Effect::Receive { socket, on } => format!("Receive {} {on}", name(*socket)),
        Effect::Watch { socket, hang_up, writable } => {
            format!("Watch {} hang_up {hang_up} writable {writable}", name(*socket))
        }
        Effect::Send { socket, payload } => {
            let first = payload.segments().first().map_or(&b""[..], |segment| segment.as_slice());
            format!("Send {} {} {:?}", name(*socket), payload.len(), start(first))
        }
        Effect::Fanout { frame, targets } => {
            format!("Fanout {:?} to {}", start(frame), targets.len())
        }
        Effect::Close { socket, how } => format!("Close {} {how:?}", name(*socket)),
        Effect::Mail { to, .. } => format!("Mail to {to}"),
        Effect::File { op, .. } => format!("File {op}"),
        Effect::Resolve { op, name, .. } => format!("Resolve {op} {name}"),
        Effect::Cold { op, .. } => format!("Cold {op}"),
        Effect::Accept { listener, on } => format!("Accept {listener} {on}"),
        Effect::Yield => "Yield".to_owned(),
        Effect::Stop => "Stop".to_owned(),
    }
}

fn name(socket: dataplane::seam::SocketId) -> String {
    format!("{}.{}", socket.slot, socket.generation)
}

/// The start of some bytes, readable.
fn start(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_off_unless_asked_for_and_keeps_the_last() {
        let off = Trace::new();
        off.say(Now::default(), format_args!("unheard"));
        assert!(!off.is_on() && off.lines().is_empty());
        let on = Trace(Some(Rc::new(Lines { lines_max: 3, lines: RefCell::default() })));
        (0..4).for_each(|at| on.say(Now::default(), format_args!("line {at}")));
        let lines = on.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (3, "0.000000 line 1"));
    }
}
