//! The world of one simulation: hosts, time, and who runs next.
//!
//! ```text
//!   step: a random runnable shard or notice ──none──▶ time moves to the next arrival or deadline
//! ```
//!
//! Virtual time moves a little with every turn and jumps when nothing can run, so an hour costs
//! milliseconds. Owns hosts and their disks; leaves connections to `super::net`.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use dataplane::seam::{Actor, Control, Mono, Now};

use super::{
    coverage::Coverage,
    disk::Disk,
    engine::{Around, Options, Process},
    net::{HostId, Net, Notice},
    rng::Rng,
};

/// A host that is not an edge: a client, an origin, control. A plain synchronous machine.
pub trait Peer {
    /// Something happened on the network.
    fn notice(&mut self, now: Now, net: &mut Net, notice: Notice);
    /// Its deadline has passed.
    fn tick(&mut self, now: Now, net: &mut Net);
    /// When to tick, ns of virtual time.
    fn next_deadline_ns(&self) -> Option<u64>;
    /// For scenarios to look into and steer the peer.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

enum Role<A: Actor> {
    Process(Option<Process<A>>),
    /// With its deadline, asked for after everything that may have moved it.
    Peer(Box<dyn Peer>, Option<u64>),
}

struct Host<A: Actor> {
    address: IpAddr,
    role: Role<A>,
    disk: Disk,
    /// Notices that wait for the host's turn.
    notices: VecDeque<Notice>,
}

/// Everything, from one seed.
pub struct World<A: Actor> {
    now_ns: u64,
    wall_offset_ms: u64,
    /// The network; scenarios cut and heal it.
    pub net: Net,
    /// For scenarios: draws that follow from the seed.
    pub rng: Rng,
    hosts: Vec<Host<A>>,
    steps: u64,
    /// Who could run at this step; kept for its memory.
    runnable: Vec<(HostId, Option<usize>)>,
}

/// Steps between two looks of [`World::run_until`] at its condition, unless time jumps.
const STEPS_A_LOOK: u64 = 32;
/// Turns after which a run that should have ended is called stuck.
const STEPS_MAX: u64 = 20_000_000;

impl<A: Actor> World<A> {
    /// An empty world.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let net = Net::new(rng.fork());
        Self {
            now_ns: 1_000_000_000,
            wall_offset_ms: 1_790_000_000_000,
            net,
            rng,
            hosts: Vec::new(),
            steps: 0,
            runnable: Vec::new(),
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Now {
        Now { mono: Mono(self.now_ns), wall_ms: self.wall_offset_ms + self.now_ns / 1_000_000 }
    }

    /// Turns taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Steps the wall clock of all hosts, forward or back.
    pub fn step_wall_clock_ms(&mut self, by_ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add_signed(by_ms);
    }

    /// What was reached so far.
    pub fn coverage(&self) -> &Coverage {
        &self.net.coverage
    }

    /// Counts a scenario's own fault or branch.
    pub fn hit(&mut self, name: &'static str) {
        self.net.trace.say(self.now(), format_args!("{name}"));
        self.net.coverage.hit(name);
    }

    /// Adds a host for a process, not started.
    pub fn add_host(&mut self, address: IpAddr) -> HostId {
        self.add(address, Role::Process(None))
    }

    /// Adds a peer that listens at `listeners`.
    pub fn add_peer(
        &mut self,
        address: IpAddr,
        listeners: &[SocketAddr],
        peer: Box<dyn Peer>,
    ) -> HostId {
        let first = peer.next_deadline_ns();
        let host = self.add(address, Role::Peer(peer, first));
        for &listener in listeners {
            self.net.listen(host, listener);
        }
        host
    }

    fn add(&mut self, address: IpAddr, role: Role<A>) -> HostId {
        self.hosts.push(Host { address, role, disk: Disk::default(), notices: VecDeque::new() });
        self.hosts.len() - 1
    }

    /// Starts the process of a host with these actors, one a shard.
    pub fn start(
        &mut self,
        host: HostId,
        listeners: Vec<SocketAddr>,
        actors: Vec<A>,
        options: Options,
    ) {
        let rng = self.rng.fork();
        let address = self.hosts[host].address;
        let process = Process::start(host, address, listeners, actors, options, rng, &mut self.net);
        self.hosts[host].role = Role::Process(Some(process));
    }

    /// Kills the process of a host: memory and connections are gone, the disk stays.
    pub fn crash(&mut self, host: HostId) {
        self.net.crash(self.now_ns, host);
        let slot = &mut self.hosts[host];
        slot.notices.clear();
        slot.disk.crash(&mut self.rng, &mut self.net.coverage);
        if let Role::Process(process) = &mut slot.role {
            *process = None;
        }
    }

    /// The process of a host ends by itself: its connections are closed in order.
    pub fn end(&mut self, host: HostId, now_ns: u64) {
        if let Role::Process(Some(process)) = &mut self.hosts[host].role {
            process.end(now_ns, &mut self.net);
        }
    }

    /// A peer stops; `listeners` of it are gone until [`World::revive`].
    pub fn crash_peer(&mut self, host: HostId) {
        self.net.crash(self.now_ns, host);
        self.hosts[host].notices.clear();
    }

    /// The peer's listeners are back.
    pub fn revive(&mut self, host: HostId, listeners: &[SocketAddr]) {
        for &listener in listeners {
            self.net.listen(host, listener);
        }
    }

    /// The process of a host, if it runs.
    pub fn process(&mut self, host: HostId) -> Option<&mut Process<A>> {
        match &mut self.hosts[host].role {
            Role::Process(process) => process.as_mut(),
            Role::Peer(..) => None,
        }
    }

    /// Asks a process for something.
    pub fn control(&mut self, host: HostId, control: Control) {
        if let Some(process) = self.process(host) {
            process.control(control);
        }
    }

    /// The disk of a host.
    pub fn disk(&mut self, host: HostId) -> &mut Disk {
        &mut self.hosts[host].disk
    }

    /// Runs `steer` on a peer of a known type, with the network at hand.
    pub fn with_peer<P: 'static, R>(
        &mut self,
        host: HostId,
        steer: impl FnOnce(&mut P, Now, &mut Net) -> R,
    ) -> R {
        let now = self.now();
        let Role::Peer(peer, deadline_ns) = &mut self.hosts[host].role else {
            panic!("host {host} is no peer");
        };
        let known = peer.as_any().downcast_mut::<P>().expect("the peer is of that type");
        let result = steer(known, now, &mut self.net);
        *deadline_ns = peer.next_deadline_ns();
        result
    }

    /// Runs until `done` says so or `for_ms` of virtual time have passed; whether `done` came
    /// first. It is asked now and then, whenever time jumps at least.
    pub fn run_until(&mut self, for_ms: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end_ns = self.now_ns + for_ms * 1_000_000;
        while self.now_ns < end_ns {
            if done(self) {
                return true;
            }
            let look_at = self.steps + STEPS_A_LOOK;
            while self.now_ns < end_ns && self.steps < look_at {
                match self.step(end_ns) {
                    Stepped::Ran => {}
                    Stepped::Jumped => break,
                    Stepped::Nothing => self.now_ns = end_ns,
                }
            }
        }
        done(self)
    }

    /// Runs for a span of virtual time.
    pub fn run_for(&mut self, for_ms: u64) {
        self.run_until(for_ms, |_| false);
    }

    /// One turn of someone, or time moves on.
    fn step(&mut self, end_ns: u64) -> Stepped {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "the simulation does not come to rest");
        self.net.advance(self.now_ns);
        while let Some((host, notice)) = self.net.poll_notice() {
            self.hosts[host].notices.push_back(notice);
        }
        self.find_runnable();
        if self.runnable.is_empty() {
            return self.jump(end_ns);
        }
        let (host, shard) = *self.rng.pick(&self.runnable);
        self.run(host, shard);
        self.now_ns += self.rng.between(100, 20_000);
        Stepped::Ran
    }

    /// Who could run: hosts with notices or disk work (no shard), and shards with something to do.
    fn find_runnable(&mut self) {
        let now = self.now();
        self.runnable.clear();
        for (host, slot) in self.hosts.iter().enumerate() {
            if !slot.notices.is_empty() || slot.disk.is_ready(self.now_ns) {
                self.runnable.push((host, None));
            }
            match &slot.role {
                Role::Process(Some(process)) => {
                    self.runnable.extend(process.runnable(now).map(|at| (host, Some(at))));
                }
                Role::Peer(_, deadline_ns) if deadline_ns.is_some_and(|at| at <= self.now_ns) => {
                    self.runnable.push((host, Some(0)));
                }
                _ => {}
            }
        }
    }

    fn run(&mut self, host: HostId, shard: Option<usize>) {
        let now = self.now();
        let slot = &mut self.hosts[host];
        match (&mut slot.role, shard) {
            (Role::Process(Some(process)), Some(shard)) => {
                let mut around = Around { now, net: &mut self.net, disk: &mut slot.disk };
                process.turn(shard, &mut around);
            }
            (Role::Process(Some(process)), None) => {
                // Disk work ends at any time between notices.
                if slot.disk.is_ready(self.now_ns)
                    && (slot.notices.is_empty() || self.rng.chance(200))
                {
                    if let Some((shard, op, result)) = slot.disk.finish_one() {
                        process.file_done(shard, op, result);
                    }
                } else if let Some(notice) = slot.notices.pop_front() {
                    let mut around = Around { now, net: &mut self.net, disk: &mut slot.disk };
                    process.notice(&mut around, notice);
                }
            }
            (Role::Process(None), _) => slot.notices.clear(),
            (Role::Peer(peer, deadline_ns), shard) => {
                match shard {
                    Some(_) => peer.tick(now, &mut self.net),
                    None => {
                        if let Some(notice) = slot.notices.pop_front() {
                            peer.notice(now, &mut self.net, notice);
                        }
                    }
                }
                *deadline_ns = peer.next_deadline_ns();
            }
        }
    }

    /// Nothing can run now: time moves to the next thing that will.
    fn jump(&mut self, end_ns: u64) -> Stepped {
        let deadlines = self.hosts.iter().filter_map(|slot| match &slot.role {
            Role::Process(Some(process)) => process.next_deadline_ns(),
            Role::Peer(_, deadline_ns) => *deadline_ns,
            _ => None,
        });
        let disks = self.hosts.iter().filter_map(|slot| slot.disk.next_due_ns());
        let next = deadlines.chain(disks).chain(self.net.next_due_ns()).min();
        match next {
            Some(next) if next < end_ns => {
                self.now_ns = next.max(self.now_ns + 1);
                Stepped::Jumped
            }
            _ => Stepped::Nothing,
        }
    }
}

/// What a step came to.
enum Stepped {
    /// Someone had a turn.
    Ran,
    /// Nobody could run: time moved on.
    Jumped,
    /// Nothing will ever happen before the end.
    Nothing,
}
