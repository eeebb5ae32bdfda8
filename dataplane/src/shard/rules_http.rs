//! What RFC 9110, 9111 and their relatives demand of the shard between client, cache and origin,
//! as tests through the seam; each is named by its section. What the cache decides alone is tested
//! there.

use super::testing::{End, World};

pub(super) const GET: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// A request for `target` with these field lines.
pub(super) fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

pub(super) fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

/// Asks; `None` as long as the origin is asked first.
pub(super) fn ask(world: &mut World, request: &str) -> Option<String> {
    let client = world.connect(0);
    world.say(client, request);
    let text = world.take(client);
    world.hang_up(client);
    (!text.is_empty()).then_some(text)
}

/// Asks, and answers as the origin. Returns what the origin and the client got.
pub(super) fn exchange(world: &mut World, request: &str, answer: &str) -> (String, String) {
    let client = world.connect(0);
    world.say(client, request);
    let upstream = world.upstream();
    let asked = world.take(upstream);
    world.say(upstream, answer);
    let got = world.take(client);
    world.hang_up(client);
    (asked, got)
}

/// Whether a fresh answer for `target` is there.
pub(super) fn is_stored(world: &mut World, target: &str) -> bool {
    let only = request("GET", target, "Cache-Control: only-if-cached\r\n");
    ask(world, &only).is_some_and(|answer| answer.contains("X-Cache-Status: HIT"))
}

#[test]
fn rfc9111_4_1_as_many_fields_as_a_head_may_have_all_count_for_vary() {
    // Without a Host of its own the head of HTTP/1.0 is kept with its absolute target.
    let others = "X-O: 1\r\n".repeat(proto::limits::FIELD_COUNT_MAX - 1);
    let asked = format!("GET http://a.example/x HTTP/1.0\r\nX-User: one\r\n{others}\r\n");
    let mut world = World::new(1);
    let theirs = answer("200 OK", "Cache-Control: max-age=60\r\nVary: X-User\r\n", "for one");
    let (_, got) = exchange(&mut world, &asked, &theirs);
    assert!(got.ends_with("for one"), "{got}");
    assert!(!is_stored(&mut world, "/x"), "not for who has no such field");
    let again = ask(&mut world, &asked).expect("stored for who has");
    assert!(again.contains("X-Cache-Status: HIT"), "{again}");
}

#[test]
fn rfc9110_7_6_1_a_field_that_connection_names_is_no_part_of_a_variant() {
    let vary = "Cache-Control: max-age=60\r\nVary: X-Tenant\r\n";
    let mut world = World::new(1);
    let named = "GET /x HTTP/1.1\r\nHost: a.example\r\nX-Tenant: t\r\nConnection: X-Tenant\r\n\r\n";
    exchange(&mut world, named, &answer("200 OK", vary, "for all"));
    let plain = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
    let got = ask(&mut world, plain).expect("stored as what the origin was asked");
    assert!(got.ends_with("for all") && got.contains("X-Cache-Status: HIT"), "{got}");
    let tenant = "GET /x HTTP/1.1\r\nHost: a.example\r\nX-Tenant: t\r\n\r\n";
    let (_, got) = exchange(&mut world, tenant, &answer("200 OK", vary, "for t"));
    assert!(got.ends_with("for t"), "{got}");
    let again = ask(&mut world, named).expect("stored");
    assert!(again.ends_with("for all"), "{again}");
}

#[test]
fn rfc9110_15_2_interim_heads_reach_the_one_who_asked_and_are_not_stored() {
    let mut world = World::new(1);
    let [first, second, old]: [End; 3] = std::array::from_fn(|_| world.connect(0));
    world.say(first, GET);
    world.say(second, GET);
    world.say(old, "GET /y HTTP/1.0\r\nHost: a.example\r\n\r\n");
    let hints = "HTTP/1.1 102 Processing\r\n\r\n\
                 HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: 1\r\n\r\n";
    for &upstream in &world.upstreams.clone() {
        world.say(upstream, hints);
    }
    let got = world.take(first);
    assert!(got.starts_with("HTTP/1.1 102 \r\nVia: 1.1 pharos-e1\r\n\r\n"), "{got}");
    assert!(
        got.ends_with("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nVia: 1.1 pharos-e1\r\n\r\n"),
        "{got}"
    );
    assert_eq!(world.take(second), "", "who waits for another's fetch is told nothing");
    for &upstream in &world.upstreams.clone() {
        world.say(upstream, &answer("200 OK", "Cache-Control: max-age=60\r\n", "hello"));
    }
    for client in [first, second, old] {
        let got = world.take(client);
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("hello"), "{got}");
        assert!(!got.contains("Link"), "{got}");
    }
    let hit = ask(&mut world, GET).expect("a hit");
    assert!(hit.starts_with("HTTP/1.1 200 ") && !hit.contains("Link"), "{hit}");
}

#[test]
fn rfc9111_4_4_unsafe_success_invalidates_what_its_answer_names_on_the_same_origin() {
    for (name, value, target) in [
        ("Location", "/new", "/new"),
        ("Content-Location", "http://a.example/new?1", "/new?1"),
        ("Location", "../new", "/new"),
    ] {
        let mut world = World::new(1);
        let fresh = answer("200 OK", "Cache-Control: max-age=60\r\n", "old");
        for target in ["/a/b", target, "/other"] {
            exchange(&mut world, &request("GET", target, ""), &fresh);
        }
        let done = answer("201 Created", &format!("{name}: {value}\r\n"), "");
        let put = request("PUT", "/a/b", "Content-Length: 0\r\n");
        exchange(&mut world, &put, &done);
        for target in ["/a/b", target] {
            assert!(!is_stored(&mut world, target), "{name}: {value} {target}");
        }
        assert!(is_stored(&mut world, "/other"));
    }
}

#[test]
fn rfc9111_4_4_errors_and_other_origins_invalidate_nothing() {
    for (status, fields) in [
        ("500 Oops", "Location: /new\r\n"),
        ("404 Not Found", ""),
        ("200 OK", "Location: http://b.example/new\r\n"),
        ("200 OK", "Location: https://a.example/new\r\n"),
    ] {
        let mut world = World::new(1);
        let fresh = answer("200 OK", "Cache-Control: max-age=60\r\n", "old");
        for target in ["/x", "/new"] {
            exchange(&mut world, &request("GET", target, ""), &fresh);
        }
        let delete = request("M-SEARCH", "/x", "");
        exchange(&mut world, &delete, &answer(status, fields, ""));
        assert_eq!(is_stored(&mut world, "/x"), status != "200 OK", "{status}");
        assert!(is_stored(&mut world, "/new"), "{status}");
    }
}

#[test]
fn rfc9110_9_3_3_a_post_that_names_itself_is_stored_for_get() {
    let post = |fields: &str| request("POST", "/x", fields) + "12345";
    for (fields, is_kept) in [
        ("Cache-Control: max-age=60\r\nContent-Location: /x\r\n", true),
        ("Cache-Control: max-age=60\r\nContent-Location: http://a.example/x\r\n", true),
        ("Cache-Control: max-age=60\r\nContent-Location: /y\r\n", false),
        ("Cache-Control: max-age=60\r\n", false),
        ("ETag: \"a\"\r\nContent-Location: /x\r\n", false),
    ] {
        let mut world = World::new(1);
        let stored = answer("200 OK", "Cache-Control: max-age=60\r\n", "old");
        exchange(&mut world, GET, &stored);
        let (asked, got) = exchange(
            &mut world,
            &post("Content-Length: 5\r\n"),
            &answer("200 OK", fields, "posted"),
        );
        assert!(asked.starts_with("POST /x ") && asked.ends_with("\r\n\r\n12345"), "{asked}");
        assert!(got.ends_with("posted") && got.contains("X-Cache-Status: BYPASS"), "{got}");
        assert!(!got.contains("\r\nAge:"), "it does not come from the cache: {got}");
        assert_eq!(is_stored(&mut world, "/x"), is_kept, "{fields}");
        if is_kept {
            assert!(ask(&mut world, GET).expect("a hit").ends_with("posted"));
        }
    }
}

#[test]
fn rfc9111_5_2_2_fields_named_by_private_reach_only_the_one_who_asked() {
    for control in ["private=\"set-cookie\"", "no-cache=\"Set-Cookie, x-own\""] {
        let mut world = World::new(1);
        let fields = format!("Cache-Control: max-age=60, {control}\r\nSet-Cookie: a=b\r\nB: 2\r\n");
        let [first, second] = std::array::from_fn(|_| world.connect(0));
        world.say(first, GET);
        world.say(second, GET);
        let upstream = world.upstream();
        world.say(upstream, &answer("200 OK", &fields, "hello"));
        let got = world.take(first);
        assert!(got.contains("Set-Cookie: a=b\r\n") && got.contains("B: 2\r\n"), "{got}");
        for got in [world.take(second), ask(&mut world, GET).expect("a hit")] {
            assert!(!got.contains("Set-Cookie:") && got.contains("B: 2\r\n"), "{got}");
        }
    }
}

#[test]
fn rfc9110_15_an_invalid_status_counts_as_an_origin_that_fails() {
    let mut world = World::new(1);
    let fields = "Cache-Control: max-age=1\r\nETag: \"a\"\r\n";
    exchange(&mut world, GET, &answer("200 OK", fields, "hello"));
    world.wait_ms(5_000);
    let (_, got) =
        exchange(&mut world, GET, &answer("999 Odd", "Cache-Control: max-age=9\r\n", "x"));
    assert!(got.contains("X-Cache-Status: STALE\r\n") && got.ends_with("hello"), "{got}");
    let fields = "Cache-Control: max-age=1, must-revalidate\r\n";
    let get = request("GET", "/strict", "");
    exchange(&mut world, &get, &answer("200 OK", fields, "hello"));
    world.wait_ms(5_000);
    let (_, got) =
        exchange(&mut world, &get, &answer("999 Odd", "Cache-Control: max-age=9\r\n", "x"));
    assert!(!got.contains("hello"), "{got}");
    assert!(!is_stored(&mut world, "/strict"), "it never replaces anything");
}

#[test]
fn rfc9111_5_1_an_answer_made_for_the_request_has_no_age() {
    let mut world = World::new(1);
    let fields = "Cache-Control: max-age=1\r\nETag: \"a\"\r\n";
    let (_, got) = exchange(&mut world, GET, &answer("200 OK", fields, "hello"));
    assert!(!got.contains("Age:"), "{got}");
    assert!(ask(&mut world, GET).expect("a hit").contains("Age: 0\r\n"));
    world.wait_ms(5_000);
    let (_, got) = exchange(&mut world, GET, "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n");
    assert!(got.contains("REVALIDATED") && !got.contains("Age:"), "{got}");
    let fields = "Cache-Control: max-age=60\r\nAge: 7\r\n";
    let (_, got) = exchange(&mut world, &request("GET", "/y", ""), &answer("200 OK", fields, "y"));
    assert!(got.contains("Age: 7\r\n"), "{got}");
    // An origin whose clock is behind, or that is slow, has made it for this request all the same.
    let fields = "Cache-Control: max-age=600\r\nDate: Tue, 14 Nov 2023 22:11:45 GMT\r\n";
    let get = request("GET", "/z", "");
    let (_, got) = exchange(&mut world, &get, &answer("200 OK", fields, "z"));
    assert!(!got.contains("Age:"), "{got}");
    assert!(ask(&mut world, &get).expect("a hit").contains("Age: 100\r\n"));
}

fn cache_status(answer: &str) -> Vec<&str> {
    answer.lines().filter_map(|line| line.strip_prefix("Cache-Status: ")).collect()
}

#[test]
fn rfc9211_2_every_answer_of_a_site_says_how_it_came_about() {
    let mut world = World::new(1);
    let fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\nCache-Status: inner; hit\r\n";
    let (_, got) = exchange(&mut world, GET, &answer("200 OK", fields, "hello"));
    let ours = "pharos-e1; key=\"a.example/x\"";
    let stored = format!("{ours}; fwd=uri-miss; fwd-status=200; stored; ttl=60");
    assert_eq!(cache_status(&got), ["inner; hit", &stored]);
    world.wait_ms(7_000);
    let hit = ask(&mut world, GET).expect("a hit");
    assert_eq!(cache_status(&hit), ["inner; hit", &format!("{ours}; hit; ttl=53")]);
    let not_modified = ask(&mut world, &request("GET", "/x", "If-None-Match: \"a\"\r\n"));
    let not_modified = not_modified.expect("a hit");
    assert!(not_modified.starts_with("HTTP/1.1 304 "), "{not_modified}");
    assert_eq!(cache_status(&not_modified), [format!("{ours}; hit; ttl=53")]);
    let same = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=1\r\n\r\n";
    let no_cache = request("GET", "/x", "Cache-Control: no-cache\r\n");
    let (_, got) = exchange(&mut world, &no_cache, same);
    let told = format!("{ours}; fwd=request; fwd-status=304; stored; ttl=1");
    assert_eq!(cache_status(&got)[1], told);
    world.wait_ms(9_000);
    let (_, got) = exchange(&mut world, GET, &answer("503 Busy", "", ""));
    let told = format!("{ours}; fwd=stale; fwd-status=503; ttl=-8; detail=origin-failed");
    assert_eq!(cache_status(&got)[1], told);
    let again = ask(&mut world, GET).expect("stale");
    assert_eq!(cache_status(&again)[1], format!("{ours}; hit; ttl=-8; detail=origin-failed"));
}

#[test]
fn rfc9211_2_2_what_is_forwarded_says_why() {
    let private = answer("200 OK", "Cache-Control: private\r\n", "x");
    for (asked, told) in [
        (request("GET", "/x", ""), "fwd=uri-miss; fwd-status=200; detail=private"),
        (request("GET", "/pass/x", ""), "fwd=bypass; fwd-status=200"),
        (request("PUT", "/x", ""), "fwd=method; fwd-status=200"),
        (request("GET", "/x", "If-Match: \"a\"\r\n"), "fwd=request; fwd-status=200"),
    ] {
        let mut world = World::new(1);
        let (_, got) = exchange(&mut world, &asked, &private);
        assert_eq!(cache_status(&got), [format!("pharos-e1; {told}")], "{asked}");
    }
    let mut world = World::new(1);
    let vary = answer("200 OK", "Cache-Control: max-age=9\r\nVary: Foo\r\n", "x");
    exchange(&mut world, GET, &vary);
    let (_, got) = exchange(&mut world, &request("GET", "/x", "Foo: 1\r\n"), &vary);
    assert!(cache_status(&got)[0].contains("; fwd=vary-miss; fwd-status=200; stored"), "{got}");
}

#[test]
fn rfc9211_2_6_who_waited_for_another_says_so() {
    let mut world = World::new(1);
    let [first, second] = std::array::from_fn(|_| world.connect(0));
    world.say(first, GET);
    world.say(second, GET);
    let upstream = world.upstream();
    world.say(upstream, &answer("200 OK", "Cache-Control: max-age=60\r\n", "hello"));
    let got = world.take(second);
    let told = "pharos-e1; key=\"a.example/x\"; fwd=miss; collapsed; ttl=60";
    assert_eq!(cache_status(&got), [told], "{got}");
}

#[test]
fn rfc9875_3_an_unsafe_success_outdates_the_groups_that_it_names() {
    let mut world = World::new(2);
    let stored = |group: &str| {
        let fields = format!("Cache-Control: max-age=60\r\nCache-Groups: {group}\r\n");
        answer("200 OK", &fields, "old")
    };
    let groups = [("/a", "\"x\", \"y\""), ("/b", "\"y\""), ("/c", "\"Y\""), ("/d", "\"z\"")];
    for (target, group) in groups {
        exchange(&mut world, &request("GET", target, ""), &stored(group));
    }
    let named = "Cache-Group-Invalidation: \"y\", \"none\"\r\n";
    let get = request("GET", "/other", "");
    exchange(&mut world, &get, &answer("200 OK", named, ""));
    assert!(is_stored(&mut world, "/a"), "a safe request outdates nothing");
    let post = request("POST", "/other", "Content-Length: 0\r\n");
    exchange(&mut world, &post, &answer("500 Oops", named, ""));
    assert!(is_stored(&mut world, "/a"), "neither does an error");
    exchange(
        &mut world,
        &post,
        &answer("204 No Content", named, "").replace("Content-Length: 0\r\n", ""),
    );
    for (target, is_kept) in [("/a", false), ("/b", false), ("/c", true), ("/d", true)] {
        assert_eq!(is_stored(&mut world, target), is_kept, "{target}");
    }
}

#[test]
fn rfc9875_2_2_1_what_shares_a_group_with_what_is_outdated_goes_too_but_no_further() {
    let mut world = World::new(1);
    for (target, group) in [("/a", "\"x\""), ("/b", "\"x\", \"y\""), ("/c", "\"y\"")] {
        let fields = format!("Cache-Control: max-age=60\r\nCache-Groups: {group}\r\n");
        exchange(&mut world, &request("GET", target, ""), &answer("200 OK", &fields, "old"));
    }
    exchange(&mut world, &request("DELETE", "/a", ""), &answer("200 OK", "", ""));
    assert!(!is_stored(&mut world, "/b"));
    assert!(is_stored(&mut world, "/c"));
}

#[test]
fn rfc9875_3_groups_of_a_large_answer_are_cut_over_turns() {
    let mut world = World::new(1);
    let names: Vec<_> = (0..40).map(|at| format!("\"g{at}\"")).collect();
    for (at, name) in names.iter().enumerate() {
        let fields = format!("Cache-Control: max-age=60\r\nCache-Groups: {name}\r\n");
        exchange(
            &mut world,
            &request("GET", &format!("/{at}"), ""),
            &answer("200 OK", &fields, ""),
        );
    }
    let named = format!("Cache-Group-Invalidation: {}\r\n", names.join(", "));
    exchange(&mut world, &request("PATCH", "/other", ""), &answer("200 OK", &named, ""));
    assert!((0..40).all(|at| !is_stored(&mut world, &format!("/{at}"))));
}

#[test]
fn rfc9111_5_2_2_2_what_must_be_validated_is_a_504_when_the_origin_is_gone() {
    for (control, status) in [
        ("max-age=1, must-revalidate", "504"),
        ("max-age=1, proxy-revalidate, stale-if-error=60", "504"),
        ("s-maxage=1", "504"),
        ("no-cache", "504"),
        ("max-age=1", "200"),
        ("max-age=1, stale-if-error=0", "502"),
    ] {
        let mut world = World::new(1);
        let fields = format!("Cache-Control: {control}\r\nETag: \"a\"\r\n");
        exchange(&mut world, GET, &answer("200 OK", &fields, "hello"));
        let upstream = world.upstream();
        world.eof(upstream);
        world.wait_ms(10_000);
        world.connect = Err(std::io::ErrorKind::ConnectionRefused);
        let got = ask(&mut world, GET).expect("an answer");
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{control}: {got}");
        assert_eq!(got.contains("X-Cache-Status: STALE\r\n"), status == "200", "{control}: {got}");
    }
}

#[test]
fn rfc9111_5_2_2_2_who_waits_for_a_validation_that_fails_is_told_504_too() {
    let mut world = World::new(2);
    let fields = "Cache-Control: max-age=1, must-revalidate\r\nETag: \"a\"\r\n";
    exchange(&mut world, GET, &answer("200 OK", fields, "hello"));
    world.wait_ms(5_000);
    let clients = [world.connect(0), world.connect(1)];
    for client in clients {
        world.say(client, GET);
    }
    world.wait_ms(6_000);
    for client in clients {
        let got = world.take(client);
        assert!(got.starts_with("HTTP/1.1 504 "), "{got}");
    }
}

#[test]
fn who_waits_for_a_fetch_is_told_by_the_same_status_as_who_began_it() {
    let mut world = World::new(2);
    let clients = [world.connect(0), world.connect(0), world.connect(1)];
    for client in clients {
        world.say(client, GET);
    }
    assert_eq!(world.upstreams.len(), 1);
    world.wait_ms(6_000);
    for client in clients {
        let got = world.take(client);
        assert!(got.starts_with("HTTP/1.1 504 "), "{got}");
    }
}

#[test]
fn rfc9111_3_1_trailers_are_not_combined_with_fields_and_unknown_fields_are_kept() {
    let mut world = World::new(1);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60, new=1\r\n\
                   X-New: 1\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 2\r\nETag: \"late\"\r\n\r\n";
    exchange(&mut world, GET, chunked);
    let got = ask(&mut world, GET).expect("a hit");
    assert!(got.contains("X-New: 1\r\n") && got.contains("max-age=60, new=1\r\n"), "{got}");
    assert!(!got.contains("X-Late") && !got.contains("ETag"), "{got}");
}

#[test]
fn rfc9111_4_2_2_every_heuristically_cacheable_status_is_stored_and_served() {
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        let mut world = World::new(1);
        let fields = "Last-Modified: Tue, 07 Nov 2023 22:13:20 GMT\r\n";
        let answer = match status {
            204 => format!("HTTP/1.1 204 No Content\r\n{fields}\r\n"),
            _ => answer(&format!("{status} X"), fields, "body"),
        };
        exchange(&mut world, GET, &answer);
        world.wait_ms(3_600_000);
        let hit = ask(&mut world, GET).expect("a hit");
        assert!(hit.starts_with(&format!("HTTP/1.1 {status} ")), "{hit}");
        assert!(hit.contains("X-Cache-Status: HIT\r\n"), "{hit}");
    }
    for status in [302, 307, 400, 403, 500, 503, 599] {
        let mut world = World::new(1);
        let fields = "Last-Modified: Tue, 07 Nov 2023 22:13:20 GMT\r\n";
        exchange(&mut world, GET, &answer(&format!("{status} X"), fields, "body"));
        assert!(ask(&mut world, GET).is_none(), "{status}");
    }
}

#[test]
fn rfc9111_3_any_final_status_with_a_lifetime_is_stored() {
    for status in [200, 299, 302, 307, 400, 499, 500, 503, 599] {
        let mut world = World::new(1);
        let fields = "Cache-Control: max-age=60\r\n";
        exchange(&mut world, GET, &answer(&format!("{status} X"), fields, "body"));
        let hit = ask(&mut world, GET).expect("a hit");
        assert!(hit.starts_with(&format!("HTTP/1.1 {status} ")), "{hit}");
    }
}

#[test]
fn rfc9213_2_2_what_the_target_says_counts_before_cache_control() {
    for (targeted, is_kept) in [
        ("no-store", false),
        ("no-cache", false),
        ("private", false),
        ("max-age=1", false),
        ("max-age=0", false),
        ("max-age=60", true),
        ("&&&", true),
    ] {
        let mut world = World::new(1);
        let fields = format!(
            "Cache-Control: max-age=60\r\nExpires: Tue, 14 Nov 2033 22:13:20 GMT\r\n\
             CDN-Cache-Control: {targeted}\r\n"
        );
        exchange(&mut world, GET, &answer("200 OK", &fields, "x"));
        world.wait_ms(2_000);
        assert_eq!(is_stored(&mut world, "/x"), is_kept, "{targeted}");
    }
}

#[test]
fn rfc8586_2_and_rfc9110_7_6_3_a_request_goes_on_with_our_name_and_comes_round_to_508() {
    let mut world = World::new(1);
    let fields = "CDN-Loop: other\r\nVia: 1.0 other\r\n";
    let get = request("GET", "/x", fields);
    let (asked, got) = exchange(&mut world, &get, &answer("200 OK", "", ""));
    assert!(asked.contains("CDN-Loop: other, pharos-e1\r\n"), "{asked}");
    assert!(asked.contains("Via: 1.0 other, 1.1 pharos-e1\r\n"), "{asked}");
    assert!(got.contains("Via: 1.1 pharos-e1\r\n"), "{got}");
    let round = request("GET", "/x", "CDN-Loop: other, pharos-e1\r\n");
    assert!(ask(&mut world, &round).expect("an answer").starts_with("HTTP/1.1 508 "));
    // Nobody takes it off by naming it, nor what others have said there.
    let named = "Connection: CDN-Loop, Via\r\nVia: 1.0 other\r\nCDN-Loop: ";
    let round = request("GET", "/x", &format!("{named}pharos-e1\r\n"));
    assert!(ask(&mut world, &round).expect("an answer").starts_with("HTTP/1.1 508 "));
    let get = request("GET", "/named", &format!("{named}other\r\n"));
    let (asked, _) = exchange(&mut world, &get, &answer("200 OK", "", ""));
    assert!(asked.contains("CDN-Loop: other, pharos-e1\r\n"), "{asked}");
    assert!(asked.contains("Via: 1.0 other, 1.1 pharos-e1\r\n"), "{asked}");
}

#[test]
fn rfc9110_7_6_2_max_forwards_counts_the_hops_of_options() {
    let ok = answer("200 OK", "", "");
    for (method, value, expected) in [
        ("OPTIONS", "2", "Max-Forwards: 1\r\n"),
        ("OPTIONS", "1", "Max-Forwards: 0\r\n"),
        ("OPTIONS", "many", "Max-Forwards: many\r\n"),
        ("GET", "2", "Max-Forwards: 2\r\n"),
    ] {
        let asked = request(method, "/x", &format!("Max-Forwards: {value}\r\n"));
        let (asked, _) = exchange(&mut World::new(1), &asked, &ok);
        assert!(asked.contains(expected), "{method} {value}: {asked}");
    }
    let last = request("OPTIONS", "/x", "Max-Forwards: 0\r\n");
    let got = ask(&mut World::new(1), &last).expect("no further");
    assert!(got.starts_with("HTTP/1.1 204 ") && got.contains("\r\nAllow: "), "{got}");
}

#[test]
fn rfc9110_7_4_what_is_asked_of_https_is_not_answered_over_http() {
    let mut world = World::new(1);
    let fresh = answer("200 OK", "Cache-Control: max-age=60\r\n", "page");
    exchange(&mut world, &request("GET", "http://a.example/x", ""), &fresh);
    let got = ask(&mut world, &request("GET", "https://a.example/x", "")).expect("refused");
    assert!(got.starts_with("HTTP/1.1 421 "), "{got}");
    assert!(is_stored(&mut world, "/x"));
}

#[test]
fn rfc9211_2_answers_of_our_own_have_no_cache_status() {
    let mut world = World::new(1);
    for asked in [
        request("GET", "/x", "Cache-Control: only-if-cached\r\n"),
        request("TRACE", "/x", ""),
        GET.replace("a.example", "b.example"),
    ] {
        let got = ask(&mut world, &asked).expect("an answer");
        assert!(cache_status(&got).is_empty(), "{got}");
    }
    world.connect = Err(std::io::ErrorKind::ConnectionRefused);
    let got = ask(&mut world, GET).expect("an answer");
    assert!(got.starts_with("HTTP/1.1 502 ") && cache_status(&got).is_empty(), "{got}");
}

#[test]
fn rfc9112_3_2_2_the_origin_is_told_of_no_host_but_that_of_an_absolute_target() {
    let mut world = World::new(1);
    let visitor = world.connect(0);
    world.say(visitor, "GET http://A.example/p HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    let upstream = world.upstream();
    let asked = world.take(upstream);
    assert!(!asked.contains("evil"), "{asked}");
    assert!(asked.contains("\r\nHost: a.example\r\n"), "{asked}");
    assert!(asked.contains("\r\nX-Forwarded-Host: a.example\r\n"), "{asked}");
}
