//! Surrogate keys: reading them from a response, and from a surrogate key to its entries.
//!
//! Read from `Surrogate-Key` and `xkey` (separated by space) and `Cache-Tag` (by comma). They are
//! scoped by site; status pages share the site without a name.
//!
//! The index belongs to a segment of [`crate::index`] and is guarded by its lock.

use hashbrown::HashTable;
use proto::field::list;

use crate::{decision::NoStoreReason, group, limits, request::FieldSource};

/// The surrogate keys of one response: sorted, none twice.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct SurrogateKeys(Box<[Box<[u8]>]>);

impl SurrogateKeys {
    /// Reads them, and the groups (RFC 9875) of a response from this host; too many or too long
    /// ones are a reason not to store.
    pub fn of(host: &[u8], fields: &dyn FieldSource) -> Result<Self, NoStoreReason> {
        let groups = group::surrogate_keys(host, fields);
        let mut found: Vec<&[u8]> = groups.iter().map(Vec::as_slice).collect();
        for name in ["Surrogate-Key", "xkey"] {
            fields.get_all(name, &mut |line| {
                found
                    .extend(line.split(|&b| b == b' ' || b == b'\t').filter(|key| !key.is_empty()));
            });
        }
        fields.get_all("Cache-Tag", &mut |line| {
            found.extend(line.split(|&b| b == b',').map(list::trim).filter(|key| !key.is_empty()));
        });
        found.sort_unstable();
        found.dedup();
        let is_too_much = found.len() > limits::SURROGATE_KEYS_MAX
            || found.iter().any(|key| key.len() > limits::SURROGATE_KEY_BYTES_MAX);
        if is_too_much {
            return Err(NoStoreReason::SurrogateKeys);
        }
        Ok(Self(found.into_iter().map(Box::from).collect()))
    }

    /// Whether `surrogate_key` is among them.
    pub fn contains(&self, surrogate_key: &[u8]) -> bool {
        self.0.binary_search_by(|key| (**key).cmp(surrogate_key)).is_ok()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|key| &**key)
    }

    /// Bytes held here and in the index for them.
    pub(crate) fn heap_bytes(&self) -> usize {
        // Box, allocation, and the node's number in the index; the index's own copy of the key is
        // shared by all its entries.
        self.0.iter().map(|key| 16 + key.len() + 16 + 8).sum()
    }
}

/// Surrogate key → numbers of nodes, for the entries of one segment.
#[derive(Debug, Default)]
pub(crate) struct SurrogateIndex {
    groups: HashTable<Group>,
}

/// All entries of a segment with one surrogate key of one site.
#[derive(Debug)]
struct Group {
    hash: u64,
    site: Box<str>,
    surrogate_key: Box<[u8]>,
    nodes: Vec<u32>,
}

impl SurrogateIndex {
    pub(crate) fn insert(&mut self, hash: u64, site: &str, surrogate_key: &[u8], node: u32) {
        let is_it = |group: &Group| group.is(hash, site, surrogate_key);
        match self.groups.find_mut(hash, is_it) {
            Some(group) => group.nodes.push(node),
            None => {
                let group = Group {
                    hash,
                    site: site.into(),
                    surrogate_key: surrogate_key.into(),
                    nodes: vec![node],
                };
                self.groups.insert_unique(hash, group, |group| group.hash);
            }
        }
    }

    pub(crate) fn remove(&mut self, hash: u64, site: &str, surrogate_key: &[u8], node: u32) {
        let is_it = |group: &Group| group.is(hash, site, surrogate_key);
        let Ok(mut found) = self.groups.find_entry(hash, is_it) else { return };
        let nodes = &mut found.get_mut().nodes;
        if let Some(at) = nodes.iter().position(|&known| known == node) {
            nodes.swap_remove(at);
        }
        if nodes.is_empty() {
            found.remove();
        } else if nodes.capacity() > 64 && nodes.len() < nodes.capacity() / 4 {
            nodes.shrink_to(nodes.len() * 2);
        }
    }

    /// The nodes with `surrogate_key` at this moment.
    pub(crate) fn nodes(&self, hash: u64, site: &str, surrogate_key: &[u8]) -> &[u32] {
        let is_it = |group: &Group| group.is(hash, site, surrogate_key);
        self.groups.find(hash, is_it).map_or(&[], |group| &group.nodes)
    }
}

impl Group {
    fn is(&self, hash: u64, site: &str, surrogate_key: &[u8]) -> bool {
        self.hash == hash && *self.surrogate_key == *surrogate_key && *self.site == *site
    }
}

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
        assert_eq!(found, [b"a".as_slice(), b"b", b"c", b"d e", b"f"]);
        assert!(keys.contains(b"d e") && !keys.contains(b"g"));
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
    fn the_same_surrogate_key_of_two_sites_is_two() {
        let mut index = SurrogateIndex::default();
        index.insert(1, "a", b"k", 7);
        index.insert(1, "b", b"k", 8);
        assert_eq!(index.nodes(1, "a", b"k"), [7]);
        index.remove(1, "a", b"k", 7);
        index.remove(1, "b", b"k", 8);
        assert!(index.groups.is_empty());
    }
}
