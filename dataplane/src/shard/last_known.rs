//! What an edge keeps on disk so that it can serve without control: configuration, the feed's
//! cursor, and the last pages.
//!
//! ```text
//!   <data>/last_known/configuration   sites and pages
//!                     cursor          written after the configuration it covers, never before
//!                     pages-00 … -ff  stored responses of pages, by page
//!
//!   start:  configuration ─▶ cursor ─▶ pages-00 … ff ─▶ Restored
//!   then:   change ─▶ 1 s ─▶ configuration, cursor, pages files that changed; one at a time
//! ```
//! One operation is on its way to the disk at any time. Pages come back into the cache as stale:
//! with control there they are validated, without it they are served as they are. A file that is
//! damaged is ignored and named in the log; a disk that fails delays, and is tried again.
//!
//! Leaves to others: the files' format (`kept_file`), which pages are kept (`kept_pages`), when to
//! begin and what a restored configuration is for (`feed`), atomic replacement (the engine).

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use cache::{Asking, Cache, Decision, Entry, HeadOutcome, Method, Near, Request, Response, Waiter};
use proto::{
    feed::{
        cursor::FeedCursor,
        record::{Purge, Scope},
        site::{Page, Site},
    },
    http1::head::{FieldSpace, parse_response},
};
use serde::{Deserialize, Serialize};

use super::{
    kept_file::{Bad, KeptPage, Kind, open, pages, seal},
    kept_pages::{self, PageChange, file_of},
    mail::ConfigChange,
    out::{Op, Out},
    request::HeadFields,
};
use crate::{
    limits,
    seam::{FileWork, Mono, Now},
};

/// What is kept, and the way it takes to the disk and back.
pub struct LastKnown {
    folder: PathBuf,
    cache: Arc<Cache>,
    configuration: Configuration,
    configuration_changed: bool,
    cursor: Option<FeedCursor>,
    cursor_changed: bool,
    /// Since when the cursor is of the store that it is of.
    store_since_ms: u64,
    /// Changes of pages, by file.
    page_changes: BTreeMap<u8, Vec<PageChange>>,
    page_changes_count: usize,
    /// Read at start, not yet handed over.
    restoring: Option<Restoring>,
    under_way: Option<(u64, Work)>,
    next_op: u64,
    /// When the next file may be written.
    write_at: Option<Mono>,
    counts: Counts,
}

/// Counters since the start.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Files written.
    pub written: u64,
    /// Writes and reads that failed.
    pub failed: u64,
    /// Files ignored as damaged.
    pub ignored: u64,
    /// Pages put back into the cache at start.
    pub pages_restored: u64,
    /// Changes of pages that found no room to wait.
    pub pages_dropped: u64,
}

/// What was on disk.
#[derive(Debug, Default)]
pub struct Restored {
    /// Sites and pages, if they could be read.
    pub configuration: Option<(Vec<Site>, Vec<Page>)>,
    /// Where the feed had come to; only with a configuration.
    pub cursor: Option<FeedCursor>,
}

/// Sites and pages, by their ids.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// Sites.
    pub sites: BTreeMap<String, Site>,
    /// Pages.
    pub pages: BTreeMap<String, Page>,
}

#[derive(Debug, Default)]
struct Restoring {
    configured: bool,
    cursor: Option<FeedCursor>,
}

/// What the file operation under way is for.
#[derive(Debug)]
enum Work {
    ReadConfiguration,
    ReadCursor,
    ReadPages(u8),
    WriteConfiguration,
    WriteCursor,
    /// The old content of a file, to put changes into.
    Load(u8, Vec<PageChange>),
    /// With what is changed by it, to be tried again.
    WritePages(u8, Vec<PageChange>),
}

impl LastKnown {
    /// Keeps in `<data>/last_known`.
    pub fn new(data: PathBuf, cache: Arc<Cache>) -> Self {
        Self {
            folder: data.join("last_known"),
            cache,
            configuration: Configuration::default(),
            configuration_changed: false,
            cursor: None,
            cursor_changed: false,
            store_since_ms: 0,
            page_changes: BTreeMap::new(),
            page_changes_count: 0,
            restoring: None,
            under_way: None,
            next_op: 0,
            write_at: None,
            counts: Counts::default(),
        }
    }

    /// Counters since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What every shard has.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Begins to read; the outcome of the last read gives [`Restored`].
    pub fn start(&mut self, out: &mut Out) {
        self.restoring = Some(Restoring::default());
        self.read("configuration", limits::LAST_KNOWN_BYTES_MAX, Work::ReadConfiguration, out);
    }

    /// A file operation ended. `Some` once, when everything was read.
    pub fn handle_file(
        &mut self,
        now: Now,
        number: u64,
        result: io::Result<Vec<u8>>,
        out: &mut Out,
    ) -> Option<Restored> {
        let (_, work) = self.under_way.take_if(|(op, _)| *op == number)?;
        match work {
            Work::ReadConfiguration => {
                let kept = self.opened(Kind::Configuration, "configuration", result);
                if let Some(kept) = kept.and_then(|content| self.parse_configuration(&content)) {
                    self.configuration = kept;
                    self.restoring.get_or_insert_default().configured = true;
                }
                self.read("cursor", limits::LAST_KNOWN_CURSOR_BYTES_MAX, Work::ReadCursor, out);
            }
            Work::ReadCursor => {
                let content = self.opened(Kind::Cursor, "cursor", result);
                let cursor = content.and_then(|content| String::from_utf8(content).ok());
                self.restoring.get_or_insert_default().cursor =
                    cursor.and_then(|text| text.parse().ok());
                self.read_pages(0, out);
            }
            Work::ReadPages(file) => {
                if let Some(content) = self.opened(Kind::Pages, &pages_name(file), result) {
                    self.restore_pages(now, file, &content);
                }
                match file.checked_add(1) {
                    Some(next) => self.read_pages(next, out),
                    None => return Some(self.restored()),
                }
            }
            Work::WriteConfiguration if result.is_err() => {
                self.configuration_changed = true;
                self.write_failed(now, "configuration", result.err());
            }
            Work::WriteCursor if result.is_err() => {
                self.cursor_changed = true;
                self.write_failed(now, "cursor", result.err());
            }
            Work::WritePages(file, changes) if result.is_err() => {
                // A page that stays a hit is not fetched again, and does not come by itself.
                self.put_back(now, file, changes);
                self.write_failed(now, &pages_name(file), result.err());
            }
            Work::WriteConfiguration | Work::WriteCursor | Work::WritePages(..) => {
                self.counts.written += 1;
            }
            Work::Load(file, changes) => {
                let old = self.opened(Kind::Pages, &pages_name(file), result);
                let old = old.as_deref().unwrap_or_default();
                let (content, left_out) = kept_pages::changed(old, &changes, self.store_since_ms);
                self.counts.pages_dropped += left_out;
                let work = Work::WritePages(file, changes);
                self.write(&pages_name(file), Kind::Pages, &content, work, out);
            }
        }
        self.go_on(now, out);
        None
    }

    /// Every shard has this configuration.
    pub fn note_configuration(&mut self, now: Now, change: &ConfigChange) {
        let own = &mut self.configuration;
        match change {
            ConfigChange::Replace { sites, pages } => {
                own.sites = sites.iter().map(|site| (site.id.clone(), site.clone())).collect();
                own.pages = pages.iter().map(|page| (page.id.clone(), page.clone())).collect();
            }
            ConfigChange::Change(change) => {
                let sites = change.sites.iter().map(|site| (site.id.clone(), site.clone()));
                own.sites.extend(sites);
                let pages = change.pages.iter().map(|page| (page.id.clone(), page.clone()));
                own.pages.extend(pages);
                for id in &change.removed_sites {
                    own.sites.remove(id);
                }
                for id in &change.removed_pages {
                    self.configuration.pages.remove(id);
                    let target = format!("/pages/{id}/");
                    self.add_change(now, file_of(target.as_bytes()), PageChange::Remove(target));
                }
            }
        }
        self.configuration_changed = true;
        self.want_write(now);
    }

    /// Every shard has everything up to here.
    pub fn note_cursor(&mut self, now: Now, cursor: &FeedCursor) {
        if self.cursor.as_ref().is_some_and(|kept| kept.store != cursor.store) {
            self.store_since_ms = now.wall_ms;
        }
        self.cursor = Some(cursor.clone());
        self.cursor_changed = true;
        self.want_write(now);
    }

    /// A response of a page was stored, or stored anew. One that was purged or replaced on its way
    /// here is not kept.
    pub fn note_page(&mut self, now: Now, entry: Arc<Entry>) {
        let length = entry.body().progress().len as usize;
        let key = entry.cache_key().borrowed();
        let is_kept = !entry.is_dead()
            && entry.status() == 200
            && length <= limits::LAST_KNOWN_PAGE_BYTES_MAX
            && kept_pages::is_resource(key.target());
        if !is_kept {
            return;
        }
        let file = file_of(key.target());
        self.add_change(now, file, PageChange::Put(entry));
        self.want_write(now);
    }

    /// Writes what has changed, if its time has come.
    pub fn handle_deadline(&mut self, now: Now, out: &mut Out) {
        self.go_on(now, out);
    }

    /// When to call [`LastKnown::handle_deadline`].
    pub fn next_deadline(&self) -> Option<Mono> {
        self.write_at.filter(|_| self.under_way.is_none() && self.restoring.is_none())
    }

    fn add_change(&mut self, now: Now, file: u8, change: PageChange) {
        let changes = self.page_changes.entry(file).or_default();
        if let PageChange::Put(new) = &change {
            let key = new.cache_key().borrowed();
            let same = changes
                .iter()
                .position(|old| matches!(old, PageChange::Put(old) if old.cache_key().is(&key)));
            if let Some(at) = same {
                if let PageChange::Put(old) = &changes[at]
                    && !kept_pages::replaces(new, old, self.store_since_ms)
                {
                    return;
                }
                changes.remove(at);
                self.page_changes_count -= 1;
            }
            if self.page_changes_count >= limits::LAST_KNOWN_CHANGES_MAX {
                self.counts.pages_dropped += 1;
                return;
            }
        }
        changes.push(change);
        self.page_changes_count += 1;
        self.want_write(now);
    }

    /// Changes that were not written go before those that have come since.
    fn put_back(&mut self, now: Now, file: u8, changes: Vec<PageChange>) {
        let since = self.page_changes.remove(&file).unwrap_or_default();
        self.page_changes_count -= since.len();
        for change in changes.into_iter().chain(since) {
            self.add_change(now, file, change);
        }
    }

    fn want_write(&mut self, now: Now) {
        let _ = self.write_at.get_or_insert(now.mono.after_ms(limits::LAST_KNOWN_WRITE_MS));
    }

    /// Starts the next write, if one is due and none is under way.
    fn go_on(&mut self, now: Now, out: &mut Out) {
        if self.under_way.is_some() || self.restoring.is_some() {
            return;
        }
        if self.write_at.is_none_or(|at| at > now.mono) {
            return;
        }
        if std::mem::take(&mut self.configuration_changed) {
            let content = serde_json::to_vec(&self.configuration)
                .expect("a configuration has text keys only, which serde_json cannot fail on");
            let work = Work::WriteConfiguration;
            return self.write("configuration", Kind::Configuration, &content, work, out);
        }
        if std::mem::take(&mut self.cursor_changed)
            && let Some(cursor) = &self.cursor
        {
            let content = cursor.to_string();
            return self.write("cursor", Kind::Cursor, content.as_bytes(), Work::WriteCursor, out);
        }
        if let Some((file, changes)) = self.page_changes.pop_first() {
            self.page_changes_count -= changes.len();
            let bytes_max = limits::LAST_KNOWN_FILE_BYTES_MAX * 2;
            return self.read(&pages_name(file), bytes_max, Work::Load(file, changes), out);
        }
        self.write_at = None;
    }

    fn write_failed(&mut self, now: Now, name: &str, error: Option<io::Error>) {
        self.counts.failed += 1;
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(file = name, error, "what an edge keeps on disk could not be written");
        self.write_at = Some(now.mono.after_ms(limits::LAST_KNOWN_RETRY_MS));
    }

    fn read(&mut self, name: &str, bytes_max: usize, work: Work, out: &mut Out) {
        let path = self.folder.join(name);
        self.ask(FileWork::Read { path, bytes_max: bytes_max as u64 }, work, out);
    }

    fn read_pages(&mut self, file: u8, out: &mut Out) {
        let bytes_max = limits::LAST_KNOWN_FILE_BYTES_MAX * 2;
        self.read(&pages_name(file), bytes_max, Work::ReadPages(file), out);
    }

    fn write(&mut self, name: &str, kind: Kind, content: &[u8], work: Work, out: &mut Out) {
        let path = self.folder.join(name);
        self.ask(FileWork::Write { path, content: seal(kind, content) }, work, out);
    }

    fn ask(&mut self, file: FileWork, work: Work, out: &mut Out) {
        self.next_op += 1;
        self.under_way = Some((self.next_op, work));
        out.file(Op::LastKnown(self.next_op), file);
    }

    /// The content of a file that was read, if there is one and it is whole.
    fn opened(&mut self, kind: Kind, name: &str, read: io::Result<Vec<u8>>) -> Option<Vec<u8>> {
        let file = match read {
            Ok(file) => file,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.counts.failed += 1;
                    tracing::warn!(
                        file = name,
                        %error,
                        "what an edge keeps on disk could not be read"
                    );
                }
                return None;
            }
        };
        match open(kind, &file) {
            Ok(content) => Some(content.to_vec()),
            Err(bad) => {
                self.ignore(name, bad);
                None
            }
        }
    }

    fn ignore(&mut self, name: &str, bad: Bad) {
        self.counts.ignored += 1;
        tracing::warn!(file = name, reason = %bad, "a file of last_known is ignored");
    }

    fn parse_configuration(&mut self, content: &[u8]) -> Option<Configuration> {
        let parsed = serde_json::from_slice(content).ok();
        if parsed.is_none() {
            self.ignore("configuration", Bad::Content);
        }
        parsed
    }

    /// Puts the pages of one file into the cache, as stale.
    fn restore_pages(&mut self, now: Now, file: u8, content: &[u8]) {
        match pages(content) {
            Ok(pages) => {
                let known = pages.iter().filter(|page| kept_pages::is_resource(page.target));
                let restored = known.filter(|page| restore(&self.cache, now, page)).count();
                self.counts.pages_restored += restored as u64;
            }
            Err(bad) => self.ignore(&pages_name(file), bad),
        }
    }

    fn restored(&mut self) -> Restored {
        let everything = Purge { position: 0, scope: Scope::Everything, soft: true };
        let mut soften = self.cache.purge(&everything);
        while !soften.step(&self.cache, usize::MAX).done {}
        let Some(restoring) = self.restoring.take().filter(|restoring| restoring.configured) else {
            return Restored::default();
        };
        self.cursor = restoring.cursor.clone();
        let sites = self.configuration.sites.values().cloned().collect();
        let pages = self.configuration.pages.values().cloned().collect();
        Restored { configuration: Some((sites, pages)), cursor: restoring.cursor }
    }
}

/// Puts one page into the cache the way a fetch would; whether it is there now.
fn restore(cache: &Arc<Cache>, now: Now, page: &KeptPage<'_>) -> bool {
    let mut head = page.head.to_vec();
    head.extend_from_slice(b"\r\n");
    let mut space = FieldSpace::new();
    let Ok(Some((response, _))) = parse_response(&head, &mut space) else { return false };
    let fields = HeadFields(response.fields);
    let no_fields: &[(&str, &str)] = &[];
    let cache_key = cache.cache_key("", page.host, page.target);
    let request = Request::new(Method::Get, cache_key, &no_fields);
    let asking = Asking {
        now_ms: now.wall_ms,
        waiter: Waiter { shard: 0, id: u64::MAX },
        min_version: None,
        waits: 0,
    };
    let Decision::Miss(lease) = cache.lookup(&mut Near::new(1), &request, &asking) else {
        return false;
    };
    let response = Response {
        status: response.status,
        reason: response.reason.as_bytes(),
        fields: &fields,
        length: Some(page.body.len() as u64),
        request_at_ms: page.response_at_ms,
        response_at_ms: page.response_at_ms,
        append: b"",
    };
    // Nobody else is there yet to wait for it.
    let (mut wakes, mut woken) = (Vec::new(), Vec::new());
    match lease.head(&no_fields, &response, &mut wakes) {
        HeadOutcome::Fill { mut writer, .. } => {
            (page.body.is_empty() || writer.append(page.body, &mut woken).is_ok())
                && writer.finish(&mut woken).is_ok()
        }
        HeadOutcome::Updated { .. }
        | HeadOutcome::Stale(_)
        | HeadOutcome::NotStored(_)
        | HeadOutcome::Again => false,
    }
}

fn pages_name(file: u8) -> String {
    format!("pages-{file:02x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use cache::Freshness;

    use super::*;
    use crate::seam::Effect;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\
        Cache-Control: no-cache\r\nCDN-Cache-Control: max-age=3600\r\nETag: \"x\"\r\n\
        Surrogate-Key: page/p\r\nPharos-Version: eu-00000001:7\r\n";

    /// Files by name, and whether the disk takes writes.
    struct Disk {
        files: HashMap<PathBuf, Vec<u8>>,
        full: bool,
        written: Vec<String>,
    }

    struct World {
        disk: Disk,
        cache: Arc<Cache>,
        kept: LastKnown,
        out: Out,
        now: Now,
    }

    impl World {
        fn new(files: HashMap<PathBuf, Vec<u8>>) -> Self {
            let cache = Cache::new(cache::Config::new(64 << 20, 1));
            Self {
                disk: Disk { files, full: false, written: Vec::new() },
                kept: LastKnown::new("/data".into(), Arc::clone(&cache)),
                cache,
                out: Out::new(0, 1),
                now: Now { mono: Mono(0), wall_ms: 1_700_000_000_000 },
            }
        }

        /// Starts and reads everything.
        fn start(&mut self) -> Restored {
            self.kept.start(&mut self.out);
            self.run().expect("restored in the end")
        }

        fn run(&mut self) -> Option<Restored> {
            let mut restored = None;
            while let Some(effect) = self.out.poll() {
                let Effect::File { op, work } = effect else { panic!("only files: {effect:?}") };
                let Op::LastKnown(number) = Op::of(op) else { panic!("its own operations") };
                let result = self.disk.carry_out(work);
                let got = self.kept.handle_file(self.now, number, result, &mut self.out);
                assert!(got.is_none() || restored.is_none(), "once");
                restored = got.or(restored);
            }
            restored
        }

        fn pass_ms(&mut self, ms: u64) {
            self.now.mono = self.now.mono.after_ms(ms);
            self.now.wall_ms += ms;
            if self.kept.next_deadline().is_some_and(|at| at <= self.now.mono) {
                self.kept.handle_deadline(self.now, &mut self.out);
                self.run();
            }
        }

        /// A page as if fetched just now.
        fn fetched(&self, target: &str, body: &str) -> Arc<Entry> {
            self.fetched_at(target, body, 7)
        }

        /// The same, rendered at a version.
        fn fetched_at(&self, target: &str, body: &str, version: u32) -> Arc<Entry> {
            let head = String::from_utf8_lossy(HEAD).replace(":7\r", &format!(":{version}\r"));
            let page = KeptPage {
                host: b"control",
                target: target.as_bytes(),
                response_at_ms: self.now.wall_ms,
                head: head.as_bytes(),
                body: body.as_bytes(),
            };
            let cache = Cache::new(cache::Config::new(64 << 20, 1));
            assert!(restore(&cache, self.now, &page));
            let hit = look_up(&cache, self.now, target);
            hit.expect("just stored").0
        }
    }

    impl Disk {
        fn carry_out(&mut self, work: FileWork) -> io::Result<Vec<u8>> {
            match work {
                FileWork::Read { path, .. } => {
                    self.files.get(&path).cloned().ok_or(io::ErrorKind::NotFound.into())
                }
                FileWork::Write { .. } if self.full => Err(io::ErrorKind::StorageFull.into()),
                FileWork::Write { path, content } => {
                    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
                    self.written.push(name);
                    self.files.insert(path, content);
                    Ok(Vec::new())
                }
                FileWork::Remove { .. } => panic!("nothing is removed"),
            }
        }
    }

    fn look_up(cache: &Arc<Cache>, now: Now, target: &str) -> Option<(Arc<Entry>, bool)> {
        let no_fields: &[(&str, &str)] = &[];
        let cache_key = cache.cache_key("", b"control", target.as_bytes());
        let request = Request::new(Method::Get, cache_key, &no_fields);
        let asking = Asking {
            now_ms: now.wall_ms,
            waiter: Waiter { shard: 0, id: 1 },
            min_version: None,
            waits: 0,
        };
        match cache.lookup(&mut Near::new(8), &request, &asking) {
            Decision::Hit(hit) => {
                Some((Arc::clone(hit.local.entry()), hit.freshness == Freshness::Fresh))
            }
            Decision::Revalidate(lease) => {
                lease.fail(now.wall_ms, 502, &mut Vec::new()).map(|e| (e, false))
            }
            _ => None,
        }
    }

    fn body(entry: &Entry) -> String {
        String::from_utf8(entry.body().chunk_at(0).expect("a body").to_vec()).expect("text")
    }

    fn page(id: &str) -> Page {
        Page { id: id.into(), slug: id.into(), hosts: Vec::new() }
    }

    fn replace(pages: Vec<Page>) -> ConfigChange {
        ConfigChange::Replace { sites: Vec::new(), pages }
    }

    fn cursor(position: u64) -> FeedCursor {
        format!("00000000000000ff.{position}.eu-00000001:{position}").parse().expect("a cursor")
    }

    #[test]
    fn configuration_cursor_and_pages_come_back_after_a_restart() {
        let mut world = World::new(HashMap::new());
        assert!(world.start().configuration.is_none());
        world.kept.note_configuration(world.now, &replace(vec![page("p"), page("q")]));
        world.kept.note_cursor(world.now, &cursor(7));
        let entry = world.fetched("/pages/p/", "first");
        world.kept.note_page(world.now, entry);
        let entry = world.fetched("/pages/p/", "second");
        world.kept.note_page(world.now, entry);
        let entry = world.fetched("/pages/p/api/v2/summary.json", "{}");
        world.kept.note_page(world.now, entry);
        assert!(world.disk.written.is_empty(), "gathered first");
        world.pass_ms(1000);
        assert_eq!(world.disk.written.len(), 3, "{:?}", world.disk.written);
        assert_eq!(world.disk.written[..2], ["configuration", "cursor"]);

        let mut next = World::new(world.disk.files);
        let restored = next.start();
        assert_eq!(restored.configuration.expect("kept").1, [page("p"), page("q")]);
        assert_eq!(restored.cursor, Some(cursor(7)));
        let (entry, fresh) = look_up(&next.cache, next.now, "/pages/p/").expect("restored");
        assert_eq!(body(&entry), "second");
        assert!(!fresh, "what was kept is stale");
        assert!(entry.version().is_some(), "and says its version");
        assert_eq!(next.kept.counts().pages_restored, 2);
    }

    #[test]
    fn a_cursor_is_never_kept_without_the_configuration_it_covers() {
        let mut world = World::new(HashMap::new());
        world.start();
        world.kept.note_cursor(world.now, &cursor(7));
        world.pass_ms(1000);
        let mut next = World::new(world.disk.files);
        assert_eq!(next.start().cursor, None);
    }

    #[test]
    fn damaged_files_are_ignored_and_the_rest_restored() {
        let mut world = World::new(HashMap::new());
        world.start();
        world.kept.note_configuration(world.now, &replace(vec![page("p")]));
        world.kept.note_cursor(world.now, &cursor(7));
        let entry = world.fetched("/pages/p/", "x");
        world.kept.note_page(world.now, entry);
        world.pass_ms(1000);
        for (name, cut) in [("cursor", 5), ("pages-", 40), ("configuration", 30)] {
            let mut files = world.disk.files.clone();
            for (path, file) in &mut files {
                if path.to_string_lossy().contains(name) {
                    file.truncate(file.len().min(cut));
                }
            }
            let mut next = World::new(files);
            let restored = next.start();
            assert_eq!(next.kept.counts().ignored, 1, "{name}");
            assert_eq!(restored.configuration.is_some(), name != "configuration");
            assert_eq!(restored.cursor.is_some(), name == "pages-");
        }
    }

    #[test]
    fn a_full_disk_delays_and_loses_nothing() {
        let mut world = World::new(HashMap::new());
        world.start();
        world.disk.full = true;
        world.kept.note_configuration(world.now, &replace(vec![page("p")]));
        world.kept.note_cursor(world.now, &cursor(7));
        world.pass_ms(1000);
        assert!(world.disk.written.is_empty() && world.kept.counts().failed == 1);
        world.disk.full = false;
        world.pass_ms(1000);
        assert!(world.disk.written.is_empty(), "not tried at once again");
        world.pass_ms(10_000);
        assert_eq!(world.disk.written, ["configuration", "cursor"]);
        world.disk.full = true;
        let [older, newer] =
            [("v39", 39), ("v40", 40)].map(|(text, at)| world.fetched_at("/pages/p/", text, at));
        let other = world.fetched("/pages/p/api/v2/status.json", "{}");
        for entry in [older, other] {
            world.kept.note_page(world.now, entry);
        }
        world.pass_ms(1000);
        world.kept.note_page(world.now, newer);
        assert_eq!(world.kept.counts().failed, 2);
        world.disk.full = false;
        world.pass_ms(10_000);
        let mut next = World::new(world.disk.files);
        next.start();
        let (entry, _) = look_up(&next.cache, next.now, "/pages/p/").expect("restored");
        assert_eq!(body(&entry), "v40");
        assert!(look_up(&next.cache, next.now, "/pages/p/api/v2/status.json").is_some());
    }

    #[test]
    fn a_removed_page_does_not_come_back() {
        let mut world = World::new(HashMap::new());
        world.start();
        for target in ["/pages/p/", "/pages/p/api/v2/status.json", "/pages/q/"] {
            let entry = world.fetched(target, "x");
            world.kept.note_page(world.now, entry);
        }
        world.kept.note_configuration(world.now, &replace(vec![page("p"), page("q")]));
        world.pass_ms(1000);
        let change =
            proto::feed::record::Config { removed_pages: vec!["p".into()], ..Default::default() };
        world.kept.note_configuration(world.now, &ConfigChange::Change(change));
        world.pass_ms(1000);
        let mut next = World::new(world.disk.files);
        let restored = next.start();
        assert_eq!(restored.configuration.expect("kept").1, [page("q")]);
        assert!(look_up(&next.cache, next.now, "/pages/p/").is_none());
        assert!(look_up(&next.cache, next.now, "/pages/q/").is_some());
    }

    #[test]
    fn an_older_page_that_comes_later_never_takes_the_place_of_a_newer_one() {
        for gathered in [true, false] {
            let mut world = World::new(HashMap::new());
            world.start();
            world.kept.note_configuration(world.now, &replace(vec![page("p")]));
            let older = world.fetched_at("/pages/p/", "v39", 39);
            let newer = world.fetched_at("/pages/p/", "v40", 40);
            world.kept.note_page(world.now, newer);
            if !gathered {
                world.pass_ms(1000);
            }
            world.kept.note_page(world.now, older);
            world.pass_ms(1000);
            let mut next = World::new(world.disk.files);
            next.start();
            let (entry, _) = look_up(&next.cache, next.now, "/pages/p/").expect("restored");
            assert_eq!(body(&entry), "v40", "gathered: {gathered}");
        }
    }

    #[test]
    fn a_page_that_was_purged_on_its_way_is_not_kept() {
        let mut world = World::new(HashMap::new());
        world.start();
        let purged = world.fetched("/pages/p/", "x");
        let other = Cache::new(cache::Config::new(64 << 20, 1));
        let kept = KeptPage {
            host: b"control",
            target: b"/pages/p/",
            response_at_ms: world.now.wall_ms,
            head: HEAD,
            body: b"y",
        };
        assert!(restore(&other, world.now, &kept));
        let dead = look_up(&other, world.now, "/pages/p/").expect("stored").0;
        let everything = Purge { position: 1, scope: Scope::Everything, soft: false };
        assert!(other.purge(&everything).step(&other, usize::MAX).done && dead.is_dead());
        world.kept.note_page(world.now, dead);
        world.pass_ms(1000);
        assert!(world.disk.written.is_empty(), "{:?}", world.disk.written);
        world.kept.note_page(world.now, purged);
        world.pass_ms(1000);
        assert_eq!(world.disk.written.len(), 1);
    }

    #[test]
    fn no_visitor_can_push_a_page_off_the_disk() {
        let mut world = World::new(HashMap::new());
        world.start();
        world.kept.note_configuration(world.now, &replace(vec![page("p")]));
        let html = world.fetched("/pages/p/", "the page");
        world.kept.note_page(world.now, html);
        let large = "x".repeat(limits::LAST_KNOWN_PAGE_BYTES_MAX);
        for round in 0..3 {
            for name in ["summary", "status", "components", "incidents", "incidents/unresolved"] {
                let target = format!("/pages/p/api/v2/{name}.json");
                let entry = world.fetched(&target, &large);
                world.kept.note_page(world.now, entry);
                let entry = world.fetched(&format!("{target}?{round}"), &large);
                world.kept.note_page(world.now, entry);
            }
            world.pass_ms(1000);
        }
        assert!(world.kept.counts().pages_dropped > 0, "they do not all fit, and that is counted");
        let sizes = world.disk.files.values().map(Vec::len);
        assert!(sizes.max() <= Some(limits::LAST_KNOWN_FILE_BYTES_MAX + 64));
        let mut next = World::new(world.disk.files);
        next.start();
        let (entry, _) = look_up(&next.cache, next.now, "/pages/p/").expect("restored");
        assert_eq!(body(&entry), "the page");
        assert!(look_up(&next.cache, next.now, "/pages/p/api/v2/summary.json").is_some());
        assert!(look_up(&next.cache, next.now, "/pages/p/api/v2/summary.json?1").is_none());
    }
}
