//! Stored responses in content codings: who gets one, and what happens to it.

mod world;

use pharos_cache::{
    Answer, Coding, Compression, Config, Decision, EncodeOrder, Encoded, Freshness, Hit, Local,
    Method, Request,
};
use proto::feed::record::Scope;

use world::{Fields, World, body, field, fresh, lease, read};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");
const FRESH: (&str, &str) = ("Cache-Control", "max-age=60");
const GZIP: Fields<'static> = &[("Accept-Encoding", "gzip")];
const BR: Fields<'static> = &[("Accept-Encoding", "br, gzip")];

fn world() -> World {
    let compression = Compression {
        codings: Coding::ALL.to_vec(),
        types: vec!["text/plain".into()],
        bytes_min: 10,
        bytes_max: 100_000,
    };
    let config = Config { compression, ..Config::new(64 << 20, 42) };
    World::with(config)
}

fn long() -> String {
    "0123456789".repeat(20)
}

/// Not a coding that anyone could decode: what matters here is whose it is.
fn make(world: &World, order: &EncodeOrder) -> Encoded {
    assert_eq!(order.content().concat(), long().as_bytes());
    let text = format!("{} of it", order.coding().token());
    world.cache.take_encoding(order, text.into_bytes())
}

fn hit(world: &mut World, fields: Fields<'_>) -> Hit {
    fresh(world.get(0, "/", fields))
}

fn stored(world: &mut World, fields: Fields<'_>) {
    world.store("/", fields, &long());
}

fn encoded(world: &mut World) {
    stored(world, &[TEXT, FRESH, ("ETag", "\"x\"")]);
    let order = hit(world, GZIP).order.expect("to be made");
    assert_eq!(make(world, &order), Encoded::Kept);
}

fn text(local: &Local) -> String {
    read(local).0
}

#[test]
fn the_first_who_wants_it_gets_it_as_it_is_and_orders_what_the_next_one_gets() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH]);
    let first = hit(&mut world, GZIP);
    assert_eq!(body(&first), long());
    let order = first.order.expect("to be made");
    assert_eq!((order.coding(), order.length()), (Coding::Gzip, 200));
    let meanwhile = hit(&mut world, GZIP);
    assert!(meanwhile.order.is_none(), "it is on order");
    assert_eq!(body(&meanwhile), long());
    assert_eq!(make(&world, &order), Encoded::Kept);
    for shard in 0..2 {
        let next = fresh(world.get(shard, "/", GZIP));
        assert_eq!((body(&next).as_str(), next.order.is_none()), ("gzip of it", true));
    }
    assert_eq!(body(&hit(&mut world, &[])), long());
    assert_eq!(world.near[0].stats().near_hits, 2);
}

#[test]
fn a_coding_that_is_there_serves_while_a_better_one_is_made() {
    let mut world = world();
    encoded(&mut world);
    let first = hit(&mut world, BR);
    assert_eq!(body(&first), "gzip of it");
    make(&world, &first.order.expect("br is wanted more"));
    assert_eq!(body(&hit(&mut world, BR)), "br of it");
    assert_eq!(body(&hit(&mut world, GZIP)), "gzip of it");
}

#[test]
fn rfc9110_8_8_3_3_an_encoding_has_no_strong_validator_and_a_head_of_its_own() {
    let mut world = world();
    let digest = ("Repr-Digest", "sha-256=:AAAA:");
    stored(&mut world, &[TEXT, FRESH, ("ETag", "\"x\""), digest, ("X-Other", "1")]);
    let first = hit(&mut world, GZIP);
    make(&world, &first.order.expect("to be made"));
    let local = hit(&mut world, GZIP).local;
    for (name, expected) in [
        ("ETag", Some("W/\"x\"")),
        ("Content-Encoding", Some("gzip")),
        ("Content-Length", Some("10")),
        ("Repr-Digest", None),
        ("X-Other", Some("1")),
        ("Content-Type", Some("text/plain")),
    ] {
        assert_eq!(field(&local, name).as_deref(), expected, "{name}");
    }
    assert_eq!(field(&first.local, "ETag").as_deref(), Some("\"x\""));
    assert_eq!(field(&first.local, "Content-Encoding"), None);
    for local in [local, first.local] {
        let head = String::from_utf8_lossy(local.entry().head_and_status()).into_owned();
        assert_eq!(head.matches("\r\nVary: Accept-Encoding\r\n").count(), 1, "{head}");
    }
}

#[test]
fn what_the_origin_varies_by_accept_encoding_says_so_once() {
    let mut world = world();
    let vary = ("Vary", "accept-encoding, X");
    world.store_for("/", GZIP, &[TEXT, FRESH, vary], &long());
    let head = hit(&mut world, GZIP).local.entry().head_and_status().to_vec();
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    assert_eq!(head.matches("accept-encoding").count(), 1, "{head}");
    // Its variants are the origin's to tell apart; each may be had encoded.
    assert!(matches!(world.get(0, "/", BR), Decision::Miss(_)));
}

#[test]
fn rfc9110_13_1_2_the_validator_of_either_answers_if_none_match() {
    let mut world = world();
    encoded(&mut world);
    for accept in [GZIP, &[]] {
        for (validator, expected) in [("\"x\"", true), ("W/\"x\"", true), ("\"y\"", false)] {
            let fields = [accept, &[("If-None-Match", validator)]].concat();
            let hit = hit(&mut world, &fields);
            assert_eq!(hit.answer == Answer::NotModified, expected, "{fields:?}");
        }
    }
    let fields = [GZIP, &[("If-None-Match", "\"x\"")]].concat();
    let head = hit(&mut world, &fields).local.not_modified_head();
    let head = String::from_utf8(head).expect("text");
    assert!(head.contains("ETag: W/\"x\"\r\nDate"), "{head}");
    assert!(head.contains("Vary: Accept-Encoding\r\n"), "{head}");
    assert!(!head.contains("Content-Encoding"), "{head}");
}

#[test]
fn a_range_is_of_the_whole_as_it_came() {
    let mut world = world();
    encoded(&mut world);
    let strong = ("If-Range", "\"x\"");
    for extra in [&[][..], &[strong]] {
        let fields = [GZIP, &[("Range", "bytes=3-5")], extra].concat();
        let hit = hit(&mut world, &fields);
        assert!(matches!(hit.answer, Answer::Parts(_)), "{:?}", hit.answer);
        assert_eq!(text(&hit.local), long());
        assert!(hit.order.is_none());
    }
    let fields = [GZIP, &[("Range", "bytes=3-5"), ("If-Range", "W/\"x\"")]].concat();
    assert_eq!(body(&hit(&mut world, &fields)), long());
}

#[test]
fn rfc9110_13_1_5_a_date_is_no_condition_for_parts_of_what_may_have_come_encoded() {
    let modified = "Sun, 06 Nov 1994 08:00:00 GMT";
    let date = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH, date, ("Last-Modified", modified)]);
    let part = [("Range", "bytes=3-5"), ("If-Range", modified)];
    assert_eq!(body(&hit(&mut world, &[GZIP, &part[..]].concat())), long());
    // Who takes no coding has been given none.
    assert!(matches!(hit(&mut world, &part).answer, Answer::Parts(_)));
}

#[test]
fn head_tells_what_get_would_send() {
    let mut world = world();
    encoded(&mut world);
    let of_get = hit(&mut world, GZIP).local.entry().head_and_status().to_vec();
    let of_head = fresh(world.head(0, "/", GZIP));
    assert_eq!(of_head.local.entry().head_and_status(), of_get);
    let plain = fresh(world.head(0, "/", &[]));
    assert_eq!(field(&plain.local, "Content-Length").as_deref(), Some("200"));
}

#[test]
fn no_transform_of_response_or_request_is_kept_to() {
    let mut world = world();
    encoded(&mut world);
    let fields = [GZIP, &[("Cache-Control", "no-transform")]].concat();
    assert_eq!(body(&hit(&mut world, &fields)), long());
    stored_at(&mut world, "/kept", &[TEXT, ("Cache-Control", "max-age=9, no-transform")]);
    stored_at(&mut world, "/coded", &[TEXT, FRESH, ("Content-Encoding", "gzip")]);
    stored_at(&mut world, "/image", &[("Content-Type", "image/png"), FRESH]);
    for target in ["/kept", "/coded", "/image"] {
        let hit = fresh(world.get(0, target, GZIP));
        assert!(hit.order.is_none(), "{target}");
        let head = String::from_utf8_lossy(hit.local.entry().head_and_status()).into_owned();
        assert!(!head.contains("Vary"), "{head}");
    }
}

fn stored_at(world: &mut World, target: &str, fields: Fields<'_>) {
    world.store(target, fields, &long());
}

#[test]
fn what_saves_nothing_is_not_made_again() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH]);
    let order = hit(&mut world, GZIP).order.expect("to be made");
    assert_eq!(world.cache.take_encoding(&order, vec![0; 190]), Encoded::Useless);
    let next = hit(&mut world, GZIP);
    assert_eq!((body(&next), next.order.is_none()), (long(), true));
}

#[test]
fn what_was_declined_is_ordered_again() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH]);
    let order = hit(&mut world, GZIP).order.expect("to be made");
    world.cache.decline_encoding(&order);
    assert!(hit(&mut world, GZIP).order.is_some());
}

#[test]
fn a_purge_takes_the_encodings_too_and_gives_their_memory_back() {
    let mut world = world();
    encoded(&mut world);
    hit(&mut world, BR).order.expect("under way when the purge comes");
    let order = {
        stored_at(&mut world, "/late", &[TEXT, FRESH]);
        fresh(world.get(0, "/late", GZIP)).order.expect("to be made")
    };
    assert_eq!(world.purge(Scope::Everything, false), 2, "an encoding is no entry");
    assert_eq!(make(&world, &order), Encoded::Dropped, "there is nothing to keep it with");
    drop(order);
    assert!(matches!(world.get(0, "/", GZIP), Decision::Miss(_)));
    world.sweep_all();
    let stats = world.cache.stats();
    assert_eq!((stats.entries, stats.used_bytes, stats.dead_bytes), (0, 0, 0));
}

#[test]
fn softly_purged_it_is_served_encoded_when_the_origin_fails() {
    let mut world = world();
    encoded(&mut world);
    world.purge(Scope::Everything, true);
    let lease = lease(world.get(0, "/", GZIP));
    let entry = world.fail(lease).expect("something stale");
    let request = Request::new(Method::Get, entry.cache_key().borrowed(), &GZIP);
    let (near, now_ms) = (&mut world.near[0], world.now_ms);
    let hit = world.cache.serve(near, &request, now_ms, &entry, Freshness::OriginFailed);
    assert_eq!((text(&hit.local).as_str(), hit.ttl_s), ("gzip of it", None));
}

#[test]
fn a_304_keeps_the_encodings_with_the_new_head_and_asks_with_the_origins_own_validator() {
    let mut world = world();
    encoded(&mut world);
    world.pass_s(61);
    let lease = lease(world.get(0, "/", GZIP));
    let mut conditions = Vec::new();
    lease.conditional_fields(&mut conditions);
    assert!(conditions.starts_with(b"If-None-Match: \"x\"\r\n"));
    let fields: Fields<'_> = &[("ETag", "\"x\""), FRESH, ("X-New", "1")];
    world.answer(lease, GZIP, 304, fields, None);
    let hit = hit(&mut world, GZIP);
    assert_eq!((body(&hit).as_str(), hit.order.is_none()), ("gzip of it", true));
    assert_eq!(field(&hit.local, "X-New").as_deref(), Some("1"));
    assert_eq!(field(&hit.local, "ETag").as_deref(), Some("W/\"x\""));
    world.sweep_all();
    let (before, stored) = (world.cache.stats(), long().len() as u64);
    assert_eq!(before.dead_bytes, 0, "the bodies are shared, not copied");
    assert!(before.used_bytes > stored);
}

#[test]
fn a_304_that_forbids_it_ends_it() {
    let mut world = world();
    encoded(&mut world);
    world.pass_s(61);
    let lease = lease(world.get(0, "/", GZIP));
    let fields: Fields<'_> = &[("Cache-Control", "max-age=60, no-transform")];
    world.answer(lease, GZIP, 304, fields, None);
    let hit = hit(&mut world, GZIP);
    assert_eq!((body(&hit), hit.order.is_none()), (long(), true));
}

#[test]
fn an_order_that_a_304_overtakes_is_kept_with_the_new_entry() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH, ("ETag", "\"x\"")]);
    let order = hit(&mut world, GZIP).order.expect("to be made");
    world.pass_s(61);
    let lease = lease(world.get(0, "/", &[]));
    world.answer(lease, &[], 304, &[FRESH], None);
    assert_eq!(make(&world, &order), Encoded::Kept);
    assert_eq!(body(&hit(&mut world, GZIP)), "gzip of it");
}

#[test]
fn who_fetched_it_orders_what_the_next_one_gets() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH]);
    let entry = hit(&mut world, &[]).local.entry().clone();
    assert!(world.cache.order_encoding(&entry, &(&[] as Fields<'_>)).is_none());
    let order = world.cache.order_encoding(&entry, &GZIP).expect("to be made");
    make(&world, &order);
    assert_eq!(body(&hit(&mut world, GZIP)), "gzip of it");
}

#[test]
fn what_is_too_short_or_too_long_once_its_length_is_known_is_left_alone() {
    let mut world = world();
    for (target, body) in [("/short", "x".to_owned()), ("/long", "x".repeat(100_001))] {
        let lease = lease(world.get(0, target, &[]));
        let outcome = world.answer(lease, &[], 200, &[TEXT, FRESH], None);
        let pharos_cache::HeadOutcome::Fill { mut writer, .. } = outcome else {
            panic!("not stored: {outcome:?}");
        };
        writer.append(body.as_bytes(), &mut Vec::new()).expect("room");
        writer.finish(&mut Vec::new()).expect("whole");
        assert!(fresh(world.get(0, target, GZIP)).order.is_none(), "{target}");
    }
}

#[test]
fn encodings_are_counted_and_evicted_with_their_entry() {
    let mut world = world();
    stored(&mut world, &[TEXT, FRESH]);
    let before = world.cache.stats().used_bytes;
    let order = hit(&mut world, GZIP).order.expect("to be made");
    make(&world, &order);
    let more = world.cache.stats().used_bytes - before;
    assert!((500..2000).contains(&more), "{more}: a head, a body, an entry");
}
