//! The placement circle: which edge a topic's streams are best on, if they can be anywhere.
//!
//! ```text
//!      0 ──●───○──●────○───●──○──▶ 2^64      ● ○ points of edges; a topic is at home on the edge
//!               └ topic ┘                    of the first point behind it
//! ```
//! Consistent hashing (Karger et al., STOC '97) with bounded loads (Mirrokni, Thorup,
//! Zadimoghaddam, SODA '18): an edge that has a quarter more streams than the mean takes no more,
//! and the next one on the circle does. So a change of the members moves their share only, and a
//! topic that is too hot for one edge spreads over as many as it takes.
//!
//! A preference, nothing more: any edge serves any topic. Every edge and every version of it must
//! come to the same places, so the hash is written out here and never changes.
//!
//! Leaves to others: who the members are (control), what a preference leads to (`lead`).

use std::sync::Arc;

use proto::feed::record::CircleEdge;

/// The points of some edges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Circle {
    /// Their own names, sorted, each once.
    members: Box<[Box<str>]>,
    /// By place; which member.
    points: Box<[(u64, u16)]>,
}

/// What control last told of the edges.
#[derive(Clone, Debug)]
pub struct CircleNews {
    /// Who they are.
    pub circle: Arc<Circle>,
    /// Streams of each member.
    pub streams: Box<[u64]>,
}

impl Circle {
    /// Of these edges. `None` without any.
    pub fn new(members: &[CircleEdge]) -> Option<Self> {
        let mut names: Vec<Box<str>> =
            members.iter().map(|edge| edge.url.as_str().into()).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(usize::from(u16::MAX));
        let mut points = Vec::with_capacity(names.len() * POINTS_A_MEMBER as usize);
        for (at, name) in names.iter().enumerate() {
            let start = hash(name.as_bytes());
            points.extend((0..POINTS_A_MEMBER).map(|nth| (mix(start ^ mix(nth)), at as u16)));
        }
        points.sort_unstable();
        (!names.is_empty()).then(|| Self { members: names.into(), points: points.into() })
    }

    /// Their own names.
    pub fn members(&self) -> &[Box<str>] {
        &self.members
    }

    /// Which one has this name.
    pub fn member(&self, name: &str) -> Option<usize> {
        self.members.binary_search_by(|known| (**known).cmp(name)).ok()
    }

    /// Where a topic is at home.
    pub fn home(&self, topic: &str) -> usize {
        self.from(topic).next().unwrap_or(0)
    }

    /// Where one more stream of a topic is to go: the first edge from its home on that has room.
    /// `streams`: of each member.
    pub fn pick(&self, topic: &str, streams: &[u64]) -> usize {
        let bound = bound(streams);
        let has_room = |at: &usize| streams.get(*at).is_some_and(|streams| *streams < bound);
        let mut walk = self.from(topic);
        let home = self.home(topic);
        walk.find(has_room).unwrap_or(home)
    }

    /// Members in the order of their points behind a topic's place, each as often as it has points.
    fn from(&self, topic: &str) -> impl Iterator<Item = usize> {
        let place = mix(hash(topic.as_bytes()));
        let start = self.points.partition_point(|(at, _)| *at < place);
        let (before, behind) = self.points.split_at(start);
        behind.iter().chain(before).map(|(_, member)| usize::from(*member))
    }
}

impl CircleNews {
    /// What control told. `known`: the circle of before, kept if it is still the same.
    pub fn of(told: &[CircleEdge], known: Option<&Arc<Circle>>) -> Option<Self> {
        let same = known.filter(|known| {
            told.len() == known.members.len()
                && told.iter().all(|edge| known.member(&edge.url).is_some())
        });
        let circle = match same {
            Some(same) => Arc::clone(same),
            None => Arc::new(Circle::new(told)?),
        };
        let mut streams = vec![0; circle.members.len()];
        for edge in told {
            if let Some(at) = circle.member(&edge.url) {
                streams[at] = edge.streams;
            }
        }
        Some(Self { circle, streams: streams.into() })
    }
}

/// Streams that an edge may have for one more to go there: a quarter more than the mean.
fn bound(streams: &[u64]) -> u64 {
    let all: u64 = streams.iter().sum::<u64>() + 1;
    (all * 5).div_ceil(4 * (streams.len().max(1) as u64))
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The finalizer of SplitMix64: neighbours come far apart.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Points of each member: shares then differ by about a twelfth.
const POINTS_A_MEMBER: u64 = 160;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edges(names: impl IntoIterator<Item = u32>) -> Vec<CircleEdge> {
        let names = names.into_iter();
        names.map(|name| CircleEdge { url: format!("http://edge-{name}"), streams: 0 }).collect()
    }

    fn circle(names: impl IntoIterator<Item = u32>) -> Circle {
        Circle::new(&edges(names)).expect("some")
    }

    fn name<'c>(circle: &'c Circle, topic: &str) -> &'c str {
        &circle.members()[circle.home(topic)]
    }

    const TOPICS: u32 = 4_000;

    fn topics() -> impl Iterator<Item = String> {
        (0..TOPICS).map(|number| format!("topic/{number}"))
    }

    #[test]
    fn places_are_the_same_on_every_edge_and_in_every_version() {
        let five = circle(0..5);
        let homes: Vec<&str> =
            ["page/p1", "orders/eu", "t"].into_iter().map(|topic| name(&five, topic)).collect();
        assert_eq!(homes, ["http://edge-2", "http://edge-3", "http://edge-1"]);
        let backward = circle((0..5).rev().chain(0..2));
        assert_eq!(backward, five, "in whatever order, and each once");
        assert_eq!(Circle::new(&[]), None);
    }

    #[test]
    fn shares_of_the_topics_are_about_even() {
        let circle = circle(0..8);
        let mut counts = [0; 8];
        topics().for_each(|topic| counts[circle.home(&topic)] += 1);
        let mean = TOPICS / 8;
        assert!(
            counts.iter().all(|count| (mean * 2 / 3..mean * 4 / 3).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_hot_topic_spreads_over_as_many_as_it_takes_and_a_quiet_one_stays() {
        let circle = circle(0..4);
        let mut streams = vec![0; 4];
        for _ in 0..1000 {
            let at = circle.pick("hot", &streams);
            streams[at] += 1;
        }
        assert!(streams.iter().all(|&streams| (60..=313).contains(&streams)), "{streams:?}");
        let evenly = [500; 4];
        assert!(topics().all(|topic| circle.pick(&topic, &evenly) == circle.home(&topic)));
    }

    #[test]
    fn the_circle_of_before_is_kept_while_its_members_are_the_same() {
        let mut told = edges(0..3);
        let first = CircleNews::of(&told, None).expect("some");
        told[1].streams = 7;
        told.reverse();
        let second = CircleNews::of(&told, Some(&first.circle)).expect("some");
        assert!(Arc::ptr_eq(&first.circle, &second.circle));
        assert_eq!(*second.streams, [0, 7, 0]);
        let third = CircleNews::of(&edges(1..4), Some(&first.circle)).expect("some");
        assert!(!Arc::ptr_eq(&first.circle, &third.circle));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn a_new_member_takes_its_share_and_nothing_else_moves(
            names in prop::collection::btree_set(0u32..1000, 1..12),
            new in 1000u32..2000,
        ) {
            let old = circle(names.iter().copied());
            let grown = circle(names.iter().copied().chain([new]));
            let mut moved = 0;
            for topic in topics() {
                let (before, after) = (name(&old, &topic), name(&grown, &topic));
                if before != after {
                    prop_assert_eq!(after, format!("http://edge-{new}"));
                    moved += 1;
                }
            }
            let share = TOPICS / (names.len() as u32 + 1);
            prop_assert!((share / 2..share * 3 / 2).contains(&moved), "{} of {}", moved, share);
        }

        #[test]
        fn no_edge_is_given_more_than_a_quarter_above_the_mean(
            members in 1u32..12,
            picks in prop::collection::vec(0u32..6, 1..800),
        ) {
            let circle = circle(0..members);
            let mut streams = vec![0u64; members as usize];
            for topic in picks {
                let at = circle.pick(&format!("t{topic}"), &streams);
                streams[at] += 1;
                let all: u64 = streams.iter().sum();
                let most = (all * 5).div_ceil(4 * u64::from(members));
                prop_assert!(streams[at] <= most, "{} of {}", streams[at], all);
            }
        }
    }
}
