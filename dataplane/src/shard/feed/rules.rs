//! The rules of the feed: what shards are told, in which order, and what is asked of control.

use std::collections::VecDeque;

use cache::Cache;
use proptest::prelude::*;
use proto::feed::{
    record::{Config, Publish, Purge, Record, Scope, Snapshot},
    site::Page,
};

use super::*;
use crate::{
    config::Timeouts,
    seam::{Effect, FileWork, Segment},
    shard::{ControlLink, out::Op},
};

const SHARDS: u16 = 3;
const SOCKET: SocketId = SocketId { slot: 9, generation: 4 };
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

fn settings(data: bool) -> Settings {
    Settings {
        shard: 0,
        shard_count: SHARDS,
        seed: 5,
        forward: Default::default(),
        explain: Default::default(),
        edge_id: "edge-1".into(),
        parents: Arc::from([]),
        relay: None,
        pop: "p".into(),
        engine: "simulated".into(),
        control: Some(ControlLink {
            host: "127.0.0.1".into(),
            port: 7400,
            authorization: "Bearer k".into(),
        }),
        sites: Arc::from([]),
        data: data.then(|| "/data".into()),
        admin_listener: None,
        listener_count: 1,
        sockets_max: 100,
        streams_max: 100,
        rates: Default::default(),
        url: None,
        cache: Cache::new(cache::Config::new(16 << 20, 1)),
        near_entries: 16,
        board: Board::new(SHARDS),
        timeouts: Timeouts::default(),
        levels: Default::default(),
        live: Arc::default(),
    }
}

/// The feed with control played by the test and shards that pass when they are told to.
struct World {
    feed: Feed,
    out: Out,
    now: Now,
    /// Mail of shard 1, as text.
    mail: Vec<String>,
    /// Purges each shard has still to pass.
    unpassed: Vec<VecDeque<u64>>,
    requests: Vec<String>,
    receiving: bool,
    yielded: bool,
    files: Vec<String>,
    position_op: Option<u64>,
}

impl World {
    fn new(data: bool) -> Self {
        Self {
            feed: Feed::new(&settings(data)).expect("there is a control"),
            out: Out::new(0, SHARDS),
            now: Now { mono: Mono(0), wall_ms: 1_700_000_000_000 },
            mail: Vec::new(),
            unpassed: vec![VecDeque::new(); SHARDS.into()],
            requests: Vec::new(),
            receiving: false,
            yielded: false,
            files: Vec::new(),
            position_op: None,
        }
    }

    fn following(data: bool) -> Self {
        let mut world = Self::new(data);
        world.feed.start(world.now, &mut world.out);
        world.run();
        world.receive(HEAD);
        world
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.feed.handle_received(self.now, SOCKET, bytes, &mut self.out);
        self.run();
    }

    fn record(&mut self, record: &Record, position: Option<u64>) {
        let id = position.map(|position| format!("id: {}\n", cursor(position)));
        let id = id.unwrap_or_default();
        let (kind, data) = (record.kind(), record.data());
        self.receive(format!("event: {kind}\n{id}data: {data}\n\n").as_bytes());
    }

    /// Carries out everything but what shards have to pass.
    fn run(&mut self) {
        loop {
            while let Some(effect) = self.out.poll() {
                self.carry_out(effect);
            }
            if !std::mem::take(&mut self.yielded) {
                return;
            }
            self.out.continued();
            self.feed.handle_continue(self.now, &mut self.out);
        }
    }

    fn carry_out(&mut self, effect: Effect<Mail>) {
        let (now, out) = (self.now, &mut self.out);
        match effect {
            Effect::Resolve { op, .. } => {
                let Op::Feed(number) = Op::of(op) else { panic!("the feed's") };
                let address = "127.0.0.1:7400".parse().expect("valid");
                self.feed.handle_resolved(now, number, Ok(vec![address]), out);
            }
            Effect::Connect { op, .. } => {
                let Op::Feed(number) = Op::of(op) else { panic!("the feed's") };
                if Session::owns_number(number) {
                    self.feed.handle_connected(now, number, Ok(SOCKET), out);
                } else {
                    self.position_op = Some(number);
                }
            }
            Effect::Send { payload, .. } => {
                let Segment::Owned(bytes) = &payload.segments()[0] else { panic!("owned") };
                self.requests.push(String::from_utf8_lossy(bytes).into_owned());
            }
            Effect::Receive { socket, on } if socket == SOCKET => self.receiving = on,
            Effect::Receive { .. } | Effect::Close { .. } => {}
            Effect::Yield => self.yielded = true,
            Effect::Mail { to, mail } => match mail {
                Mail::Purge { ticket } => self.unpassed[usize::from(to)].push_back(ticket),
                mail if to == 1 => self.mail.extend(text(&mail)),
                _ => {}
            },
            Effect::File { op, work } => {
                let Op::LastKnown(number) = Op::of(op) else { panic!("last_known's") };
                let result = match work {
                    FileWork::Read { .. } => Err(io::ErrorKind::NotFound.into()),
                    FileWork::Write { path, content } => {
                        let name = path.file_name().expect("a name").to_string_lossy();
                        let content = String::from_utf8_lossy(&content[28..]).into_owned();
                        self.files.push(format!("{name} {content}"));
                        Ok(Vec::new())
                    }
                    FileWork::Remove { .. } => panic!("nothing is removed"),
                };
                self.feed.handle_file(now, number, result, out);
            }
            other => panic!("the feed has no use for {other:?}"),
        }
    }

    /// One shard passes what it was asked to.
    fn pass(&mut self, shard: usize) {
        if let Some(ticket) = self.unpassed[shard].pop_front() {
            self.feed.handle_purge_passed(self.now, ticket, shard as u16, &mut self.out);
            self.run();
        }
    }

    fn pass_all(&mut self) {
        for shard in 0..usize::from(SHARDS) {
            while !self.unpassed[shard].is_empty() {
                self.pass(shard);
            }
        }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
        self.feed.handle_deadline(self.now, &mut self.out);
        self.run();
    }

    fn take_mail(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mail)
    }
}

/// Mail as far as order matters.
fn text(mail: &Mail) -> Option<String> {
    Some(match mail {
        Mail::Config(change) => match &**change {
            ConfigChange::Replace { pages, .. } => format!("replace {}", pages.len()),
            ConfigChange::Change(config) => format!("change {}", config.pages.len()),
        },
        Mail::Publish(publish) if publish.refill => format!("refill {}", publish.position),
        Mail::Publish(publish) => format!("publish {}", publish.position),
        Mail::Applied { applied, how } => format!("{how:?} {applied}"),
        _ => return None,
    })
}

fn cursor(position: u64) -> FeedCursor {
    let text = match position {
        0 => "00000000000000ff.0.".to_owned(),
        _ => format!("00000000000000ff.{position}.a-00000000:{position}"),
    };
    text.parse().expect("a cursor")
}

fn purge(position: u64) -> Record {
    let scope = Scope::Key { site: None, key: "page/p".into() };
    Record::Purge(Purge { position, scope, soft: true })
}

fn publish(position: u64, refill: bool) -> Record {
    let dot = format!("a-00000000:{position}").parse().expect("a dot");
    Record::Publish(Publish {
        position,
        topic: "page/p".into(),
        dot,
        prev: position - 1,
        event: "incident".into(),
        data: "{}".into(),
        key: None,
        version: VersionVector::from_iter([dot]),
        refill,
        lone: false,
    })
}

fn beat() -> Record {
    Record::Beat(proto::feed::record::Beat {
        sent_at_ms: 1,
        replica: None,
        circle: None,
        path: Vec::new(),
    })
}

fn page(id: &str) -> Page {
    Page { id: id.into(), slug: id.into(), hosts: Vec::new() }
}

fn part(part: u32, last: bool, ids: &[&str]) -> Record {
    let pages = ids.iter().map(|id| page(id)).collect();
    Record::Snapshot(Snapshot { part, last, sites: Vec::new(), pages, replica: None })
}

#[test]
fn a_publish_is_released_when_every_shard_has_passed_its_purge() {
    let mut world = World::following(false);
    world.record(&beat(), Some(1));
    world.record(&beat(), Some(1));
    world.take_mail();
    world.record(&purge(2), None);
    world.record(&publish(2, false), Some(2));
    assert_eq!(world.unpassed.iter().map(VecDeque::len).sum::<usize>(), 3);
    world.pass(0);
    world.pass(2);
    assert!(world.take_mail().is_empty());
    assert_eq!(world.feed.cursor, Some(cursor(1)));
    world.pass(1);
    assert_eq!(world.take_mail(), ["publish 2", "Onward a-00000000:2"]);
    assert_eq!(world.feed.cursor, Some(cursor(2)));
}

#[test]
fn whose_word_a_snapshot_or_a_beat_is_reaches_every_shard() {
    let mut world = World::following(false);
    let replica = "a-00000000".parse().ok();
    world.record(&beat(), None);
    let Record::Snapshot(part) = part(0, true, &["p"]) else { panic!("a part") };
    world.record(&Record::Snapshot(Snapshot { replica, ..part }), Some(7));
    world.pass_all();
    let beat = Record::Beat(proto::feed::record::Beat {
        sent_at_ms: 2,
        replica,
        circle: None,
        path: Vec::new(),
    });
    world.record(&beat, Some(7));
    world.record(&beat, None);
    let told = ["replace 1", "Snapshot(a-00000000) a-00000000:7", "Refilled a-00000000:7"];
    let mail = world.take_mail();
    assert_eq!(mail[..3], told);
    assert_eq!(mail[3..], ["Current(a-00000000) a-00000000:7"], "only with a cursor");
}

#[test]
fn a_snapshot_is_configuration_then_fence_then_cursor() {
    let mut world = World::following(false);
    assert!(world.requests[0].starts_with("GET /v1/feed?history=1 HTTP/1.1\r\n"));
    assert!(!world.requests[0].contains("Last-Event-ID"));
    world.record(&beat(), None);
    world.record(&part(0, false, &["p"]), None);
    world.record(&part(1, true, &["q"]), Some(7));
    assert_eq!(world.take_mail(), ["replace 2"]);
    world.pass_all();
    assert_eq!(world.take_mail(), ["Jumped a-00000000:7"]);
    // An older control: the position goes back, behind a fence all the same.
    world.record(&part(0, true, &["p"]), Some(3));
    assert_eq!(world.take_mail(), ["Refilled a-00000000:7", "replace 1"][1..]);
    world.pass_all();
    assert_eq!(world.take_mail(), ["Jumped a-00000000:3"]);
    assert_eq!(world.feed.cursor, Some(cursor(3)));
}

#[test]
fn a_snapshot_removes_what_a_purge_before_it_may_have_reached_but_keeps_pages() {
    // The empty site is the pages'.
    for (site, left) in [("s1", 0), ("", 1)] {
        let mut world = World::following(false);
        let none: &[(&str, &str)] = &[];
        let fields: &[(&str, &str)] = &[("Cache-Control", "max-age=60")];
        let response = cache::Response {
            status: 200,
            reason: b"OK",
            fields: &fields,
            length: None,
            request_at_ms: world.now.wall_ms,
            response_at_ms: world.now.wall_ms,
            append: b"",
        };
        let cache = Arc::clone(&world.feed.cutter.cache);
        let cache_key = cache.cache_key(site, b"host", b"/a");
        cache.restore(&cache_key, &none, &response, b"x").expect("it may be stored");
        world.record(&beat(), None);
        world.record(&part(0, true, &["p"]), Some(7));
        assert_eq!(world.take_mail(), ["replace 1"], "the cursor waits");
        world.pass_all();
        assert_eq!(world.take_mail(), ["Jumped a-00000000:7"]);
        assert_eq!(cache.stats().entries, left, "{site:?}");
    }
}

#[test]
fn a_part_out_of_order_ends_the_session_and_applies_nothing() {
    let mut world = World::following(false);
    world.record(&part(0, false, &["p"]), None);
    world.record(&part(2, true, &["q"]), Some(7));
    assert!(world.take_mail().is_empty());
    assert!(!world.feed.session.is_following());
    assert!(world.feed.intake.received.is_none());
}

#[test]
fn events_from_before_end_with_the_first_that_is_none() {
    let mut world = World::following(false);
    world.record(&beat(), None);
    world.record(&part(0, true, &["p"]), Some(5));
    world.pass_all();
    world.take_mail();
    world.record(&publish(3, true), None);
    world.record(&publish(4, true), None);
    assert_eq!(world.take_mail(), ["Refilling a-00000000:5", "refill 3", "refill 4"]);
    world.record(&beat(), None);
    assert_eq!(world.take_mail(), ["Refilled a-00000000:5"]);
    world.record(&beat(), None);
    assert!(world.take_mail().is_empty());
}

#[test]
fn events_from_before_are_asked_for_until_they_once_came_whole() {
    let mut world = World::following(false);
    world.record(&beat(), None);
    world.record(&publish(3, true), None);
    world.feed.handle_gone(world.now, SOCKET, &mut world.out);
    world.pass_ms(5000);
    assert!(world.requests[1].starts_with("GET /v1/feed?history=1 "));
    world.receive(HEAD);
    world.take_mail();
    world.record(&beat(), None);
    world.record(&publish(3, true), None);
    assert_eq!(world.take_mail()[0], "Refilling ", "anew");
    world.record(&publish(4, false), Some(4));
    world.feed.handle_gone(world.now, SOCKET, &mut world.out);
    world.pass_ms(5000);
    assert!(world.requests.last().expect("asked").starts_with("GET /v1/feed HTTP/1.1\r\n"));
}

#[test]
fn a_new_session_resumes_behind_what_was_received_not_only_what_was_applied() {
    let mut world = World::following(false);
    world.record(&beat(), Some(1));
    world.record(&purge(2), None);
    world.record(&publish(2, false), Some(2));
    world.feed.handle_gone(world.now, SOCKET, &mut world.out);
    world.pass_ms(5000);
    let request = world.requests.last().expect("asked");
    assert!(request.contains(&format!("\r\nLast-Event-ID: {}\r\n", cursor(2))), "{request}");
    world.take_mail();
    world.pass_all();
    assert_eq!(world.take_mail(), ["publish 2", "Onward a-00000000:2"], "nothing is lost");
}

#[test]
fn an_unknown_kind_is_counted_and_its_cursor_taken() {
    let mut world = World::following(false);
    let id = cursor(4);
    world.receive(format!("event: kv\nid: {id}\ndata: {{}}\n\n").as_bytes());
    assert_eq!(world.feed.cursor, Some(cursor(4)));
    assert_eq!(world.feed.intake.unknown_kinds, 1);
    assert!(world.feed.session.is_following());
}

#[test]
fn a_record_that_cannot_be_read_is_left_behind_by_a_snapshot() {
    let mut world = World::following(false);
    world.record(&beat(), Some(4));
    for _ in 0..2 {
        world.receive(b"event: purge\ndata: {\"position\": true}\n\n");
        assert!(!world.feed.session.is_following());
        world.pass_ms(5000);
        world.receive(HEAD);
    }
    assert!(!world.requests.last().expect("asked").contains("Last-Event-ID"));
}

#[test]
fn the_feed_is_read_slower_when_shards_do_not_pass() {
    let mut world = World::following(false);
    for position in 1..=limits::FEED_PURGES_MAX as u64 {
        world.record(&purge(position), Some(position));
    }
    assert!(world.receiving);
    world.record(&purge(1000), Some(1000));
    assert!(!world.receiving);
    world.pass_ms(60_000);
    assert!(world.feed.session.is_following(), "its silence is ours");
    while !world.receiving {
        for shard in 0..3 {
            world.pass(shard);
        }
    }
    assert!(world.feed.intake.fence.purges() >= limits::FEED_PURGES_MAX / 2 - 1);
}

#[test]
fn what_is_kept_on_disk_is_never_ahead_of_what_was_applied() {
    let mut world = World::following(true);
    world.record(&part(0, true, &["p"]), Some(5));
    world.pass_all();
    world.pass_ms(1000);
    assert!(world.files[0].starts_with("configuration "), "{:?}", world.files);
    assert_eq!(world.files[1], format!("cursor {}", cursor(5)));
    world.files.clear();
    world.record(&purge(6), None);
    world.record(&publish(6, false), Some(6));
    world.pass_ms(2000);
    assert!(world.files.is_empty(), "{:?}", world.files);
    world.pass_all();
    world.pass_ms(1000);
    assert_eq!(world.files, [format!("cursor {}", cursor(6))]);
}

#[test]
fn a_purge_is_reported_within_a_second_of_its_last_pass() {
    let mut world = World::following(false);
    world.record(&beat(), Some(1));
    let number = world.position_op.take().expect("a connection for reports");
    let socket = SocketId { slot: 10, generation: 0 };
    world.feed.handle_connected(world.now, number, Ok(socket), &mut world.out);
    world.run();
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    world.feed.handle_received(world.now, socket, answer, &mut world.out);
    world.requests.clear();
    world.record(&purge(2), Some(2));
    world.pass_ms(900);
    assert!(world.requests.is_empty(), "not before it is true");
    world.pass_all();
    world.pass_ms(limits::REPORT_URGENT_MS);
    let report = world.requests.last().expect("reported");
    assert!(report.starts_with("POST ") && report.contains(&cursor(2).to_string()), "{report}");
}

#[derive(Clone, Debug)]
enum Act {
    Purge,
    Publish,
    Config,
    Pass(usize),
    Cut,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whatever the order of answers and wherever sessions break: shards see the feed's order,
    /// and no publish before all have passed the purges in front of it.
    #[test]
    fn shards_see_the_order_of_the_feed(acts in prop::collection::vec(prop_oneof![
        3 => Just(Act::Purge), 3 => Just(Act::Publish), 1 => Just(Act::Config),
        8 => (0usize..3).prop_map(Act::Pass), 1 => Just(Act::Cut),
    ], 1..80)) {
        let mut world = World::following(false);
        world.record(&beat(), None);
        world.record(&beat(), None);
        world.take_mail();
        let (mut position, mut purges, mut expected) = (0, Vec::new(), Vec::new());
        for act in acts {
            match act {
                Act::Purge => {
                    position += 1;
                    purges.push(position);
                    world.record(&purge(position), Some(position));
                    expected.push(format!("Onward a-00000000:{position}"));
                }
                Act::Publish => {
                    position += 1;
                    world.record(&publish(position, false), Some(position));
                    expected.push(format!("publish {position}"));
                    expected.push(format!("Onward a-00000000:{position}"));
                }
                Act::Config => {
                    position += 1;
                    let pages = vec![page("p")];
                    let config = Record::Config(Config { pages, ..Config::default() });
                    world.record(&config, Some(position));
                    expected.push("change 1".into());
                    expected.push(format!("Onward a-00000000:{position}"));
                }
                Act::Pass(shard) => world.pass(shard),
                Act::Cut => {
                    world.feed.handle_gone(world.now, SOCKET, &mut world.out);
                    world.pass_ms(5000);
                    world.receive(HEAD);
                }
            }
            prop_assert!(expected.starts_with(&world.mail), "{:?}", world.mail);
            // What some shard has not passed holds back everything behind it.
            let open = world.unpassed.iter().map(VecDeque::len).max().unwrap_or(0);
            if open > 0 {
                let oldest = purges[purges.len() - open.min(purges.len())];
                let applied = world.feed.cursor.as_ref().map_or(0, |cursor| cursor.position);
                prop_assert!(applied < oldest.max(1), "{applied} past purge {oldest}");
            }
        }
        for _ in 0..100 {
            world.pass_all();
        }
        prop_assert_eq!(&world.mail, &expected);
    }
}
