//! Sockets and their options: listeners, outgoing connections, ends, and the descriptor limit.

use std::{
    io::{self, IoSlice, Read},
    net::{IpAddr, SocketAddr},
    os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    engine::{StartError, clock::Clock},
    limits::{BACKLOG_MAX, LISTEN_PAUSE_MS, LISTEN_TRY_MS, UNACKNOWLEDGED_MS_MAX},
    seam::Mono,
};

/// Binds every address once a shard. Returns the sockets, by shard and then by address, and the
/// addresses actually bound.
///
/// # Errors
/// [`StartError::Listen`], also when another process listens there with SO_REUSEPORT: sharing a
/// port with a stranger would give it half of our connections. Told only when an address stays
/// taken: the kernel takes down the rings of a killed process, and with them its listeners, after
/// that process is gone.
pub(crate) fn listen_all(
    addrs: &[SocketAddr],
    shards: u16,
) -> Result<(Vec<Vec<Socket>>, Vec<SocketAddr>), StartError> {
    let mut by_shard: Vec<Vec<Socket>> = (0..shards).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    let (clock, mut is_told) = (Clock::start(), false);
    for &addr in addrs {
        let fail = |source| StartError::Listen { addr, source };
        while addr.port() != 0 {
            let Err(error) = listen(addr, false) else { break };
            let is_over = clock.mono().since_ns(Mono::default()) >= LISTEN_TRY_MS * 1_000_000;
            if error.kind() != io::ErrorKind::AddrInUse || is_over {
                return Err(fail(error));
            }
            if !is_told {
                tracing::info!(
                    "{addr} is in use; an edge that has just ended may hold it for a moment longer: \
                     trying for {LISTEN_TRY_MS} ms"
                );
                is_told = true;
            }
            thread::park_timeout(Duration::from_millis(LISTEN_PAUSE_MS));
        }
        let mut addr = addr;
        for sockets in &mut by_shard {
            let socket = listen(addr, true).map_err(fail)?;
            if let Some(actual) = socket.local_addr().map_err(fail)?.as_socket() {
                addr = actual;
            }
            sockets.push(socket);
        }
        bound.push(addr);
    }
    Ok((by_shard, bound))
}

/// A listener. An IPv6 one takes only IPv6: each address listens for exactly what it says.
/// Accepted sockets inherit its options (tcp(7)), so none is set a second time.
fn listen(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(UNACKNOWLEDGED_MS_MAX)))?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG_MAX)?;
    Ok(socket)
}

/// A socket to connect with, bound to `from` if given. Where `from` has port 0, the port is chosen
/// at connect, when the other end is known: a port may then serve several destinations.
pub(crate) fn outgoing(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(Duration::from_millis(UNACKNOWLEDGED_MS_MAX)))?;
    if let Some(from) = from {
        if from.port() == 0 {
            bind_address_no_port(&socket)?;
        }
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open (borrowed from `socket`); the value is a c_int and its size is
    // passed along.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Our side of an accepted connection: the listener's address, unless that is a wildcard.
pub(crate) fn local_of(fd: RawFd, listener: SocketAddr) -> SocketAddr {
    let wildcard = match listener.ip() {
        IpAddr::V4(ip) => ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    if !wildcard {
        return listener;
    }
    let actual = with(fd, |socket| socket.local_addr());
    actual.ok().and_then(|addr| addr.as_socket()).unwrap_or(listener)
}

/// Says FIN: nothing more will be sent.
pub(crate) fn shut_write(fd: RawFd) {
    // Fails only where the connection is already gone; the close that follows finds that out.
    let _ = with(fd, |socket| socket.shutdown(std::net::Shutdown::Write));
}

/// Ends both directions; whoever waits on the socket is told.
pub(crate) fn shut_both(fd: RawFd) {
    // Fails only where the connection is already gone.
    let _ = with(fd, |socket| socket.shutdown(std::net::Shutdown::Both));
}

/// Makes the close of `fd` a reset.
pub(crate) fn reset_on_close(fd: RawFd) {
    // Cannot fail on a socket of ours; if it did, the close would say FIN instead.
    let _ = with(fd, |socket| socket.set_linger(Some(Duration::ZERO)));
}

/// The error that waits on the socket, which this takes away.
pub(crate) fn take_error(fd: RawFd) -> Option<io::Error> {
    with(fd, |socket| socket.take_error()).ok().flatten()
}

/// Sends what fits, without waiting.
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    with(fd, |socket| socket.send_with_flags(bytes, AT_ONCE))
}

/// Sends what fits of several pieces, without waiting.
pub(crate) fn send_message(fd: RawFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    with(fd, |socket| socket.send_vectored_with_flags(pieces, AT_ONCE))
}

/// Receives what is there, without waiting; 0 at the end of the stream.
pub(crate) fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    with(fd, |socket| (&*socket).read(buffer))
}

/// Starts a connect on a non-blocking socket: `WouldBlock` if its outcome comes later.
pub(crate) fn connect(fd: RawFd, to: SocketAddr) -> io::Result<()> {
    with(fd, |socket| socket.connect(&to.into())).map_err(|error| match error.raw_os_error() {
        Some(libc::EINPROGRESS) => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

const AT_ONCE: i32 = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

fn with<T>(fd: RawFd, act: impl FnOnce(SockRef<'_>) -> T) -> T {
    // SAFETY: descriptors in an engine's table are open: the table owns them and closes each once,
    // when its slot is released; callers pass only those.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    act(SockRef::from(&borrowed))
}

/// Gives the descriptor to a table.
pub(crate) fn into_fd(socket: Socket) -> RawFd {
    socket.into_raw_fd()
}

/// Closes a descriptor that a table owned.
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the caller takes `fd` out of its table for good, so it is owned here and nowhere
    // else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// The kind of a negated errno, as completions carry it.
pub(crate) fn kind_of(result: i32) -> io::ErrorKind {
    io::Error::from_raw_os_error(result.saturating_neg()).kind()
}

/// Raises RLIMIT_NOFILE to its hard limit and returns what now holds.
///
/// # Errors
/// As getrlimit(2) and setrlimit(2); none of them is expected.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to write.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit, soft limit not above the hard one.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_with_its_address() {
        let (_held, bound) = listen_all(&[([127, 0, 0, 1], 0).into()], 2).expect("a free port");
        match listen_all(&bound, 1) {
            Err(StartError::Listen { addr, source }) => {
                assert_eq!(addr, bound[0]);
                assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
            }
            other => panic!("expected a taken port, got {other:?}"),
        }
    }

    #[test]
    fn accepted_sockets_inherit_the_options_of_their_listener() {
        let (by_shard, bound) = listen_all(&[([127, 0, 0, 1], 0).into()], 1).expect("a free port");
        let client = outgoing(bound[0], None).expect("made");
        client.connect(&bound[0].into()).expect("connected");
        let (accepted, _) = by_shard[0][0].accept().expect("accepted");
        assert!(accepted.tcp_nodelay().expect("asked"));
        let unacknowledged = accepted.tcp_user_timeout().expect("asked");
        assert_eq!(unacknowledged, Some(Duration::from_millis(UNACKNOWLEDGED_MS_MAX)));
    }

    #[test]
    fn all_shards_listen_on_the_same_free_port() {
        let (by_shard, bound) = listen_all(&[([127, 0, 0, 1], 0).into()], 3).expect("a free port");
        for sockets in &by_shard {
            let addr = sockets[0].local_addr().expect("bound").as_socket();
            assert_eq!(addr, Some(bound[0]));
        }
    }
}
