//! Cache groups (RFC 9875): responses that an origin has tied together, to be outdated together.
//!
//! A group is kept as a surrogate key that no field can spell, scoped by host, because groups of
//! different origins are different (§2.1). So membership, the index and purges in slices are those
//! of surrogate keys. A group that is outdated outdates nothing further (§2.2.1).
//!
//! Leaves to others: which requests may outdate (`dataplane`), going through the entries
//! ([`crate::purge`]).

use proto::{
    feed::record::{Purge, Scope},
    field::structured::{self, Member, Value},
};

use crate::{
    Cache, entry::Entry, key::CacheKeyRef, limits, purge::PurgeCursor, request::FieldSource,
};

impl Cache {
    /// Purges of what is in the groups that the answer to an unsafe request names in
    /// `Cache-Group-Invalidation`; nothing is purged before [`PurgeCursor::step`].
    pub fn invalidate_groups(
        &self,
        cache_key: &CacheKeyRef<'_>,
        response: &dyn FieldSource,
    ) -> Vec<PurgeCursor> {
        let mut names = names(response, "Cache-Group-Invalidation");
        names.truncate(limits::GROUPS_INVALIDATED_MAX);
        let keys = names.iter().map(|name| surrogate_key(cache_key.host(), name));
        self.group_purges(cache_key.site(), keys)
    }

    /// Purges of what shares a group with these entries, which were outdated.
    pub(crate) fn purges_beside<'a>(
        &self,
        site: &str,
        entries: impl Iterator<Item = &'a Entry>,
    ) -> Vec<PurgeCursor> {
        let mut keys = Vec::new();
        gather(&mut keys, entries);
        self.group_purges(site, keys.into_iter())
    }

    pub(crate) fn group_purges(
        &self,
        site: &str,
        keys: impl Iterator<Item = Vec<u8>>,
    ) -> Vec<PurgeCursor> {
        keys.filter_map(|key| String::from_utf8(key).ok())
            .map(|key| {
                let scope = Scope::Key { site: Some(site.to_owned()), key };
                self.purge(&Purge { position: 0, scope, soft: false })
            })
            .collect()
    }
}

/// Adds the surrogate keys that stand for the groups of these entries, as many as may be outdated.
pub(crate) fn gather<'a>(keys: &mut Vec<Vec<u8>>, entries: impl Iterator<Item = &'a Entry>) {
    let found = entries.flat_map(|entry| entry.surrogate_keys.iter());
    keys.extend(found.filter(|key| key.first() == Some(&MARK)).map(<[u8]>::to_vec));
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(limits::GROUPS_INVALIDATED_MAX);
}

/// The surrogate keys that stand for the groups of a response from this host.
pub(crate) fn surrogate_keys(host: &[u8], fields: &dyn FieldSource) -> Vec<Vec<u8>> {
    names(fields, "Cache-Groups").iter().map(|name| surrogate_key(host, name)).collect()
}

/// The strings of a field that is a list of strings; none if it is malformed. Members of another
/// type and parameters are ignored.
fn names(fields: &dyn FieldSource, field_name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    fields.get_all(field_name, &mut |line| lines.push(line));
    let members = structured::list(lines).unwrap_or_default();
    let name = |member: Member<'_>| match member {
        Member::Item(item) => match item.value {
            Value::String(name) => Some(name.into_owned()),
            _ => None,
        },
        Member::InnerList(..) => None,
    };
    members.into_iter().filter_map(name).collect()
}

fn surrogate_key(host: &[u8], name: &str) -> Vec<u8> {
    [&[MARK], host, &[MARK], name.as_bytes()].concat()
}

/// Stands in no field value.
const MARK: u8 = 0;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn found(value: &str) -> Vec<String> {
        names(&&[("Cache-Groups", value)][..], "Cache-Groups")
    }

    #[test]
    fn rfc9875_2_groups_are_a_list_of_strings() {
        assert_eq!(found("\"a\", \"B b\";x=1, \"\""), ["a", "B b", ""]);
        assert_eq!(found("\"a\", token, 1, (\"b\")"), ["a"]);
        for malformed in ["a b", "\"a", "\"a\",", "\"a\" \"b\""] {
            assert!(found(malformed).is_empty(), "{malformed}");
        }
    }

    #[test]
    fn rfc9875_2_1_groups_of_other_hosts_and_case_are_others() {
        assert_ne!(surrogate_key(b"a", "x"), surrogate_key(b"b", "x"));
        assert_ne!(surrogate_key(b"a", "x"), surrogate_key(b"a", "X"));
    }
}
