//! An origin in the test's own process behind a gate: answers that the test wants held wait until
//! it opens, so that a test sees who is there at the same time, whatever the machine does.
//!
//! Leaves to others: what is answered (the test says so for each request), an origin that can be
//! killed (`origin`).
#![expect(clippy::disallowed_types, reason = "a test origin owns its socket")]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

/// A running origin; it ends with the test's process.
#[derive(Clone)]
pub struct Gate {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// A request as the origin sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request target.
    pub target: String,
    /// The whole head, as it came.
    pub head: String,
    /// How often this target has been asked for, this time included.
    pub nth: usize,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Head and body.
    pub bytes: Vec<u8>,
    /// The gate that it waits for: it goes out once so many are open; 0 for at once.
    pub gate: usize,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    answer: Box<dyn Fn(&Asked) -> Answer + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Gates that are open.
    open: usize,
    asked: BTreeMap<String, usize>,
    /// Requests that have not been answered, by target.
    held: BTreeMap<String, usize>,
}

impl Gate {
    /// Starts one at a free address.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts one at this address, where another origin was before.
    pub fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("listens");
        let address = listener.local_addr().expect("bound");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { state, changed, answer: Box::new(answer) });
        let served = Arc::clone(&shared);
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                let serve = move || shared.serve(&stream);
                thread::Builder::new().stack_size(STACK_BYTES).spawn(serve).expect("a thread");
            }
        };
        thread::Builder::new().name("gate".into()).spawn(accept).expect("a thread");
        Self { address, shared }
    }

    /// Opens one gate more, and with it whatever waits there.
    pub fn open(&self) {
        self.shared.lock().open += 1;
        self.shared.changed.notify_all();
    }

    /// How many requests are here without an answer.
    pub fn held(&self) -> usize {
        self.shared.lock().held.values().sum()
    }

    /// How often each target was asked for.
    pub fn asked(&self) -> BTreeMap<String, usize> {
        self.shared.lock().asked.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under it")
    }

    /// Answers one connection's requests; `None` when it ends.
    fn serve(&self, stream: &TcpStream) -> Option<()> {
        let (mut input, mut output) = (BufReader::new(stream), stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if input.read_line(&mut head).ok()? == 0 {
                    return None;
                }
            }
            let target = head.split(' ').nth(1)?.to_owned();
            let mut state = self.lock();
            let count = state.asked.entry(target.clone()).or_default();
            *count += 1;
            let asked = Asked { nth: *count, target, head };
            *state.held.entry(asked.target.clone()).or_default() += 1;
            let answer = (self.answer)(&asked);
            while state.open < answer.gate {
                state = self.changed.wait(state).expect("no panic under it");
            }
            *state.held.entry(asked.target).or_default() -= 1;
            drop(state);
            output.write_all(&answer.bytes).ok()?;
        }
    }
}

/// Hundreds of connections are hundreds of threads.
const STACK_BYTES: usize = 128 * 1024;
