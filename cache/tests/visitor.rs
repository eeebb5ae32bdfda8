//! What one visitor's request may do to what is stored for all: nothing that its answer alone
//! would bring about.

mod world;

use std::sync::Arc;

use pharos_cache::{Decision, Entry, Freshness, HeadOutcome, Method, NoStoreReason, WakeWith};
use proto::feed::{cursor::VersionVector, record::Scope};
use world::{Fields, World, body, field, fresh, lease, stale};

const HOUR: Fields<'_> = &[("Cache-Control", "max-age=3600"), ("ETag", "\"a\"")];
const SECOND: Fields<'_> = &[("Cache-Control", "max-age=1"), ("ETag", "\"a\"")];
const AUTHORIZED: Fields<'_> = &[("Authorization", "Basic eA==")];
const WHILE: (&str, &str) = ("Cache-Control", "max-age=1, stale-while-revalidate=60");

/// What is served to the next visitor when the origin is gone.
fn left(world: &mut World) -> Option<Arc<Entry>> {
    match world.get(0, "/a", &[]) {
        Decision::Hit(hit) | Decision::Stale { hit, .. } => Some(Arc::clone(hit.local.entry())),
        decision => world.fail(lease(decision)),
    }
}

/// Whether what was stored so long ago is left after a request that gets this answer.
fn check(passed_s: u64, asks: Fields<'_>, (status, fields): (u16, Fields<'_>), is_left: bool) {
    let mut world = World::new();
    world.store("/a", HOUR, "page");
    world.pass_s(passed_s);
    let fetch = lease(world.get(0, "/a", asks));
    let outcome = world.answer(fetch, asks, status, fields, Some(2));
    assert!(matches!(outcome, HeadOutcome::NotStored(_)), "{asks:?} {status}: {outcome:?}");
    assert_eq!(left(&mut world).is_some(), is_left, "{asks:?} {status} {fields:?}");
}

const PRIVATE: (u16, Fields<'_>) = (200, &[("Cache-Control", "private")]);
const NO_STORE: (u16, Fields<'_>) = (200, &[("Cache-Control", "no-store")]);

#[test]
fn rfc9111_4_3_3_no_visitor_can_end_what_is_fresh_for_others() {
    for reload in ["no-cache", "max-age=0"] {
        let reload = ("Cache-Control", reload);
        for answer in [(400, &[][..]), (401, &[]), (404, &[]), PRIVATE, NO_STORE] {
            check(5, &[reload], answer, true);
            check(5, &[reload, AUTHORIZED[0]], answer, true);
        }
        check(5, &[reload, AUTHORIZED[0]], (200, &[("Cache-Control", "max-age=60")]), true);
    }
}

#[test]
fn rfc9111_4_3_3_no_answer_to_one_visitor_ends_what_is_stale_for_others() {
    for answer in [(400, &[][..]), (401, &[]), (403, &[]), (404, &[]), (429, &[]), PRIVATE] {
        check(4000, AUTHORIZED, answer, true);
    }
    for status in [400, 401, 403, 413, 429, 431] {
        check(4000, &[("X-Big", "zzz")], (status, &[]), true);
    }
}

#[test]
fn rfc9111_4_3_3_the_resources_own_word_ends_what_is_stale() {
    for answer in [PRIVATE, NO_STORE, (302, &[]), (404, &[]), (410, &[]), (451, &[])] {
        check(4000, &[], answer, false);
    }
}

#[test]
fn rfc9111_4_3_5_a_head_that_differs_makes_stale_what_is_stored_and_takes_nothing_away() {
    for (with, is_stale) in [(&[][..], true), (AUTHORIZED, false)] {
        let mut world = World::new();
        world.store("/a", HOUR, "page");
        let asks = [&[("Cache-Control", "no-cache")], with].concat();
        let fetch = lease(world.head(0, "/a", &asks));
        drop(world.answer(fetch, &asks, 200, &[("ETag", "\"b\"")], Some(0)));
        match world.get(0, "/a", &[]) {
            Decision::Revalidate(fetch) if is_stale => {
                assert!(world.fail(fetch).is_some(), "served when the origin fails");
            }
            decision => assert!(!is_stale && matches!(decision, Decision::Hit(_)), "{with:?}"),
        }
    }
}

#[test]
fn rfc9111_3_5_a_304_to_credentials_answers_their_request_and_updates_nothing() {
    for (control, is_shared) in [
        ("max-age=60", false),
        ("max-age=60, public", true),
        ("max-age=60, must-revalidate", true),
        ("s-maxage=60", true),
    ] {
        let mut world = World::new();
        world.store("/a", SECOND, "page");
        world.pass_s(5);
        let fetch = lease(world.get(0, "/a", AUTHORIZED));
        let fields =
            [("Cache-Control", control), ("ETag", "\"a\""), ("Set-Cookie", "sid=1"), ("X-U", "1")];
        let outcome = world.answer(fetch, AUTHORIZED, 304, &fields, None);
        let HeadOutcome::Updated { entry, .. } = outcome else { panic!("{outcome:?}") };
        let hit = {
            let cache_key = entry.cache_key().borrowed();
            let request = pharos_cache::Request::new(Method::Get, cache_key, &AUTHORIZED);
            let now_ms = world.now_ms;
            world.cache.serve(&mut world.near[0], &request, now_ms, &entry, Freshness::Fresh)
        };
        assert_eq!((body(&hit).as_str(), field(&hit.local, "X-U")), ("page", Some("1".into())));
        for shard in 0..2 {
            let decision = world.get(shard, "/a", &[]);
            match decision {
                Decision::Hit(hit) => {
                    assert!(is_shared && field(&hit.local, "X-U").is_some(), "{control}");
                }
                decision => {
                    assert!(!is_shared, "{control}");
                    let stored = world.fail(lease(decision)).expect("as it was");
                    let head = String::from_utf8_lossy(stored.head()).into_owned();
                    assert!(!head.contains("X-U") && !head.contains("Set-Cookie"), "{head}");
                    world.pass_s(2);
                }
            }
        }
    }
}

#[test]
fn rfc9111_5_2_2_5_a_304_that_forbids_storing_to_a_reload_ends_nothing_that_is_fresh() {
    let mut world = World::new();
    world.store("/a", HOUR, "page");
    let reload: Fields<'_> = &[("Cache-Control", "no-cache")];
    let fetch = lease(world.get(0, "/a", reload));
    let outcome = world.answer(fetch, reload, 304, &[("Cache-Control", "no-store")], None);
    assert!(matches!(outcome, HeadOutcome::Updated { .. }));
    assert_eq!(body(&fresh(world.get(1, "/a", &[]))), "page");
}

#[test]
fn rfc9111_3_5_parts_for_credentials_are_not_joined_with_what_is_stored_for_others() {
    let mut world = World::new();
    let part = |range: &'static str| {
        [("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("Content-Range", range)]
    };
    let first: Fields<'_> = &[("Range", "bytes=0-4")];
    let fetch = lease(world.get(0, "/a", first));
    let outcome = world.answer(fetch, first, 206, &part("bytes 0-4/10"), Some(5));
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("{outcome:?}") };
    writer.append(b"hello", &mut Vec::new()).expect("room");
    writer.finish(&mut Vec::new()).expect("whole");
    let other = [("Range", "bytes=5-9"), AUTHORIZED[0]];
    let fetch = lease(world.get(0, "/a", &other));
    let mut asked = Vec::new();
    fetch.conditional_fields(&mut asked);
    assert_eq!(asked, b"Range: bytes=5-9\r\n", "for itself");
    let outcome = world.answer(fetch, &other, 206, &part("bytes 5-9/10"), Some(5));
    assert!(matches!(outcome, HeadOutcome::NotStored(NoStoreReason::Authorization)));
    fresh(world.get(1, "/a", first));
}

#[test]
fn rfc9111_5_2_1_5_a_no_store_request_begins_no_fetch_behind_its_answer() {
    let mut world = World::new();
    world.store("/a", &[WHILE], "page");
    world.pass_s(2);
    let no_store: Fields<'_> = &[("Cache-Control", "no-store")];
    let (hit, behind) = stale(world.get(0, "/a", no_store));
    assert_eq!((hit.freshness, behind.is_none()), (Freshness::WhileRevalidating, true));
    assert!(stale(world.get(0, "/a", &[])).1.is_some(), "the next one validates");
}

#[test]
fn rfc9111_3_5_credentials_fetch_behind_their_answer_only_what_may_be_shared() {
    for (control, is_fetched) in [(WHILE.1, false), ("public, stale-while-revalidate=60", true)] {
        let mut world = World::new();
        let control = format!("max-age=1, {control}");
        world.store("/a", &[("Cache-Control", control.as_str())], "page");
        world.pass_s(2);
        let (hit, behind) = stale(world.get(0, "/a", AUTHORIZED));
        assert_eq!(hit.freshness, Freshness::WhileRevalidating);
        assert_eq!(behind.is_some(), is_fetched, "{control}");
        let Some(behind) = behind else { continue };
        // Should it be refused after all, what is stored stays.
        let outcome = world.answer(behind, AUTHORIZED, 401, &[], Some(0));
        assert!(matches!(outcome, HeadOutcome::NotStored(_)), "{outcome:?}");
        stale(world.get(1, "/a", &[]));
    }
}

fn version(text: &str) -> VersionVector {
    text.parse().expect("a version")
}

/// A page of version 1, purged for a version 2 that the origin does not bring.
fn outdated() -> World {
    let mut world = World::new();
    world.store("/a", &[HOUR[0], ("Pharos-Version", "eu-00000001:1")], "page");
    assert_eq!(world.purge(Scope::Everything, true), 1);
    world
}

#[test]
fn who_wants_something_newer_takes_nobodys_stale_page() {
    let mut world = outdated();
    let newer = version("eu-00000001:2");
    let fetch = lease(world.ask(0, Method::Get, "/a", &[], Some(&newer)));
    // One who takes what there is, and one who does not, wait for the same fetch.
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    assert!(matches!(world.ask(1, Method::Get, "/a", &[], Some(&newer)), Decision::Wait));
    assert!(world.fail(fetch).is_none(), "the holder wants something newer");
    let [plain, demanding] = &world.wakes[..] else { panic!("{:?}", world.wakes) };
    assert!(matches!(demanding.with, WakeWith::Failed { status: 502 }), "{demanding:?}");
    let with = plain.with.clone();
    let (hit, _) = stale(world.woken(1, "/a", &[], &with));
    assert_eq!(body(&hit), "page");
}

#[test]
fn while_an_origin_hangs_one_at_a_time_waits_for_what_was_purged() {
    let mut world = outdated();
    let fetch = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait), "nothing has failed yet");
    assert!(world.fail(fetch).is_some());
    // The next one asks again: the origin may be back. Who comes meanwhile need not wait.
    let fetch = lease(world.get(0, "/a", &[]));
    assert_eq!(body(&stale(world.get(1, "/a", &[])).0), "page");
    // What is purged again has not failed yet.
    assert_eq!(world.purge(Scope::Everything, true), 1);
    let newer = lease(world.get(1, "/a", &[]));
    assert!(matches!(world.get(2, "/a", &[]), Decision::Wait));
    // Nor does the failure of a fetch that is older than the purge count.
    assert!(world.fail(fetch).is_some());
    assert!(matches!(world.get(2, "/a", &[]), Decision::Wait));
    drop(newer);
}

#[test]
fn rfc9110_14_4_a_part_with_two_content_ranges_or_of_several_parts_is_not_stored() {
    for extra in
        [("Content-Range", "bytes 5-14/20"), ("Content-Type", "multipart/byteranges; boundary=b")]
    {
        let mut world = World::new();
        let range = &[("Range", "bytes=0-9")];
        let fetch = lease(world.get(0, "/a", range));
        let fields = [HOUR[0], ("ETag", "\"x\""), ("Content-Range", "bytes 0-9/20"), extra];
        let outcome = world.answer(fetch, range, 206, &fields, Some(10));
        assert!(matches!(outcome, HeadOutcome::NotStored(_)), "{extra:?}: {outcome:?}");
    }
}
