//! Host and path → what answers. Each shard has its own table, changed by mail.
//!
//! ```text
//!  Host ─┬─ of a site ──────▶ site, longest prefix → cache | pass
//!        ├─ of a page ──────▶ page at `/`
//!        └─ any other ──────▶ with control: the shared host, `/<slug>/…` and the list of pages at
//! `/`
//!                             without:      refused, 421
//! ```
//! Any name that nothing claims is the shared host: pages hold no secrets, their keys do not
//! contain the host, and their links are relative, so a forged `Host` gains nothing; and
//! `localhost`, addresses and new names work without being configured.
//!
//! Leaves to others: what a policy means (`request`), reading the configuration (`feed`, `config`).

use std::{cell::OnceCell, hash::BuildHasher, rc::Rc, sync::Arc};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashTable};
use proto::feed::site::{Page, Policy, Site, page_key};

use super::{
    kept_head::lower_case,
    lenient_path::{is_unusual, lenient},
    mail::ConfigChange,
    origin::Origins,
    rule::Rules,
    secret::SecretHash,
    stream_route::StreamRoute,
};
use crate::{config::authority, limits};

/// A site as the shard uses it.
#[derive(Debug)]
pub struct SiteRoute {
    /// Stable identity, part of every cache key.
    pub id: Arc<str>,
    /// Host names, lower case.
    pub hosts: Vec<String>,
    /// Tried in order, at least one.
    pub origins: Vec<OriginName>,
    /// The origins' rows on this shard, once they were asked for.
    rows: OnceCell<Rc<[u32]>>,
    /// Tried for what the routes give to the cache.
    pub rules: Rules,
    /// Who may purge by `PURGE`.
    pub purge_keys: Box<[SecretHash]>,
    /// Longest prefix first.
    prefixes: Vec<(String, Below)>,
}

/// What is below a prefix.
#[derive(Debug)]
enum Below {
    /// Something of an origin.
    Origin(Policy),
    /// Live streams.
    Streams(Rc<StreamRoute>),
}

/// Where an origin is, not yet looked up.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OriginName {
    /// Host name or address literal, without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// A status page as the shard uses it.
#[derive(Debug)]
pub struct PageRoute {
    /// Stable identity.
    pub id: Arc<str>,
    /// Below a shared host.
    pub slug: String,
    /// Hosts of its own.
    pub hosts: Vec<String>,
    /// Topic of its stream and surrogate key of what is rendered for it.
    pub topic: String,
}

/// What a request's host and path lead to.
#[derive(Debug)]
pub enum Routed<'p> {
    /// A site, and what to do with this path.
    Site(Rc<SiteRoute>, Policy),
    /// Part of a page; the path below the page, starting with `/`.
    Page(Rc<PageRoute>, &'p str),
    /// Live streams of a site's topics; the path behind the route's prefix.
    Streams(Rc<StreamRoute>, &'p str),
    /// A page's live stream.
    Events(Rc<PageRoute>),
    /// A page without its last slash.
    AddSlash(Rc<PageRoute>),
    /// The list of pages.
    Index,
    /// A shared host has nothing there.
    NotFound,
    /// Nobody claims the host, and this edge has no shared one.
    UnknownHost,
}

/// The table of one shard.
pub struct Routes {
    hosts: HashTable<(String, Claim)>,
    slugs: HashTable<Rc<PageRoute>>,
    sites: HashMap<Arc<str>, Rc<SiteRoute>>,
    pages: HashMap<Arc<str>, Rc<PageRoute>>,
    hasher: FixedState,
    shared_host: bool,
    loaded: bool,
}

#[derive(Debug)]
enum Claim {
    Site(Rc<SiteRoute>),
    Page(Rc<PageRoute>),
}

impl Routes {
    /// Empty. `shared_host`: whether hosts that nobody claims show the pages.
    pub fn new(seed: u64, shared_host: bool) -> Self {
        Self {
            hosts: HashTable::new(),
            slugs: HashTable::new(),
            sites: HashMap::new(),
            pages: HashMap::new(),
            hasher: FixedState::with_seed(seed),
            shared_host,
            loaded: false,
        }
    }

    /// Whether a configuration was ever applied.
    pub fn loaded(&self) -> bool {
        self.loaded
    }

    /// Sites and pages.
    pub fn counts(&self) -> (usize, usize) {
        (self.sites.len(), self.pages.len())
    }

    /// The site with this id.
    pub fn site(&self, id: &str) -> Option<&Rc<SiteRoute>> {
        self.sites.get(id)
    }

    /// Takes a change. A site that no origin of can be reached by its URL is left out.
    pub fn apply(&mut self, change: &ConfigChange) {
        self.loaded = true;
        match change {
            ConfigChange::Replace { sites, pages } => {
                self.hosts.clear();
                self.slugs.clear();
                self.sites.clear();
                self.pages.clear();
                sites.iter().for_each(|site| self.put_site(site));
                pages.iter().for_each(|page| self.put_page(page));
            }
            ConfigChange::Change(change) => {
                change.removed_sites.iter().for_each(|id| self.remove_site(id));
                change.removed_pages.iter().for_each(|id| self.remove_page(id));
                change.sites.iter().for_each(|site| self.put_site(site));
                change.pages.iter().for_each(|page| self.put_page(page));
            }
        }
    }

    /// Leads a request to what answers it. `host` as in the request, without port; `path` without
    /// query.
    pub fn find<'p>(&self, host: &str, path: &'p str) -> Routed<'p> {
        match self.claim(host) {
            Some(Claim::Site(site)) => site.find(path),
            Some(Claim::Page(page)) if path == "/events" => Routed::Events(Rc::clone(page)),
            Some(Claim::Page(page)) => Routed::Page(Rc::clone(page), path),
            None if self.shared_host => self.find_shared(path),
            None => Routed::UnknownHost,
        }
    }

    fn find_shared<'p>(&self, path: &'p str) -> Routed<'p> {
        let Some(below) = path.strip_prefix('/') else { return Routed::NotFound };
        if below.is_empty() {
            return Routed::Index;
        }
        let slug_len = below.find('/').unwrap_or(below.len());
        let (slug, rest) = below.split_at(slug_len);
        let hash = self.hasher.hash_one(slug);
        match self.slugs.find(hash, |page| page.slug == slug) {
            None => Routed::NotFound,
            Some(page) if rest.is_empty() => Routed::AddSlash(Rc::clone(page)),
            Some(page) if rest == "/events" => Routed::Events(Rc::clone(page)),
            Some(page) => Routed::Page(Rc::clone(page), rest),
        }
    }

    fn claim(&self, host: &str) -> Option<&Claim> {
        let host = lower_case(host.strip_suffix('.').unwrap_or(host));
        let hash = self.hasher.hash_one(host.as_bytes());
        self.hosts.find(hash, |(name, _)| **name == *host).map(|(_, claim)| claim)
    }

    fn put_host(&mut self, host: &str, claim: Claim) {
        let (hash, hasher) = (self.hasher.hash_one(host.as_bytes()), &self.hasher);
        match self.hosts.find_mut(hash, |(name, _)| name == host) {
            // Control keeps names unique; should two claim one, the later record is the newer
            // truth.
            Some(held) => held.1 = claim,
            None => {
                self.hosts.insert_unique(hash, (host.to_owned(), claim), |(name, _)| {
                    hasher.hash_one(name.as_bytes())
                });
            }
        }
    }

    /// Gives up a host, if it still is the one's that `mine` says.
    fn drop_host(&mut self, host: &str, mine: impl Fn(&Claim) -> bool) {
        let hash = self.hasher.hash_one(host.as_bytes());
        if let Ok(held) = self.hosts.find_entry(hash, |(name, claim)| name == host && mine(claim)) {
            held.remove();
        }
    }

    fn put_site(&mut self, site: &Site) {
        self.remove_site(&site.id);
        let Some(route) = SiteRoute::new(site) else { return };
        let route = Rc::new(route);
        for host in &route.hosts {
            self.put_host(host, Claim::Site(Rc::clone(&route)));
        }
        self.sites.insert(Arc::clone(&route.id), route);
    }

    fn remove_site(&mut self, id: &str) {
        let Some(route) = self.sites.remove(id) else { return };
        for host in &route.hosts {
            self.drop_host(host, |claim| matches!(claim, Claim::Site(it) if it.id == route.id));
        }
    }

    fn put_page(&mut self, page: &Page) {
        self.remove_page(&page.id);
        let route = Rc::new(PageRoute {
            id: page.id.as_str().into(),
            slug: page.slug.clone(),
            hosts: page.hosts.clone(),
            topic: page_key(&page.id),
        });
        for host in &route.hosts {
            self.put_host(host, Claim::Page(Rc::clone(&route)));
        }
        let (hash, hasher) = (self.hasher.hash_one(route.slug.as_str()), &self.hasher);
        if let Ok(held) = self.slugs.find_entry(hash, |held| held.slug == route.slug) {
            held.remove();
        }
        self.slugs
            .insert_unique(hash, Rc::clone(&route), |page| hasher.hash_one(page.slug.as_str()));
        self.pages.insert(Arc::clone(&route.id), route);
    }

    fn remove_page(&mut self, id: &str) {
        let Some(route) = self.pages.remove(id) else { return };
        for host in &route.hosts {
            self.drop_host(host, |claim| matches!(claim, Claim::Page(it) if it.id == route.id));
        }
        let hash = self.hasher.hash_one(route.slug.as_str());
        if let Ok(held) = self.slugs.find_entry(hash, |held| held.id == route.id) {
            held.remove();
        }
    }
}

impl SiteRoute {
    /// `None` when no origin has a usable URL, or its id cannot stand in a key.
    fn new(site: &Site) -> Option<Self> {
        let origins: Vec<OriginName> =
            site.origins.iter().filter_map(|origin| OriginName::parse(&origin.url)).collect();
        if origins.is_empty() || site.id.len() > limits::SITE_ID_BYTES_MAX {
            return None;
        }
        let of_origins = site.routes.iter().filter(|route| route.policy != Policy::Stream);
        let of_origins =
            of_origins.map(|route| (route.prefix.clone(), Below::Origin(route.policy)));
        let streams = StreamRoute::of_site(site).into_iter();
        let streams = streams.map(|(prefix, route)| (prefix, Below::Streams(route)));
        let mut prefixes: Vec<(String, Below)> = of_origins.chain(streams).collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Some(Self {
            id: site.id.as_str().into(),
            hosts: site.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            origins,
            rows: OnceCell::new(),
            rules: Rules::of(site),
            purge_keys: site
                .purge_keys
                .iter()
                .filter_map(|key| key.hash().map(SecretHash::new))
                .collect(),
            prefixes,
        })
    }

    /// Rows of the origins.
    pub fn rows(&self, origins: &mut Origins) -> &Rc<[u32]> {
        self.rows.get_or_init(|| self.origins.iter().map(|name| origins.row(name)).collect())
    }

    fn find<'p>(self: &Rc<Self>, path: &'p str) -> Routed<'p> {
        let policy = match self.below(path) {
            Some((rest, Below::Streams(route))) => {
                return Routed::Streams(Rc::clone(route), rest);
            }
            Some((_, Below::Origin(policy))) => *policy,
            None => Policy::Cache,
        };
        let passes = policy == Policy::Cache
            && !self.prefixes.is_empty()
            && is_unusual(path)
            && !matches!(
                self.below(&lenient(path)),
                None | Some((_, Below::Origin(Policy::Cache)))
            );
        Routed::Site(Rc::clone(self), if passes { Policy::Pass } else { policy })
    }

    /// What the longest prefix of a path says, and what follows it.
    fn below<'p>(&self, path: &'p str) -> Option<(&'p str, &Below)> {
        self.prefixes.iter().find_map(|(prefix, below)| {
            path.strip_prefix(prefix.as_str()).map(|rest| (rest, below))
        })
    }
}

impl OriginName {
    /// From `http://host[:port]`.
    pub fn parse(url: &str) -> Option<Self> {
        let (host, port) = authority(url).ok()?;
        Some(Self { host: host.into(), port })
    }

    /// As a `Host` field: brackets around IPv6, no port when it is 80.
    pub fn to_host_field(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            80 => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::feed::{
        record::Config,
        site::{Origin, Route},
    };
    use proto::target::Authority;

    use super::*;

    fn site(id: &str, host: &str) -> Site {
        let route = |prefix: &str, policy| Route { prefix: prefix.into(), policy, stream: None };
        Site {
            id: id.into(),
            name: id.into(),
            hosts: vec![host.into()],
            origins: vec![Origin { url: "http://127.0.0.1:9".into() }],
            routes: vec![route("/a/", Policy::Pass), route("/a/b/", Policy::Cache)],
            token_keys: Vec::new(),
            rules: Vec::new(),
            purge_keys: Vec::new(),
        }
    }

    fn page(id: &str, slug: &str, host: &str) -> Page {
        Page { id: id.into(), slug: slug.into(), hosts: vec![host.into()] }
    }

    fn routes() -> Routes {
        let mut routes = Routes::new(7, true);
        routes.apply(&ConfigChange::Replace {
            sites: vec![site("s1", "shop.example")],
            pages: vec![page("p1", "demo", "status.example")],
        });
        routes
    }

    fn check(routes: &Routes, host: &str, path: &str, expected: &str) {
        let host = Authority::parse(host).expect("an authority").host;
        let found = match routes.find(host, path) {
            Routed::Site(site, policy) => format!("{} {policy:?}", site.id),
            Routed::Page(page, rest) => format!("{} {rest}", page.id),
            Routed::Events(page) => format!("{} stream", page.id),
            Routed::AddSlash(page) => format!("{} slash", page.id),
            other => format!("{other:?}"),
        };
        assert_eq!(found, expected, "{host} {path}");
    }

    #[test]
    fn a_host_wins_over_a_path_and_the_longest_prefix_over_shorter_ones() {
        let routes = routes();
        for (host, path, expected) in [
            ("shop.example", "/demo/", "s1 Cache"),
            ("SHOP.example.:8080", "/a/x", "s1 Pass"),
            ("shop.example", "/a/b/x", "s1 Cache"),
            ("shop.example", "/%61/x", "s1 Pass"),
            ("shop.example", "/x/../a//x", "s1 Pass"),
            ("shop.example", "/a/b/../x", "s1 Pass"),
            ("status.example", "/", "p1 /"),
            ("status.example", "/events", "p1 stream"),
            ("status.example", "/demo/", "p1 /demo/"),
            ("127.0.0.1:8080", "/", "Index"),
            ("[::1]:8080", "/demo", "p1 slash"),
            ("localhost", "/demo/api/v2/status.json", "p1 /api/v2/status.json"),
            ("localhost", "/demo/events", "p1 stream"),
            ("localhost", "/other/", "NotFound"),
            ("localhost", "*", "NotFound"),
        ] {
            check(&routes, host, path, expected);
        }
    }

    #[test]
    fn without_control_a_host_that_nobody_claims_is_refused() {
        let mut routes = Routes::new(7, false);
        assert!(!routes.loaded());
        routes.apply(&ConfigChange::Replace { sites: vec![site("s1", "a")], pages: vec![] });
        check(&routes, "b", "/", "UnknownHost");
        check(&routes, &"b".repeat(300), "/", "UnknownHost");
        assert!(routes.loaded());
    }

    #[test]
    fn a_change_replaces_and_removes_only_what_it_names() {
        let mut routes = routes();
        routes.apply(&ConfigChange::Change(Config {
            sites: vec![site("s1", "new.example")],
            pages: vec![page("p2", "other", "status.example")],
            removed_pages: vec!["p1".into()],
            ..Config::default()
        }));
        for (host, path, expected) in [
            ("shop.example", "/", "Index"),
            ("new.example", "/", "s1 Cache"),
            ("status.example", "/", "p2 /"),
            ("localhost", "/demo/", "NotFound"),
            ("localhost", "/other/", "p2 /"),
        ] {
            check(&routes, host, path, expected);
        }
    }
}
