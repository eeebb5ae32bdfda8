//! What streams are told when control has lost something, or they name what it never had.

use proto::feed::{cursor::Replica, record::Publish};

use super::testing::{Seen, World, dots, event, small, vector};
use crate::{limits, shard::mail::Advance};

/// The replica that numbers operations behind the restore.
const NEW: &str = "a-00000001";

fn new() -> Replica {
    NEW.parse().expect("a replica")
}

/// A world whose feed has come to `a-00000000:41`, with streams on two topics, the second ended at
/// its opening if `stalled`.
fn world() -> World {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:30"), Advance::Jumped);
    world.open(1, "page/p", None);
    world.open(2, "page/q", None);
    for (seq, prev) in [(35, 7), (41, 35)] {
        world.publish(&event("page/p", "a", seq, prev));
        world.applied(&vector(&format!("a-00000000:{seq}")), Advance::Onward);
        world.run();
    }
    world
}

fn lose(world: &mut World, has: &str) {
    world.applied(&vector(has), Advance::Snapshot(new()));
    world.run();
}

/// The version that a told gap names, and whether it says that something was lost.
fn gap(seen: &Seen) -> (String, bool) {
    assert_eq!(seen.event, "gap", "{seen:?}");
    let data: serde_json::Value = serde_json::from_str(&seen.data).expect("JSON");
    (data["version"].as_str().expect("a version").to_owned(), data["reset"] == true)
}

fn born(seq: u64, prev: u64) -> Publish {
    let mut record = event("page/p", "a", seq, prev);
    record.dot.replica = new();
    record.data = record.dot.to_string();
    record.version = vector(&format!("a-00000000:35,{}", record.dot));
    record
}

#[test]
fn every_open_stream_is_told_of_a_loss_and_goes_on_behind_it() {
    let mut world = world();
    world.open(3, "page/p", Some("a-00000000:35"));
    world.stall(3, 0);
    lose(&mut world, "a-00000000:35");
    world.unstall(3);
    for slot in [1, 2, 3] {
        let events = world.events(slot);
        let last = events.last().expect("told");
        assert_eq!(gap(last), ("a-00000000:35".to_owned(), true), "stream {slot}");
        assert_eq!(last.id.as_deref(), Some("a-00000000:35"));
    }
    // The next event names nothing that is lost.
    world.publish(&born(1, 0));
    world.run();
    for slot in [1, 3] {
        assert_eq!(dots(&world, slot).last().map(String::as_str), Some("a-00000001:1"));
        assert_eq!(world.last_id(slot).as_deref(), Some("a-00000000:35,a-00000001:1"));
    }
}

#[test]
fn what_is_lost_is_replayed_to_nobody_and_can_be_announced_no_more() {
    let mut world = world();
    assert!(world.streams.is_announced(&vector("a-00000000:41")));
    lose(&mut world, "a-00000000:38");
    assert!(!world.streams.is_announced(&vector("a-00000000:41")));
    assert!(world.streams.is_announced(&vector("a-00000000:38")));
    world.open(4, "page/p", Some("a-00000000:30"));
    let told = world.events(4);
    assert_eq!(told.len(), 1);
    assert_eq!(gap(&told[0]), ("a-00000000:38".to_owned(), false));
    // Events from before that control still has come again, for those who resume from before them.
    world.applied(&vector("a-00000000:38"), Advance::Refilling);
    world.publish(&Publish { refill: true, ..event("page/p", "a", 35, 7) });
    world.applied(&vector("a-00000000:38"), Advance::Refilled);
    world.run();
    world.open(5, "page/p", Some("a-00000000:30"));
    assert_eq!(dots(&world, 5), ["a-00000000:35"]);
}

#[test]
fn a_client_that_comes_with_something_lost_is_told_at_once() {
    let mut world = world();
    lose(&mut world, "a-00000000:35");
    for (slot, cursor) in [(4, "a-00000000:41"), (5, "a-00000000:35,a-00000009:5")] {
        world.open(slot, "page/p", Some(cursor));
        let told = world.events(slot);
        assert_eq!(told.len(), 1, "{cursor}");
        assert_eq!(gap(&told[0]), ("a-00000000:35".to_owned(), true));
        assert_eq!(world.last_id(slot).as_deref(), Some("a-00000000:35"));
    }
    world.publish(&born(1, 0));
    world.run();
    assert_eq!(dots(&world, 4).last().map(String::as_str), Some("a-00000001:1"));
}

#[test]
fn another_regions_store_that_is_behind_has_lost_nothing() {
    let mut world = world();
    let theirs = "b-00000001".parse().expect("a replica");
    world.applied(&vector("a-00000000:35,b-00000001:3"), Advance::Snapshot(theirs));
    world.run();
    assert!(world.streams.is_announced(&vector("a-00000000:41,b-00000001:3")));
    for seen in world.events(1).iter().filter(|seen| seen.event == "gap") {
        assert!(!gap(seen).1, "{seen:?}");
    }
    assert_eq!(world.last_id(1).as_deref(), Some("a-00000000:41,b-00000001:3"));
}

#[test]
fn a_stream_that_was_blocked_over_a_loss_is_told_when_it_reads_on() {
    for room in [0, 7] {
        let mut world = world();
        world.stall(1, room);
        world.publish(&event("page/p", "a", 42, 41));
        world.run();
        lose(&mut world, "a-00000000:35");
        world.publish(&born(1, 0));
        world.run();
        world.unstall(1);
        let events = world.events(1);
        let at = events.iter().position(|seen| seen.event == "gap").expect("told");
        assert_eq!(gap(&events[at]), ("a-00000000:35".to_owned(), true));
        assert_eq!(events[at + 1].data, "a-00000001:1");
        assert_eq!(events.len(), at + 2);
    }
}

#[test]
fn a_cursor_beyond_control_is_taken_back_once_the_feed_is_known_to_be_current() {
    for cursor in ["a-00000000:42", "a-00000000:18446744073709551615"] {
        let mut world = world();
        let current = Advance::Current("a-00000000".parse().expect("a replica"));
        world.open(4, "page/p", Some(cursor));
        assert_eq!(world.events(4).len(), 0, "it may have come from an edge that is ahead");
        // Words that come late come at once.
        for _ in 0..10 {
            world.applied(&vector("a-00000000:41"), current);
        }
        world.run();
        for _ in 1..limits::WORDS_AHEAD_MAX {
            assert_eq!(world.events(4).len(), 0);
            world.pass_ms(5_000);
            world.applied(&vector("a-00000000:41"), current);
            world.run();
        }
        let told = world.events(4);
        assert_eq!(told.len(), 1);
        assert_eq!(gap(&told[0]), ("a-00000000:41".to_owned(), true));
        assert_eq!(world.last_id(4).as_deref(), Some("a-00000000:41"));
        world.publish(&event("page/p", "a", 42, 41));
        world.run();
        assert_eq!(dots(&world, 4).last().map(String::as_str), Some("a-00000000:42"));
    }
}

#[test]
fn a_cursor_that_this_edge_is_only_behind_of_is_left_to_its_client() {
    let mut world = world();
    let current = Advance::Current("a-00000000".parse().expect("a replica"));
    world.open(4, "page/p", Some("a-00000000:45"));
    world.applied(&vector("a-00000000:41"), current);
    world.pass_ms(5_000);
    // The feed comes late, and control has not said that it is all.
    for seq in [45, 48] {
        world.publish(&event("page/p", "a", seq, if seq == 45 { 41 } else { 45 }));
        world.applied(&vector(&format!("a-00000000:{seq}")), Advance::Onward);
        world.run();
    }
    for _ in 0..4 {
        world.pass_ms(5_000);
        world.applied(&vector("a-00000000:48"), current);
        world.run();
    }
    assert_eq!(dots(&world, 4), ["a-00000000:48"]);
}

/// Publishes so many events at once; how many the caught-up stream got of them, and whether a gap.
fn burst(world: &mut World, from: u64, count: u64) -> (usize, bool) {
    let before = world.events(1).len();
    for seq in from..from + count {
        world.publish(&event("page/p", "a", seq, seq - 1));
    }
    let held = world.streams.topics.behind().len();
    assert_eq!(held, usize::from(count > small().history.count_max as u64), "tells the feed");
    world.run();
    assert_eq!(world.streams.topics.behind(), [0; 0], "and that it is over");
    let got = world.events(1).split_off(before);
    (
        got.iter().filter(|seen| seen.event == "incident").count(),
        got.iter().any(|it| it.event == "gap"),
    )
}

#[test]
fn a_stream_that_takes_all_it_is_sent_loses_nothing_to_a_burst() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:1"), Advance::Jumped);
    world.open(1, "page/p", None);
    assert_eq!(burst(&mut world, 2, 3), (3, false));
    let most = (limits::HISTORY_UNSENT_FACTOR * small().history.count_max) as u64;
    assert_eq!(burst(&mut world, 5, most), (most as usize, false));
    // Who comes late finds no more than the history holds.
    world.open(2, "page/p", Some("a-00000000:2"));
    assert_eq!(world.events(2).len(), 1 + small().history.count_max, "a gap, and the history");
    // Far too much, which a feed that waits does not bring.
    let (got, is_gap) = burst(&mut world, 5 + most, 2 * most);
    assert!(is_gap && got == most as usize, "{got}");
    // Nobody listens: nothing is kept for nobody.
    world.close(1);
    world.close(2);
    for seq in 1..=2 * most {
        world.publish(&event("page/q", "a", 1000 + seq, 999 + seq));
    }
    assert_eq!(world.streams.topics.behind(), [0; 0]);
}
