//! The session with control: follows the feed, applies it in order, keeps the purge fence.

use std::{io, net::SocketAddr};

use super::{Settings, out::Out};
use crate::seam::{Mono, Now, Payload, ShardId, SocketId};

/// The session; on shard 0 only.
pub struct Feed {}

impl Feed {
    /// The session of this shard, if it is to have one.
    pub fn new(settings: &Settings) -> Option<Self> {
        let _ = settings;
        None
    }

    /// Reads what is known from disk, then connects.
    pub fn start(&mut self, now: Now, out: &mut Out) {
        let _ = (now, out);
    }

    /// A name look-up ended.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
        out: &mut Out,
    ) {
        let _ = (now, number, result, out);
    }

    /// A connection attempt ended.
    pub fn handle_connected(
        &mut self,
        now: Now,
        number: u64,
        result: Result<SocketId, io::ErrorKind>,
        out: &mut Out,
    ) {
        let _ = (now, number, result, out);
    }

    /// Bytes from control.
    pub fn handle_received(&mut self, now: Now, socket: SocketId, bytes: &[u8], out: &mut Out) {
        let _ = (now, socket, bytes, out);
    }

    /// Control ended the connection.
    pub fn handle_gone(&mut self, now: Now, socket: SocketId, out: &mut Out) {
        let _ = (now, socket, out);
    }

    /// A send ended.
    pub fn handle_sent(
        &mut self,
        now: Now,
        socket: SocketId,
        result: Result<(), io::ErrorKind>,
        payload: Payload,
        out: &mut Out,
    ) {
        let _ = (now, socket, result);
        out.recycle(payload);
    }

    /// Work on the disk ended (`Op::LastKnown`).
    pub fn handle_file(
        &mut self,
        now: Now,
        number: u64,
        result: io::Result<Vec<u8>>,
        out: &mut Out,
    ) {
        let _ = (now, number, result, out);
    }

    /// A shard passed the turn boundary behind a purge.
    pub fn handle_purge_passed(&mut self, now: Now, ticket: u64, from: ShardId, out: &mut Out) {
        let _ = (now, ticket, from, out);
    }

    /// A turn that was asked for.
    pub fn handle_continue(&mut self, now: Now, out: &mut Out) {
        let _ = (now, out);
    }

    /// Some deadline of the shard has passed.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        let _ = (now, out);
    }

    /// When to call [`Feed::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }
}
