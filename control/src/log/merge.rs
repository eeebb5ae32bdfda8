//! The fold of operations into the state of one entity. Pure, and the only one: live appends,
//! replay and other regions' operations all pass here.
//!
//! ```text
//!  Merge(mutations) ──▶ Merged    cells · sets · entries     any order gives one result, nothing
//! is lost
//!  Set{expected, …} ──▶ Versioned revision · value           in log order, compared and set
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    cell::{Cell, Stamp, Written},
    hlc::Hlc,
    operation::{Change, EntityRef, Level, Mutation, Operation},
    set::AddWins,
};

/// The folded state of one entity.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntityState {
    /// Of a local level.
    Local(Merged),
    /// Of a majority level.
    Majority(Versioned),
}

/// State that merges.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Merged {
    /// Values by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cells: BTreeMap<String, Cell>,
    /// Sets by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, AddWins>,
    /// What was appended, oldest first by (HLC, dot).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// Stamp of the earliest operation.
    pub created: Hlc,
    /// Stamp of the latest operation.
    pub updated: Hlc,
}

/// One appended entry.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its identity.
    pub id: String,
    /// The entry.
    pub value: Value,
    /// By which operation.
    #[serde(flatten)]
    pub stamp: Stamp,
}

/// State that is compared and set as a whole.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Versioned {
    /// Counts the changes; 0 for never set.
    pub revision: u64,
    /// The value; `None` when removed.
    pub value: Option<Value>,
    /// Stamp of the first operation.
    pub created: Hlc,
    /// Stamp of the last operation.
    pub updated: Hlc,
}

impl Merged {
    /// The value of a cell.
    pub fn value(&self, cell: &str) -> Option<&Value> {
        self.cells.get(cell).and_then(Cell::value)
    }

    /// The text in a cell.
    pub fn text(&self, cell: &str) -> Option<&str> {
        self.value(cell).and_then(Value::as_str)
    }

    /// Whether the entity has been deleted: a cell like any other, so a concurrent edit does not
    /// bring it back and a deletion can be undone.
    pub fn is_deleted(&self) -> bool {
        self.value(DELETED).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The elements of a set, sorted.
    pub fn elements(&self, set: &str) -> Vec<String> {
        self.sets.get(set).map(|set| set.iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// Takes one mutation, in whatever order; twice changes nothing.
    pub fn apply(&mut self, stamp: &Stamp, mutation: &Mutation) {
        if self.created == Hlc::default() || stamp.hlc < self.created {
            self.created = stamp.hlc;
        }
        self.updated = self.updated.max(stamp.hlc);
        match mutation {
            Mutation::Write { cell, value } => {
                let written = Written { value: value.clone(), stamp: stamp.clone() };
                self.cells.entry(cell.clone()).or_default().write(written);
            }
            Mutation::Add { set, element } => {
                self.sets.entry(set.clone()).or_default().add(element, stamp);
            }
            Mutation::Remove { set, element } => {
                self.sets.entry(set.clone()).or_default().remove(element, stamp);
            }
            Mutation::Append { id, value } => {
                let rank = |entry: &Entry| (entry.stamp.hlc, entry.stamp.dot);
                let here = (stamp.hlc, stamp.dot);
                let at = self.entries.partition_point(|entry| rank(entry) < here);
                if self.entries.get(at).is_some_and(|entry| entry.stamp.dot == stamp.dot) {
                    return;
                }
                let entry = Entry { id: id.clone(), value: value.clone(), stamp: stamp.clone() };
                self.entries.insert(at, entry);
            }
        }
    }
}

impl EntityState {
    /// An entity of which nothing is known yet.
    pub fn empty(level: Level) -> Self {
        match level {
            Level::Local => Self::Local(Merged::default()),
            Level::Majority => Self::Majority(Versioned::default()),
        }
    }

    /// The mergeable state; `None` for the other level.
    pub fn local(&self) -> Option<&Merged> {
        match self {
            Self::Local(merged) => Some(merged),
            Self::Majority(_) => None,
        }
    }

    /// The compared-and-set state; `None` for the other level.
    pub fn majority(&self) -> Option<&Versioned> {
        match self {
            Self::Majority(versioned) => Some(versioned),
            Self::Local(_) => None,
        }
    }
}

/// Folds one operation into every entity it touches. `load` gives an entity's state so far; the
/// results come back in the order of first touch. An order without state (a purge) touches nothing.
/// A change of the other level than its entity's, and a compare-and-set whose revision is no longer
/// there, change nothing.
pub fn fold<E>(
    operation: &Operation,
    mut load: impl FnMut(&EntityRef) -> Result<Option<EntityState>, E>,
) -> Result<Vec<(EntityRef, EntityState)>, E> {
    let mut touched: Vec<(EntityRef, EntityState)> = Vec::new();
    let stamp = stamp(operation);
    match &operation.change {
        Change::Merge(mutations) => {
            for targeted in mutations {
                let entity = targeted.entity.as_ref().unwrap_or(&operation.entity);
                if entity.kind.level() != Level::Local {
                    continue;
                }
                let at = match touched.iter().position(|(known, _)| known == entity) {
                    Some(at) => at,
                    None => {
                        let state = load(entity)?.unwrap_or(EntityState::empty(Level::Local));
                        touched.push((entity.clone(), state));
                        touched.len() - 1
                    }
                };
                if let EntityState::Local(merged) = &mut touched[at].1 {
                    merged.apply(&stamp, &targeted.mutation);
                }
            }
        }
        Change::Set { expected, value } if operation.entity.kind.level() == Level::Majority => {
            let state = load(&operation.entity)?.unwrap_or(EntityState::empty(Level::Majority));
            if let EntityState::Majority(mut versioned) = state
                && versioned.revision == *expected
            {
                if versioned.revision == 0 {
                    versioned.created = operation.hlc;
                }
                versioned.revision += 1;
                versioned.updated = operation.hlc;
                versioned.value = value.clone();
                touched.push((operation.entity.clone(), EntityState::Majority(versioned)));
            }
        }
        Change::Set { .. } | Change::Purge(_) | Change::Event(_) => {}
    }
    Ok(touched)
}

/// The cell that says whether an entity is deleted.
pub const DELETED: &str = "deleted";

fn stamp(operation: &Operation) -> Stamp {
    Stamp { dot: operation.dot, hlc: operation.hlc, context: operation.context.clone() }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use proptest::prelude::*;

    use super::*;
    use crate::log::{
        append::{Head, Origin},
        dot::{Replica, StoreId, VersionVector},
        operation::{Draft, Kind},
    };

    type State = BTreeMap<EntityRef, EntityState>;

    fn apply(state: &mut State, operation: &Operation) {
        let touched =
            fold::<Infallible>(operation, |entity| Ok(state.get(entity).cloned())).expect("total");
        state.extend(touched);
    }

    /// One region: its head, its state, and all operations it holds in order of arrival.
    struct Region {
        head: Head,
        state: State,
        log: Vec<Operation>,
    }

    impl Region {
        fn new(name: &str) -> Self {
            let head = Head {
                store: StoreId(0),
                replica: Replica::new(name, 1).expect("valid"),
                position: 0,
                applied: VersionVector::new(),
                hlc: Hlc::default(),
            };
            Self { head, state: State::new(), log: Vec::new() }
        }

        fn write(&mut self, mutation: Mutation, now_ms: u64) {
            let draft = Draft {
                entity: EntityRef::new(Kind::Page, "p"),
                change: Change::Merge(vec![mutation.here()]),
            };
            let origin = Origin { actor: "a".into(), request: "r".into(), now_ms };
            let operation = self.head.stamp(draft, &origin).expect("room");
            apply(&mut self.state, &operation);
            self.log.push(operation);
        }

        fn receive(&mut self, operation: &Operation) {
            if self.head.applied.contains(operation.dot) {
                return;
            }
            apply(&mut self.state, operation);
            self.head.applied.observe(operation.dot);
            self.head.hlc = self.head.hlc.max(operation.hlc);
            self.log.push(operation.clone());
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write {
            region: usize,
            mutation: Mutation,
            now_ms: u64,
        },
        /// `to` takes everything `from` holds, in `from`'s order.
        Sync {
            from: usize,
            to: usize,
        },
    }

    fn mutation() -> impl Strategy<Value = Mutation> {
        let name = prop::sample::select(vec!["a", "b"]);
        prop_oneof![
            (name.clone(), 0u32..1000).prop_map(|(cell, value)| Mutation::write(cell, value)),
            name.clone().prop_map(|e| Mutation::Add { set: "s".into(), element: e.into() }),
            name.prop_map(|e| Mutation::Remove { set: "s".into(), element: e.into() }),
            (0u32..1000)
                .prop_map(|n| Mutation::Append { id: n.to_string(), value: Value::from(n) }),
        ]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0usize..3, mutation(), 0u64..50)
                .prop_map(|(region, mutation, now_ms)| Step::Write { region, mutation, now_ms }),
            1 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Sync { from, to }),
        ]
    }

    fn run(steps: Vec<Step>) -> [Region; 3] {
        let mut regions = ["eu", "us", "ap"].map(Region::new);
        for step in steps {
            match step {
                Step::Write { region, mutation, now_ms } => regions[region].write(mutation, now_ms),
                Step::Sync { from, to } => {
                    for operation in regions[from].log.clone() {
                        regions[to].receive(&operation);
                    }
                }
            }
        }
        regions
    }

    proptest! {
        #[test]
        fn three_replicas_heal_to_one_state_from_any_partition(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let mut regions = run(steps);
            for from in 0..3 {
                for to in 0..3 {
                    for operation in regions[from].log.clone() {
                        regions[to].receive(&operation);
                    }
                }
            }
            prop_assert_eq!(&regions[0].state, &regions[1].state);
            prop_assert_eq!(&regions[1].state, &regions[2].state);
            prop_assert_eq!(&regions[0].head.applied, &regions[2].head.applied);
        }

        #[test]
        fn any_order_of_delivery_and_any_repetition_gives_one_state(
            steps in prop::collection::vec(step(), 1..40),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
        ) {
            let regions = run(steps);
            let mut all: Vec<Operation> = Vec::new();
            for region in &regions {
                for operation in &region.log {
                    if !all.iter().any(|known| known.dot == operation.dot) {
                        all.push(operation.clone());
                    }
                }
            }
            let mut straight = State::new();
            all.iter().for_each(|operation| apply(&mut straight, operation));
            let mut shuffled = State::new();
            if !all.is_empty() {
                order.iter().for_each(|at| apply(&mut shuffled, at.get(&all)));
            }
            all.iter().rev().for_each(|operation| apply(&mut shuffled, operation));
            prop_assert_eq!(straight, shuffled);
        }

        #[test]
        fn every_write_holds_or_is_kept_as_loser_or_was_seen_by_a_later_one(
            steps in prop::collection::vec(step(), 1..40),
        ) {
            let regions = run(steps);
            let all: Vec<&Operation> = regions.iter().flat_map(|region| &region.log).collect();
            let mut state = State::new();
            all.iter().for_each(|operation| apply(&mut state, operation));
            for operation in &all {
                let Change::Merge(mutations) = &operation.change else { continue };
                let merged = state[&operation.entity].local().expect("local");
                match &mutations[0].mutation {
                    Mutation::Write { cell: name, .. } => {
                        let cell = &merged.cells[name];
                        let kept = cell.winner().into_iter().chain(cell.losers());
                        let accounted = kept.into_iter().any(|written| {
                            written.stamp.dot == operation.dot
                                || written.stamp.context.contains(operation.dot)
                        });
                        prop_assert!(accounted, "{} was lost", operation.dot);
                    }
                    Mutation::Append { .. } => prop_assert!(
                        merged.entries.iter().any(|entry| entry.stamp.dot == operation.dot)
                    ),
                    Mutation::Add { .. } | Mutation::Remove { .. } => {}
                }
            }
        }
    }

    #[test]
    fn a_compare_and_set_on_an_old_revision_changes_nothing() {
        let mut region = Region::new("eu");
        let origin = Origin { actor: "a".into(), request: "r".into(), now_ms: 1 };
        let mut set = |expected, value: &str| {
            let draft = Draft {
                entity: EntityRef::new(Kind::Site, "s"),
                change: Change::Set { expected, value: Some(value.into()) },
            };
            let operation = region.head.stamp(draft, &origin).expect("room");
            apply(&mut region.state, &operation);
        };
        set(0, "first");
        set(0, "never");
        set(1, "second");
        let state = region.state[&EntityRef::new(Kind::Site, "s")].majority().cloned();
        let versioned = state.expect("majority");
        assert_eq!((versioned.revision, versioned.value), (2, Some("second".into())));
    }
}
