//! The rules of purges: what each scope reaches, what a soft one leaves, and what becomes of fetches
//! that a purge meets under way.

mod world;

use pharos_cache::{Decision, HeadOutcome, NoStoreReason, Piece, WakeWith};
use proto::feed::record::Scope;
use world::{World, fresh, lease, read};

const HOUR: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];

fn url(target: &str) -> Scope {
    Scope::Url { site: "site".into(), target: target.into() }
}

fn key(key: &str) -> Scope {
    Scope::Key { site: Some("site".into()), key: key.into() }
}

#[test]
fn who_comes_after_a_purge_does_not_wait_for_a_fetch_begun_before() {
    let prefix = Scope::Prefix { site: "site".into(), prefix: "/".into() };
    // Before its head has come, any surrogate key of the site may be one of the response's.
    for scope in [url("/a"), prefix, Scope::Everything, key("k9")] {
        for soft in [false, true] {
            let mut world = World::new();
            let old = lease(world.get(0, "/a", &[]));
            assert!(matches!(world.get(0, "/a", &[]), Decision::Wait));
            world.purge(scope.clone(), soft);
            let new = lease(world.get(1, "/a", &[]));
            assert!(matches!(world.get(2, "/a", &[]), Decision::Wait), "for the new one");
            assert!(world.fail(old).is_none());
            assert_eq!(world.wakes.len(), 1, "{scope:?}");
            assert!(matches!(world.wakes[0].with, WakeWith::Failed { .. }));
            drop(new);
        }
    }
    // Of another key, of another site: nothing to do with it.
    let other = Scope::Site { site: "other".into() };
    for scope in [url("/b"), other] {
        let mut world = World::new();
        let old = lease(world.get(0, "/a", &[]));
        world.purge(scope, false);
        assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
        drop(old);
    }
}

#[test]
fn a_failure_is_not_for_who_came_after_a_purge() {
    let mut world = World::new();
    world.store("/a", &[("Cache-Control", "max-age=1"), ("Surrogate-Key", "k1")], "hello");
    world.pass_s(5);
    let old = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    // By what is known the purge does not reach it, so the next one waits; what the origin would
    // have sent is not known.
    world.purge(key("k2"), false);
    assert!(matches!(world.get(2, "/a", &[]), Decision::Wait));
    assert!(world.fail(old).is_some(), "stale for who asked before");
    let told: Vec<_> = world.wakes.iter().map(|wake| (wake.waiter.shard, &wake.with)).collect();
    assert!(matches!(told[..], [(1, WakeWith::Stale(_)), (2, WakeWith::Retry)]), "{told:?}");
}

#[test]
fn purges_reach_what_their_scope_says() {
    let everything = Scope::Everything;
    let site = Scope::Site { site: "site".into() };
    let other = Scope::Site { site: "other".into() };
    let prefix = Scope::Prefix { site: "site".into(), prefix: "/a".into() };
    let no_site = Scope::Key { site: None, key: "k1".into() };
    for (scope, gone) in [
        (url("/a"), vec!["/a"]),
        (url("/c"), vec![]),
        (key("k1"), vec!["/a", "/b"]),
        (key("k2"), vec!["/ab"]),
        (no_site, vec![]),
        (prefix, vec!["/a", "/ab"]),
        (other, vec![]),
        (site, vec!["/a", "/ab", "/b"]),
        (Scope::Sites, vec!["/a", "/ab", "/b"]),
        (everything, vec!["/a", "/ab", "/b"]),
    ] {
        for soft in [false, true] {
            let mut world = World::new();
            for (target, keys) in [("/a", "k1"), ("/ab", "k2"), ("/b", "k0 k1")] {
                let fields = [HOUR[0], ("Surrogate-Key", keys)];
                world.store(target, &fields, "hello");
                fresh(world.get(1, target, &[]));
            }
            assert_eq!(world.purge(scope.clone(), soft), gone.len() as u64, "{scope:?}");
            for target in ["/a", "/ab", "/b"] {
                for shard in 0..2 {
                    let decision = world.get(shard, target, &[]);
                    let is_gone = !matches!(decision, Decision::Hit(_));
                    assert_eq!(is_gone, gone.contains(&target), "{scope:?} {target}");
                }
            }
        }
    }
}

#[test]
fn a_soft_purged_response_is_served_only_when_the_origin_fails() {
    let mut world = World::new();
    let control = "max-age=3600, stale-while-revalidate=3600";
    world.store("/a", &[("Cache-Control", control), ("ETag", "\"a\"")], "hello");
    world.purge(url("/a"), true);
    let Decision::Revalidate(fetch) = world.get(0, "/a", &[]) else { panic!("never fresh again") };
    assert!(fetch.fail(world.now_ms, 502, &mut Vec::new()).is_some());
    let Decision::Revalidate(fetch) = world.get(0, "/a", &[]) else {
        panic!("the origin is asked each time: it may be back with the new state")
    };
    let outcome = world.answer(fetch, &[], 304, &[], Some(0));
    assert!(matches!(outcome, HeadOutcome::Updated { .. }));
    fresh(world.get(1, "/a", &[]));
}

#[test]
fn a_fetch_begun_before_a_purge_answers_who_waited_before_and_is_not_stored() {
    for soft in [false, true] {
        let mut world = World::new();
        let fetch = lease(world.get(0, "/a", &[]));
        assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
        let before = world.last_waiter();
        world.purge(key("k"), soft);
        let next = lease(world.get(2, "/a", &[]));
        let fields = [HOUR[0], ("Surrogate-Key", "k")];
        let outcome = world.answer(fetch, &[], 200, &fields, Some(5));
        let HeadOutcome::Fill { mut writer, not_stored, .. } = outcome else { panic!("a body") };
        assert_eq!(not_stored, Some(NoStoreReason::Purged));
        let wakes = std::mem::take(&mut world.wakes);
        for wake in &wakes {
            let is_shared = matches!(wake.with, WakeWith::Entry(_));
            assert_eq!(is_shared, wake.waiter.id == before);
        }
        writer.append(b"hello", &mut Vec::new()).expect("room");
        let earlier = wakes.iter().find(|wake| wake.waiter.id == before).expect("woken");
        let hit = fresh(world.woken(1, "/a", &[], &earlier.with));
        assert_eq!(read(&hit.local), ("hello".into(), Piece::Pending));
        writer.finish(&mut Vec::new()).expect("whole");
        drop(hit);
        let outcome = world.answer(next, &[], 200, &fields, Some(0));
        assert!(matches!(outcome, HeadOutcome::Fill { not_stored: None, .. }));
    }
}

#[test]
fn a_purge_of_something_else_does_not_touch_a_fetch() {
    let mut world = World::new();
    let fetch = lease(world.get(0, "/a", &[]));
    world.purge(key("other"), false);
    world.purge(url("/b"), false);
    let fields = [HOUR[0], ("Surrogate-Key", "k")];
    let outcome = world.answer(fetch, &[], 200, &fields, Some(0));
    assert!(matches!(outcome, HeadOutcome::Fill { not_stored: None, .. }));
}

#[test]
fn more_purges_than_are_remembered_leave_a_fetch_unstored() {
    let mut world = World::new();
    let fetch = lease(world.get(0, "/a", &[]));
    for at in 0..=pharos_cache::limits::RECENT_PURGES_MAX {
        world.purge(key(&format!("other{at}")), false);
    }
    let outcome = world.answer(fetch, &[], 200, HOUR, Some(0));
    let reason = Some(NoStoreReason::PurgesForgotten);
    assert!(matches!(outcome, HeadOutcome::Fill { not_stored, .. } if not_stored == reason));
}

#[test]
fn a_purge_during_filling_hides_the_entry_but_its_readers_go_on() {
    let mut world = World::new();
    let fetch = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(fetch, &[], 200, HOUR, None);
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("stored") };
    let reader = fresh(world.get(1, "/a", &[])).local;
    world.purge(url("/a"), false);
    drop(lease(world.get(1, "/a", &[])));
    writer.append(b"a", &mut Vec::new()).expect("room");
    writer.append(b"b", &mut Vec::new()).expect("room");
    writer.finish(&mut Vec::new()).expect("whole");
    assert_eq!(read(&reader), ("ab".into(), Piece::End));
    drop(lease(world.get(1, "/a", &[])));
}
