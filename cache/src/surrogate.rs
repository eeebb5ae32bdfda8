//! Surrogate keys: reading them from a response, and from a surrogate key to its entries.
//!
//! Read from `Surrogate-Key`, `xkey` and `Cache-Tag`, between spaces and commas in any of them, as
//! in a purge. They are scoped by site; status pages share the site without a name.
//!
//! The index belongs to a segment of [`crate::index`] and is guarded by its lock. What it holds is
//! counted as it grows and shrinks: an origin may give every response hundreds of keys of its own.

use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::{
    account::{Account, Charge},
    decision::NoStoreReason,
    group, limits,
    request::FieldSource,
};

/// The surrogate keys of one response: sorted, none twice. One allocation, or none for none: how
/// many, where each of them ends, and their bytes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SurrogateKeys(Box<[u8]>);

impl SurrogateKeys {
    /// Reads them, and the groups (RFC 9875) of a response from this host; too many or too long
    /// ones are a reason not to store.
    pub fn of(host: &[u8], fields: &dyn FieldSource) -> Result<Self, NoStoreReason> {
        let groups = group::surrogate_keys(host, fields);
        let mut found: Vec<&[u8]> = groups.iter().map(Vec::as_slice).collect();
        for name in ["Surrogate-Key", "xkey", "Cache-Tag"] {
            fields.get_all(name, &mut |line| {
                found.extend(surrogate_words(line).filter(|key| is_surrogate_key(key)));
            });
        }
        found.sort_unstable();
        found.dedup();
        let is_too_much = found.len() > limits::SURROGATE_KEYS_MAX
            || found.iter().any(|key| key.len() > limits::SURROGATE_KEY_BYTES_MAX);
        if is_too_much {
            return Err(NoStoreReason::SurrogateKeys);
        }
        Ok(Self::packed(&found))
    }

    fn packed(keys: &[&[u8]]) -> Self {
        if keys.is_empty() {
            return Self::default();
        }
        let texts_len: usize = keys.iter().map(|key| key.len()).sum();
        let mut packed = Vec::with_capacity((keys.len() + 1) * NUMBER_BYTES + texts_len);
        packed.extend_from_slice(&(keys.len() as u32).to_le_bytes());
        let mut end = 0;
        for key in keys {
            end += key.len() as u32;
            packed.extend_from_slice(&end.to_le_bytes());
        }
        keys.iter().for_each(|key| packed.extend_from_slice(key));
        Self(packed.into_boxed_slice())
    }

    /// Whether `surrogate_key` is among them.
    pub fn contains(&self, surrogate_key: &[u8]) -> bool {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(middle).cmp(surrogate_key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|at| self.at(at))
    }

    /// Bytes held here; the index counts its own.
    pub(crate) fn heap_bytes(&self) -> usize {
        if self.0.is_empty() { 0 } else { self.0.len() + ALLOCATION_BYTES }
    }

    fn len(&self) -> usize {
        self.number(0)
    }

    fn at(&self, at: usize) -> &[u8] {
        let texts = &self.0[(self.len() + 1) * NUMBER_BYTES..];
        let start = if at == 0 { 0 } else { self.number(at) };
        &texts[start..self.number(at + 1)]
    }

    /// A number at the front; nothing there is none.
    fn number(&self, at: usize) -> usize {
        let bytes = self.0.get(at * NUMBER_BYTES..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }
}

/// What stands between white space and commas in a field of surrogate keys, of a response as of a
/// purge.
pub fn surrogate_words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| matches!(b, b',' | b' ' | b'\t')).filter(|word| !word.is_empty())
}

/// Whether a purge can name it; what none can is not kept.
pub fn is_surrogate_key(word: &[u8]) -> bool {
    word.iter().all(u8::is_ascii_graphic)
}

/// Hash of a surrogate key and its site → numbers of nodes, for the entries of one segment. The
/// texts stand in the entries: who is given numbers asks those which of them are meant.
#[derive(Debug)]
pub(crate) struct SurrogateIndex {
    groups: HashTable<Group>,
    /// The table and the long lists.
    charge: Charge,
}

/// All entries of a segment with surrogate keys of this hash.
#[derive(Debug)]
struct Group {
    hash: u64,
    nodes: SmallVec<[u32; 4]>,
}

impl SurrogateIndex {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        let charge = Charge::new(account, 0);
        charge.link();
        Self { groups: HashTable::new(), charge }
    }

    pub(crate) fn insert(&mut self, hash: u64, node: u32) {
        if let Some(group) = self.groups.find_mut(hash, |group| group.hash == hash) {
            let before = group.heap_bytes();
            group.nodes.push(node);
            self.charge.change(before, group.heap_bytes());
            return;
        }
        let before = self.groups.allocation_size();
        let group = Group { hash, nodes: SmallVec::from_slice(&[node]) };
        self.groups.insert_unique(hash, group, |group| group.hash);
        self.charge.change(before, self.groups.allocation_size());
    }

    pub(crate) fn remove(&mut self, hash: u64, node: u32) {
        let found = self.groups.find_entry(hash, |group| group.hash == hash);
        let Ok(mut found) = found else { return };
        let group = found.get_mut();
        let before = group.heap_bytes();
        if let Some(at) = group.nodes.iter().position(|&known| known == node) {
            group.nodes.swap_remove(at);
        }
        if group.nodes.is_empty() {
            found.remove();
            self.charge.change(before, 0);
            self.shrink();
            return;
        }
        if group.nodes.spilled() && group.nodes.len() < group.nodes.capacity() / 4 {
            group.nodes.shrink_to_fit();
        }
        self.charge.change(before, group.heap_bytes());
    }

    /// The nodes with surrogate keys of this hash at this moment.
    pub(crate) fn nodes(&self, hash: u64) -> &[u32] {
        self.groups.find(hash, |group| group.hash == hash).map_or(&[], |group| &group.nodes)
    }

    /// Gives back most of a table that is mostly empty.
    fn shrink(&mut self) {
        let (len, before) = (self.groups.len(), self.groups.allocation_size());
        // Rooms, not `capacity`: that is less where something was removed.
        let rooms = before / size_of::<Group>();
        if len == 0 || len < rooms / 8 {
            self.groups.shrink_to(len * 2, |group| group.hash);
            self.charge.change(before, self.groups.allocation_size());
        }
    }
}

impl Group {
    /// Bytes held beside its place in the table.
    fn heap_bytes(&self) -> usize {
        let nodes = &self.nodes;
        let bytes = nodes.capacity() * size_of::<u32>() + ALLOCATION_BYTES;
        if nodes.spilled() { bytes } else { 0 }
    }
}

/// Of one number at the front of packed surrogate keys.
const NUMBER_BYTES: usize = size_of::<u32>();
/// The allocator's share of one allocation: its header, and rounding up.
const ALLOCATION_BYTES: usize = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn surrogate_keys_are_read_from_three_fields() {
        let fields = [
            ("Surrogate-Key", " a  b"),
            ("xkey", "c a"),
            ("Cache-Tag", "d e , f,"),
            ("Other", "g"),
        ];
        let keys = SurrogateKeys::of(b"h", &&fields[..]).expect("few and short");
        let found: Vec<_> = keys.iter().collect();
        assert_eq!(found, [b"a".as_slice(), b"b", b"c", b"d", b"e", b"f"]);
        assert!(keys.contains(b"d") && !keys.contains(b"d e") && !keys.contains(b"g"));
    }

    #[test]
    fn surrogate_keys_stand_between_spaces_and_commas_in_every_field_and_can_be_named() {
        for name in ["Surrogate-Key", "xkey", "Cache-Tag"] {
            for value in ["k1, k9", "k1,k9", ",k1\tk9 ,", "k1 , k9 k\u{e4}"] {
                let fields = [(name, value)];
                let keys = SurrogateKeys::of(b"h", &&fields[..]).expect("few and short");
                let found: Vec<_> = keys.iter().collect();
                assert_eq!(found, [b"k1".as_slice(), b"k9"], "{name}: {value}");
            }
        }
    }

    #[test]
    fn too_many_or_too_long_surrogate_keys_are_a_reason_not_to_store() {
        let many = (0..=limits::SURROGATE_KEYS_MAX).map(|at| format!("k{at} ")).collect::<String>();
        let long = "x".repeat(limits::SURROGATE_KEY_BYTES_MAX + 1);
        for value in [many, long] {
            let fields = [("Surrogate-Key", value.as_str())];
            let refused = SurrogateKeys::of(b"h", &&fields[..]);
            assert_eq!(refused, Err(NoStoreReason::SurrogateKeys));
        }
    }

    #[test]
    fn what_shares_a_hash_is_listed_together_and_leaves_one_by_one() {
        let mut index = SurrogateIndex::new(&Arc::default());
        index.insert(1, 7);
        index.insert(1, 8);
        index.insert(2, 9);
        assert_eq!((index.nodes(1), index.nodes(2)), (&[7, 8][..], &[9][..]));
        index.remove(1, 7);
        assert_eq!(index.nodes(1), [8]);
        index.remove(1, 8);
        index.remove(2, 9);
        assert!(index.groups.is_empty());
    }

    #[test]
    fn packed_surrogate_keys_are_found_each_and_nothing_else() {
        let keys: Vec<String> =
            (0..limits::SURROGATE_KEYS_MAX).map(|at| format!("k{at}")).collect();
        let value = keys.join(" ");
        let fields = [("xkey", value.as_str())];
        let packed = SurrogateKeys::of(b"h", &&fields[..]).expect("few and short");
        assert!(keys.iter().all(|key| packed.contains(key.as_bytes())));
        assert_eq!(packed.iter().count(), keys.len());
        assert!(!packed.contains(b"") && !packed.contains(b"k") && !packed.contains(b"k9999"));
        let none = SurrogateKeys::default();
        assert!(none.iter().next().is_none() && !none.contains(b"k"));
    }

    #[test]
    fn what_the_index_holds_is_counted_and_given_back() {
        let account = Arc::new(Account::default());
        let mut index = SurrogateIndex::new(&account);
        for at in 0..1_000 {
            index.insert(u64::from(at), at);
            index.insert(u64::MAX, at);
        }
        let least = 1_001 * size_of::<Group>() + 1_000 * size_of::<u32>();
        let used = account.used_bytes() as usize;
        assert!((least..4 * least).contains(&used), "{least} <= {used}");
        assert_eq!(account.dead_bytes(), 0);
        for at in 0..1_000 {
            index.remove(u64::from(at), at);
            index.remove(u64::MAX, at);
        }
        assert_eq!(account.used_bytes(), 0);
    }
}
