//! What the streams of a shard promise; each test is named by its rule.

use proto::feed::{
    record::{Config, Publish},
    site::Page,
};

use super::{
    StreamLimits,
    answer::NEEDS_HTTP11,
    testing::{Seen, World, dots, event, small, vector},
};
use crate::shard::mail::{Advance, ConfigChange};

#[test]
fn a_fresh_stream_begins_at_the_present_and_says_where_that_is() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40"), Advance::Jumped);
    world.publish(&event("page/p", "a", 41, 7));
    world.run();
    world.open(1, "page/p", None);
    let seen = world.seen(1);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].event.as_str(), seen[0].id.as_deref()), ("beat", Some("a-00000000:41")));
    let text = String::from_utf8_lossy(&world.clients[&1].bytes).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
    assert!(text.contains("\r\nX-Accel-Buffering: no\r\n"));
    assert!(text.contains("\r\nX-Request-Id: r1\r\n"));
    world.publish(&event("page/p", "a", 50, 41));
    world.run();
    assert_eq!(dots(&world, 1), ["a-00000000:50"]);
}

#[test]
fn a_resume_gets_what_its_cursor_does_not_cover_and_no_gap() {
    let mut world = World::new(small());
    for (seq, prev) in [(3, 0), (5, 3), (8, 5)] {
        world.publish(&event("page/p", "a", seq, prev));
    }
    world.run();
    world.open(1, "page/p", Some("a-00000000:3"));
    assert_eq!(dots(&world, 1), ["a-00000000:5", "a-00000000:8"]);
    assert_eq!(world.last_id(1).as_deref(), Some("a-00000000:8"));
}

#[test]
fn a_resume_from_before_the_history_is_told_a_gap_first() {
    let mut world = World::new(small());
    for seq in 1..=10 {
        world.publish(&event("page/p", "a", seq, seq - 1));
    }
    world.run();
    world.open(1, "page/p", Some("a-00000000:3"));
    let events = world.events(1);
    assert_eq!((events[0].event.as_str(), events.len()), ("gap", 5));
    assert_eq!(events[0].id.as_deref(), Some("a-00000000:6"));
    assert_eq!(events[1].data, "a-00000000:7");
}

#[test]
fn a_cursor_that_means_nothing_here_is_a_gap_to_the_present() {
    let mut world = World::new(small());
    world.publish(&event("page/p", "a", 1, 0));
    world.run();
    // What is well-formed is kept, so that nothing the client has is sent to it again.
    let ahead = "a-00000000:1,zz-00000009:4";
    for (slot, cursor, id) in [
        (1, "nonsense\"", "a-00000000:1"),
        (2, "zz-00000009:4", ahead),
        (3, "a-00000000:1,x", "a-00000000:1"),
    ] {
        world.open(slot, "page/p", Some(cursor));
        let events = world.events(slot);
        assert_eq!((events.len(), events[0].event.as_str()), (1, "gap"), "{cursor}");
        assert_eq!(world.last_id(slot).as_deref(), Some(id));
    }
}

#[test]
fn after_a_start_without_history_a_resume_from_before_it_is_told_and_one_from_behind_it_not() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40"), Advance::Jumped);
    world.open(1, "page/p", Some("a-00000000:39"));
    world.open(2, "page/p", Some("a-00000000:40"));
    world.open(3, "page/p", Some("a-00000000:45"));
    assert_eq!(world.events(1)[0].event, "gap");
    assert!(world.events(2).is_empty());
    // The third comes from an edge that is ahead: what it has is not sent again.
    world.publish(&event("page/p", "a", 44, 7));
    world.run();
    assert_eq!(dots(&world, 2), ["a-00000000:44"]);
    assert!(world.events(3).is_empty());
    world.publish(&event("page/p", "a", 46, 44));
    world.run();
    assert_eq!(dots(&world, 3), ["a-00000000:46"]);
}

#[test]
fn refilled_history_serves_resumes_and_nobody_who_was_there() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40"), Advance::Jumped);
    world.open(1, "page/p", None);
    for (seq, prev) in [(20, 5), (30, 20)] {
        world.publish(&Publish { refill: true, ..event("page/p", "a", seq, prev) });
    }
    world.publish(&Publish { refill: true, ..event("page/p", "a", 41, 30) });
    world.run();
    assert!(world.events(1).is_empty());
    world.open(3, "page/p", Some("a-00000000:7"));
    assert_eq!(world.events(3)[0].event, "gap", "more may still be on its way");
    world.applied(&vector("a-00000000:40"), Advance::Refilled);
    world.open(2, "page/p", Some("a-00000000:7"));
    assert_eq!(dots(&world, 2), ["a-00000000:20", "a-00000000:30"]);
    // What was refilled too early comes in its order.
    world.publish(&event("page/p", "a", 41, 30));
    world.run();
    assert_eq!(dots(&world, 1), ["a-00000000:41"]);
    assert_eq!(dots(&world, 2).len(), 3);
}

#[test]
fn a_quiet_topic_is_told_no_gap_behind_what_was_refilled() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40,b-00000000:9"), Advance::Jumped);
    // Of another topic: what comes again is the end of the log.
    for (seq, prev) in [(20, 5), (30, 20)] {
        world.publish(&Publish { refill: true, ..event("page/q", "a", seq, prev) });
    }
    let gap = |world: &mut World, slot: u32, cursor: &str| {
        world.open(slot, "page/p", Some(cursor));
        world.events(slot).first().is_some_and(|event| event.event == "gap")
    };
    assert!(gap(&mut world, 1, "a-00000000:25,b-00000000:9"), "more may be on its way");
    world.applied(&vector("a-00000000:40,b-00000000:9"), Advance::Refilled);
    for (slot, cursor, expected) in [
        (2, "a-00000000:25,b-00000000:9", false),
        (3, "a-00000000:19,b-00000000:9", false),
        (4, "a-00000000:18,b-00000000:9", true),
        // Nothing of that replica came again: nothing is known of what lies between.
        (5, "a-00000000:25,b-00000000:8", true),
    ] {
        assert_eq!(gap(&mut world, slot, cursor), expected, "{cursor}");
    }
    // A new refill, or a jump, has to show it anew.
    world.applied(&vector("a-00000000:40,b-00000000:9"), Advance::Refilling);
    assert!(gap(&mut world, 6, "a-00000000:25,b-00000000:9"));
}

#[test]
fn an_event_that_comes_twice_is_sent_once() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    for _ in 0..2 {
        world.publish(&event("page/p", "a", 1, 0));
        world.run();
    }
    assert_eq!(dots(&world, 1), ["a-00000000:1"]);
    assert_eq!(world.streams.counts().seen, 1);
}

#[test]
fn a_hole_in_the_feed_is_told_to_everyone() {
    let mut world = World::new(small());
    world.publish(&event("page/p", "a", 1, 0));
    world.open(1, "page/p", None);
    world.publish(&event("page/p", "a", 9, 5));
    world.run();
    let events = world.events(1);
    assert_eq!(events[0].event, "gap");
    assert_eq!(events[0].id.as_deref(), Some("a-00000000:5"));
    assert_eq!(events[1].data, "a-00000000:9");
}

#[test]
fn a_jump_of_the_feed_is_told_to_every_topic() {
    let mut world = World::new(small());
    world.publish(&event("page/p", "a", 1, 0));
    world.open(1, "page/p", None);
    world.open(2, "page/q", None);
    world.applied(&vector("a-00000000:90"), Advance::Jumped);
    world.run();
    for slot in [1, 2] {
        assert_eq!(world.events(slot).last().expect("told").event, "gap");
        assert_eq!(world.last_id(slot).as_deref(), Some("a-00000000:90"));
    }
    world.applied(&vector("a-00000000:80"), Advance::Jumped);
    world.run();
    assert_eq!(world.events(1).len(), 1, "nothing new: nothing to tell");
}

#[test]
fn a_blocked_stream_goes_on_at_the_byte_where_it_stopped() {
    for room in [0, 1, 5, 20, 1000] {
        let mut world = World::new(small());
        world.open(1, "page/p", None);
        world.stall(1, room);
        for seq in 1..=3 {
            world.publish(&event("page/p", "a", seq, seq - 1));
            world.run();
        }
        assert_eq!(world.streams.side.blocked(), 1);
        world.unstall(1);
        let expected = ["a-00000000:1", "a-00000000:2", "a-00000000:3"];
        assert_eq!(dots(&world, 1), expected, "room {room}");
        world.publish(&event("page/p", "a", 4, 3));
        world.run();
        assert_eq!(dots(&world, 1).len(), 4, "back in the list");
        assert_eq!(world.streams.side.len(), 0);
    }
}

#[test]
fn a_blocked_stream_that_history_overtook_is_told() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    world.stall(1, 3);
    for seq in 1..=20 {
        world.publish(&event("page/p", "a", seq, seq - 1));
        world.run();
    }
    world.unstall(1);
    let events = world.events(1);
    assert_eq!(events[0].data, "a-00000000:1", "the begun frame is finished");
    assert_eq!(events[1].event, "gap");
    assert_eq!(events[2].data, "a-00000000:17");
    assert_eq!(events.len(), 6);
}

#[test]
fn a_stream_blocked_too_long_is_closed() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    world.stall(1, 3);
    world.publish(&event("page/p", "a", 1, 0));
    world.run();
    for _ in 0..400 {
        world.pass_ms(250);
    }
    assert!(world.clients[&1].closed);
    assert_eq!((world.streams.count(), world.streams.counts().slow_closed), (0, 1));
}

#[test]
fn events_published_together_leave_in_one_send() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    let before = world.clients[&1].sends;
    for seq in 1..=4 {
        world.publish(&event("page/p", "a", seq, seq - 1));
    }
    world.run();
    assert_eq!(dots(&world, 1).len(), 4);
    assert_eq!(world.clients[&1].sends - before, 1);
}

#[test]
fn a_small_topic_does_not_wait_for_a_large_one() {
    let mut world = World::new(StreamLimits::new(10_000));
    for slot in 0..3000 {
        world.open(slot, "page/large", None);
    }
    for slot in 3000..3010 {
        world.open(slot, "page/small", None);
    }
    world.batches.clear();
    for requests_wait in [false, true] {
        world.requests_wait = requests_wait;
        let seq = 1 + u64::from(requests_wait);
        world.publish(&event("page/large", "a", seq, seq - 1));
        world.publish(&event("page/small", "b", seq, seq - 1));
        world.batches.clear();
        world.run();
        let small_at = world.batches.iter().position(|batch| batch.contains(&3005));
        assert!(small_at.expect("served") <= 1, "in the first turns");
        let largest = world.batches.iter().map(Vec::len).max().expect("some");
        assert_eq!(largest, if requests_wait { 32 } else { 1024 });
    }
    for slot in 0..3010 {
        assert_eq!(dots(&world, slot).len(), 2);
    }
}

#[test]
fn a_silent_stream_hears_a_beat_without_id() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    for _ in 0..4 * 120 {
        world.pass_ms(250);
    }
    let beats: Vec<Seen> = world.seen(1);
    assert_eq!(beats.len(), 3, "{beats:?}");
    assert!(beats[1..].iter().all(|beat| beat.event == "beat" && beat.id.is_none()));
}

#[test]
fn one_stream_too_many_is_refused_in_a_way_that_lets_it_come_back() {
    let mut world = World::new(StreamLimits { streams_max: 1, ..small() });
    world.open(1, "page/p", None);
    world.open(2, "page/p", None);
    assert!(world.clients[&2].closed && !world.clients[&1].closed);
    let text = String::from_utf8_lossy(&world.clients[&2].bytes).into_owned();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\nretry: "));
    world.close(1);
    world.open(3, "page/p", None);
    assert!(!world.clients[&3].closed);
}

#[test]
fn a_drain_ends_streams_over_its_time_with_a_retry_of_their_own() {
    let mut world = World::new(small());
    for slot in 0..100 {
        world.open(slot * 40, "page/p", None);
    }
    world.streams.drain(world.now, true, 2000, &mut world.out);
    world.run();
    world.pass_ms(1000);
    let halfway = world.streams.count();
    assert!((40..=60).contains(&halfway), "{halfway}");
    world.open(9000, "page/p", None);
    assert!(world.clients[&9000].closed, "none is taken any more");
    world.pass_ms(1000);
    assert_eq!(world.streams.count(), 0);
    let text = String::from_utf8_lossy(&world.clients[&0].bytes).into_owned();
    assert!(text.ends_with("0\r\n\r\n"));
}

#[test]
fn a_slow_drain_asks_for_no_turn_before_a_stream_is_due() {
    let mut world = World::new(small());
    world.open(4000, "page/p", None);
    world.streams.drain(world.now, true, 3_600_000, &mut world.out);
    world.run();
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
fn streams_of_a_removed_topic_end() {
    let mut world = World::new(small());
    for slot in 0..50 {
        world.open(slot, "page/p", None);
    }
    world.open(99, "page/q", None);
    let removed_pages = vec!["p".to_owned()];
    let change = ConfigChange::Change(Config { removed_pages, ..Config::default() });
    world.streams.handle_config(&change, &mut world.out);
    world.run();
    assert_eq!(world.streams.count(), 1);
    world.open(7, "page/p", None);
    assert_eq!(world.streams.count(), 2, "a topic may come back");
    let page = Page { id: "p".into(), slug: "p".into(), hosts: Vec::new() };
    let change = ConfigChange::Replace { sites: Vec::new(), pages: vec![page] };
    world.streams.handle_config(&change, &mut world.out);
    world.run();
    assert!(world.clients[&99].closed && !world.clients[&7].closed);
}

#[test]
fn an_http10_client_is_told_why_it_cannot_have_a_stream() {
    let (head, body) =
        std::str::from_utf8(NEEDS_HTTP11).expect("text").split_once("\r\n\r\n").expect("head");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
}
