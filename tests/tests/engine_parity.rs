//! The parity suite on the two real engines, over loopback.
#![expect(clippy::disallowed_types, reason = "clients that share nothing with the engines")]
#![expect(clippy::disallowed_methods, reason = "a condition of another thread is waited for")]

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use dataplane::{
    engine::{Config, Descriptors, EngineChoice, Pin, Running, start},
    seam::Control,
};
use pharos_tests::parity::{End, Harness, Journal, ParityActor, Setup};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Real shards, and blocking clients on loopback.
struct Real {
    running: Running,
}

impl Real {
    fn start(
        engine: EngineChoice,
        descriptors: Descriptors,
        setup: Setup,
        journal: &Journal,
    ) -> Self {
        let config = Config {
            engine,
            descriptors,
            shards: setup.shards,
            sockets_max: setup.sockets_max,
            mail_max: setup.mail_max,
            pin: Pin::None,
            ..Config::new(vec![([127, 0, 0, 1], 0).into()])
        };
        let journal = journal.clone();
        let running =
            start(config, move |seat| ParityActor::new(seat.shard, seat.shards, &journal));
        Self { running: running.expect("engine starts") }
    }
}

fn receive_to(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut len = 0;
    while len < count {
        match client.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) => panic!("{error} after {len} of {count} bytes"),
        }
    }
    bytes.truncate(len);
    bytes
}

fn patient(client: TcpStream) -> TcpStream {
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    client.set_write_timeout(Some(PATIENCE)).expect("set");
    client
}

macro_rules! real_harness {
    ($name:ident, $engine:expr, $descriptors:expr) => {
        struct $name(Real);

        impl Harness for $name {
            type Client = TcpStream;
            type Upstream = TcpListener;

            fn start(setup: Setup, journal: &Journal) -> Self {
                Self(Real::start($engine, $descriptors, setup, journal))
            }

            fn connect(&mut self) -> TcpStream {
                patient(TcpStream::connect(self.0.running.listeners()[0]).expect("connects"))
            }

            fn send(&mut self, client: &mut TcpStream, bytes: &[u8]) {
                // A peer that has closed is seen where the case looks for it.
                match client.write_all(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("{error}"),
                    _ => {}
                }
            }

            fn receive(&mut self, client: &mut TcpStream, count: usize) -> Vec<u8> {
                receive_to(client, count)
            }

            fn exchange(&mut self, client: &mut TcpStream, bytes: &[u8], count: usize) -> Vec<u8> {
                let mut sender = client.try_clone().expect("cloned");
                thread::scope(|scope| {
                    let sent = scope.spawn(move || sender.write_all(bytes));
                    let got = receive_to(client, count);
                    sent.join().expect("no panic").expect("sent");
                    got
                })
            }

            fn end(&mut self, client: &mut TcpStream, before: &[u8]) -> End {
                let mut got = Vec::new();
                let outcome = client.read_to_end(&mut got);
                assert_eq!(got, before);
                match outcome {
                    Ok(_) => End::Eof,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => End::Reset,
                    Err(error) => panic!("{error}"),
                }
            }

            fn half_close(&mut self, client: &mut TcpStream) {
                client.shutdown(Shutdown::Write).expect("shut");
            }

            fn close(&mut self, client: TcpStream) {
                drop(client);
            }

            fn reset(&mut self, client: TcpStream) {
                reset_on_close(&client);
                drop(client);
            }

            fn upstream(&mut self) -> (TcpListener, SocketAddr) {
                let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
                let addr = listener.local_addr().expect("bound");
                (listener, addr)
            }

            fn accept(&mut self, upstream: &mut TcpListener) -> TcpStream {
                patient(upstream.accept().expect("accepted").0)
            }

            fn until(&mut self, what: &str, condition: impl Fn() -> bool) {
                let started = Instant::now();
                while !condition() {
                    assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
                    thread::sleep(Duration::from_millis(1));
                }
            }

            fn advance(&mut self, ms: u64) {
                thread::sleep(Duration::from_millis(ms));
            }

            fn control(&mut self, control: Control) {
                self.0.running.control(control);
            }

            fn join(self) {
                self.0.running.join().expect("no shard died");
            }
        }
    };
}

fn reset_on_close(client: &TcpStream) {
    socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)).expect("set");
}

real_harness!(OnUring, EngineChoice::IoUring, Descriptors::Auto);
real_harness!(OnUringPlain, EngineChoice::IoUring, Descriptors::Plain);
real_harness!(OnEpoll, EngineChoice::Epoll, Descriptors::Auto);

mod uring {
    pharos_tests::parity_cases!(super::OnUring);
}

/// As on kernels before direct descriptors.
mod uring_plain {
    pharos_tests::parity_cases!(super::OnUringPlain);
}

mod epoll {
    pharos_tests::parity_cases!(super::OnEpoll);
}

mod simulated {
    pharos_tests::parity_cases!(pharos_tests::parity::simulated::Simulated);
}
