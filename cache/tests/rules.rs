//! The rules of the facade, one test a rule: look-up, collapse, filling, stale, variants, validation,
//! memory; those of purges stand in `purges`. What a single module decides alone is tested in that module.

mod world;

use pharos_cache::{
    Answer, BodyState, BypassReason, Decision, Follow, Freshness, HeadOutcome, Method,
    NoStoreReason, Piece, Progress, Reading, Waiter, WakeWith, WriteError,
};
use proto::feed::{cursor::VersionVector, record::Scope};
use world::{World, body, field, fresh, lease, read, stale};

const HOUR: &[(&str, &str)] = &[("Cache-Control", "max-age=3600")];
const SECOND: &[(&str, &str)] = &[("Cache-Control", "max-age=1"), ("ETag", "\"a\"")];

fn key(key: &str) -> Scope {
    Scope::Key { site: Some("site".into()), key: key.into() }
}

// -- hits --

#[test]
fn a_stored_response_is_served_on_every_shard_with_its_age() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    world.pass_s(7);
    for shard in [1, 1, 1, 2] {
        let hit = fresh(world.get(shard, "/a", &[]));
        assert_eq!((body(&hit).as_str(), hit.age_s), ("hello", 7));
        assert_eq!(hit.freshness, Freshness::Fresh);
        let head = String::from_utf8(hit.local.entry().head().to_vec()).expect("text");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nDate: "));
        assert!(head.ends_with("GMT\r\nVia: 1.1 pharos\r\nContent-Length: 5\r\n"), "{head}");
    }
    assert_eq!(world.near[1].stats().near_hits, 1, "the third look-up took no lock");
}

#[test]
fn a_near_table_takes_in_what_comes_again_and_not_what_goes_by() {
    let mut world = World::new();
    let near_entries = 64;
    let target = |at: usize| format!("/{at}");
    for at in 0..20 * near_entries {
        world.store(&target(at), HOUR, "x");
    }
    let mut round = |range: std::ops::Range<usize>| {
        let before = world.near[1].stats().near_hits;
        range.clone().for_each(|at| drop(fresh(world.get(1, &target(at), &[]))));
        ((world.near[1].stats().near_hits - before) as usize, world.near[1].len())
    };
    // Of some that look alike, or stand in one row of its door, some are late or left out.
    let most = near_entries - 10;
    let (hits, len) = round(0..near_entries);
    assert_eq!(hits, 0);
    assert!(len < 4, "nothing was asked for twice, and {len} were taken in");
    assert!(round(0..near_entries).1 >= most);
    assert!(round(0..near_entries).0 >= most);
    // Hundreds of others, each once: what was here is still here.
    round(near_entries..19 * near_entries);
    assert!(round(0..near_entries).0 >= most - 4);
    // What comes three times in a row is taken in by then.
    for _ in 0..2 {
        assert_eq!(round(19 * near_entries..19 * near_entries + 1).0, 0);
    }
    assert_eq!(round(19 * near_entries..19 * near_entries + 1).0, 1);
}

#[test]
fn rfc9111_4_a_response_past_its_lifetime_is_validated_first() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    world.pass_s(1);
    let Decision::Revalidate(lease) = world.get(0, "/a", &[]) else { panic!("fresh no more") };
    let mut fields = Vec::new();
    lease.conditional_fields(&mut fields);
    assert_eq!(fields, b"If-None-Match: \"a\"\r\n");
}

#[test]
fn rfc9111_2_targets_hosts_and_sites_do_not_mix() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    drop(lease(world.get(0, "/a?", &[])));
    drop(lease(world.get(0, "/A", &[])));
}

#[test]
fn rfc9110_9_3_2_head_is_answered_from_get() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    assert_eq!(fresh(world.head(1, "/a", &[])).answer, Answer::Full);
}

// -- requests --

#[test]
fn rfc9111_5_2_1_requests_may_demand_more() {
    for (control, is_hit) in [
        ("no-cache", false),
        ("max-age=10", true),
        ("max-age=9", false),
        ("min-fresh=90", true),
        ("min-fresh=91", false),
        ("no-store", true),
    ] {
        let mut world = World::new();
        world.store("/a", &[("Cache-Control", "max-age=100"), ("ETag", "\"a\"")], "hello");
        world.pass_s(10);
        let decision = world.get(0, "/a", &[("Cache-Control", control)]);
        assert_eq!(matches!(decision, Decision::Hit(_)), is_hit, "{control}: {decision:?}");
    }
}

#[test]
fn rfc8246_2_a_reload_does_not_validate_what_is_immutable_and_fresh() {
    for (request, passed_s, is_hit) in
        [("max-age=0", 10, true), ("no-cache", 10, false), ("max-age=0", 100, false)]
    {
        let mut world = World::new();
        let fields = [("Cache-Control", "max-age=100, immutable"), ("ETag", "\"a\"")];
        world.store("/a", &fields, "hello");
        world.pass_s(passed_s);
        let decision = world.get(0, "/a", &[("Cache-Control", request)]);
        assert_eq!(matches!(decision, Decision::Hit(_)), is_hit, "{request}");
    }
}

#[test]
fn rfc9111_4_3_4_a_304_about_something_else_updates_nothing() {
    for (etag, is_update) in [("\"a\"", true), ("W/\"a\"", true), ("\"b\"", false)] {
        let mut world = World::new();
        world.store("/a", SECOND, "hello");
        world.pass_s(5);
        let lease = lease(world.get(0, "/a", &[]));
        let fields = [("Cache-Control", "max-age=60"), ("ETag", etag)];
        let outcome = world.answer(lease, &[], 304, &fields, None);
        assert_eq!(matches!(outcome, HeadOutcome::Updated { .. }), is_update, "{etag}");
        if !is_update {
            assert!(matches!(outcome, HeadOutcome::Again));
            assert!(matches!(world.get(0, "/a", &[]), Decision::Miss(_)), "asked for as a whole");
        }
    }
}

#[test]
fn rfc9111_4_3_4_a_304_about_something_else_takes_nothing_away() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    world.pass_s(5);
    let validating = lease(world.get(0, "/a", &[]));
    let other = [("ETag", "\"b\"")];
    let outcome = world.answer(validating, &[], 304, &other, None);
    assert!(matches!(outcome, HeadOutcome::Again));
    // The origin is asked without a condition, so a 304 is nobody's answer, and no reason to drop.
    let whole = lease(world.get(0, "/a", &[]));
    let mut fields = Vec::new();
    whole.conditional_fields(&mut fields);
    assert!(fields.is_empty(), "{:?}", String::from_utf8_lossy(&fields));
    let outcome = world.answer(whole, &[], 304, &other, None);
    assert!(matches!(outcome, HeadOutcome::NotStored(_)), "not again and again: {outcome:?}");
    // It still serves where the origin fails.
    let failing = lease(world.get(0, "/a", &[]));
    let stale = failing.fail(world.now_ms, 502, &mut Vec::new());
    assert!(stale.is_some_and(|entry| !entry.is_dead()));
}

#[test]
fn rfc9111_5_2_1_4_a_304_about_something_else_to_a_reload_leaves_what_is_fresh() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    let reload = lease(world.get(0, "/a", &[("Cache-Control", "no-cache")]));
    let outcome = world.answer(reload, &[], 304, &[("ETag", "\"other\"")], None);
    assert!(matches!(outcome, HeadOutcome::Again));
    assert_eq!(body(&fresh(world.get(1, "/a", &[]))), "hello");
}

#[test]
fn rfc9111_3_4_what_cannot_be_joined_takes_no_stored_part_away() {
    let told = ("Content-Range", "bytes 0-3/10");
    let other =
        [("Cache-Control", "max-age=60"), ("ETag", "\"y\""), ("Content-Range", "bytes 4-9/10")];
    for (status, fields, length) in
        [(206, &other[..], Some(6)), (416, &other[..1], Some(0)), (304, &other[..2], None)]
    {
        let mut world = World::new();
        let first = lease(world.get(0, "/", &[("Range", "bytes=0-3")]));
        let stored = [("Cache-Control", "max-age=60"), ("ETag", "\"x\""), told];
        let HeadOutcome::Fill { mut writer, .. } =
            world.answer(first, &[("Range", "bytes=0-3")], 206, &stored, Some(4))
        else {
            panic!("stored")
        };
        writer.append(b"0123", &mut Vec::new()).expect("room");
        writer.finish(&mut Vec::new()).expect("whole");
        let rest = lease(world.get(0, "/", &[("Range", "bytes=0-9")]));
        let mut asked = Vec::new();
        rest.conditional_fields(&mut asked);
        assert!(asked.starts_with(b"Range: bytes=4-"), "{}", String::from_utf8_lossy(&asked));
        let outcome = world.answer(rest, &[("Range", "bytes=0-9")], status, fields, length);
        assert!(matches!(outcome, HeadOutcome::Again), "{status}: {outcome:?}");
        let part = fresh(world.get(0, "/", &[("Range", "bytes=1-2")]));
        assert!(matches!(&part.answer, Answer::Parts(parts) if parts.len() == 1), "{status}");
        let again = lease(world.get(0, "/", &[("Range", "bytes=0-9")]));
        let mut asked = Vec::new();
        again.conditional_fields(&mut asked);
        assert_eq!(asked, b"Range: bytes=0-9\r\n", "{status}: as the visitor asked");
        // 416 says of this range only that it cannot be had.
        let outcome = world.answer(again, &[("Range", "bytes=0-9")], 416, &other[..1], Some(0));
        assert!(matches!(outcome, HeadOutcome::NotStored(_)), "{outcome:?}");
        fresh(world.get(0, "/", &[("Range", "bytes=1-2")]));
    }
}

#[test]
fn rfc9111_5_2_1_2_max_stale_allows_stale_unless_the_response_forbids() {
    for (control, request, is_served) in [
        ("max-age=1", "max-stale=2", true),
        ("max-age=1", "max-stale=1", false),
        ("max-age=1", "max-stale", true),
        ("max-age=1, must-revalidate", "max-stale", false),
        ("s-maxage=1", "max-stale", false),
    ] {
        let mut world = World::new();
        world.store("/a", &[("Cache-Control", control)], "hello");
        world.pass_s(3);
        let decision = world.get(0, "/a", &[("Cache-Control", request)]);
        assert_eq!(matches!(decision, Decision::Stale { .. }), is_served, "{control} {request}");
    }
}

#[test]
fn rfc9111_5_2_1_7_only_if_cached_never_fetches() {
    let mut world = World::new();
    let only: &[(&str, &str)] = &[("Cache-Control", "only-if-cached")];
    assert!(matches!(world.get(0, "/a", only), Decision::Unsatisfiable));
    world.store("/a", HOUR, "hello");
    fresh(world.get(0, "/a", only));
}

#[test]
fn rfc9111_5_2_1_5_no_store_fetches_for_itself_and_keeps_nothing() {
    let mut world = World::new();
    let decision = world.get(0, "/a", &[("Cache-Control", "no-store")]);
    assert!(matches!(decision, Decision::Bypass(BypassReason::RequestNoStore)));
}

#[test]
fn rfc9111_4_4_unsafe_methods_pass_and_invalidate() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    let decision = world.ask(0, Method::Unsafe, "/a", &[], None);
    assert!(matches!(decision, Decision::Bypass(BypassReason::Method)));
    let inflight = lease(world.get(0, "/a", &[("Cache-Control", "no-cache")]));
    let cache_key = world.cache.cache_key("site", b"host", b"/a");
    world.cache.invalidate(&cache_key);
    let outcome = world.answer(inflight, &[], 200, HOUR, Some(0));
    assert!(
        matches!(outcome, HeadOutcome::Fill { not_stored: Some(NoStoreReason::Purged), .. }),
        "a fetch begun before is not stored either"
    );
    drop(outcome);
    drop(lease(world.get(1, "/a", &[])));
}

#[test]
fn rfc9111_4_3_2_preconditions_for_the_origin_pass() {
    let mut world = World::new();
    world.store("/a", HOUR, "hello");
    for name in ["If-Match", "If-Unmodified-Since"] {
        let decision = world.get(0, "/a", &[(name, "\"a\"")]);
        assert!(matches!(decision, Decision::Bypass(BypassReason::Precondition)));
    }
}

// -- validation --

#[test]
fn rfc9111_4_3_2_conditions_of_clients_are_answered_from_the_cache() {
    let modified = "Sun, 06 Nov 1994 08:49:37 GMT";
    let validators: &[(&str, &str)] =
        &[("Cache-Control", "max-age=9"), ("ETag", "W/\"a\""), ("Last-Modified", modified)];
    let none: &[(&str, &str)] = HOUR;
    for (stored, name, value, expected) in [
        (validators, "If-None-Match", "\"a\"", Answer::NotModified),
        (validators, "If-None-Match", "\"b\", W/\"a\"", Answer::NotModified),
        (validators, "If-None-Match", "\"b\"", Answer::Full),
        (validators, "If-None-Match", "*", Answer::NotModified),
        (none, "If-None-Match", "*", Answer::NotModified),
        (none, "If-None-Match", "\"a\"", Answer::Full),
        (validators, "If-Modified-Since", modified, Answer::NotModified),
        (validators, "If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", Answer::Full),
        (validators, "If-Modified-Since", "rubbish", Answer::Full),
        // Without Last-Modified: Date, which is the time of arrival here.
        (none, "If-Modified-Since", modified, Answer::NotModified),
        (none, "If-Modified-Since", "Sun, 06 Nov 1994 08:49:36 GMT", Answer::Full),
    ] {
        let mut world = World::new();
        world.store("/a", stored, "hello");
        let hit = fresh(world.get(1, "/a", &[(name, value)]));
        assert_eq!(hit.answer, expected, "{name}: {value}");
    }
}

#[test]
fn rfc9110_13_1_3_if_none_match_wins_over_if_modified_since() {
    let mut world = World::new();
    world.store("/a", &[("Cache-Control", "max-age=9"), ("ETag", "\"a\"")], "hello");
    let fields =
        &[("If-None-Match", "\"b\""), ("If-Modified-Since", "Sun, 06 Nov 1994 08:50:37 GMT")];
    assert_eq!(fresh(world.get(1, "/a", fields)).answer, Answer::Full);
}

#[test]
fn rfc9111_4_3_4_a_304_freshens_and_shares_the_body() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    let before = fresh(world.get(1, "/a", &[])).local;
    world.pass_s(5);
    let lease = lease(world.get(0, "/a", &[]));
    let newer = &[("Cache-Control", "max-age=60"), ("ETag", "\"a\""), ("X-New", "1")];
    let outcome = world.answer(lease, &[], 304, newer, Some(0));
    assert!(matches!(outcome, HeadOutcome::Updated { .. }));
    for shard in 0..3 {
        let hit = fresh(world.get(shard, "/a", &[]));
        assert_eq!((body(&hit).as_str(), hit.age_s), ("hello", 0));
        assert_eq!(field(&hit.local, "x-new").as_deref(), Some("1"));
        assert_eq!(field(&hit.local, "content-length").as_deref(), Some("5"));
        assert!(std::ptr::eq(&**hit.local.entry().body(), &**before.entry().body()));
    }
}

#[test]
fn rfc9111_4_3_3_a_full_answer_to_a_validation_replaces() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    world.pass_s(5);
    world.store("/a", HOUR, "world");
    assert_eq!(body(&fresh(world.get(1, "/a", &[]))), "world");
    assert_eq!(world.cache.stats().entries, 1);
}

#[test]
fn rfc9111_4_3_5_head_updates_or_outdates_what_get_stored() {
    for (etag, is_kept) in [("\"a\"", true), ("\"b\"", false)] {
        let mut world = World::new();
        world.store("/a", SECOND, "hello");
        world.pass_s(5);
        let lease = lease(world.head(0, "/a", &[]));
        assert_eq!(lease.method(), Method::Head);
        let fields = &[("Cache-Control", "max-age=60"), ("ETag", etag), ("Content-Length", "5")];
        drop(world.answer(lease, &[], 200, fields, Some(0)));
        let decision = world.get(0, "/a", &[]);
        assert_eq!(matches!(decision, Decision::Hit(_)), is_kept, "{etag}: {decision:?}");
    }
}

#[test]
fn rfc9111_4_3_5_a_200_to_head_freshens_nothing_that_is_stored_as_another_status() {
    for status in [404, 301, 410] {
        let mut world = World::new();
        let first = lease(world.get(0, "/a", &[]));
        let old = world.answer(first, &[], status, &[("Cache-Control", "max-age=1")], Some(0));
        let HeadOutcome::Fill { writer, not_stored: None, .. } = old else { panic!("{old:?}") };
        writer.finish(&mut Vec::new()).expect("whole");
        world.pass_s(5);
        let fetch = lease(world.head(0, "/a", &[]));
        let outcome = world.answer(fetch, &[], 200, &[("Cache-Control", "max-age=3600")], Some(0));
        assert!(matches!(outcome, HeadOutcome::NotStored(_)), "passed on as it is: {outcome:?}");
        let decision = world.get(0, "/a", &[]);
        assert!(!matches!(decision, Decision::Hit(_)), "{status}: {decision:?}");
    }
}

#[test]
fn rfc9111_5_2_2_4_no_cache_is_stored_but_validated_each_time() {
    let mut world = World::new();
    world.store("/a", &[("Cache-Control", "no-cache, max-age=9"), ("ETag", "\"a\"")], "hello");
    for _ in 0..2 {
        let lease = lease(world.get(0, "/a", &[]));
        let outcome = world.answer(lease, &[], 304, &[], Some(0));
        assert!(matches!(outcome, HeadOutcome::Updated { .. }));
    }
}

#[test]
fn rfc9111_5_2_2_5_a_304_that_forbids_storing_ends_it() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    world.pass_s(5);
    let revalidation = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(revalidation, &[], 304, &[("Cache-Control", "no-store")], Some(0));
    let HeadOutcome::Updated { entry, .. } = outcome else { panic!("its own request is answered") };
    assert_eq!(entry.body().progress().len, 5);
    assert_eq!(world.cache.stats().entries, 0);
}

// -- variants --

#[test]
fn rfc9111_4_1_variants_live_side_by_side() {
    let mut world = World::new();
    let vary = &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")];
    for language in ["de", "en"] {
        world.store_for("/a", &[("Accept-Language", language)], vary, language);
    }
    for shard in [1, 1] {
        for language in ["de", "en"] {
            let hit = fresh(world.get(shard, "/a", &[("Accept-Language", language)]));
            assert_eq!(body(&hit), language);
        }
    }
    drop(lease(world.get(1, "/a", &[])));
    assert_eq!(world.near[1].len(), 2);
}

#[test]
fn rfc9111_4_1_the_names_of_the_newest_response_count() {
    let mut world = World::new();
    let vary = |name| [("Cache-Control", "max-age=60"), ("Vary", name)];
    world.store_for("/a", &[("Foo", "1"), ("Bar", "1")], &vary("Foo"), "old");
    fresh(world.get(1, "/a", &[("Foo", "1"), ("Bar", "2")]));
    world.store_for("/a", &[("Foo", "2"), ("Bar", "2")], &vary("Bar"), "new");
    for shard in 0..2 {
        let hit = fresh(world.get(shard, "/a", &[("Foo", "1"), ("Bar", "2")]));
        assert_eq!(body(&hit), "new");
    }
}

#[test]
fn leases_for_different_variants_do_not_wait_for_each_other() {
    let mut world = World::new();
    let vary = &[("Cache-Control", "max-age=60"), ("Vary", "Accept-Language")];
    world.store_for("/a", &[("Accept-Language", "en")], vary, "en");
    let first = lease(world.get(0, "/a", &[("Accept-Language", "de")]));
    let second = lease(world.get(0, "/a", &[("Accept-Language", "fr")]));
    let decision = world.get(0, "/a", &[("Accept-Language", "DE")]);
    assert!(matches!(decision, Decision::Wait));
    drop((first, second));
}

// -- collapse and filling --

#[test]
fn two_hundred_requests_make_one_fetch_and_read_while_it_arrives() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    for at in 0..199 {
        assert!(matches!(world.get(at % 3, "/a", &[]), Decision::Wait));
    }
    let outcome = world.answer(first, &[], 200, HOUR, Some(10));
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("stored") };
    let wakes = std::mem::take(&mut world.wakes);
    assert_eq!(wakes.len(), 199);
    let locals: Vec<_> = wakes
        .iter()
        .map(|wake| {
            let hit = fresh(world.woken(usize::from(wake.waiter.shard), "/a", &[], &wake.with));
            assert_eq!(hit.freshness, Freshness::Collapsed);
            assert_eq!(hit.local.follow(0, wake.waiter), Follow::Registered);
            hit.local
        })
        .collect();
    let mut woken = Vec::new();
    writer.append(b"hello", &mut woken).expect("room");
    assert_eq!(woken.len(), 199);
    assert!(locals.iter().all(|local| read(local) == ("hello".into(), Piece::Pending)));
    let joiner = fresh(world.get(1, "/a", &[])).local;
    assert_eq!(read(&joiner).0, "hello");
    writer.append(b"world", &mut woken).expect("room");
    writer.finish(&mut woken).expect("whole");
    assert!(locals.iter().all(|local| read(local) == ("helloworld".into(), Piece::End)));
    assert_eq!(read(&joiner).0, "helloworld");
}

#[test]
fn an_uncacheable_answer_releases_the_waiters_and_is_remembered() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    let outcome = world.answer(first, &[], 200, &[("Cache-Control", "private")], None);
    assert!(matches!(outcome, HeadOutcome::NotStored(NoStoreReason::Private)));
    assert!(matches!(world.wakes[..], [ref wake] if matches!(wake.with, WakeWith::Retry)));
    let leases: Vec<_> = (0..3).map(|shard| lease(world.get(shard, "/a", &[]))).collect();
    drop(leases);
    world.pass_s(61);
    let again = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait), "in time it is tried again");
    drop(again);
}

#[test]
fn rfc9111_4_what_needs_validation_is_not_shared_among_waiters() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    let fields = &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")];
    let outcome = world.answer(first, &[], 200, fields, Some(0));
    assert!(matches!(outcome, HeadOutcome::Fill { not_stored: None, .. }));
    assert!(matches!(world.wakes[0].with, WakeWith::Retry));
}

#[test]
fn authorization_does_not_keep_others_from_collapsing() {
    let mut world = World::new();
    let private = lease(world.get(0, "/a", &[("Authorization", "x")]));
    let shared = lease(world.get(0, "/a", &[]));
    drop(world.answer(private, &[], 200, HOUR, Some(0)));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    drop(shared);
}

#[test]
fn head_of_nothing_stored_fetches_the_whole_and_others_join() {
    let mut world = World::new();
    let head = lease(world.head(0, "/a", &[]));
    assert_eq!(head.method(), Method::Get);
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    let outcome = world.answer(head, &[], 200, &[("Cache-Control", "private")], Some(0));
    assert!(matches!(outcome, HeadOutcome::NotStored(NoStoreReason::Private)));
    // Known as not to be shared: only the head is fetched.
    assert_eq!(lease(world.head(0, "/a", &[])).method(), Method::Head);
    // Nor with credentials, whose answer is for nobody else.
    let private = lease(world.head(0, "/b", &[("Authorization", "x")]));
    assert_eq!(private.method(), Method::Head);
}

#[test]
fn a_dropped_lease_releases_its_waiters_as_orphans() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    let waiter = Waiter { shard: 1, id: world.last_waiter() };
    assert!(world.cache.take_orphans().is_empty());
    drop(first);
    let orphans = world.cache.take_orphans();
    assert!(matches!(orphans[..], [ref wake] if wake.waiter == waiter));
    assert!(world.cache.take_orphans().is_empty());
}

#[test]
fn a_withdrawn_waiter_is_not_woken() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    let waiter = Waiter { shard: 1, id: world.last_waiter() };
    let cache_key = world.cache.cache_key("site", b"host", b"/a");
    world.cache.withdraw(&cache_key, waiter);
    drop(first);
    assert!(world.cache.take_orphans().is_empty());
}

#[test]
fn a_body_of_another_length_than_announced_fails() {
    for (announced, sent) in [(Some(3), "hello"), (Some(9), "hello")] {
        let mut world = World::new();
        let first = lease(world.get(0, "/a", &[]));
        let outcome = world.answer(first, &[], 200, HOUR, announced);
        let HeadOutcome::Fill { mut writer, entry, .. } = outcome else { panic!("stored") };
        let result = writer
            .append(sent.as_bytes(), &mut Vec::new())
            .and_then(|()| writer.finish(&mut Vec::new()));
        assert!(matches!(result, Err(WriteError::Length)));
        assert_eq!(entry.body().progress().state, BodyState::Failed);
        assert_eq!(world.cache.stats().entries, 0);
    }
}

#[test]
fn a_body_that_outgrows_the_largest_entry_is_not_stored_and_read_whole_by_who_began() {
    let mut world = World::with_memory(400_000);
    let first = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(first, &[], 200, HOUR, None);
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("stored") };
    let mut reader = Reading::new(fresh(world.get(1, "/a", &[])).local);
    writer.append(&[0; 100_000], &mut Vec::new()).expect("as large as can be");
    assert_eq!((writer.spilled_bytes(), world.cache.stats().entries), (0, 1));
    for _ in 0..10 {
        writer.append(&[1; 50_000], &mut Vec::new()).expect("goes on");
    }
    assert_eq!(world.cache.stats().entries, 0, "nobody can join any more");
    drop(lease(world.get(1, "/a", &[])));
    assert!(writer.spilled_bytes() > 400_000 && !writer.is_abandoned());
    let mut read = 0;
    while let Piece::Bytes(bytes) = reader.next_piece() {
        read += bytes.len();
    }
    assert_eq!(read, 600_000);
    assert_eq!(reader.next_piece(), Piece::Pending);
    assert!(writer.spilled_bytes() <= 100_000, "what was read is let go of");
    assert_eq!(writer.finish(&mut Vec::new()).map(drop), Err(WriteError::NotStored));
    assert_eq!(reader.next_piece(), Piece::End);
    let first = lease(world.get(0, "/b", &[]));
    let outcome = world.answer(first, &[], 200, HOUR, Some(100_001));
    assert!(matches!(outcome, HeadOutcome::NotStored(NoStoreReason::TooLarge)));
}

#[test]
fn what_is_too_large_outdates_what_is_stored_even_if_it_was_evicted_meanwhile() {
    let mut world = World::with_memory(96 << 10);
    let old = [("Cache-Control", "max-age=1, stale-while-revalidate=1000")];
    world.store("/a", &old, "old");
    world.pass_s(5);
    let (_, behind) = stale(world.get(0, "/a", &[]));
    let behind = behind.expect("to be validated");
    let outcome = world.answer(behind, &[], 200, &[("Cache-Control", "max-age=9")], None);
    let HeadOutcome::Fill { mut writer, entry, .. } = outcome else { panic!("{outcome:?}") };
    writer.append(b"new", &mut Vec::new()).expect("room");
    // It goes for those who come; the older one that it hides has been asked for and stays.
    let fresh = [("Cache-Control", "max-age=100")];
    for at in 0.. {
        if entry.is_dead() {
            break;
        }
        assert!(at < 300, "never evicted");
        world.store(&format!("/other/{at}"), &fresh, &"x".repeat(2000));
        world.sweep_all();
    }
    let _ = writer.append(&[b'x'; 200_000], &mut Vec::new());
    drop(writer);
    // The next one fails: nothing is back that was outdated.
    let next = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(next, &[], 200, &fresh, Some(3));
    let HeadOutcome::Fill { writer, .. } = outcome else { panic!("{outcome:?}") };
    writer.fail(&mut Vec::new());
    drop(lease(world.get(0, "/a", &[])));
}

#[test]
fn an_overflow_that_breaks_off_does_not_look_whole_and_one_without_readers_is_abandoned() {
    let mut world = World::with_memory(400_000);
    let first = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(first, &[], 200, HOUR, None);
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("stored") };
    let mut readers: Vec<Reading> =
        (0..3).map(|_| Reading::new(fresh(world.get(1, "/a", &[])).local)).collect();
    let kept = fresh(world.get(1, "/a", &[])).local;
    for _ in 0..5 {
        writer.append(&[0; 90_000], &mut Vec::new()).expect("goes on");
    }
    while let Piece::Bytes(_) = readers[0].next_piece() {}
    readers.truncate(2);
    assert!(!writer.is_abandoned());
    // Whoever keeps the entry keeps what was stored of it, not what came after.
    readers.remove(1);
    assert!(writer.spilled_bytes() <= 180_000, "{}", writer.spilled_bytes());
    let (waiter, mut woken) = (Waiter { shard: 1, id: 5 }, Vec::new());
    assert_eq!(readers[0].follow(waiter), Follow::Registered);
    writer.append(b"x", &mut woken).expect("goes on");
    assert_eq!(woken, [waiter]);
    let last = readers.remove(0);
    assert!(!writer.is_abandoned());
    drop(last);
    assert!(writer.is_abandoned());
    let mut late = Reading::new(kept);
    writer.fail(&mut Vec::new());
    while let Piece::Bytes(_) = late.next_piece() {}
    assert_eq!(late.next_piece(), Piece::Failed);
}

#[test]
fn a_writer_dropped_unfinished_fails_and_wakes_its_followers() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(first, &[], 200, HOUR, None);
    let HeadOutcome::Fill { writer, .. } = outcome else { panic!("stored") };
    let joiner = fresh(world.get(1, "/a", &[])).local;
    let waiter = Waiter { shard: 1, id: 77 };
    assert_eq!(joiner.follow(0, waiter), Follow::Registered);
    drop(writer);
    let orphans = world.cache.take_orphans();
    assert!(matches!(orphans[..], [ref wake] if wake.waiter == waiter));
    assert_eq!(read(&joiner).1, Piece::Failed);
    drop(lease(world.get(1, "/a", &[])));
}

#[test]
fn what_a_failed_body_would_have_replaced_is_back() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    fresh(world.get(1, "/a", &[]));
    world.pass_s(5);
    let refetch = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(refetch, &[], 200, HOUR, Some(9));
    let HeadOutcome::Fill { mut writer, .. } = outcome else { panic!("stored") };
    let joiner = fresh(world.get(1, "/a", &[])).local;
    writer.append(b"new", &mut Vec::new()).expect("room");
    assert_eq!(read(&joiner).0, "new");
    writer.fail(&mut Vec::new());
    let again = lease(world.get(1, "/a", &[]));
    let stale = again.fail(world.now_ms, 502, &mut world.wakes).expect("within 24 h");
    assert_eq!(stale.body().progress().len, 5);
}

#[test]
fn a_body_in_pieces_is_one_piece_when_complete_and_gets_its_length() {
    let mut world = World::new();
    let first = lease(world.get(0, "/a", &[]));
    let outcome = world.answer(first, &[], 200, HOUR, None);
    let HeadOutcome::Fill { mut writer, entry, .. } = outcome else { panic!("stored") };
    assert!(!entry.has_length());
    for _ in 0..100 {
        writer.append(b"0123456789", &mut Vec::new()).expect("room");
    }
    let sealed = writer.finish(&mut Vec::new()).expect("whole");
    assert!(sealed.has_length());
    let hit = fresh(world.get(1, "/a", &[]));
    assert_eq!(hit.local.progress(), Progress { len: 1000, state: BodyState::Complete });
    assert!(matches!(hit.local.piece_at(0), Piece::Bytes(bytes) if bytes.len() == 1000));
    assert_eq!(field(&hit.local, "Content-Length").as_deref(), Some("1000"));
}

// -- stale --

#[test]
fn rfc5861_3_stale_while_revalidating_with_one_fetch() {
    let mut world = World::new();
    world.store("/a", &[("Cache-Control", "max-age=1, stale-while-revalidate=5")], "hello");
    world.pass_s(3);
    let (hit, background) = stale(world.get(0, "/a", &[]));
    assert_eq!((body(&hit).as_str(), hit.freshness), ("hello", Freshness::WhileRevalidating));
    let background = background.expect("the first one validates");
    assert!(stale(world.get(1, "/a", &[])).1.is_none(), "the others do not");
    drop(background);
    world.pass_s(3);
    drop(lease(world.get(0, "/a", &[])));
}

#[test]
fn rfc5861_4_stale_if_error_by_default_for_a_day() {
    for (control, after_s, is_served) in [
        ("max-age=1", 86_000, true),
        ("max-age=1", 86_402, false),
        ("max-age=1, stale-if-error=0", 2, false),
        ("max-age=1, stale-if-error=10", 10, true),
        ("max-age=1, must-revalidate", 2, false),
        ("s-maxage=1", 2, false),
    ] {
        let mut world = World::new();
        world.store("/a", &[("Cache-Control", control)], "hello");
        world.pass_s(after_s);
        let fetch = lease(world.get(0, "/a", &[]));
        let stale = fetch.fail(world.now_ms, 502, &mut Vec::new());
        assert_eq!(stale.is_some(), is_served, "{control}");
        let fetch = match world.get(0, "/a", &[]) {
            Decision::Stale { .. } if is_served => continue,
            decision => lease(decision),
        };
        let outcome = world.answer(fetch, &[], 503, &[], Some(0));
        assert_eq!(matches!(outcome, HeadOutcome::Stale(_)), is_served, "{control}");
    }
}

#[test]
fn while_the_origin_fails_stale_is_served_without_asking_each_time() {
    let mut world = World::new();
    world.store("/a", SECOND, "hello");
    world.pass_s(5);
    let fetch = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    assert!(fetch.fail(world.now_ms, 502, &mut world.wakes).is_some());
    let wake = world.wakes.pop().expect("the waiter");
    let (hit, _) = stale(world.woken(1, "/a", &[], &wake.with));
    assert_eq!(hit.freshness, Freshness::OriginFailed);
    assert_eq!(stale(world.get(2, "/a", &[])).0.freshness, Freshness::OriginFailed);
    world.pass_s(2);
    let again = lease(world.get(0, "/a", &[]));
    assert_eq!(stale(world.get(2, "/a", &[])).0.freshness, Freshness::OriginFailed);
    drop(world.answer(again, &[], 304, &[], Some(0)));
    fresh(world.get(2, "/a", &[]));
}

#[test]
fn a_failure_with_nothing_stored_is_told_to_the_waiters() {
    let mut world = World::new();
    let fetch = lease(world.get(0, "/a", &[]));
    assert!(matches!(world.get(1, "/a", &[]), Decision::Wait));
    assert!(fetch.fail(world.now_ms, 502, &mut world.wakes).is_none());
    assert!(matches!(world.wakes[0].with, WakeWith::Failed { status: 502 }));
}

// -- versions and restoring --

#[test]
fn an_entry_below_the_least_version_is_not_used() {
    let mut world = World::new();
    let vector = |seq: u64| format!("eu-00000001:{seq}").parse::<VersionVector>().expect("valid");
    let version = vector(5).to_string();
    let fields = [HOUR[0], ("Pharos-Version", version.as_str())];
    world.store("/a", &fields, "hello");
    for (seq, is_hit) in [(5, true), (6, false)] {
        let least = vector(seq);
        let decision = world.ask(1, Method::Get, "/a", &[], Some(&least));
        assert_eq!(matches!(decision, Decision::Hit(_)), is_hit);
    }
    let least = vector(6);
    let fetch = lease(world.ask(1, Method::Get, "/a", &[], Some(&least)));
    let stale = fetch.fail(world.now_ms, 502, &mut Vec::new());
    assert!(stale.is_none(), "not even when the origin fails");
}

#[test]
fn rfc9213_targeted_lifetimes_rule_here_and_cache_control_rules_downstream() {
    let mut world = World::new();
    let fields = &[("Cache-Control", "no-cache"), ("CDN-Cache-Control", "max-age=3600")];
    world.store("/a", fields, "hello");
    world.pass_s(3000);
    let hit = fresh(world.get(1, "/a", &[]));
    assert_eq!(field(&hit.local, "Cache-Control").as_deref(), Some("no-cache"));
}

#[test]
fn what_is_restored_is_validated_first_and_served_when_the_origin_is_gone() {
    let mut world = World::new();
    let cache_key = world.cache.cache_key("site", b"host", b"/a");
    let none: &[(&str, &str)] = &[];
    let fields: &[(&str, &str)] = &[HOUR[0], ("Surrogate-Key", "page/7")];
    let response = pharos_cache::Response {
        status: 200,
        reason: b"OK",
        fields: &fields,
        length: None,
        request_at_ms: world.now_ms,
        response_at_ms: world.now_ms,
        append: b"",
    };
    world.cache.restore(&cache_key, &none, &response, b"hello").expect("stored before");
    world.pass_s(10);
    let fetch = lease(world.get(0, "/a", &[]));
    let stale = fetch.fail(world.now_ms, 502, &mut Vec::new()).expect("there is nothing better");
    assert_eq!(stale.body().chunk_at(0), Some(&b"hello"[..]));
    assert_eq!(world.purge(key("page/7"), false), 1);
}

// -- memory --

#[test]
fn memory_stays_within_its_limit_and_what_is_used_stays() {
    let mut world = World::with_memory(1 << 20);
    let text = "x".repeat(1000);
    world.store("/hot", HOUR, &text);
    for at in 0..5000 {
        world.store(&format!("/cold/{at}"), HOUR, &text);
        fresh(world.get(1, "/hot", &[]));
        if at % 10 == 0 {
            world.sweep_all();
        }
        let stats = world.cache.stats();
        assert!(stats.used_bytes <= stats.memory_bytes, "{stats:?}");
    }
    let stats = world.cache.stats();
    assert!(stats.evicted > 4000 && stats.entries > 300, "{stats:?}");
}

#[test]
fn nothing_is_accounted_when_everything_is_gone() {
    let mut world = World::new();
    for at in 0..300 {
        let target = format!("/{at}");
        world.store(&target, &[HOUR[0], ("Surrogate-Key", "a b c")], "hello");
        for _ in 0..2 {
            fresh(world.get(at % 3, &target, &[]));
        }
    }
    world.purge(Scope::Everything, false);
    assert!(world.cache.stats().dead_bytes > 0, "near tables still hold some");
    world.sweep_all();
    let stats = world.cache.stats();
    assert_eq!((stats.entries, stats.used_bytes, stats.dead_bytes), (0, 0, 0));
}

#[test]
fn what_was_asked_for_once_is_free_as_soon_as_it_is_gone() {
    let mut world = World::new();
    for at in 0..300 {
        let target = format!("/{at}");
        world.store(&target, HOUR, "hello");
        fresh(world.get(1, &target, &[]));
    }
    world.purge(Scope::Everything, false);
    let stats = world.cache.stats();
    assert!(stats.used_bytes < stats.memory_bytes / 1_000, "no near table holds it: {stats:?}");
}

#[test]
fn a_body_that_came_in_pieces_is_held_once_as_soon_as_it_is_one() {
    let mut world = World::new();
    let lease = lease(world.get(0, "/", &[]));
    let fields = &[("Cache-Control", "max-age=60")];
    let outcome = world.answer(lease, &[], 200, fields, Some(20_000));
    let HeadOutcome::Fill { mut writer, entry, .. } = outcome else { panic!("stored") };
    for _ in 0..2 {
        world.near[0].adopt(&entry);
    }
    drop(entry);
    for _ in 0..2 {
        writer.append(&[b'x'; 10_000], &mut Vec::new()).expect("room");
    }
    let entry = writer.finish(&mut Vec::new()).expect("whole");
    world.near[1].renew(&entry);
    assert!(world.near[1].is_empty(), "who has not asked for it does not hold it");
    assert!(world.cache.stats().dead_bytes > 20_000);
    world.near[0].renew(&entry);
    assert_eq!((world.near[0].len(), world.cache.stats().dead_bytes), (1, 0));
}
