//! Origins of one shard: their addresses, and the connections kept for reuse.
//!
//! A fetch asks for a connection and gets a kept one, or the address to connect to, or has to wait
//! for a name look-up. Kept connections have their `Receive` on, so that an origin which closes one
//! is noticed before it is used; the remaining race is what a fetch's one safe retry is for.
//!
//! Leaves to others: the exchange on a connection (`fetch`), health and breakers (later).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use hashbrown::HashMap;

use super::{
    out::{Op, Out},
    route::OriginName,
    slab::Ref,
    timers::{Timer, Timers},
};
use crate::{
    limits,
    seam::{Close, Mono, Now, SocketId},
};

/// What a fetch gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Acquired {
    /// A kept connection.
    Kept(SocketId),
    /// Connect here.
    Address(SocketAddr),
    /// A look-up is under way; the fetch is named by [`Origins::handle_resolved`].
    Resolving,
    /// The name has no address.
    Unresolved,
}

/// Origins by row. Rows are never removed: there are as many as configured origins since start,
/// bounded by configuration, and each is small.
pub struct Origins {
    rows: Vec<Row>,
    index: HashMap<OriginName, u32>,
    idle_ms: u64,
    serial: u32,
    idle_count: usize,
}

struct Row {
    name: OriginName,
    host_field: Rc<str>,
    addresses: Vec<SocketAddr>,
    /// Which address the next connection takes.
    next: usize,
    resolved_until: Mono,
    resolving: bool,
    waiting: Vec<Ref>,
    idle: Vec<Idle>,
}

struct Idle {
    socket: SocketId,
    serial: u32,
    until: Mono,
}

impl Origins {
    /// Connections that are kept from now on are kept this long.
    pub fn set_idle_ms(&mut self, idle_ms: u64) {
        self.idle_ms = idle_ms;
    }

    /// None yet; connections are kept for `idle_ms`.
    pub fn new(idle_ms: u64) -> Self {
        Self { rows: Vec::new(), index: HashMap::new(), idle_ms, serial: 0, idle_count: 0 }
    }

    /// Kept connections.
    pub fn idle_count(&self) -> usize {
        self.idle_count
    }

    /// The row of an origin.
    pub fn row(&mut self, name: &OriginName) -> u32 {
        if let Some(&row) = self.index.get(name) {
            return row;
        }
        let row = self.rows.len() as u32;
        let literal = name.host.parse::<IpAddr>().ok();
        self.rows.push(Row {
            name: name.clone(),
            host_field: name.to_host_field().into(),
            addresses: literal.map(|ip| SocketAddr::new(ip, name.port)).into_iter().collect(),
            next: 0,
            resolved_until: if literal.is_some() { Mono(u64::MAX) } else { Mono(0) },
            resolving: false,
            waiting: Vec::new(),
            idle: Vec::new(),
        });
        self.index.insert(name.clone(), row);
        row
    }

    /// The origin's own name as a `Host` field.
    pub fn host_field(&self, row: u32) -> Rc<str> {
        Rc::clone(&self.rows[row as usize].host_field)
    }

    /// What an origin is called: host and port.
    pub fn name(&self, row: u32) -> Option<String> {
        let name = &self.rows.get(row as usize)?.name;
        Some(format!("{}:{}", name.host, name.port))
    }

    /// A connection for a fetch. `fresh`: not a kept one, for a retry.
    pub fn acquire(
        &mut self,
        now: Now,
        row: u32,
        fetch: Ref,
        fresh: bool,
        out: &mut Out,
    ) -> Acquired {
        let origin = &mut self.rows[row as usize];
        if !fresh && let Some(idle) = origin.idle.pop() {
            self.idle_count -= 1;
            return Acquired::Kept(idle.socket);
        }
        if now.mono < origin.resolved_until {
            return match origin.take_address() {
                Some(address) => Acquired::Address(address),
                None => Acquired::Unresolved,
            };
        }
        origin.waiting.push(fetch);
        if !origin.resolving {
            origin.resolving = true;
            let name = origin.name.host.to_string();
            out.resolve(Op::Origin(row.into()), name, origin.name.port);
        }
        Acquired::Resolving
    }

    /// A look-up ended: the fetches that waited, each of which calls [`Origins::address`] now.
    /// A failed look-up keeps the former addresses in use.
    pub fn handle_resolved(
        &mut self,
        now: Now,
        number: u64,
        result: Result<Vec<SocketAddr>, io::ErrorKind>,
    ) -> Vec<Ref> {
        let Some(origin) = self.rows.get_mut(number as usize) else { return Vec::new() };
        origin.resolving = false;
        let kept_ms = match result {
            Ok(addresses) if !addresses.is_empty() => {
                origin.addresses = addresses;
                origin.addresses.truncate(limits::ORIGIN_ADDRESSES_MAX);
                limits::RESOLVED_MS
            }
            _ => limits::UNRESOLVED_MS,
        };
        origin.resolved_until = now.mono.after_ms(kept_ms);
        std::mem::take(&mut origin.waiting)
    }

    /// The next address of an origin that has been looked up; each call gives another, in turn.
    pub fn address(&mut self, row: u32) -> Option<SocketAddr> {
        self.rows[row as usize].take_address()
    }

    /// How many addresses an origin has: so often is a refused connection tried elsewhere.
    pub fn address_count(&self, row: u32) -> usize {
        self.rows[row as usize].addresses.len()
    }

    /// Keeps a connection whose exchange ended cleanly. `false`: enough are kept, close it.
    pub fn release(&mut self, now: Now, row: u32, socket: SocketId, timers: &mut Timers) -> bool {
        let origin = &mut self.rows[row as usize];
        if origin.idle.len() >= limits::ORIGIN_IDLE_MAX {
            return false;
        }
        self.serial = self.serial.wrapping_add(1);
        let until = now.mono.after_ms(self.idle_ms);
        origin.idle.push(Idle { socket, serial: self.serial, until });
        self.idle_count += 1;
        timers.set(until, Timer::Origin(row, self.serial));
        true
    }

    /// A kept connection had something to say, or ended: either way it is of no use any more.
    pub fn handle_idle_input(&mut self, row: u32, socket: SocketId, out: &mut Out) {
        let origin = &mut self.rows[row as usize];
        if let Some(at) = origin.idle.iter().position(|idle| idle.socket == socket) {
            origin.idle.remove(at);
            self.idle_count -= 1;
            out.close(socket, Close::Abort);
        }
    }

    /// A kept connection's time is over.
    pub fn handle_timer(&mut self, now: Now, row: u32, serial: u32, out: &mut Out) {
        let origin = &mut self.rows[row as usize];
        let due = |idle: &Idle| idle.serial == serial && idle.until <= now.mono;
        if let Some(at) = origin.idle.iter().position(due) {
            let idle = origin.idle.remove(at);
            self.idle_count -= 1;
            out.close(idle.socket, Close::Graceful);
        }
    }

    /// Closes every kept connection; for a drain.
    pub fn close_idle(&mut self, out: &mut Out) {
        for origin in &mut self.rows {
            for idle in origin.idle.drain(..) {
                out.close(idle.socket, Close::Graceful);
            }
        }
        self.idle_count = 0;
    }
}

impl Row {
    fn take_address(&mut self) -> Option<SocketAddr> {
        let address = *self.addresses.get(self.next % self.addresses.len().max(1))?;
        self.next = self.next.wrapping_add(1);
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(0).after_ms(ms), wall_ms: ms }
    }

    fn fetch(slot: u32) -> Ref {
        Ref { slot, generation: 0 }
    }

    fn socket(slot: u32) -> SocketId {
        SocketId { slot, generation: 0 }
    }

    #[test]
    fn one_look_up_serves_all_that_wait_and_a_failed_one_keeps_the_former_addresses() {
        let mut out = Out::new(0, 1);
        let mut origins = Origins::new(1000);
        let row = origins.row(&OriginName::parse("http://o.example:81").expect("valid"));
        assert_eq!(origins.acquire(at(0), row, fetch(1), false, &mut out), Acquired::Resolving);
        assert_eq!(origins.acquire(at(0), row, fetch(2), false, &mut out), Acquired::Resolving);
        assert!(out.poll().is_some() && out.poll().is_none(), "one look-up");
        let address: SocketAddr = "10.0.0.1:81".parse().expect("an address");
        let waited = origins.handle_resolved(at(1), row.into(), Ok(vec![address]));
        assert_eq!(waited, [fetch(1), fetch(2)]);
        let acquired = origins.acquire(at(2), row, fetch(3), false, &mut out);
        assert_eq!(acquired, Acquired::Address(address));
        let late = at(limits::RESOLVED_MS + 2);
        assert_eq!(origins.acquire(late, row, fetch(4), false, &mut out), Acquired::Resolving);
        let failed = Err(io::ErrorKind::TimedOut);
        assert_eq!(origins.handle_resolved(late, row.into(), failed), [fetch(4)]);
        assert_eq!(origins.address(row), Some(address));
    }

    #[test]
    fn the_connection_kept_last_is_reused_first_and_a_dead_one_never() {
        let mut out = Out::new(0, 1);
        let mut timers = Timers::new(Mono(0));
        let mut origins = Origins::new(1000);
        let row = origins.row(&OriginName::parse("http://127.0.0.1").expect("valid"));
        for slot in 0..3 {
            assert!(origins.release(at(0), row, socket(slot), &mut timers));
        }
        origins.handle_idle_input(row, socket(2), &mut out);
        let acquired = origins.acquire(at(1), row, fetch(1), false, &mut out);
        assert_eq!(acquired, Acquired::Kept(socket(1)));
        let fresh = origins.acquire(at(1), row, fetch(1), true, &mut out);
        assert!(matches!(fresh, Acquired::Address(_)));
        let mut due = Vec::new();
        timers.expire(at(1100).mono, &mut due);
        for timer in due {
            let Timer::Origin(row, serial) = timer else { panic!("only those were set") };
            origins.handle_timer(at(1100), row, serial, &mut out);
        }
        assert_eq!(origins.idle_count(), 0);
    }
}
