//! What RFC 9110 demands of a gateway beside caching: repeating requests, expectations,
//! credentials, codings and validators on their way through, statuses that nobody knows; each test
//! is named by its section.

use super::{
    rules_http::{GET, answer, ask, exchange, is_stored, request},
    testing::World,
};

#[test]
fn rfc9110_9_2_2_only_what_is_idempotent_is_sent_again() {
    for (method, is_repeated) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("POST", false),
        ("PATCH", false),
        ("MERGE", false),
    ] {
        let mut world = World::new(1);
        exchange(&mut world, &request("GET", "/pass/", ""), &answer("200 OK", "", "one"));
        let kept = world.upstream();
        let client = world.connect(0);
        world.say(client, &request(method, "/pass/x", ""));
        assert_eq!(world.upstream(), kept, "the kept connection");
        world.eof(kept);
        assert_eq!(world.upstream() != kept, is_repeated, "{method}");
        let got = world.take(client);
        assert_eq!(got.starts_with("HTTP/1.1 502 "), !is_repeated, "{method}: {got}");
    }
}

#[test]
fn rfc9110_9_2_2_what_has_a_body_under_way_is_not_sent_again() {
    let mut world = World::new(1);
    exchange(&mut world, &request("GET", "/pass/", ""), &answer("200 OK", "", "one"));
    let kept = world.upstream();
    let client = world.connect(0);
    world.say(client, &(request("PUT", "/pass/x", "Content-Length: 5\r\n") + "12"));
    world.eof(kept);
    assert_eq!(world.upstream(), kept, "its first bytes are gone");
    assert!(world.take(client).starts_with("HTTP/1.1 502 "));
}

#[test]
fn rfc9110_10_1_1_an_expectation_is_met_here_or_refused() {
    let mut world = World::new(1);
    let expect = "Content-Length: 1\r\nExpect: 100-Continue\r\n";
    let client = world.connect(0);
    world.say(client, &request("PUT", "/pass/x", expect));
    assert_eq!(world.take(client), "HTTP/1.1 100 Continue\r\n\r\n");
    let upstream = world.upstream();
    world.say(client, "x");
    let asked = world.take(upstream);
    assert!(!asked.contains("Expect") && asked.ends_with("\r\n\r\nx"), "{asked}");
    world.say(upstream, &answer("200 OK", "", "put"));
    assert!(world.take(client).ends_with("put"));
    // From HTTP/1.0 it is not looked at, and no interim answer is sent there.
    let old = world.connect(0);
    let text = request("PUT", "/pass/x", expect).replace("HTTP/1.1", "HTTP/1.0");
    world.say(old, &text);
    assert_eq!(world.take(old), "");
    let other = ask(&mut world, &request("PUT", "/pass/x", "Expect: a-miracle\r\n"));
    assert!(other.expect("refused").starts_with("HTTP/1.1 417 "));
}

#[test]
fn rfc9110_11_6_challenges_and_credentials_pass_unchanged_and_those_for_proxies_stay() {
    let mut world = World::new(1);
    let fields = "Authorization: Basic eDp5\r\nProxy-Authorization: Basic cDpx\r\n";
    let challenge = "WWW-Authenticate: Basic realm=\"a, b\"\r\nWWW-Authenticate: Bearer\r\n\
                     Proxy-Authenticate: Basic\r\nAuthentication-Info: x=1\r\n";
    let (asked, got) = exchange(
        &mut world,
        &request("GET", "/x", fields),
        &answer("401 Unauthorized", challenge, "who?"),
    );
    assert!(asked.contains("Authorization: Basic eDp5\r\n") && !asked.contains("cDpx"), "{asked}");
    for line in [
        "WWW-Authenticate: Basic realm=\"a, b\"\r\n",
        "WWW-Authenticate: Bearer\r\n",
        "Authentication-Info: x=1\r\n",
    ] {
        assert!(got.contains(line), "{line} in {got}");
    }
    assert!(!got.contains("Proxy-Authenticate"), "{got}");
}

#[test]
fn rfc9110_8_4_a_coding_that_the_origin_gave_passes_as_it_is_and_only_to_who_may_have_it() {
    let mut world = World::new(1);
    let fields = "Cache-Control: max-age=60\r\nContent-Encoding: gzip\r\nETag: \"z\"\r\n\
                  Vary: Accept-Encoding\r\n";
    let zipped = request("GET", "/x", "Accept-Encoding: gzip\r\n");
    let (asked, got) = exchange(&mut world, &zipped, &answer("200 OK", fields, "zipped"));
    assert!(asked.contains("Accept-Encoding: gzip\r\n"), "{asked}");
    let hit = ask(&mut world, &zipped).expect("a hit");
    for got in [got, hit] {
        assert!(got.contains("Content-Encoding: gzip\r\n") && got.ends_with("zipped"), "{got}");
        assert!(got.contains("ETag: \"z\"\r\n"), "§8.8.3: as the origin gave it: {got}");
    }
    let plain = answer("200 OK", "Cache-Control: max-age=60\r\nVary: Accept-Encoding\r\n", "plain");
    let (_, got) = exchange(&mut world, GET, &plain);
    assert!(got.ends_with("plain") && !got.contains("Content-Encoding"), "{got}");
    assert!(ask(&mut world, &zipped).expect("a hit").ends_with("zipped"));
    assert!(ask(&mut world, GET).expect("a hit").ends_with("plain"));
}

#[test]
fn rfc9110_15_a_status_that_nobody_knows_passes_as_it_is() {
    for status in ["299 Fine", "399 Elsewhere", "418 Teapot", "499 Odd", "599 Broken"] {
        let mut world = World::new(1);
        let (_, got) = exchange(&mut world, GET, &answer(status, "", "x"));
        let code = &status[..3];
        assert!(got.starts_with(&format!("HTTP/1.1 {code} ")) && got.ends_with('x'), "{got}");
        assert!(!is_stored(&mut world, "/x"), "{status}: not without an explicit lifetime");
    }
}

#[test]
fn rfc9110_15_5_9_a_408_and_15_6_4_a_503_of_the_origin_pass_and_their_fields_with_them() {
    for status in ["408 Request Timeout", "503 Service Unavailable"] {
        let mut world = World::new(1);
        let (_, got) = exchange(&mut world, GET, &answer(status, "Retry-After: 7\r\n", "later"));
        assert!(got.contains("Retry-After: 7\r\n") && got.ends_with("later"), "{got}");
        assert!(!is_stored(&mut world, "/x"), "{status}");
    }
}

#[test]
fn rfc9110_13_2_2_of_all_conditions_the_first_by_precedence_decides() {
    let mut world = World::new(1);
    let dates = "Date: Tue, 14 Nov 2023 22:13:20 GMT\r\n\
                 Last-Modified: Mon, 13 Nov 2023 22:13:20 GMT\r\n";
    let fields = format!("Cache-Control: max-age=600\r\nETag: \"a\"\r\n{dates}");
    exchange(&mut world, GET, &answer("200 OK", &fields, "hello"));
    let old = "If-Modified-Since: Sun, 12 Nov 2023 22:13:20 GMT\r\n";
    let new = "If-Modified-Since: Mon, 13 Nov 2023 22:13:20 GMT\r\n";
    let part = "Range: bytes=0-1\r\n";
    for (fields, status) in [
        // If-None-Match before If-Modified-Since, whichever way.
        (format!("If-None-Match: \"a\"\r\n{old}"), "304"),
        (format!("If-None-Match: \"b\"\r\n{new}"), "200"),
        (new.to_owned(), "304"),
        // Both before Range and If-Range.
        (format!("If-None-Match: \"a\"\r\n{part}If-Range: \"b\"\r\n"), "304"),
        (format!("If-None-Match: \"b\"\r\n{part}If-Range: \"a\"\r\n"), "206"),
        (format!("If-None-Match: \"b\"\r\n{part}If-Range: \"b\"\r\n"), "200"),
    ] {
        let got = ask(&mut world, &request("GET", "/x", &fields)).expect("from the cache");
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {got}");
    }
    // If-Match is before them all, and the origin's to judge.
    let fields = "If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n";
    let failed = answer("412 Precondition Failed", "", "");
    let (asked, got) = exchange(&mut world, &request("GET", "/x", fields), &failed);
    assert!(asked.contains("If-Match: \"a\"\r\nIf-None-Match: \"a\"\r\n"), "{asked}");
    assert!(got.starts_with("HTTP/1.1 412 "), "{got}");
}

#[test]
fn rfc9110_9_3_7_options_and_9_3_4_put_are_passed_and_their_answers_not_stored() {
    for method in ["OPTIONS", "PUT", "DELETE", "PATCH"] {
        let mut world = World::new(1);
        let stored = answer("200 OK", "Cache-Control: max-age=60\r\n", "theirs");
        let (asked, got) = exchange(&mut world, &request(method, "/x", ""), &stored);
        assert!(asked.starts_with(&format!("{method} /x HTTP/1.1\r\n")), "{asked}");
        assert!(got.ends_with("theirs") && got.contains("X-Cache-Status: BYPASS"), "{got}");
        assert!(!is_stored(&mut world, "/x"), "{method}");
    }
}
