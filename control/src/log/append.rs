//! How a draft becomes an operation: its position, its dot, its stamp. The head of the log as a
//! value.
//!
//! Leaves to others: making it durable and acknowledging it (`store::sqlite::writer`, one sync for
//! all that wait).

use super::{
    dot::{Dot, FeedCursor, Replica, StoreId, VersionVector},
    hlc::Hlc,
    operation::{Draft, FORMAT, Operation},
};

/// The end of this store's log. Invariant: `applied.get(replica)` is the last sequence number used;
/// the next is one more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// This copy of the log.
    pub store: StoreId,
    /// Who numbers local operations.
    pub replica: Replica,
    /// Position of the last operation; 0 before the first.
    pub position: u64,
    /// Everything applied.
    pub applied: VersionVector,
    /// The last stamp given or seen.
    pub hlc: Hlc,
}

/// On whose behalf operations are appended, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// `key/<id>` or `system`.
    pub actor: String,
    /// The request's id.
    pub request: String,
    /// Wall clock at arrival, ms since the Unix epoch.
    pub now_ms: u64,
}

impl Head {
    /// Gives a draft its place. The head moves on; whoever cannot make the operation durable puts
    /// the old head back.
    pub fn stamp(&mut self, draft: Draft, origin: &Origin) -> Result<Operation, VectorFull> {
        let context = self.applied.clone();
        let dot = Dot { replica: self.replica, seq: context.get(self.replica) + 1 };
        if !self.applied.observe(dot) {
            return Err(VectorFull);
        }
        self.position += 1;
        self.hlc = self.hlc.tick(origin.now_ms);
        Ok(Operation {
            format: FORMAT,
            dot,
            position: self.position,
            context,
            hlc: self.hlc,
            actor: origin.actor.clone(),
            request: origin.request.clone(),
            class: draft.entity.kind.class(),
            entity: draft.entity,
            change: draft.change,
        })
    }

    /// Where an edge is that has applied everything.
    pub fn cursor(&self) -> FeedCursor {
        FeedCursor { store: self.store, position: self.position, applied: self.applied.clone() }
    }
}

/// The version vector has no room for this replica; drawing an incarnation makes room, see
/// [`crate::limits::INCARNATIONS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorFull;

impl std::fmt::Display for VectorFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the version vector has no room for another replica")
    }
}

impl std::error::Error for VectorFull {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::operation::{Change, EntityRef, Kind};

    #[test]
    fn dots_and_positions_have_no_holes_and_the_context_is_what_was_seen() {
        let mut head = Head {
            store: StoreId(1),
            replica: Replica::new("eu", 7).expect("valid"),
            position: 40,
            applied: "eu-00000001:40".parse().expect("valid"),
            hlc: Hlc::default(),
        };
        let origin = Origin { actor: "system".into(), request: "r".into(), now_ms: 5 };
        let draft = Draft {
            entity: EntityRef::new(Kind::Site, "s"),
            change: Change::Set { expected: 0, value: None },
        };
        let first = head.stamp(draft.clone(), &origin).expect("room");
        let second = head.stamp(draft, &origin).expect("room");
        assert_eq!((first.dot.seq, second.dot.seq), (1, 2));
        assert_eq!((first.position, second.position), (41, 42));
        assert_eq!(first.context.to_string(), "eu-00000001:40");
        assert_eq!(second.context, first.version());
        assert!(second.hlc > first.hlc);
        assert_eq!(head.applied, second.version());
    }
}
