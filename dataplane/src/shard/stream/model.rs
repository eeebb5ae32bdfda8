//! The streams against a model: whatever comes in whatever order, every client sees a chain without
//! an untold gap and without a duplicate.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use proptest::prelude::*;
use proto::feed::{
    cursor::{Dot, VersionVector},
    record::{Publish, Topic},
    site::{SlowPolicy, StreamRules},
};

use super::testing::{World, event, replica, small, vector};
use crate::shard::{coverage::Coverage, mail::Advance, stream_route::StreamRoute, topic::Asked};

/// What two replicas have written: for each operation the topic it publishes to, if any.
#[derive(Clone, Debug)]
struct Log([Vec<Option<usize>>; 2]);

const TOPICS: [&str; 2] = ["page/p", "page/q"];
/// What a stream may listen to.
const SETS: [&[&str]; 3] = [&["page/p"], &["page/q"], &["page/p", "page/q"]];

impl Log {
    fn dot(at: usize, seq: u64) -> Dot {
        Dot { replica: replica(["a", "b"][at]), seq }
    }

    /// The event of one operation.
    fn event(&self, at: usize, seq: u64) -> Option<Publish> {
        let topic = self.0[at][seq as usize - 1]?;
        let prev = (1..seq).rev().find(|&s| self.0[at][s as usize - 1] == Some(topic));
        let event = event(TOPICS[topic], ["a", "b"][at], seq, prev.unwrap_or(0));
        Some(Publish { key: Self::key(seq).map(str::to_owned), ..event })
    }

    /// Two of three events have one of two keys.
    fn key(seq: u64) -> Option<&'static str> {
        [None, Some("x"), Some("y")][seq as usize % 3]
    }

    /// Whether another event than this one tells what it told.
    fn is_superseded(&self, dot: Dot) -> bool {
        let topic_of = |dot: Dot| {
            let at = usize::from(dot.replica == replica("b"));
            self.0[at][dot.seq as usize - 1]
        };
        let key = Self::key(dot.seq);
        let mut others = [0, 1].into_iter().flat_map(|topic| self.dots(topic));
        key.is_some()
            && others.any(|other| {
                other != dot && topic_of(other) == topic_of(dot) && Self::key(other.seq) == key
            })
    }

    /// All events of a topic.
    fn dots(&self, topic: usize) -> Vec<Dot> {
        let of = |at: usize| {
            let seqs = 1..=self.0[at].len() as u64;
            seqs.filter(move |&seq| self.0[at][seq as usize - 1] == Some(topic))
                .map(move |seq| Self::dot(at, seq))
        };
        of(0).chain(of(1)).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Advance {
        at: usize,
        tell: bool,
    },
    Repeat {
        at: usize,
        back: u64,
    },
    Refill {
        events: usize,
    },
    Reconnect {
        window: [u64; 2],
    },
    Open {
        slot: u32,
        topics: usize,
        slow: usize,
        from: From,
    },
    Stall {
        slot: u32,
        room: usize,
    },
    Unstall {
        slot: u32,
    },
    Close {
        slot: u32,
    },
    Turn,
    Pass {
        ms: u64,
    },
    Jump {
        by: [usize; 2],
    },
    /// The feed is narrowed to the topics that streams have, as far as shard 0 knows.
    Narrow,
    /// Everything comes again.
    Widen {
        window: [u64; 2],
    },
    /// A topic that was asked for begins, with as much of its past.
    Begin {
        topic: usize,
        events: usize,
    },
    /// Topics that nobody listens to are dropped.
    Drop,
}

#[derive(Clone, Debug)]
enum From {
    Present,
    /// Where this client stopped.
    LastId,
    /// A cursor from another edge: this much behind or ahead of here.
    Other([i64; 2]),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0u32..6;
    let from = prop_oneof![
        Just(From::Present),
        Just(From::LastId),
        [-12i64..8, -12i64..8].prop_map(From::Other),
    ];
    prop_oneof![
        8 => (0usize..2, any::<bool>()).prop_map(|(at, tell)| Step::Advance { at, tell }),
        1 => (0usize..2, 0u64..5).prop_map(|(at, back)| Step::Repeat { at, back }),
        3 => (1usize..6).prop_map(|events| Step::Refill { events }),
        1 => [0u64..20, 0u64..20].prop_map(|window| Step::Reconnect { window }),
        3 => (slot.clone(), 0usize..3, 0usize..4, from)
            .prop_map(|(slot, topics, slow, from)| Step::Open { slot, topics, slow, from }),
        3 => (slot.clone(), 0usize..300).prop_map(|(slot, room)| Step::Stall { slot, room }),
        2 => slot.clone().prop_map(|slot| Step::Unstall { slot }),
        1 => slot.prop_map(|slot| Step::Close { slot }),
        4 => Just(Step::Turn),
        1 => (1u64..30_000).prop_map(|ms| Step::Pass { ms }),
        1 => [0usize..4, 0usize..4].prop_map(|by| Step::Jump { by }),
        1 => Just(Step::Narrow),
        1 => [0u64..20, 0u64..20].prop_map(|window| Step::Widen { window }),
        4 => (0usize..2, 0usize..8).prop_map(|(topic, events)| Step::Begin { topic, events }),
        1 => Just(Step::Drop),
    ]
}

/// A world, the log it reads, and what each client had when it opened.
struct Model {
    world: World,
    log: Log,
    applied: [u64; 2],
    /// Events that this session with control has still to refill, before anything new.
    refill: VecDeque<Publish>,
    /// What shard 0 knows; which of the topics are told, where only some are.
    told: Option<[bool; 2]>,
    /// By client: which topics, by which policy, from which cursor.
    opened: HashMap<u32, (usize, SlowPolicy, Option<VersionVector>)>,
}

impl Model {
    fn new(log: Log, start: [u64; 2], window: [u64; 2]) -> Self {
        let mut limits = small();
        limits.history.count_all_max = 6;
        let mut model = Self {
            world: World::new(limits),
            log,
            applied: start,
            refill: VecDeque::new(),
            told: None,
            opened: HashMap::new(),
        };
        model.world.streams.tell_interest();
        model.world.applied(&model.known(), Advance::Jumped);
        model.reconnect(window);
        model
    }

    /// Which topics this shard has asked for and not given up.
    fn asked(&self, topic: usize) -> bool {
        let topics = &self.world.streams.topics;
        topics.find(TOPICS[topic]).is_some_and(|row| topics.at(row).asked != Asked::No)
    }

    fn cover(&mut self, coverage: &Coverage) {
        self.world.out.begin();
        self.world.streams.handle_coverage(self.world.now, coverage, &mut self.world.out);
        self.world.run();
    }

    fn narrow(&mut self) {
        if self.told.is_some() {
            return;
        }
        self.refill(usize::MAX);
        self.cover(&Coverage::Narrowing { round: 1 });
        let told = [0, 1].map(|topic| self.asked(topic));
        let names = (0..2).filter(|&topic| told[topic]).map(|topic| TOPICS[topic].into());
        self.cover(&Coverage::Narrow { told: names.collect() });
        self.told = Some(told);
    }

    fn widen(&mut self, window: [u64; 2]) {
        if self.told.take().is_some() {
            self.cover(&Coverage::Everything);
            self.reconnect(window);
        }
    }

    fn begin(&mut self, topic: usize, events: usize) {
        let Some(told) = self.told.filter(|_| self.asked(topic)) else { return };
        if told[topic] {
            return self.cover(&Coverage::Confirmed(TOPICS[topic].into()));
        }
        self.world.applied(&self.known(), Advance::Onward);
        let mut past: Vec<Publish> = (0..2)
            .flat_map(|at| (1..=self.applied[at]).map(move |seq| (at, seq)))
            .filter(|&(at, seq)| self.log.0[at][seq as usize - 1] == Some(topic))
            .filter_map(|(at, seq)| self.log.event(at, seq))
            .collect();
        past.sort_by_key(|event| (event.dot.seq, event.dot.replica));
        let events = past.split_off(past.len().saturating_sub(events));
        let from = past.iter().map(|event| event.dot).collect();
        let topic_of = Topic {
            ask: 1,
            topic: TOPICS[topic].into(),
            from,
            whole: past.is_empty(),
            events: events.into_iter().map(|it| Publish { refill: true, ..it }).collect(),
        };
        self.cover(&Coverage::Begun(Arc::new(topic_of)));
        self.told.as_mut().expect("narrow")[topic] = true;
    }

    fn drop_idle(&mut self) {
        for topic in 0..2 {
            if self.told.is_some_and(|told| told[topic]) && !self.asked(topic) {
                self.cover(&Coverage::Dropped(TOPICS[topic].into()));
                self.told.as_mut().expect("narrow")[topic] = false;
            }
        }
    }

    /// A new session with control; an unfinished refill begins anew.
    fn reconnect(&mut self, window: [u64; 2]) {
        self.refill.clear();
        for (at, window) in window.into_iter().enumerate() {
            let end = (self.applied[at] + 1).min(self.log.0[at].len() as u64);
            let events = (self.applied[at].saturating_sub(window) + 1..=end)
                .filter_map(|seq| self.log.event(at, seq));
            self.refill.extend(events.map(|event| Publish { refill: true, ..event }));
        }
        self.world.applied(&self.known(), Advance::Refilling);
        self.refill(0);
    }

    fn refill(&mut self, events: usize) {
        for _ in 0..events {
            let Some(event) = self.refill.pop_front() else { break };
            self.world.publish(&event);
        }
        if self.refill.is_empty() {
            self.world.applied(&self.known(), Advance::Refilled);
        }
    }

    fn known(&self) -> VersionVector {
        let dots = (0..2).filter(|&at| self.applied[at] > 0);
        dots.map(|at| Log::dot(at, self.applied[at])).collect()
    }

    fn advance(&mut self, at: usize, tell: bool) {
        self.refill(usize::MAX);
        if self.applied[at] as usize == self.log.0[at].len() {
            return;
        }
        self.applied[at] += 1;
        let is_told = |topic: usize| self.told.is_none_or(|told| told[topic]);
        if self.log.0[at][self.applied[at] as usize - 1].is_none_or(is_told)
            && let Some(event) = self.log.event(at, self.applied[at])
        {
            self.world.publish(&event);
        } else {
            // What is left out is passed with its cursor before anything else comes.
            self.world.applied(&self.known(), Advance::Onward);
        }
        if tell {
            self.world.applied(&self.known(), Advance::Onward);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Advance { at, tell } => self.advance(at, tell),
            Step::Repeat { at, back } => {
                let seq = self.applied[at].saturating_sub(back).max(1);
                if seq <= self.applied[at]
                    && self.told.is_none()
                    && let Some(event) = self.log.event(at, seq)
                {
                    self.world.publish(&event);
                }
            }
            Step::Refill { events } => self.refill(events),
            Step::Reconnect { window } if self.told.is_none() => self.reconnect(window),
            Step::Reconnect { .. } => {}
            Step::Narrow => self.narrow(),
            Step::Widen { window } => self.widen(window),
            Step::Begin { topic, events } => self.begin(topic, events),
            Step::Drop => self.drop_idle(),
            Step::Open { slot, topics, slow, from } => {
                self.finish(slot);
                let text = match from {
                    From::Present => None,
                    From::LastId => {
                        self.world.clients.get(&slot).and_then(|_| self.world.last_id(slot))
                    }
                    From::Other(by) => {
                        let dots = (0..2).filter_map(|at| {
                            let end = self.log.0[at].len() as i64;
                            let seq = (self.applied[at] as i64 + by[at]).clamp(0, end);
                            (seq > 0).then(|| Log::dot(at, seq as u64))
                        });
                        Some(dots.collect::<VersionVector>().to_string())
                    }
                };
                let text = text.filter(|text| !text.is_empty());
                let cursor = text.as_deref().map(vector);
                let slow = SlowPolicy::ALL[slow];
                let rules = StreamRules { slow, ..StreamRules::default() };
                let route = Rc::new(StreamRoute { rules, ..StreamRoute::default() });
                self.world.open_by(slot, SETS[topics], &route, text.as_deref(), None);
                self.opened.insert(slot, (topics, slow, cursor));
            }
            Step::Stall { slot, room } if self.is_open(slot) => self.world.stall(slot, room),
            Step::Unstall { slot } if self.is_open(slot) => self.world.unstall(slot),
            Step::Close { slot } => self.finish(slot),
            Step::Turn => {
                self.world.turn();
            }
            Step::Pass { ms } => self.world.pass_ms(ms),
            Step::Jump { by } => {
                for (at, by) in by.into_iter().enumerate() {
                    let end = self.log.0[at].len() as u64;
                    self.applied[at] = (self.applied[at] + by as u64).min(end);
                }
                self.refill.clear();
                self.world.applied(&self.known(), Advance::Jumped);
                if self.told.is_none() {
                    self.reconnect([3, 3]);
                }
            }
            Step::Stall { .. } | Step::Unstall { .. } => {}
        }
    }

    /// All events of a set of topics.
    fn dots(&self, topics: usize) -> Vec<Dot> {
        let of_set = (0..2).filter(|&topic| SETS[topics].contains(&TOPICS[topic]));
        of_set.flat_map(|topic| self.log.dots(topic)).collect()
    }

    fn is_open(&self, slot: u32) -> bool {
        self.world.clients.get(&slot).is_some_and(|client| !client.closed)
    }

    /// Closes a client and judges what it saw.
    fn finish(&mut self, slot: u32) {
        if self.world.clients.contains_key(&slot) {
            self.world.close(slot);
            self.judge(slot);
        }
    }

    /// The chain that a client sees: nothing twice, nothing missing that no gap told.
    fn judge(&self, slot: u32) -> VersionVector {
        let (topics, slow, start) = &self.opened[&slot];
        let all = self.dots(*topics);
        let mut cursor = start.clone();
        for seen in self.world.seen(slot) {
            let id = seen.id.as_deref().map(vector);
            match (&mut cursor, id) {
                // The first id of a fresh stream says where it begins.
                (None, Some(id)) => cursor = Some(id),
                (None, None) => assert_eq!(seen.event, "beat"),
                (Some(cursor), Some(id)) => {
                    if seen.event == "gap" && seen.data.contains(r#""from":"","#) {
                        // Its cursor was not understood here; it begins anew.
                        *cursor = id;
                        continue;
                    }
                    assert!(id.covers(cursor), "{id} takes back of {cursor}");
                    let missed = |told: Option<Dot>| {
                        let is_new = |dot: &Dot| id.contains(*dot) && !cursor.contains(*dot);
                        // By its policy it may have been passed over for a newer one.
                        let is_passed_over =
                            |dot: Dot| *slow == SlowPolicy::Conflate && self.log.is_superseded(dot);
                        let newly = all.iter().copied().filter(is_new);
                        newly
                            .filter(|dot| Some(*dot) != told && !is_passed_over(*dot))
                            .collect::<Vec<_>>()
                    };
                    match seen.event.as_str() {
                        "gap" => {}
                        "beat" => assert_eq!(missed(None), [], "a beat claims events"),
                        _ => {
                            let dot: Dot = seen.data.parse().expect("a dot");
                            assert!(!cursor.contains(dot), "{dot} came twice");
                            assert_eq!(missed(Some(dot)), [], "an untold gap before {dot}");
                        }
                    }
                    *cursor = id;
                }
                (Some(_), None) => assert_eq!(seen.event, "beat"),
            }
        }
        cursor.unwrap_or_default()
    }

    /// Everything heals: all events come, all clients read.
    fn heal(&mut self) {
        // Whoever waits is served: by the topics it asked for, or by everything.
        (0..2).for_each(|topic| self.begin(topic, 3));
        for at in 0..2 {
            while (self.applied[at] as usize) < self.log.0[at].len() {
                self.advance(at, true);
            }
        }
        self.world.applied(&self.known(), Advance::Onward);
        self.world.run();
        let slots: Vec<u32> = self.opened.keys().copied().collect();
        for &slot in &slots {
            if self.is_open(slot) {
                self.world.unstall(slot);
            }
        }
        for _ in 0..400 {
            self.world.pass_ms(250);
        }
        for slot in slots {
            let cursor = self.judge(slot);
            if self.is_open(slot) {
                let (topics, slow, _) = self.opened[&slot];
                for dot in self.dots(topics) {
                    if slow == SlowPolicy::Conflate && self.log.is_superseded(dot) {
                        continue;
                    }
                    assert!(cursor.contains(dot), "{slot} never learnt of {dot}: {cursor}");
                }
            }
        }
        let in_use = self.world.streams.side.len();
        assert_eq!(in_use, 0, "everyone is caught up in the end");
    }
}

fn log() -> impl Strategy<Value = Log> {
    let ops = || {
        prop::collection::vec(
            prop_oneof![3 => Just(Some(0)), 1 => Just(Some(1)), 2 => Just(None)],
            4..40,
        )
    };
    [ops(), ops()].prop_map(Log)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_client_sees_a_chain_without_untold_gap_and_without_duplicate(
        log in log(),
        start in [0u64..20, 0u64..20],
        window in [0u64..20, 0u64..20],
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let start = [0, 1].map(|at: usize| start[at].min(log.0[at].len() as u64));
        let mut model = Model::new(log, start, window);
        for step in steps {
            model.step(step);
        }
        model.heal();
    }
}
