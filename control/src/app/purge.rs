//! Purges that operators order: one operation each, told to edges in the order of the log.

use proto::feed::record::Scope;

use super::{Refusal, names, site};
use crate::{
    limits,
    log::operation::{Change, Draft, EntityRef, Kind, PurgeOrder},
    model::site::is_path,
    store::sqlite::{Txn, read::PurgeRow},
};

/// What to purge of a site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// One URL: a path with query, or absolute on one of the site's hosts.
    Url(String),
    /// Everything below a path.
    Prefix(String),
    /// Everything with a surrogate key.
    SurrogateKey(String),
    /// Everything.
    All,
}

/// A purge to order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct New {
    /// Site name or id.
    pub site: String,
    /// What of it.
    pub target: Target,
    /// Mark stale instead of removing.
    pub soft: bool,
}

/// Orders a purge.
pub fn create(txn: &mut Txn<'_>, new: New) -> Result<PurgeRow, Refusal> {
    let site = site::find(txn, &new.site)?;
    let site = site.value.site;
    let scope = match new.target {
        Target::Url(url) => {
            let target = target_on(&url, &site.hosts).ok_or_else(|| {
                Refusal::invalid(
                    "/url",
                    "url",
                    "/path[?query], or an http(s) URL on one of the site's hosts",
                )
            })?;
            Scope::Url { site: site.id, target }
        }
        Target::Prefix(prefix) if is_path(&prefix) => Scope::Prefix { site: site.id, prefix },
        Target::Prefix(_) => {
            return Err(Refusal::invalid("/prefix", "prefix", "a path starting with /"));
        }
        Target::SurrogateKey(key) => {
            let shape = (1..=limits::PURGE_TARGET_BYTES_MAX).contains(&key.len())
                && key.bytes().all(|b| b.is_ascii_graphic() && b != b',');
            if !shape {
                let expected = "1 to 8,192 bytes of visible ASCII without spaces or commas";
                return Err(Refusal::invalid("/key", "surrogate_key", expected));
            }
            Scope::Key { site: Some(site.id), key }
        }
        Target::All => Scope::Site { site: site.id },
    };
    let entity = EntityRef::new(Kind::Purge, txn.new_id());
    if txn.purge(&entity.id)?.is_some() {
        names::check_new(txn, &entity)?;
    }
    let id = entity.id.clone();
    let change = Change::Purge(PurgeOrder { scope, soft: new.soft });
    txn.append(Draft { entity, change })?;
    txn.purge(&id)?.ok_or_else(|| Refusal::not_found("purge", id))
}

/// The request target of a URL on one of these hosts.
fn target_on(url: &str, hosts: &[String]) -> Option<String> {
    let target = match url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) {
        None => url.to_owned(),
        Some(rest) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at(at);
            let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
            if !hosts.contains(&host.to_ascii_lowercase()) {
                return None;
            }
            match target.as_bytes().first() {
                Some(b'/') => target.to_owned(),
                _ => format!("/{target}"),
            }
        }
    };
    let target = target.split('#').next().unwrap_or_default().to_owned();
    is_path(&target).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_target_or_absolute_on_one_of_the_hosts() {
        let hosts = ["shop.example".to_owned()];
        for (url, target) in [
            ("/a/b?c", Some("/a/b?c")),
            ("/a#b", Some("/a")),
            ("http://shop.example/a", Some("/a")),
            ("https://Shop.Example:8443/a?b", Some("/a?b")),
            ("http://shop.example", Some("/")),
            ("http://shop.example?q", Some("/?q")),
            ("http://other.example/a", None),
            ("a", None),
            ("", None),
            ("/a b", None),
        ] {
            assert_eq!(target_on(url, &hosts).as_deref(), target, "{url}");
        }
    }
}
