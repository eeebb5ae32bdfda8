//! Three regions that write at once over a network that loses, repeats, reorders and cuts: after
//! it heals they have one state, nothing is lost, and what lost a conflict is still to be seen.
//!
//! ```text
//!   write ─▶ Head::stamp ─▶ fold ─▶ log ─ sync ─▶ durable ──▶ told to others, acknowledged
//!   Have(vector) ─▶ Operations(JSON) ─▶ new? next of its replica? its causes here? clock near?
//!                                                └ else left: the next Have asks again
//! ```
//! Operations, clock rule and merge are control's own; the exchange is the plainest that keeps
//! their contract: only what is durable travels, and an operation is taken after all its writer
//! had seen. What the state must be is worked out anew, slowly, by `Reference`.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use control::{
    log::{
        append::{Head, Origin},
        cell::Written,
        dot::{Dot, Replica, StoreId, VersionVector},
        hlc::Hlc,
        merge::{EntityState, fold},
        operation::{Change, Draft, EntityRef, Kind, Mutation, Operation, Targeted},
    },
    model::{component::Component, incident::Incident, page::Page},
};
use serde_json::json;

use super::edge::Outcome;
use crate::sim::{coverage::Coverage, rng::Rng};

const NAMES: [&str; 3] = ["ap", "eu", "us"];
/// Steps of the safety phase; each is one thing that happens.
const STEPS: u64 = 500;
/// Operations in one message.
const OPERATIONS_MAX: usize = 8;
/// Rounds in which all regions ask all others, after which nothing may be missing.
const HEALING_ROUNDS: u64 = 60;

/// Runs one seed.
pub fn run(seed: u64) -> Outcome {
    let mut run = Run::new(seed);
    for _ in 0..STEPS {
        run.step();
    }
    run.heal();
    run.check();
    let operations = run.regions.iter().map(|region| region.log.len() as u64).sum();
    Outcome {
        violations: run.violations,
        coverage: run.coverage,
        operations,
        steps: run.steps,
        trace: Vec::new(),
    }
}

type State = BTreeMap<EntityRef, EntityState>;

fn apply(state: &mut State, operation: &Operation) {
    let load = |entity: &EntityRef| Ok::<_, Infallible>(state.get(entity).cloned());
    let Ok(touched) = fold(operation, load);
    state.extend(touched);
}

struct Region {
    head: Head,
    state: State,
    /// In order of arrival.
    log: Vec<Operation>,
    /// How much of the log a crash leaves.
    durable: usize,
    /// Its wall clock's error.
    skew_ms: i64,
    /// The log's length when it was last copied.
    copied: usize,
}

impl Region {
    fn new(name: &str, incarnation: u32) -> Self {
        let replica = Replica::new(name, incarnation).expect("a valid name");
        let head = Head {
            store: StoreId(u64::from(incarnation)),
            replica,
            position: 0,
            applied: VersionVector::new(),
            hlc: Hlc::default(),
        };
        let (state, log) = (State::new(), Vec::new());
        Self { head, state, log, durable: 0, skew_ms: 0, copied: 0 }
    }

    /// Starts again from the first operations of the log.
    fn restart(&mut self, length: usize, replica: Replica) {
        self.log.truncate(length);
        self.durable = length;
        self.state.clear();
        let (mut applied, mut hlc) = (VersionVector::new(), Hlc::default());
        for operation in &self.log {
            apply(&mut self.state, operation);
            assert!(applied.observe(operation.dot), "few replicas");
            hlc = hlc.max(operation.hlc);
        }
        self.head = Head { replica, position: length as u64, applied, hlc, ..self.head.clone() };
    }
}

/// A message under way.
struct Message {
    due: u64,
    from: usize,
    to: usize,
    body: Body,
}

#[derive(Clone)]
enum Body {
    /// "This is durable here": asks for what is not in it.
    Have(VersionVector),
    /// Operations as they travel.
    Operations(Vec<String>),
}

struct Run {
    rng: Rng,
    regions: Vec<Region>,
    network: Vec<Message>,
    cut: [[bool; 3]; 3],
    now_ms: u64,
    steps: u64,
    incarnations: u32,
    /// What was durable where it was written, and is not lost with a disk that was replaced.
    acknowledged: BTreeMap<Dot, Operation>,
    healing: bool,
    coverage: Coverage,
    violations: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let regions = NAMES.iter().map(|name| Region::new(name, 1)).collect();
        Self {
            rng: Rng::new(seed),
            regions,
            network: Vec::new(),
            cut: [[false; 3]; 3],
            now_ms: 1_700_000_000_000,
            steps: 0,
            incarnations: 1,
            acknowledged: BTreeMap::new(),
            healing: false,
            coverage: Coverage::default(),
            violations: Vec::new(),
        }
    }

    fn wall_ms(&self, at: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.regions[at].skew_ms)
    }

    fn step(&mut self) {
        self.steps += 1;
        self.now_ms += self.rng.between(0, 20);
        let at = self.rng.below(3);
        match self.rng.below(100) {
            0..30 => self.write(at),
            30..50 => self.sync(at),
            50..70 => {
                let to = (at + 1 + self.rng.below(2)) % 3;
                self.ask(at, to);
            }
            70..74 => self.toggle_cut(),
            74..76 => self.crash(at),
            76 => self.replace(at),
            77..79 => self.set_clock(at),
            79 => self.regions[at].copied = self.regions[at].durable,
            _ => {}
        }
        self.deliver();
    }

    // -- a region ---------------------------------------------------------------------------------

    fn write(&mut self, at: usize) {
        let draft = self.draw_draft(at);
        let now_ms = self.wall_ms(at);
        let region = &mut self.regions[at];
        let before = region.head.clone();
        let origin = Origin { actor: "key/k".into(), request: "r".into(), now_ms };
        let operation = region.head.stamp(draft, &origin).expect("few replicas");
        if operation.hlc <= before.hlc || operation.context != before.applied {
            self.violations.push(format!("{} is stamped before what it saw", operation.dot));
        }
        apply(&mut region.state, &operation);
        region.log.push(operation);
    }

    fn draw_draft(&mut self, at: usize) -> Draft {
        let number = self.rng.below(1000);
        let page = EntityRef::new(Kind::Page, "page");
        let component = EntityRef::new(Kind::Component, *self.rng.pick(&["api", "web"]));
        let incident = EntityRef::new(Kind::Incident, *self.rng.pick(&["i1", "i2"]));
        let host = || format!("host{}", number % 3);
        let (entity, mutations): (_, Vec<Targeted>) = match self.rng.below(8) {
            0 => (page, vec![Mutation::write(Page::NAME, number).here()]),
            1 | 2 => {
                (page, vec![Mutation::Add { set: Page::HOSTS.into(), element: host() }.here()])
            }
            3 => (page, vec![Mutation::Remove { set: Page::HOSTS.into(), element: host() }.here()]),
            4 => (component, vec![Mutation::write(Component::STATUS, number).here()]),
            5 => (incident, vec![Mutation::write(Incident::TITLE, number).here()]),
            _ => {
                // An update and its component's status are one operation.
                let id = format!("{}-{number}-{}", NAMES[at], self.steps);
                let entry = json!({ "status": "identified", "message": number });
                let status = Mutation::write(Component::STATUS, number).on(component);
                (incident, vec![Mutation::Append { id, value: entry }.here(), status])
            }
        };
        Draft { entity, change: Change::Merge(mutations) }
    }

    /// The log is on disk: local writes are acknowledged, others may be told.
    fn sync(&mut self, at: usize) {
        let region = &mut self.regions[at];
        for operation in &region.log[region.durable..] {
            if operation.dot.replica == region.head.replica {
                self.acknowledged.insert(operation.dot, operation.clone());
            }
        }
        region.durable = region.log.len();
    }

    fn crash(&mut self, at: usize) {
        self.coverage.hit("crash: region");
        let region = &mut self.regions[at];
        if region.durable < region.log.len() {
            self.coverage.hit("regions: writes lost at a crash");
        }
        region.restart(region.durable, region.head.replica);
    }

    /// A copy of the store takes its place: another incarnation, and what only it had is gone.
    fn replace(&mut self, at: usize) {
        if self.incarnations > 6 {
            return;
        }
        self.coverage.hit("regions: replaced by an older copy");
        self.incarnations += 1;
        let replica = Replica::new(NAMES[at], self.incarnations).expect("a valid name");
        let length = self.regions[at].copied.min(self.regions[at].durable);
        let gone: Vec<Operation> = self.regions[at].log[length..].to_vec();
        self.regions[at].restart(length, replica);
        let elsewhere = |dot: Dot| {
            let mut kept = self.regions.iter().flat_map(|region| &region.log[..region.durable]);
            kept.any(|known| known.dot == dot)
        };
        let lost: BTreeSet<Dot> =
            gone.iter().map(|operation| operation.dot).filter(|dot| !elsewhere(*dot)).collect();
        self.acknowledged.retain(|dot, _| !lost.contains(dot));
    }

    fn set_clock(&mut self, at: usize) {
        self.regions[at].skew_ms = *self.rng.pick(&[0, 0, 40, -40, -3_000, 450, 1_500, 4_000]);
    }

    // -- the exchange -----------------------------------------------------------------------------

    fn ask(&mut self, from: usize, to: usize) {
        let region = &self.regions[from];
        let known = region.log[..region.durable].iter().map(|operation| operation.dot);
        let body = Body::Have(known.collect());
        self.post(from, to, body);
    }

    fn post(&mut self, from: usize, to: usize, body: Body) {
        if self.cut[from][to] {
            self.coverage.hit("regions: message into a partition");
            return;
        }
        if !self.healing && self.rng.chance(120) {
            self.coverage.hit("regions: message lost");
            return;
        }
        let copies = if self.rng.chance(100) { 2 } else { 1 };
        if copies == 2 {
            self.coverage.hit("regions: message repeated");
        }
        for _ in 0..copies {
            let due = self.steps + *self.rng.pick(&[0, 1, 3, 12, 40]);
            self.network.push(Message { due, from, to, body: body.clone() });
        }
    }

    fn deliver(&mut self) {
        let mut at = 0;
        while at < self.network.len() {
            if self.network[at].due > self.steps {
                at += 1;
                continue;
            }
            if at > 0 {
                self.coverage.hit("regions: message overtakes");
            }
            let Message { from, to, body, .. } = self.network.remove(at);
            match body {
                Body::Have(known) => self.answer(to, from, &known),
                Body::Operations(texts) => {
                    let mut operations: Vec<Operation> = texts
                        .iter()
                        .map(|text| serde_json::from_str(text).expect("our own operations"))
                        .collect();
                    if self.rng.chance(200) {
                        operations.reverse();
                    }
                    operations.iter().for_each(|operation| self.receive(to, operation));
                }
            }
        }
    }

    fn answer(&mut self, from: usize, to: usize, known: &VersionVector) {
        let region = &self.regions[from];
        let missing = region.log[..region.durable]
            .iter()
            .filter(|operation| !known.contains(operation.dot))
            .take(OPERATIONS_MAX);
        let texts: Vec<String> = missing
            .map(|operation| serde_json::to_string(operation).expect("operations have a form"))
            .collect();
        if !texts.is_empty() {
            self.post(from, to, Body::Operations(texts));
        }
    }

    fn receive(&mut self, at: usize, operation: &Operation) {
        let now_ms = self.wall_ms(at);
        let region = &mut self.regions[at];
        if region.head.applied.contains(operation.dot) {
            self.coverage.hit("regions: operation delivered again");
            return;
        }
        let next = region.head.applied.get(operation.dot.replica) + 1 == operation.dot.seq;
        if !next || !region.head.applied.covers(&operation.context) {
            self.coverage.hit("regions: operation before its cause");
            return;
        }
        let Ok(hlc) = region.head.hlc.receive(now_ms, operation.hlc) else {
            self.coverage.hit("regions: clock quarantined");
            return;
        };
        if hlc > region.head.hlc && hlc.ms() > now_ms + control::limits::REMOTE_AHEAD_MS_MAX {
            self.violations.push(format!("{} dragged a clock ahead", operation.dot));
        }
        region.head.hlc = hlc;
        region.head.position += 1;
        assert!(region.head.applied.observe(operation.dot), "few replicas");
        apply(&mut region.state, operation);
        region.log.push(Operation { position: region.head.position, ..operation.clone() });
    }

    // -- faults and their end ---------------------------------------------------------------------

    fn toggle_cut(&mut self) {
        let (from, to) = (self.rng.below(3), self.rng.below(3));
        let cut = self.rng.chance(600);
        self.cut[from][to] = cut;
        if self.rng.chance(700) {
            self.cut[to][from] = cut;
        }
    }

    fn heal(&mut self) {
        self.healing = true;
        self.cut = [[false; 3]; 3];
        self.regions.iter_mut().for_each(|region| region.skew_ms = 0);
        for _ in 0..HEALING_ROUNDS {
            // Clocks that were ahead are waited for, not believed.
            self.now_ms += 500;
            for at in 0..3 {
                self.sync(at);
                self.ask(at, (at + 1) % 3);
                self.ask(at, (at + 2) % 3);
            }
            self.steps += 50;
            self.deliver();
            self.steps += 50;
            self.deliver();
        }
        (0..3).for_each(|at| self.sync(at));
    }

    fn check(&mut self) {
        let mut wrong = Vec::new();
        let first = &self.regions[0];
        for (region, name) in self.regions.iter().zip(NAMES) {
            if region.head.applied != first.head.applied {
                let (here, there) = (&region.head.applied, &first.head.applied);
                wrong.push(format!("{name} has {here}, {} has {there}", NAMES[0]));
            }
            if region.state != first.state {
                wrong.push(format!("{name} has another state than {}", NAMES[0]));
            }
            let dots: BTreeSet<Dot> = region.log.iter().map(|operation| operation.dot).collect();
            if dots.len() != region.log.len() {
                wrong.push(format!("{name} has an operation twice"));
            }
            for (dot, operation) in &self.acknowledged {
                let here = region.log.iter().find(|known| known.dot == *dot);
                // The position is each store's own.
                let same = |known: &Operation| {
                    Operation { position: operation.position, ..known.clone() } == *operation
                };
                if !here.is_some_and(same) {
                    wrong.push(format!("{name} has lost {dot}, which was acknowledged"));
                }
            }
        }
        let reference = Reference::of(&first.log);
        reference.check(&first.state, &mut self.coverage, &mut wrong);
        self.violations.extend(wrong.into_iter().map(|what| format!("regions: {what}")));
    }
}

/// All mutations of a log by the place they touch; what the state must be follows by definition.
#[derive(Default)]
struct Reference<'a> {
    writes: BTreeMap<(EntityRef, &'a str), Vec<(&'a Operation, &'a serde_json::Value)>>,
    adds: BTreeMap<(EntityRef, &'a str, &'a str), Vec<&'a Operation>>,
    removes: BTreeMap<(EntityRef, &'a str, &'a str), Vec<&'a Operation>>,
    appends: BTreeMap<EntityRef, Vec<(Hlc, Dot, &'a str)>>,
}

impl<'a> Reference<'a> {
    fn of(log: &'a [Operation]) -> Self {
        let mut all = Self::default();
        for operation in log {
            let Change::Merge(mutations) = &operation.change else { continue };
            for Targeted { entity, mutation } in mutations {
                let entity = entity.as_ref().unwrap_or(&operation.entity).clone();
                match mutation {
                    Mutation::Write { cell, value } => {
                        all.writes.entry((entity, cell)).or_default().push((operation, value));
                    }
                    Mutation::Add { set, element } => {
                        all.adds.entry((entity, set, element)).or_default().push(operation);
                    }
                    Mutation::Remove { set, element } => {
                        all.removes.entry((entity, set, element)).or_default().push(operation);
                    }
                    Mutation::Append { id, .. } => {
                        let entry = (operation.hlc, operation.dot, id.as_str());
                        all.appends.entry(entity).or_default().push(entry);
                    }
                }
            }
        }
        all
    }

    fn check(&self, state: &State, coverage: &mut Coverage, wrong: &mut Vec<String>) {
        let merged = |entity: &EntityRef| state.get(entity).and_then(EntityState::local);
        for ((entity, name), writes) in &self.writes {
            // What no other write had seen, the winner last.
            let mut kept: Vec<_> = writes
                .iter()
                .filter(|(write, _)| {
                    !writes.iter().any(|(other, _)| other.context.contains(write.dot))
                })
                .map(|(write, value)| (write.hlc, write.dot, (*value).clone()))
                .collect();
            kept.sort_by_key(|(hlc, dot, _)| (*hlc, *dot));
            if kept.len() > 1 {
                coverage.hit("regions: conflict with a loser kept");
            }
            let cell = merged(entity).and_then(|merged| merged.cells.get(*name));
            let shown =
                |written: &Written| (written.stamp.hlc, written.stamp.dot, written.value.clone());
            let found: Vec<_> = cell.map_or(Vec::new(), |cell| {
                cell.losers().iter().chain(cell.winner()).map(shown).collect()
            });
            if found != kept {
                wrong.push(format!("{entity} {name}: {found:?} instead of {kept:?}"));
            }
        }
        for ((entity, set, element), adds) in &self.adds {
            let removes = self.removes.get(&(entity.clone(), set, element));
            let removes = removes.map(Vec::as_slice).unwrap_or_default();
            let stands = |add: &&&Operation| !removes.iter().any(|r| r.context.contains(add.dot));
            let expected = adds.iter().find(stands).is_some();
            let elements = merged(entity).map(|merged| merged.elements(set)).unwrap_or_default();
            if elements.iter().any(|found| found == element) != expected {
                wrong.push(format!("{entity} {set}: {element} is not {expected}"));
            }
        }
        for (entity, entries) in &self.appends {
            let mut entries = entries.clone();
            entries.sort();
            let found = merged(entity).map(|merged| merged.entries.as_slice()).unwrap_or_default();
            let found: Vec<_> =
                found.iter().map(|e| (e.stamp.hlc, e.stamp.dot, e.id.as_str())).collect();
            if found != entries {
                wrong.push(format!("{entity}: {} of {} entries", found.len(), entries.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_regions_heal_to_one_state() {
        for seed in 0..50 {
            assert_eq!(run(seed).violations, [""; 0], "seed {seed}");
        }
    }
}
