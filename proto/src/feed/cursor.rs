//! Positions in the log: dots, version vectors, and the two cursors made of them.
//!
//! A *dot* names one operation of one replica. A *version vector* says, for each replica, up to
//! which
//! sequence number everything has been seen; it is the text of an SSE `id:`, of `Pharos-Version`
//! and of
//! `Pharos-Min-Version`, so that any edge in any region can compare and resume it. A *feed cursor*
//! adds which
//! store and which order of arrival the edge was reading.
//!
//! Text forms (stable, CONTRACTS): dot `eu-1f3a9c20:1841` · vector `ap-…:97,eu-…:1841` (sorted,
//! comma-separated,
//! empty string for nothing seen) · feed cursor `<store hex16>.<position>.<vector>`.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::limits;

/// One incarnation of one region's log: `<region>-<8 hex digits>`, at most 24 ASCII bytes.
///
/// The incarnation is drawn anew after any restore, so a sequence number is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica([u8; Replica::BYTES_MAX]);

impl Replica {
    /// Longest text form.
    pub const BYTES_MAX: usize = 24;
    /// Longest region name: what is left beside `-` and eight hex digits.
    pub const REGION_BYTES_MAX: usize = Self::BYTES_MAX - 9;

    /// Joins a region name (`[a-z0-9-]`, 1 to 15 bytes) and an incarnation.
    pub fn new(region: &str, incarnation: u32) -> Result<Self, CursorError> {
        format!("{region}-{incarnation:08x}").parse()
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&b| b == 0).unwrap_or(self.0.len());
        // Only ASCII gets in, see `from_str`.
        std::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }

    /// The region's part of the name.
    pub fn region(&self) -> &str {
        self.as_str().rsplit_once('-').map_or("", |(region, _)| region)
    }
}

impl FromStr for Replica {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (region, incarnation) = text.rsplit_once('-').ok_or(CursorError::Replica)?;
        let region_ok = (1..=Self::REGION_BYTES_MAX).contains(&region.len())
            && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let incarnation_ok = incarnation.len() == 8
            && incarnation.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !region_ok || !incarnation_ok {
            return Err(CursorError::Replica);
        }
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One operation of one replica. Sequence numbers start at 1 and have no holes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dot {
    /// Who numbered it.
    pub replica: Replica,
    /// Its number there, ≥ 1.
    pub seq: u64,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.replica, self.seq)
    }
}

impl FromStr for Dot {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (replica, seq) = text.split_once(':').ok_or(CursorError::Dot)?;
        let seq = parse_number(seq).filter(|&seq| seq >= 1).ok_or(CursorError::Dot)?;
        Ok(Self { replica: replica.parse()?, seq })
    }
}

/// Everything seen, a highest sequence number for each replica. Sorted by replica, no zero entries,
/// at most [`limits::VECTOR_ENTRIES_MAX`] entries.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct VersionVector(Vec<Dot>);

impl VersionVector {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The highest sequence number seen of `replica`, 0 for none.
    pub fn get(&self, replica: Replica) -> u64 {
        match self.0.binary_search_by_key(&replica, |dot| dot.replica) {
            Ok(at) => self.0[at].seq,
            Err(_) => 0,
        }
    }

    /// Whether `dot` has been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.get(dot.replica) >= dot.seq
    }

    /// Notes `dot` and everything before it of its replica as seen. Never lowers an entry. A new
    /// replica beyond
    /// the limit of entries is not taken and `false` is returned.
    pub fn observe(&mut self, dot: Dot) -> bool {
        match self.0.binary_search_by_key(&dot.replica, |known| known.replica) {
            Ok(at) => self.0[at].seq = self.0[at].seq.max(dot.seq),
            Err(_) if self.0.len() >= limits::VECTOR_ENTRIES_MAX => return false,
            Err(at) => self.0.insert(at, dot),
        }
        true
    }

    /// Takes the higher entry of both, for each replica.
    pub fn merge(&mut self, other: &Self) {
        for &dot in &other.0 {
            self.observe(dot);
        }
    }

    /// Whether everything in `other` has been seen here too.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|&dot| self.contains(dot))
    }

    /// Causal order: `None` for concurrent vectors.
    pub fn causal_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }

    /// The entries, sorted by replica.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Dot> for VersionVector {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut vector = Self::new();
        for dot in dots {
            vector.observe(dot);
        }
        vector
    }
}

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, dot) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dot}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl FromStr for VersionVector {
    type Err = CursorError;

    /// Strict: sorted entries are not required of a peer, repeated replicas are refused.
    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > limits::CURSOR_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let mut vector = Self::new();
        if text.is_empty() {
            return Ok(vector);
        }
        for part in text.split(',') {
            let dot: Dot = part.parse()?;
            if vector.get(dot.replica) != 0 {
                return Err(CursorError::Repeated);
            }
            if !vector.observe(dot) {
                return Err(CursorError::TooLong);
            }
        }
        Ok(vector)
    }
}

/// One copy of a log on disk. Drawn at creation and after every restore, so that an edge notices
/// when the
/// control it talks to is not the one it knew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() != 16
            || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(CursorError::Store);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| CursorError::Store)
    }
}

/// How far an edge has applied the feed: in this store's order of arrival, and as a vector for the
/// case that
/// the store is another one next time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeedCursor {
    /// Whose order `position` counts in.
    pub store: StoreId,
    /// Order of arrival of the last operation applied; 0 before the first.
    pub position: u64,
    /// All operations applied, in terms that hold for any store.
    pub applied: VersionVector,
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.store, self.position, self.applied)
    }
}

impl FromStr for FeedCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > limits::CURSOR_BYTES_MAX {
            return Err(CursorError::TooLong);
        }
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().ok_or(CursorError::Shape);
        let store = next()?.parse()?;
        let position = parse_number(next()?).ok_or(CursorError::Shape)?;
        Ok(Self { store, position, applied: next()?.parse()? })
    }
}

/// Why a cursor from a peer was not understood. The caller treats it like an unknown one: a
/// snapshot or a gap,
/// never an error status for a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CursorError {
    /// Not `<store>.<position>.<vector>`.
    Shape,
    /// A store id that is not 16 lower-case hex digits.
    Store,
    /// A replica that is not `<region>-<8 hex digits>`.
    Replica,
    /// A dot that is not `<replica>:<seq ≥ 1>`.
    Dot,
    /// A replica named twice.
    Repeated,
    /// Longer than [`limits::CURSOR_BYTES_MAX`] or more than [`limits::VECTOR_ENTRIES_MAX`]
    /// entries.
    TooLong,
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shape => "a feed cursor is <store>.<position>.<vector>",
            Self::Store => "a store id is 16 lower-case hex digits",
            Self::Replica => "a replica is <region>-<8 hex digits>",
            Self::Dot => "a dot is <replica>:<sequence number from 1>",
            Self::Repeated => "a replica is named twice",
            Self::TooLong => "the cursor is too long",
        })
    }
}

impl std::error::Error for CursorError {}

/// Decimal without sign, white space or leading zeros (except `0` itself).
fn parse_number(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Cursors travel as their text form in JSON.
macro_rules! serde_as_text {
    ($($ty:ty),+) => {$(
        impl serde::Serialize for $ty {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(Replica, Dot, VersionVector, StoreId, FeedCursor);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replica() -> impl Strategy<Value = Replica> {
        ("[a-z][a-z0-9-]{0,14}", 0u32..4)
            .prop_map(|(region, incarnation)| Replica::new(&region, incarnation).expect("valid"))
    }

    fn vector() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((replica(), 1u64..1000), 0..5)
            .prop_map(|dots| dots.into_iter().map(|(replica, seq)| Dot { replica, seq }).collect())
    }

    proptest! {
        #[test]
        fn a_feed_cursor_survives_its_text_form(store: u64, position: u64, applied in vector()) {
            let cursor = FeedCursor { store: StoreId(store), position, applied };
            prop_assert_eq!(cursor.to_string().parse::<FeedCursor>(), Ok(cursor));
        }

        #[test]
        fn merge_is_the_least_vector_that_covers_both(a in vector(), b in vector()) {
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert!(merged.covers(&a) && merged.covers(&b));
            let least = |dot: Dot| a.get(dot.replica).max(b.get(dot.replica)) == dot.seq;
            prop_assert!(merged.iter().all(least));
        }

        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_prints_the_same_order(text in ".{0,80}") {
            if let Ok(vector) = text.parse::<VersionVector>() {
                prop_assert_eq!(vector.to_string().parse::<VersionVector>(), Ok(vector));
            }
        }
    }

    #[test]
    fn malformed_cursors_are_named() {
        for (text, error) in [
            ("", CursorError::Store),
            ("00000000000000ff", CursorError::Shape),
            ("00000000000000FF.1.", CursorError::Store),
            ("00000000000000ff.01.", CursorError::Shape),
            ("00000000000000ff.1.eu:4", CursorError::Replica),
            ("00000000000000ff.1.eu-00000001:0", CursorError::Dot),
            ("00000000000000ff.1.eu-00000001:1,eu-00000001:2", CursorError::Repeated),
        ] {
            assert_eq!(text.parse::<FeedCursor>(), Err(error), "{text}");
        }
    }

    #[test]
    fn concurrent_vectors_have_no_causal_order() {
        let a: VersionVector = "eu-00000001:2,us-00000001:1".parse().expect("valid");
        let b: VersionVector = "eu-00000001:1,us-00000001:2".parse().expect("valid");
        assert_eq!(a.causal_cmp(&b), None);
        assert_eq!(a.causal_cmp(&a), Some(Ordering::Equal));
        assert_eq!(a.causal_cmp(&VersionVector::new()), Some(Ordering::Greater));
    }
}
