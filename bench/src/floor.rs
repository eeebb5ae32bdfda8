//! The yardstick: a bare io_uring loop that answers each request with the same bytes, and a bare
//! loop that sends one frame to many streams. What they cost, the kernel costs.
//!
//! It does the least a server can do: no routing, no cache, no limits; requests are counted by the
//! empty line that ends them. Ring, flags and operations are the ones the edge would like best:
//! SINGLE_ISSUER, DEFER_TASKRUN and COOP_TASKRUN, direct descriptors, multishot accept and receive
//! into a buffer ring, one send a receive. Never reachable beyond loopback: `run` refuses.
//!
//! Owned memory: the answer and the frames live as long as the loop, the buffer ring as long as
//! its ring; that is what makes lending them to the kernel sound.
//!
//! This is the one file of bench with `unsafe` (docs/adr/0003-floor.md): a yardstick that went
//! through the engine would measure the engine.
#![expect(unsafe_code, reason = "the bare kernel interface is what is being measured")]

use std::{
    alloc::{self, Layout},
    fs, io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{failure::Failure, options::FloorOptions, process::descriptor_limit};

/// Serves until the process is killed.
///
/// # Errors
/// The answer cannot be read, the address is taken or not loopback, the kernel lacks io_uring.
pub(crate) fn run(options: &FloorOptions) -> Result<(), Failure> {
    if !options.listen.ip().is_loopback() {
        return Err(Failure::usage(format!("{} is not loopback", options.listen)));
    }
    let answer = fs::read(&options.answer).map_err(|error| {
        Failure::error(format!("read {}", options.answer.display())).because(error)
    })?;
    let failed = |error: io::Error| Failure::error("run the bare ring loop").because(error);
    let shared = Arc::new(Shared::default());
    let mut threads = Vec::new();
    for index in 0..options.shards.max(1) {
        let listener = listen(options.listen).map_err(|error| {
            Failure::error(format!("listen on {}", options.listen)).because(error)
        })?;
        let (answer, shared, fanout) = (answer.clone(), shared.clone(), options.fanout);
        let body = move || Floor::new(listener, &answer, shared, fanout)?.run();
        let thread = thread::Builder::new().name(format!("floor-{index}")).spawn(body);
        threads.push(thread.map_err(failed)?);
    }
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(Failure::error("run the bare ring loop: it panicked")),
        }
    }
    Ok(())
}

/// What the rings of one fan-out know of each other.
#[derive(Default)]
struct Shared {
    rings: Mutex<Vec<RawFd>>,
    frames: Mutex<Vec<Arc<[u8]>>>,
}

/// One ring, its thread and its connections.
struct Floor {
    ring: IoUring,
    listener: Socket,
    buffers: Buffers,
    /// By direct descriptor.
    connections: Vec<Connection>,
    /// Many copies of the answer, so that several leave in one send.
    copies: Vec<u8>,
    answer_bytes: usize,
    copies_max: u32,
    fanout: bool,
    /// Direct descriptors of open streams, and their generation.
    streams: Vec<(u32, u16)>,
    shared: Arc<Shared>,
    /// Frames under way; kept for good, their addresses are lent.
    frames: Vec<Arc<[u8]>>,
    completions: Vec<(u64, i32, u32)>,
}

#[derive(Clone, Default)]
struct Connection {
    open: bool,
    generation: u16,
    /// How much of the empty line that ends a request was seen: 0 to 3 of CR LF CR.
    matched: u8,
    /// Answers owed beyond the send under way.
    owed: u32,
    sending: bool,
    /// The request so far; used by the fan-out only.
    inbox: Vec<u8>,
}

/// What a completion is for; the rest of the user data is generation and descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    Accept = 1,
    Receive,
    Send,
    Fanout,
    Frame,
    Close,
    Tell,
}

impl Floor {
    fn new(listener: Socket, answer: &[u8], shared: Arc<Shared>, fanout: bool) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let sockets_max = descriptor_limit()?.saturating_sub(SPARE_DESCRIPTORS).min(SOCKETS_MAX);
        ring.submitter().register_files_sparse(sockets_max)?;
        let buffers = Buffers::new(&ring)?;
        let copies_max = (COPIES_BYTES_MAX / answer.len().max(1)).clamp(1, COPIES_MAX);
        shared.rings.lock().unwrap_or_else(PoisonError::into_inner).push(ring.as_raw_fd());
        Ok(Self {
            ring,
            listener,
            buffers,
            connections: vec![Connection::default(); sockets_max as usize],
            copies: answer.repeat(copies_max),
            answer_bytes: answer.len(),
            copies_max: copies_max as u32,
            fanout,
            streams: Vec::new(),
            shared,
            frames: Vec::new(),
            completions: Vec::new(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.accept()?;
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let mut completions = std::mem::take(&mut self.completions);
            completions.extend(
                self.ring.completion().map(|cqe| (cqe.user_data(), cqe.result(), cqe.flags())),
            );
            for &(user_data, result, flags) in &completions {
                self.complete(user_data, result, flags)?;
            }
            completions.clear();
            self.completions = completions;
            self.buffers.publish();
        }
    }

    fn complete(&mut self, user_data: u64, result: i32, flags: u32) -> io::Result<()> {
        let (op, generation, slot) = unpack(user_data);
        let current = self
            .connections
            .get(slot as usize)
            .is_some_and(|connection| connection.open && connection.generation == generation);
        match op {
            Some(Op::Accept) => {
                if result >= 0 {
                    self.accepted(result as u32)?;
                }
                if !cqueue::more(flags) {
                    self.accept()?;
                }
            }
            Some(Op::Receive) => self.received(slot, current, result, flags)?,
            Some(Op::Send) if current => {
                self.connections[slot as usize].sending = false;
                if result < 0 {
                    self.close(slot)?;
                } else {
                    self.answer(slot)?;
                }
            }
            // Success is silent here.
            Some(Op::Fanout) if current => self.close(slot)?,
            Some(Op::Frame) => self.fan_out(slot as usize)?,
            Some(Op::Send | Op::Fanout | Op::Close | Op::Tell) | None => {}
        }
        Ok(())
    }

    // ---- connections ----

    fn accept(&mut self) -> io::Result<()> {
        let listener = types::Fd(self.listener.as_raw_fd());
        let accept = opcode::AcceptMulti::new(listener).allocate_file_index(true).build();
        self.push(accept.user_data(pack(Op::Accept, 0, 0)))
    }

    fn accepted(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        let generation = connection.generation.wrapping_add(1);
        *connection = Connection { open: true, generation, ..Connection::default() };
        self.receive(slot)
    }

    /// The hit loop keeps a receive armed; a stream is asked once and then left alone.
    fn receive(&mut self, slot: u32) -> io::Result<()> {
        let user_data = pack(Op::Receive, self.connections[slot as usize].generation, slot);
        let entry = if self.fanout {
            opcode::Recv::new(types::Fixed(slot), std::ptr::null_mut(), 0)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(types::Fixed(slot), BUFFER_GROUP).build()
        };
        self.push(entry.user_data(user_data))
    }

    fn received(&mut self, slot: u32, current: bool, result: i32, flags: u32) -> io::Result<()> {
        let buffer = cqueue::buffer_select(flags);
        if current && let Some(buffer) = buffer {
            let bytes = self.buffers.bytes(buffer, result.max(0) as usize);
            let connection = &mut self.connections[slot as usize];
            if self.fanout {
                connection.inbox.extend_from_slice(bytes);
            } else {
                connection.owed += count_requests(&mut connection.matched, bytes);
            }
        }
        if let Some(buffer) = buffer {
            self.buffers.give_back(buffer);
        }
        if !current {
            return Ok(());
        }
        match result {
            0 => return self.close(slot),
            result if result < 0 && result != -libc::ENOBUFS => return self.close(slot),
            _ => {}
        }
        if self.fanout {
            return self.asked(slot);
        }
        if !cqueue::more(flags) {
            self.receive(slot)?;
        }
        self.answer(slot)
    }

    /// All answers owed in one send, unless one is under way.
    fn answer(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if connection.sending || connection.owed == 0 {
            return Ok(());
        }
        let count = connection.owed.min(self.copies_max);
        connection.owed -= count;
        connection.sending = true;
        let generation = connection.generation;
        let bytes = count as usize * self.answer_bytes;
        let send = opcode::Send::new(types::Fixed(slot), self.copies.as_ptr(), bytes as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(send.user_data(pack(Op::Send, generation, slot)))
    }

    fn close(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        connection.open = false;
        connection.inbox = Vec::new();
        let close = opcode::Close::new(types::Fixed(slot)).build();
        self.push(close.user_data(pack(Op::Close, 0, slot)))
    }

    // ---- fan-out ----

    /// Looks at a request of the fan-out: a GET opens a stream, a POST publishes its body.
    fn asked(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        let Some(end) = connection.inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
            return self.receive(slot);
        };
        if connection.inbox.starts_with(b"GET /ready ") {
            connection.inbox.clear();
            return self.say_done(slot);
        }
        if !connection.inbox.starts_with(b"POST") {
            connection.inbox = Vec::new();
            connection.owed = 1;
            self.streams.push((slot, connection.generation));
            return self.answer(slot);
        }
        let head = String::from_utf8_lossy(&connection.inbox[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let whole = end + 4 + length;
        if connection.inbox.len() < whole {
            return self.receive(slot);
        }
        let body = connection.inbox[end + 4..whole].to_vec();
        connection.inbox.drain(..whole);
        self.say_done(slot)?;
        self.publish(&body)
    }

    fn say_done(&mut self, slot: u32) -> io::Result<()> {
        let generation = self.connections[slot as usize].generation;
        let done = opcode::Send::new(types::Fixed(slot), DONE.as_ptr(), DONE.len() as u32)
            .flags(libc::MSG_NOSIGNAL)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(done.user_data(pack(Op::Fanout, generation, slot)))?;
        self.receive(slot)
    }

    /// Leaves a frame for every ring and wakes it.
    fn publish(&mut self, body: &[u8]) -> io::Result<()> {
        let shared = self.shared.clone();
        let index = {
            let mut frames = shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
            let index = frames.len();
            frames.push(frame(index, body).into());
            index
        };
        let rings = shared.rings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for ring in rings {
            if ring == self.ring.as_raw_fd() {
                continue;
            }
            let user_data = pack(Op::Frame, 0, index as u32);
            let tell = opcode::MsgRingData::new(types::Fd(ring), 0, user_data, None).build();
            self.push(tell.user_data(pack(Op::Tell, 0, 0)))?;
        }
        self.ring.submit()?;
        self.fan_out(index)
    }

    /// One send a stream, none of them waited for.
    fn fan_out(&mut self, index: usize) -> io::Result<()> {
        let frames = self.shared.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = frames[index].clone();
        drop(frames);
        self.frames.push(frame.clone());
        let connections = &self.connections;
        self.streams.retain(|&(slot, generation)| {
            let connection = &connections[slot as usize];
            connection.open && connection.generation == generation
        });
        for at in 0..self.streams.len() {
            let (slot, generation) = self.streams[at];
            let send = opcode::Send::new(types::Fixed(slot), frame.as_ptr(), frame.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS);
            self.push(send.user_data(pack(Op::Fanout, generation, slot)))?;
        }
        Ok(())
    }

    // ---- the ring ----

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points to is `copies`, a kept frame, constant text or nothing,
            // all of which outlive the ring.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }
}

/// Receive buffers that the kernel picks from.
struct Buffers {
    entries: *mut types::BufRingEntry,
    memory: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn new(ring: &IoUring) -> io::Result<Self> {
        let bytes = size_of::<types::BufRingEntry>() * usize::from(BUFFERS);
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
        // SAFETY: the layout is not of zero size.
        let pointer = unsafe { alloc::alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let entries = pointer.cast::<types::BufRingEntry>();
        // SAFETY: `entries` is page-aligned, zeroed, large enough for BUFFERS entries and never
        // freed.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, BUFFER_GROUP, 0)
        }?;
        let memory = vec![0; usize::from(BUFFERS) * BUFFER_BYTES];
        let mut buffers = Self { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        let from = usize::from(buffer) * BUFFER_BYTES;
        &self.memory[from..from + length.min(BUFFER_BYTES)]
    }

    /// Lets the kernel have a buffer again, from the next [`Buffers::publish`] on.
    fn give_back(&mut self, buffer: u16) {
        let index = usize::from(self.tail % BUFFERS);
        let address = self.memory[usize::from(buffer) * BUFFER_BYTES..].as_ptr() as u64;
        // SAFETY: `index` is below BUFFERS, the number of entries allocated.
        let entry = unsafe { self.entries.add(index) };
        // SAFETY: the entry lies at or behind the tail, where the kernel does not look yet; nobody
        // else holds a reference into the table.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: `entries` is the first entry of the registered, initialized table.
        let tail = unsafe { types::BufRingEntry::tail(self.entries) };
        // SAFETY: the tail is a valid, aligned u16 that only we write and the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Counts the empty lines that end requests, across any cut.
fn count_requests(matched: &mut u8, bytes: &[u8]) -> u32 {
    let mut count = 0;
    for &byte in bytes {
        *matched = match (*matched, byte) {
            (3, b'\n') => {
                count += 1;
                0
            }
            (0 | 2, b'\r') => *matched + 1,
            (1, b'\n') => 2,
            (_, b'\r') => 1,
            _ => 0,
        };
    }
    count
}

/// An event as one chunk.
fn frame(number: usize, body: &[u8]) -> Vec<u8> {
    let mut event = format!("id: {number}\ndata: ").into_bytes();
    event.extend_from_slice(body);
    event.extend_from_slice(b"\n\n");
    let mut frame = format!("{:x}\r\n", event.len()).into_bytes();
    frame.append(&mut event);
    frame.extend_from_slice(b"\r\n");
    frame
}

fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn pack(op: Op, generation: u16, slot: u32) -> u64 {
    u64::from(op as u8) << 56 | u64::from(generation) << 32 | u64::from(slot)
}

fn unpack(user_data: u64) -> (Option<Op>, u16, u32) {
    let ops = [Op::Accept, Op::Receive, Op::Send, Op::Fanout, Op::Frame, Op::Close, Op::Tell];
    let op = ops.into_iter().find(|op| *op as u8 == (user_data >> 56) as u8);
    (op, (user_data >> 32) as u16, user_data as u32)
}

/// Answer to a publish.
const DONE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
/// Entries of the submission queue: the size of a fan-out batch.
const SUBMISSIONS: u32 = 1_024;
const COMPLETIONS: u32 = 16_384;
const BUFFER_GROUP: u16 = 0;
/// A power of two, as the kernel wants it.
const BUFFERS: u16 = 1_024;
const BUFFER_BYTES: usize = 4_096;
const PAGE_BYTES: usize = 4_096;
const BACKLOG: i32 = 4_096;
const SOCKETS_MAX: u32 = 65_536;
const SPARE_DESCRIPTORS: u32 = 64;
/// Answers that leave in one send, at most.
const COPIES_MAX: usize = 64;
const COPIES_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_across_any_cut() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\r\n\r\nGET / HTTP/1.1\r\n\r\nGET";
        for step in 1..=text.len() {
            let mut matched = 0;
            let count: u32 =
                text.chunks(step).map(|piece| count_requests(&mut matched, piece)).sum();
            assert_eq!(count, 2, "step {step}");
        }
    }

    #[test]
    fn user_data_keeps_its_three_parts() {
        let (op, generation, slot) = unpack(pack(Op::Fanout, 65_535, u32::MAX));
        assert!(op == Some(Op::Fanout));
        assert_eq!((generation, slot), (65_535, u32::MAX));
        assert!(unpack(0).0.is_none());
    }
}
