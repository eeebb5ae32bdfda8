//! Starting a process's shards: everything that can be refused is asked for before anything runs.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::AtomicU16,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use socket2::Socket;

use crate::{
    engine::{
        Config, Pin, Running, Seat, StartError, affinity,
        clock::Clock,
        cold::Helpers,
        epoll::Epoll,
        listen::Listeners,
        mailbox::Mailbox,
        probe::{self, Choice},
        room::Room,
        socket,
        turn::{Driver, Line, ORDER_END, Shared},
        uring::Uring,
    },
    seam::{Actor, ShardId},
};

/// One shard's thread before it runs.
struct Shard<M, F> {
    seat: Seat,
    choice: Choice,
    core: Option<usize>,
    /// Whether a refused pin is an error.
    must_pin: bool,
    sockets: Vec<Socket>,
    shared: Arc<Shared<M>>,
    clock: Clock,
    make_actor: Arc<F>,
}

/// Why a shard's thread cannot run: doing what, and the cause.
type Refusal = (&'static str, io::Error);

pub(crate) fn start<A, F>(config: Config, make_actor: F) -> Result<Running, StartError>
where
    A: Actor,
    F: Fn(&Seat) -> A + Send + Sync + 'static,
{
    let process = |action| move |source| StartError::Process { action, source };
    let descriptors =
        socket::raise_descriptor_limit().map_err(process("raise the limit of descriptors"))?;
    let choice = probe::choose(config.engine, config.descriptors)?;
    let cores = cores(&config.pin)?;
    let room = Room {
        descriptors,
        direct: choice.level.is_some_and(|level| level.direct),
        listeners: config.listeners.len() + config.first_listeners.len(),
    };
    let (shards, sockets_max) = room.share(&config)?;
    let (mut by_shard, mut bound) = socket::listen_all(&config.listeners, shards)?;
    let (of_first, more_bound) = socket::listen_all(&config.first_listeners, 1)?;
    by_shard.iter_mut().zip(of_first).for_each(|(sockets, more)| sockets.extend(more));
    bound.extend(more_bound);
    let lines: io::Result<Vec<Line>> = (0..shards).map(|_| Line::new()).collect();
    let lines: Arc<[Line]> = lines.map_err(process("make an eventfd"))?.into();
    let helpers = Helpers::start(&lines).map_err(process("start helper threads"))?;
    let shared = Arc::new(Shared {
        lines: lines.clone(),
        mailboxes: (0..shards).map(|_| Mailbox::<A::Mail>::new(config.mail_max)).collect(),
        helpers,
        stopped: AtomicU16::new(0),
    });
    let (clock, make_actor) = (Clock::start(), Arc::new(make_actor));
    let shard = |(shard, sockets): (ShardId, Vec<Socket>)| Shard {
        seat: Seat {
            shard,
            shards,
            listeners: bound.clone(),
            sockets_max,
            now: clock.now(),
            taken: choice.taken.clone(),
        },
        choice: choice.clone(),
        core: cores.get(usize::from(shard) % cores.len().max(1)).copied(),
        must_pin: matches!(config.pin, Pin::Cores(_)),
        sockets,
        shared: shared.clone(),
        clock,
        make_actor: make_actor.clone(),
    };
    let threads = spawn_all((0..).zip(by_shard).map(shard))?;
    Ok(Running { taken: choice.taken, listeners: bound, sockets_max, lines, threads })
}

fn cores(pin: &Pin) -> Result<Vec<usize>, StartError> {
    match pin {
        Pin::Auto => Ok(affinity::allowed_cores()),
        Pin::None => Ok(Vec::new()),
        Pin::Cores(cores) if cores.is_empty() => Err(StartError::NoCores),
        Pin::Cores(cores) => Ok(cores.clone()),
    }
}

/// Starts all threads, waits until each is ready, and lets them go; or ends them all.
fn spawn_all<A, F>(
    shards: impl Iterator<Item = Shard<A::Mail, F>>,
) -> Result<Vec<JoinHandle<Result<(), String>>>, StartError>
where
    A: Actor,
    F: Fn(&Seat) -> A + Send + Sync + 'static,
{
    let mut started = Vec::new();
    for shard in shards {
        let id = shard.seat.shard;
        let (ready_in, ready) = sync_channel(1);
        let (go, go_out) = sync_channel(1);
        let refuse = |action| move |source| StartError::Shard { shard: id, action, source };
        let thread = Builder::new()
            .name(format!("pharos-shard-{id}"))
            .spawn(move || shard.run(&ready_in, &go_out))
            .map_err(refuse("start a thread"))?;
        // On an early return, `go` is dropped, and the threads that wait for it end.
        match ready.recv() {
            Ok(Ok(())) => started.push((thread, go)),
            Ok(Err((action, source))) => return Err(refuse(action)(source)),
            Err(_) => return Err(refuse("set up")(io::ErrorKind::Other.into())),
        }
    }
    let let_go = |(thread, go): (JoinHandle<_>, SyncSender<()>)| {
        // A thread that is gone already says so when it is joined.
        let _ = go.send(());
        thread
    };
    Ok(started.into_iter().map(let_go).collect())
}

impl<M: Send + 'static, F> Shard<M, F> {
    /// The shard's thread: what it runs is dropped, and so closed, before it ends.
    fn run<A>(
        self,
        ready: &SyncSender<Result<(), Refusal>>,
        go: &Receiver<()>,
    ) -> Result<(), String>
    where
        A: Actor<Mail = M>,
        F: Fn(&Seat) -> A,
    {
        let lines = self.shared.lines.clone();
        catch_unwind(AssertUnwindSafe(|| self.set_up_and_drive(ready, go))).map_err(|panic| {
            lines.iter().for_each(|line| line.order(ORDER_END));
            message_of(panic.as_ref())
        })
    }

    fn set_up_and_drive<A>(self, ready: &SyncSender<Result<(), Refusal>>, go: &Receiver<()>)
    where
        A: Actor<Mail = M>,
        F: Fn(&Seat) -> A,
    {
        let Self { seat, choice, core, must_pin, sockets, shared, clock, make_actor } = self;
        let refuse = |refusal| {
            // The starter waits for this word; without it there is nobody to tell.
            let _ = ready.send(Err(refusal));
        };
        if let Some(error) = core.and_then(|core| affinity::pin(core).err()) {
            if must_pin {
                return refuse(("pin the thread to its core", error));
            }
            tracing::warn!(shard = seat.shard, %error, "the thread is not pinned");
        }
        let listeners = Listeners::new(sockets, &seat.listeners);
        let (lines, index) = (shared.lines.clone(), usize::from(seat.shard));
        macro_rules! drive {
            ($sockets:expr, $action:literal) => {
                match $sockets {
                    Err(error) => refuse(($action, error)),
                    Ok(sockets) => {
                        let _ = ready.send(Ok(()));
                        if go.recv().is_ok() {
                            let actor = make_actor(&seat);
                            Driver::new(actor, sockets, seat.shard, shared, clock).run();
                        }
                    }
                }
            };
        }
        match choice.level {
            Some(level) => drive!(
                Uring::new(level, listeners, seat.sockets_max, lines, index),
                "set up a ring"
            ),
            None => drive!(
                Epoll::new(listeners, seat.sockets_max, lines, index),
                "set up an epoll instance"
            ),
        }
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::{
        engine::{EngineChoice, ShardDied},
        seam::{Control, Effect, Input, Mono, Now, SocketId},
    };

    /// Shard 1 panics when told to reload.
    struct Fragile(ShardId);

    impl Actor for Fragile {
        type Mail = ();

        fn handle(&mut self, _: Now, input: Input<'_, ()>) {
            let told = matches!(input, Input::Control(Control::Reload));
            assert!(self.0 != 1 || !told, "a programmer's error");
        }

        fn poll_effect(&mut self) -> Option<Effect<()>> {
            None
        }

        fn next_deadline(&self) -> Option<Mono> {
            None
        }

        fn fanout_targets(&self, _: Range<u32>) -> &[SocketId] {
            &[]
        }
    }

    fn config(engine: EngineChoice) -> Config {
        let listeners = vec![([127, 0, 0, 1], 0).into()];
        Config { engine, shards: 3, pin: Pin::None, sockets_max: 64, ..Config::new(listeners) }
    }

    #[test]
    fn a_panic_of_one_shard_ends_all_and_is_told() {
        for engine in [EngineChoice::Auto, EngineChoice::Epoll] {
            let running = start(config(engine), |seat| Fragile(seat.shard)).expect("starts");
            running.control(Control::Reload);
            let died = running.join().expect_err("shard 1 died");
            assert_eq!(died, ShardDied { shard: 1, message: "a programmer's error".into() });
        }
    }

    #[test]
    fn more_sockets_than_descriptors_allow_is_an_error() {
        let config = Config { sockets_max: u32::MAX, ..config(EngineChoice::Auto) };
        let error = start(config, |seat| Fragile(seat.shard)).expect_err("refused");
        assert!(matches!(error, StartError::Descriptors { sockets_max: u32::MAX, .. }));
        assert!(error.to_string().contains("RLIMIT_NOFILE"));
    }

    #[test]
    fn a_core_that_does_not_exist_is_an_error() {
        let config = Config { pin: Pin::Cores(vec![1023]), ..config(EngineChoice::Auto) };
        let error = start(config, |seat| Fragile(seat.shard)).expect_err("refused");
        assert!(matches!(error, StartError::Shard { shard: 0, .. }), "{error}");
    }
}
