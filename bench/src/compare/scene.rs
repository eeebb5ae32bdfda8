//! What the cases of requests load their servers with: which objects, how many, in what manner.
//! Pure.

use clap::ValueEnum;

use crate::{options::Case, workload::Numbers};

/// One way to load a server; a case has one or several, each a row of its table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scene {
    /// For people; empty when the case has one only.
    pub(crate) label: &'static str,
    /// Path and query at the origin.
    pub(crate) path: &'static str,
    /// Requests that leave together on a connection.
    pub(crate) pipeline: u32,
    /// How many objects are asked for in turn; 1 is the path itself.
    pub(crate) objects: u64,
    /// Whether every answer comes from the cache.
    pub(crate) hits: bool,
    /// Whether each request has a connection of its own.
    pub(crate) reconnect: bool,
    /// Open loop, at this share of what the server can do in the closed one.
    pub(crate) share: Option<f64>,
    /// Shards of the Pharos under test.
    pub(crate) shards: u16,
    /// Memory of its cache.
    pub(crate) cache_mib: u32,
}

const HIT: Scene = Scene {
    label: "",
    path: "/bytes/1024?max_age=86400",
    pipeline: 1,
    objects: 1,
    hits: true,
    reconnect: false,
    share: None,
    shards: 1,
    cache_mib: 256,
};

impl Scene {
    /// The servers of Pharos that a case starts, each with its scenes. Peers, if the case has any,
    /// play those of the first.
    pub(crate) fn of(case: Case) -> Vec<Vec<Self>> {
        let small = Self { path: "/bytes/128?max_age=86400", cache_mib: 2_048, ..HIT };
        match case {
            Case::Hit1k | Case::Restart1k | Case::Idle8k => vec![vec![HIT]],
            // Those of streams ask for no objects, or for one of their own; a purge has its own.
            Case::Purge | Case::Sse100k | Case::SseTopics | Case::SseBeside | Case::SseSlow => {
                Vec::new()
            }
            Case::Hit1kPipelined => vec![vec![Self { pipeline: 16, ..HIT }]],
            Case::Hit100k => vec![vec![
                Self { path: "/bytes/102400?max_age=86400", label: "one object", ..HIT },
                Self {
                    path: "/bytes/102400?max_age=86400",
                    label: "512 objects",
                    objects: 512,
                    ..HIT
                },
            ]],
            Case::Hit1kPaced => vec![vec![
                Self { label: "at 25 %", share: Some(0.25), ..HIT },
                Self { label: "at 50 %", share: Some(0.5), ..HIT },
                Self { label: "at 80 %", share: Some(0.8), ..HIT },
            ]],
            Case::Miss => vec![vec![Self { objects: FRESH, hits: false, ..HIT }]],
            Case::Pass => {
                vec![vec![Self { path: "/bytes/1024?cache_control=no-store", hits: false, ..HIT }]]
            }
            Case::Connect => vec![vec![Self { reconnect: true, ..HIT }]],
            Case::HitFar => vec![
                vec![Self { label: "one object", shards: 2, ..small }],
                vec![Self {
                    label: "1.6 M objects",
                    shards: 2,
                    objects: FAR,
                    cache_mib: FAR_MIB,
                    ..small
                }],
            ],
            Case::Hit1m => vec![
                vec![Self { label: "1,000 objects", objects: 1_000, ..small }],
                vec![Self { label: "1 M objects", objects: 1_000_000, ..small }],
            ],
        }
    }

    /// All scenes there are, in the order of their tables.
    pub(crate) fn of_all() -> impl Iterator<Item = Self> {
        Case::value_variants().iter().flat_map(|case| Self::of(*case)).flatten()
    }

    /// Whether all requests ask for the same.
    pub(crate) fn is_one(&self) -> bool {
        self.objects == 1
    }

    /// The numbers of the next requests, after `used` ones.
    pub(crate) fn numbers(&self, used: u64) -> Numbers {
        Numbers { used, count: self.objects }
    }

    /// Requests that go round all objects once; `None` when there is no such round.
    pub(crate) fn round(&self) -> Option<u64> {
        (self.objects != FRESH).then_some(self.objects)
    }
}

/// As many as numbers have digits for: no request is like one before.
const FRESH: u64 = 1_000_000_000_000;
/// A hundred times what a shard's near table holds.
const FAR: u64 = 100 * dataplane::limits::NEAR_ENTRIES as u64;
/// Room for them: an entry of 128 bytes is accounted with 1.3 KiB; the living get seven eighths.
const FAR_MIB: u32 = 3_072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_hit_has_room() {
        const ENTRY_BYTES: u64 = 1_300;
        for scene in Scene::of_all().filter(|scene| scene.path.contains("/bytes/128?")) {
            let room_bytes = u64::from(scene.cache_mib) << 20;
            assert!(scene.objects * ENTRY_BYTES <= room_bytes / 8 * 7, "{scene:?}");
        }
    }

    #[test]
    fn scenes_of_a_case_are_told_apart() {
        for case in [Case::Hit100k, Case::Hit1kPaced, Case::HitFar, Case::Hit1m] {
            let scenes: Vec<Scene> = Scene::of(case).concat();
            let labels: std::collections::HashSet<&str> =
                scenes.iter().map(|scene| scene.label).collect();
            assert_eq!(labels.len(), scenes.len(), "{case:?}");
            assert!(!labels.contains(""), "{case:?}");
        }
    }
}
