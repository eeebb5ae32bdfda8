//! Taking a new `edge.toml` while the edge runs: what can change does, what cannot is named.
//!
//! Leaves to others: reading the file and hearing the signal (the binary), taking what changed
//! (`shard::live`), the log's level (the binary).

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    StartError,
    config::{self, Config},
    engine::{self, Controls, Journal},
    link::read_authorization,
    seam::Control,
    shard::live::{Live, LiveSlot},
};

/// The handle by which a running edge takes another configuration. From any thread, one at a time.
#[derive(Debug)]
pub struct Reloader {
    running: Mutex<Config>,
    journal: Mutex<Option<Journal>>,
    slot: Arc<LiveSlot>,
    controls: Controls,
    shards: u16,
    sockets_max: u32,
}

/// What came of a reload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Keys that have changed and taken effect.
    pub applied: Vec<&'static str>,
    /// Keys that differ from what runs, and take effect with the next start.
    pub need_restart: Vec<&'static str>,
}

/// What the shards have room for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) shards: u16,
    pub(crate) sockets_max: u32,
}

impl Reloader {
    pub(crate) fn new(
        running: Config,
        journal: Option<Journal>,
        slot: Arc<LiveSlot>,
        controls: Controls,
        room: Room,
    ) -> Self {
        let Room { shards, sockets_max } = room;
        let (running, journal) = (Mutex::new(running), Mutex::new(journal));
        Self { running, journal, slot, controls, shards, sockets_max }
    }

    /// Takes what can change of a configuration. On an error nothing has changed.
    ///
    /// # Errors
    /// [`StartError`]: it does not fit together, or a file that it names cannot be used.
    pub fn reload(&self, new: Config) -> Result<Reloaded, StartError> {
        new.check().map_err(StartError::Config)?;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = running.compare(&new);
        // The key may have changed in a file of the same name.
        let control = running.control.as_ref().map(|control| config::Control {
            key_file: new.control.as_ref().unwrap_or(control).key_file.clone(),
            ..control.clone()
        });
        let authorization = control.as_ref().map(read_authorization).transpose()?;
        let old_key = self.slot.newest().and_then(|live| live.authorization.clone());
        if authorization != old_key {
            told.applied.push("control.key_file");
        }
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = new.log.access_target();
        let replaced = match (&*journal, wanted) {
            (Some(open), Some(wanted)) if *open.target() == wanted => {
                open.reopen();
                None
            }
            (None, None) => None,
            (_, wanted) => {
                let new = wanted.map(open_journal).transpose()?;
                Some(std::mem::replace(&mut *journal, new))
            }
        };
        running.take_live(&new);
        let access = journal.as_ref().map(|journal| Arc::clone(journal.queue()));
        let room = Room { shards: self.shards, sockets_max: self.sockets_max };
        self.slot.put(live(&running, authorization, access, room));
        drop((journal, running));
        self.controls.control(Control::Reload);
        // The old log's last lines are written by its drop; what shards gather meanwhile for it is
        // lost with it, and is less than a batch each.
        drop(replaced);
        Ok(told)
    }

    /// Writes the access log's last lines. To be called when every shard has ended.
    pub(crate) fn close(&self) {
        drop(self.journal.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Opens an access log, or says which cannot be.
pub(crate) fn open_journal(target: engine::Target) -> Result<Journal, StartError> {
    let path = match &target {
        engine::Target::Stderr => "stderr".into(),
        engine::Target::File(path) => path.clone(),
    };
    Journal::start(target).map_err(|source| StartError::AccessLog { path, source })
}

/// What a shard is told of a configuration.
pub(crate) fn live(
    config: &Config,
    authorization: Option<Arc<str>>,
    access: Option<Arc<crate::shard::access::AccessQueue>>,
    room: Room,
) -> Live {
    Live {
        timeouts: config.timeouts,
        limits: config.limits,
        streams_max: match config.streams.max {
            0 => room.sockets_max,
            max => engine::share_of(max, room.shards),
        },
        rates: config.streams.rates(),
        pages: config.streams.pages,
        sites: config.sites.as_slice().into(),
        authorization,
        shown: crate::shard::explain::Shown::of(&config.explain),
        access,
    }
}

impl Config {
    /// Which keys of `new` differ, and what that means while this one runs.
    fn compare(&self, new: &Self) -> Reloaded {
        let url = |config: &Self| config.control.as_ref().map(|control| control.url.clone());
        let via = |config: &Self| {
            let control = config.control.as_ref();
            control.map(|control| (control.via.clone(), control.via_key_file.clone()))
        };
        // Without control the sites are the file's; from control to sites is another edge.
        let same_kind = self.control.is_some() == new.control.is_some();
        let named = |changed: &[(bool, &'static str)]| {
            changed.iter().filter(|(changed, _)| *changed).map(|&(_, name)| name).collect()
        };
        Reloaded {
            applied: named(&[
                (self.timeouts != new.timeouts, "timeouts"),
                (self.limits != new.limits, "limits"),
                (self.streams != new.streams, "streams"),
                (shown(self) != shown(new), "explain.debug"),
                (self.log.level != new.log.level, "log.level"),
                (self.log.access != new.log.access, "log.access"),
                (same_kind && self.sites != new.sites, "site"),
            ]),
            need_restart: named(&[
                (self.id != new.id, "id"),
                (self.pop != new.pop, "pop"),
                (self.url != new.url, "url"),
                (self.listen != new.listen, "listen"),
                (self.admin != new.admin, "admin"),
                (self.data != new.data, "data"),
                (self.shards != new.shards, "shards"),
                (self.engine != new.engine, "engine"),
                (self.forward != new.forward, "forward"),
                (self.cache != new.cache, "cache"),
                (self.compression != new.compression, "compression"),
                (self.explain.memory != new.explain.memory, "explain.memory"),
                (same_kind && url(self) != url(new), "control.url"),
                (same_kind && via(self) != via(new), "control.via"),
                (self.relay != new.relay, "relay"),
                (!same_kind, "control"),
            ]),
        }
    }

    /// Takes over what is live.
    fn take_live(&mut self, new: &Self) {
        self.timeouts = new.timeouts;
        self.limits = new.limits;
        self.streams = new.streams.clone();
        self.log = new.log.clone();
        let memory = self.explain.memory;
        self.explain = config::Explain { memory, ..new.explain.clone() };
        match (&mut self.control, &new.control) {
            (Some(control), Some(new)) => control.key_file.clone_from(&new.key_file),
            (None, None) => self.sites.clone_from(&new.sites),
            _ => {}
        }
    }
}

fn shown(config: &Config) -> crate::shard::explain::Shown {
    crate::shard::explain::Shown::of(&config.explain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(Path::new("edge.toml"), text).expect("parses")
    }

    fn check(old: &str, new: &str, applied: &[&str], need_restart: &[&str]) {
        let mut running = config(old);
        let new = config(new);
        let told = running.compare(&new);
        assert_eq!((&*told.applied, &*told.need_restart), (applied, need_restart));
        running.take_live(&new);
        assert_eq!(running.compare(&new).applied, [""; 0], "what can change has");
        assert_eq!(running.compare(&new).need_restart, need_restart, "what cannot has not");
    }

    #[test]
    fn what_can_change_does_and_what_needs_a_restart_is_named() {
        let site = "[[site]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [{url = \"http://b\"}]\n";
        let control = "[control]\nurl = \"http://127.0.0.1:1\"\nkey_file = \"k\"\n";
        check("", "", &[], &[]);
        check("", "[timeouts]\nkeep_alive_ms = 1\n", &["timeouts"], &[]);
        check("", "[limits]\nconnections_per_peer = 1\n", &["limits"], &[]);
        check("", "[streams]\nmax = 7\n[log]\nlevel = \"warn\"\n", &["streams", "log.level"], &[]);
        check("", "[log]\naccess = \"stderr\"\n", &["log.access"], &[]);
        check("", "[explain]\ndebug = true\n", &["explain.debug"], &[]);
        check("", "[explain]\nmemory = \"1MiB\"\n", &[], &["explain.memory"]);
        check("", site, &["site"], &[]);
        check(site, control, &[], &["control"]);
        check(control, &control.replace(":1", ":2"), &[], &["control.url"]);
        check(control, &control.replace("\"k\"", "\"l\""), &[], &[]);
        let all = "id = \"x\"\nurl = \"http://x\"\npop = \"x\"\nlisten = [\"127.0.0.1:1\"]\nadmin = \"127.0.0.1:2\"\n\
                   data = \"d\"\nshards = 3\nengine = \"epoll\"\n[cache]\nmemory = \"2MiB\"\n\
                   [compression]\ncodings = []\n";
        let mut names =
            vec!["id", "pop", "url", "listen", "admin", "data", "shards", "engine", "cache"];
        names.push("compression");
        check("", all, &[], &names);
    }
}
