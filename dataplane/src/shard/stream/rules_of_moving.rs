//! What streams are promised when they are moved to another edge, and when too many come at once;
//! each test is named by its rule.

use super::{
    StreamLimits,
    answer::PLACE_JITTER_MS,
    migrate::Pace,
    testing::{World, dots, event, small},
};
use crate::shard::opening::Interval;

fn drain(world: &mut World, pace: Option<Pace>) {
    world.out.begin();
    world.streams.drain(world.now, pace, &mut world.out);
    world.run();
}

fn retry_ms(text: &str) -> u64 {
    let retry = text.rsplit("retry: ").next().and_then(|rest| rest.split('\n').next());
    retry.and_then(|ms| ms.parse().ok()).unwrap_or_else(|| panic!("no retry in {text}"))
}

fn text_of(world: &World, slot: u32) -> String {
    String::from_utf8_lossy(&world.clients[&slot].bytes).into_owned()
}

#[test]
fn a_drain_spreads_streams_over_its_time_wherever_they_stand_in_the_table() {
    for apart in [1, 40, 400] {
        let mut world = World::new(small());
        for slot in 0..100 {
            world.open(slot * apart, "page/p", None);
        }
        drain(&mut world, Some(Pace::OverMs(2000)));
        world.pass_ms(1000);
        let halfway = world.streams.count();
        assert!((45..=55).contains(&halfway), "{halfway} of 100, {apart} apart");
        world.open(90_000, "page/p", None);
        assert!(world.clients[&90_000].closed, "none is taken any more");
        world.pass_ms(1000);
        assert_eq!((world.streams.count(), world.streams.drained()), (0, 100));
    }
}

#[test]
fn a_moved_stream_is_told_so_and_when_to_come_back() {
    let mut world = World::new(small());
    for slot in 0..40 {
        world.open(slot, "page/p", None);
    }
    drain(&mut world, Some(Pace::OverMs(1)));
    world.pass_ms(40);
    let mut waits: Vec<u64> = Vec::new();
    for slot in 0..40 {
        let told = world.events(slot).pop().expect("told");
        assert_eq!((told.event.as_str(), told.id), ("migrate", None));
        let text = text_of(&world, slot);
        let wait = retry_ms(&text);
        let data = format!(r#"{{"kind":"migrate","reason":"drain","in_ms":{wait}}}"#);
        assert_eq!(told.data, data);
        assert!(text.ends_with("0\r\n\r\n"), "the body ends in order: {text}");
        waits.push(wait);
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 30, "each at a time of its own: {waits:?}");
    assert_eq!(world.streams.counts().migrated, 40);
}

#[test]
fn a_drain_never_moves_more_in_a_second_than_its_rate() {
    let mut world = World::new(small());
    for slot in 0..200 {
        world.open(slot, "page/p", None);
    }
    drain(&mut world, Some(Pace::Each(Interval::share(100, 2))));
    for second in 1..=4 {
        for _ in 0..20 {
            world.pass_ms(50);
        }
        let moved = world.streams.drained();
        assert!((second * 50 - 2..=second * 50 + 1).contains(&moved), "{moved} in {second} s");
    }
}

#[test]
fn an_undone_drain_leaves_the_rest_where_they_are() {
    let mut world = World::new(small());
    for slot in 0..100 {
        world.open(slot, "page/p", None);
    }
    drain(&mut world, Some(Pace::OverMs(2000)));
    world.pass_ms(1000);
    let left = world.streams.count();
    drain(&mut world, None);
    world.pass_ms(5000);
    assert_eq!(world.streams.count(), left, "who stayed stays");
    world.open(500, "page/p", None);
    assert!(!world.clients[&500].closed, "and others come");
    world.publish(&event("page/p", "a", 1, 0));
    world.run();
    assert_eq!(dots(&world, 99), ["a-00000000:1"]);
    // A later one begins anew, with those that came meanwhile.
    drain(&mut world, Some(Pace::OverMs(1000)));
    world.pass_ms(1000);
    assert_eq!((world.streams.count(), world.streams.drained()), (0, u64::from(left) + 1));
}

#[test]
fn a_slow_drain_asks_for_no_turn_before_a_stream_is_due() {
    let mut world = World::new(small());
    world.open(4000, "page/p", None);
    world.open(4001, "page/p", None);
    drain(&mut world, Some(Pace::OverMs(3_600_000)));
    assert_eq!(world.streams.count(), 1, "the first one at once");
    for _ in 0..20 {
        let at = world.streams.next_deadline().expect("it goes on");
        assert!(at > world.now.mono, "{at:?} is not ahead of {:?}", world.now.mono);
        world.now.mono = at;
        world.pass_ms(0);
    }
    world.pass_ms(3_600_000);
    assert_eq!((world.streams.count(), world.streams.next_deadline()), (0, None));
}

#[test]
fn a_stream_that_is_moved_in_the_middle_of_a_frame_is_closed_without_a_word() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    world.stall(1, 5);
    world.publish(&event("page/p", "a", 1, 0));
    world.run();
    let before = world.clients[&1].bytes.clone();
    drain(&mut world, Some(Pace::OverMs(1)));
    world.pass_ms(40);
    assert!(world.clients[&1].closed);
    assert_eq!(world.clients[&1].bytes, before, "nothing between a frame's bytes");
}

#[test]
fn more_streams_in_a_second_than_the_budget_are_told_when_there_is_room() {
    let openings = Interval::share(10, 1);
    let mut world = World::new(StreamLimits { openings, streams_max: 1000, ..small() });
    for slot in 0..110 {
        world.open(slot, "page/p", None);
    }
    assert_eq!((world.streams.count(), world.streams.counts().over_budget), (1, 109));
    for slot in [1, 60, 109] {
        let text = text_of(&world, slot);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "no other status: {text}");
        let (place_ms, wait) = (u64::from(slot) * 102, retry_ms(&text));
        let spread = PLACE_JITTER_MS;
        let expected = place_ms + spread / 2..=place_ms + spread * 3 / 2;
        assert!(expected.contains(&wait), "{slot} waits {wait}, not {expected:?}");
    }
    // Later there is room again, and nobody is remembered.
    world.pass_ms(1000);
    world.open(500, "page/p", None);
    assert!(!world.clients[&500].closed);
}
