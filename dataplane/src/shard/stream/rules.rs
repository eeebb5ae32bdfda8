//! What the streams of a shard promise; each test is named by its rule.

use std::rc::Rc;

use proto::feed::{
    record::{Config, Publish},
    site::{Page, Site, SlowPolicy, StreamRules},
};

use super::{
    StreamLimits,
    answer::NEEDS_HTTP11,
    testing::{Seen, World, dots, event, small, vector},
};
use crate::shard::{
    mail::{Advance, ConfigChange},
    stream_route::StreamRoute,
};

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
fn a_lone_event_that_comes_again_says_nothing_of_what_lies_behind_it() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40"), Advance::Jumped);
    let lone = Publish { lone: true, refill: true, ..event("page/q", "a", 20, 5) };
    world.publish(&lone);
    world.publish(&Publish { refill: true, ..event("page/q", "a", 30, 25) });
    world.applied(&vector("a-00000000:40"), Advance::Refilled);
    for (slot, cursor, expected) in [(1, "a-00000000:21", true), (2, "a-00000000:29", false)] {
        world.open(slot, "page/p", Some(cursor));
        let told = world.events(slot).first().is_some_and(|event| event.event == "gap");
        assert_eq!(told, expected, "{cursor}");
    }
    world.open(3, "page/q", Some("a-00000000:10"));
    let seen: Vec<_> = world.events(3).into_iter().map(|seen| seen.event).collect();
    assert_eq!(seen, ["incident", "gap", "incident"]);
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
fn a_beat_says_how_long_a_silence_may_last_and_that_may_change() {
    let mut world = World::new(small());
    world.open(1, "page/p", None);
    let text = String::from_utf8_lossy(&world.clients[&1].bytes).into_owned();
    assert!(text.contains("data: {\"every_ms\":55000}\n"), "{text}");
    world.streams.set_beat_ms(2_000);
    for _ in 0..4 * 10 {
        world.pass_ms(250);
    }
    let text = String::from_utf8_lossy(&world.clients[&1].bytes).into_owned();
    let beats = text.matches("event: beat\ndata: {\"every_ms\":2000}\n").count();
    assert!((5..=8).contains(&beats), "{beats} in ten seconds");
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

fn by(rules: StreamRules) -> Rc<StreamRoute> {
    Rc::new(StreamRoute { rules, site_id: "s1".into(), ..StreamRoute::default() })
}

fn slow(slow: SlowPolicy) -> Rc<StreamRoute> {
    by(StreamRules { slow, ..StreamRules::default() })
}

/// An event of topic `t` with an event key.
fn keyed(seq: u64, key: &str) -> Publish {
    Publish { key: Some(key.into()), ..event("t", "a", seq, seq - 1) }
}

#[test]
fn a_stream_of_several_topics_gets_their_events_in_order_and_resumes_by_one_cursor() {
    let mut world = World::new(small());
    let route = slow(SlowPolicy::Follow);
    world.open_by(1, &["a", "b"], &route, None, None);
    world.open_by(2, &["a"], &route, None, None);
    world.publish(&event("a", "a", 1, 0));
    world.publish(&event("b", "a", 2, 0));
    world.publish(&event("a", "a", 3, 1));
    world.run();
    assert_eq!(dots(&world, 1), ["a-00000000:1", "a-00000000:2", "a-00000000:3"]);
    assert_eq!(dots(&world, 2), ["a-00000000:1", "a-00000000:3"]);
    world.publish(&event("c", "a", 4, 0));
    world.publish(&event("b", "a", 5, 2));
    world.run();
    assert_eq!(world.last_id(1).as_deref(), Some("a-00000000:5"));
    world.close(1);
    world.open_by(3, &["a", "b"], &route, Some("a-00000000:2"), None);
    assert_eq!(dots(&world, 3), ["a-00000000:3", "a-00000000:5"]);
}

#[test]
fn what_left_one_topic_of_several_is_told_and_the_others_come() {
    let mut world = World::new(small());
    let route = slow(SlowPolicy::Follow);
    for seq in 1..=9 {
        world.publish(&event("a", "a", seq, seq - 1));
    }
    world.publish(&event("b", "a", 10, 0));
    world.run();
    world.open_by(1, &["a", "b"], &route, Some("a-00000000:1"), None);
    let events = world.events(1);
    assert_eq!((events[0].event.as_str(), events[0].id.as_deref()), ("gap", Some("a-00000000:5")));
    assert!(events[0].data.contains(r#""topic":"a,b""#));
    assert_eq!(events.len(), 6, "four of a are held, and one of b");
}

#[test]
fn a_slow_stream_that_conflates_is_told_the_newest_of_each_event_key() {
    let mut world = World::new(StreamLimits::new(100));
    world.open_by(1, &["t"], &slow(SlowPolicy::Conflate), None, None);
    world.stall(1, 0);
    for (seq, key) in [(1, "x"), (2, "y"), (3, "x"), (4, "x")] {
        world.publish(&keyed(seq, key));
    }
    world.publish(&event("t", "a", 5, 4));
    world.run();
    world.unstall(1);
    assert_eq!(dots(&world, 1), ["a-00000000:2", "a-00000000:4", "a-00000000:5"]);
    assert_eq!(world.streams.counts().slow, [0, 1, 0, 0]);
    world.publish(&keyed(6, "x"));
    world.run();
    assert_eq!(dots(&world, 1).len(), 4, "and goes on as everyone does");
}

#[test]
fn a_slow_stream_that_skips_is_told_a_gap_and_goes_on_at_the_present() {
    let mut world = World::new(StreamLimits::new(100));
    world.open_by(1, &["t"], &slow(SlowPolicy::Skip), None, None);
    world.stall(1, 4);
    for seq in 1..=5 {
        world.publish(&event("t", "a", seq, seq - 1));
        world.run();
    }
    world.unstall(1);
    let events = world.events(1);
    assert_eq!(events[0].data, "a-00000000:1", "the begun frame is finished");
    assert_eq!((events[1].event.as_str(), events[1].id.as_deref()), ("gap", Some("a-00000000:5")));
    assert_eq!(events.len(), 2);
    world.publish(&event("t", "a", 6, 5));
    world.run();
    assert_eq!(dots(&world, 1)[2], "a-00000000:6");
}

#[test]
fn a_slow_stream_that_is_to_be_disconnected_is_closed_and_loses_nothing_by_its_cursor() {
    let mut world = World::new(StreamLimits::new(100));
    let route = slow(SlowPolicy::Disconnect);
    world.open_by(1, &["t"], &route, None, None);
    world.open_by(2, &["t"], &route, None, None);
    world.stall(1, 9);
    for seq in 1..=3 {
        world.publish(&event("t", "a", seq, seq - 1));
        world.run();
    }
    assert!(world.clients[&1].closed && !world.clients[&2].closed);
    assert_eq!(world.streams.counts().slow, [0, 0, 0, 1]);
    assert_eq!(dots(&world, 2).len(), 3);
    world.open_by(4, &["t"], &route, Some("a-00000000:1"), None);
    assert_eq!(dots(&world, 4), ["a-00000000:2", "a-00000000:3"]);
}

#[test]
fn a_fresh_stream_is_told_the_present_state_first_and_a_resumed_one_is_not() {
    let mut world = World::new(small());
    let route = by(StreamRules { snapshot: true, ..StreamRules::default() });
    for (seq, key) in [(1, "x"), (2, "y"), (3, "x")] {
        world.publish(&keyed(seq, key));
    }
    for seq in 4..=9 {
        world.publish(&event("t", "a", seq, seq - 1));
    }
    world.run();
    world.open_by(1, &["t"], &route, None, None);
    let seen = world.seen(1);
    let told: Vec<_> = seen.iter().map(|seen| (&*seen.data, seen.id.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("a-00000000:2", None),
            ("a-00000000:3", None),
            ("{\"every_ms\":55000}", Some("a-00000000:9"))
        ],
        "though the history has let go of them"
    );
    world.open_by(2, &["t"], &route, Some("a-00000000:8"), None);
    assert_eq!(dots(&world, 2), ["a-00000000:9"]);
    world.open_by(3, &["t"], &slow(SlowPolicy::Follow), None, None);
    assert!(dots(&world, 3).is_empty(), "only where the route says so");
}

#[test]
fn the_present_state_comes_back_with_what_is_refilled() {
    let mut world = World::new(small());
    world.applied(&vector("a-00000000:40"), Advance::Jumped);
    for seq in [7, 9] {
        world.publish(&Publish { refill: true, ..keyed(seq, "x") });
    }
    world.applied(&vector("a-00000000:40"), Advance::Refilled);
    world.run();
    let route = by(StreamRules { snapshot: true, ..StreamRules::default() });
    world.open_by(1, &["t"], &route, None, None);
    assert_eq!(dots(&world, 1), ["a-00000000:9"]);
}

#[test]
fn a_stream_ends_at_its_age_with_a_retry_and_not_all_at_once() {
    let mut world = World::new(small());
    let route =
        by(StreamRules { age_s_max: Some(100), retry_ms: Some(9000), ..StreamRules::default() });
    for slot in 0..40 {
        world.open_by(slot, &["t"], &route, None, None);
    }
    let mut ends = std::collections::BTreeSet::new();
    for second in 0..=130 {
        world.pass_ms(1000);
        let open = world.streams.count();
        if open < 40 - ends.len() as u32 {
            ends.insert(second);
        }
        assert!(open == 40 || second >= 74, "at three quarters of it at the earliest");
    }
    assert_eq!((world.streams.count(), world.streams.counts().aged), (0, 40));
    assert!(ends.len() > 10, "{ends:?}");
    let text = String::from_utf8_lossy(&world.clients[&0].bytes).into_owned();
    let (_, last) = text.rsplit_once("retry: ").expect("told when to come back");
    let retry_ms: u64 = last.split('\n').next().and_then(|ms| ms.parse().ok()).expect("a number");
    assert!((4500..=13_500).contains(&retry_ms) && text.ends_with("0\r\n\r\n"), "{retry_ms}");
}

#[test]
fn a_stream_ends_when_its_token_expires_and_is_told_so() {
    let mut world = World::new(small());
    let route = slow(SlowPolicy::Follow);
    let at_ms = world.now.wall_ms + 5_000;
    world.open_by(1, &["t"], &route, None, Some(at_ms));
    world.open_by(2, &["t"], &route, None, None);
    world.pass_ms(4_000);
    world.publish(&event("t", "a", 1, 0));
    world.run();
    assert_eq!(dots(&world, 1).len(), 1);
    world.pass_ms(2_000);
    assert_eq!(world.events(1).last().expect("told").event, "expired");
    assert!(world.clients[&1].closed && !world.clients[&2].closed);
    assert_eq!(world.streams.counts().expired, 1);
    assert_eq!(world.streams.next_deadline().map(|at| at > world.now.mono), Some(true));
}

#[test]
fn streams_end_when_the_rules_they_began_with_are_gone() {
    let site = |json: &str| -> Site {
        let routes = format!(r#"[{{"prefix": "/l/", "policy": "stream", "stream": {json}}}]"#);
        let text = format!(
            r#"{{"id": "s1", "name": "s", "hosts": [], "origins": [], "routes": {routes}}}"#
        );
        serde_json::from_str(&text).expect("a site")
    };
    let old = site(r#"{"topics": ["*"]}"#);
    let mut world = World::new(small());
    let route = Rc::clone(&StreamRoute::of_site(&old)[0].1);
    world.open_by(1, &["t"], &route, None, None);
    let change =
        |site: Site| ConfigChange::Change(Config { sites: vec![site], ..Config::default() });
    world.streams.handle_config(&change(old), &mut world.out);
    world.run();
    assert!(!world.clients[&1].closed, "nothing has changed");
    world.streams.handle_config(&change(site(r#"{"topics": ["t"]}"#)), &mut world.out);
    world.run();
    assert!(world.clients[&1].closed);
    assert_eq!(world.streams.audiences.iter().count(), 0, "and nothing is left of it");
}

#[test]
fn audiences_and_topics_that_nobody_listens_to_make_room() {
    let mut limits = small();
    limits.history.topics_max = 3;
    limits.audiences_max = 2;
    let mut world = World::new(limits);
    let route = slow(SlowPolicy::Follow);
    world.open_by(1, &["a", "b"], &route, None, None);
    for slot in 2..20 {
        world.open_by(slot, &[&format!("t{slot}")], &route, None, None);
        assert!(!world.clients[&slot].closed, "{slot}");
        world.close(slot);
    }
    world.open_by(20, &["c"], &route, None, None);
    world.open_by(21, &["a"], &route, None, None);
    assert!(world.clients[&21].closed, "no room for a third audience");
    assert!(!world.clients[&1].closed && !world.clients[&20].closed);
}
