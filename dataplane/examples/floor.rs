//! The bare ring loop that the engine is measured against: the same flags, multishot receive,
//! buffer ring and sends, one file, no actor, no table of states, no care for anything but speed.
//!
//! ```text
//! floor 127.0.0.1:9000 [core]      answers 1 KiB to each request
//! ```
//!
//! A yardstick, not a server: it leaks, it serves no more than 4,096 connections, and it assumes
//! that a request comes in one piece and that a send is never short.
#![allow(unsafe_code, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![expect(clippy::disallowed_types, reason = "a listener, the plain way")]

use std::{
    alloc, net::TcpListener, os::fd::AsRawFd, sync::atomic::AtomicU16, sync::atomic::Ordering,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types, types::BufRingEntry};

const BUFFERS: u16 = 64;
const BUFFER_BYTES: usize = 4096;
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listener = TcpListener::bind(&arguments[0]).expect("an address");
    let nodelay: libc::c_int = 1;
    unsafe {
        let size = size_of_val(&nodelay) as u32;
        let value = (&raw const nodelay).cast();
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, value, size);
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(arguments.get(1).map_or(0, |core| core.parse().expect("a core")), &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
    run(listener.as_raw_fd());
}

fn run(listener: i32) {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n".to_vec();
    answer.resize(answer.len() + 1024, b'x');
    let mut ring: IoUring = IoUring::builder()
        .setup_cqsize(4096)
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .build(1024)
        .expect("a ring");
    let layout = alloc::Layout::from_size_align(4096, 4096).expect("layout");
    let entries = unsafe { alloc::alloc_zeroed(layout) }.cast::<BufRingEntry>();
    let memory = vec![0u8; usize::from(BUFFERS) * BUFFER_BYTES];
    unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, 0, 0) }
        .expect("buffers");
    let shared_tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
    let mut tail = 0u16;
    let mut lend = |buffer: u16| unsafe {
        let entry = &mut *entries.add(usize::from(tail & (BUFFERS - 1)));
        entry.set_addr(memory.as_ptr().add(usize::from(buffer) * BUFFER_BYTES) as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        tail = tail.wrapping_add(1);
        shared_tail.store(tail, Ordering::Release);
    };
    (0..BUFFERS).for_each(&mut lend);
    let push = |queue: &mut squeue::SubmissionQueue<'_>, entry: squeue::Entry| unsafe {
        queue.push(&entry).expect("room");
    };
    let receive =
        |fd: i32| opcode::RecvMulti::new(types::Fd(fd), 0).build().user_data(RECEIVE | fd as u64);
    let (null, null_len) = (std::ptr::null_mut(), std::ptr::null_mut());
    let accept =
        || opcode::Accept::new(types::Fd(listener), null, null_len).build().user_data(ACCEPT);
    push(&mut ring.submission(), accept());
    loop {
        ring.submit_and_wait(1).expect("enter");
        let (_, mut queue, completions) = ring.split();
        for completion in completions {
            let fd = completion.user_data() as u32 as i32;
            let result = completion.result();
            match completion.user_data() >> 32 << 32 {
                ACCEPT => {
                    push(&mut queue, receive(result));
                    push(&mut queue, accept());
                }
                RECEIVE if result > 0 => {
                    let buffer = cqueue::buffer_select(completion.flags()).expect("a buffer");
                    let from = usize::from(buffer) * BUFFER_BYTES;
                    let bytes = &memory[from..from + result as usize];
                    if bytes.windows(4).any(|window| window == b"\r\n\r\n") {
                        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                        let len = answer.len() as u32;
                        let send = opcode::Send::new(types::Fd(fd), answer.as_ptr(), len);
                        push(&mut queue, send.flags(flags).build().user_data(SEND | fd as u64));
                    }
                    lend(buffer);
                    if !cqueue::more(completion.flags()) {
                        push(&mut queue, receive(fd));
                    }
                }
                RECEIVE if result == -libc::ENOBUFS => push(&mut queue, receive(fd)),
                RECEIVE => unsafe {
                    libc::close(fd);
                },
                _ => {}
            }
        }
    }
}
