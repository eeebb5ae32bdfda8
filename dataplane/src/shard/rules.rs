//! What the shard promises, as tests through the seam; each is named by its rule.

use proptest::prelude::*;
use proto::feed::record::Scope;

use super::{
    observe::Metric,
    testing::{End, World},
};
use crate::limits;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len())
}

/// Fetches `GET` into the cache with this answer.
fn fill(world: &mut World, answer: &str) {
    let client = world.connect(0);
    world.say(client, GET);
    let upstream = world.upstream();
    world.say(upstream, answer);
    assert!(world.take(client).starts_with("HTTP/1.1 200"), "filled");
    world.eof(client);
    world.take(upstream);
}

fn ask(world: &mut World, shard: usize, request: &str) -> String {
    let client = world.connect(shard);
    world.say(client, request);
    let answer = world.take(client);
    world.eof(client);
    answer
}

fn status_of(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("X-Cache-Status: ")).unwrap_or("none")
}

#[test]
fn a_second_request_is_a_hit_and_asks_no_origin() {
    let mut world = World::new(2);
    fill(&mut world, &ok("Cache-Control: max-age=60\r\nETag: \"1\"\r\n", "hello"));
    let connections = world.upstreams.len();
    for shard in 0..2 {
        world.wait_ms(2_000);
        let answer = ask(&mut world, shard, GET);
        assert_eq!(status_of(&answer), "HIT", "{answer}");
        assert!(answer.contains(&format!("Age: {}\r\n", 2 * (shard + 1))), "{answer}");
        assert!(answer.contains("Via: 1.1 pharos-e1\r\n") && answer.contains("X-Request-Id: "));
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    assert_eq!(world.upstreams.len(), connections);
    assert_eq!(world.metric(Metric::Hit), 2);
}

#[test]
fn all_answers_to_one_receive_leave_in_one_send() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=60\r\n", "hello"));
    let client = world.connect(0);
    world.say(client, &GET.repeat(16));
    assert_eq!(world.peer(client).sends, 1);
    assert_eq!(world.take(client).matches("\r\n\r\nhello").count(), 16);
}

#[test]
fn pipelined_requests_are_answered_in_order_though_the_first_waits() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=60\r\n", "hello"));
    let client = world.connect(0);
    world.say(client, &format!("GET /slow HTTP/1.1\r\nHost: a.example\r\n\r\n{GET}"));
    assert_eq!(world.take(client), "");
    let upstream = world.upstream();
    world.say(upstream, &ok("", "first"));
    let answer = world.take(client);
    let (first, second) = (answer.find("first"), answer.find("hello"));
    assert!(first.is_some() && first < second, "{answer}");
}

#[test]
fn many_first_requests_make_one_request_to_the_origin_and_late_joiners_stream() {
    let mut world = World::new(2);
    let clients: Vec<End> = (0..20).map(|at| world.connect(at % 2)).collect();
    for &client in &clients[..10] {
        world.say(client, GET);
    }
    let upstream = world.upstream();
    world.say(
        upstream,
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=9\r\n\r\nhel",
    );
    for &client in &clients[10..] {
        world.say(client, GET);
    }
    for &client in &clients {
        assert!(world.take(client).ends_with("\r\n\r\nhel"), "streams while it arrives");
    }
    world.say(upstream, "lo-bye!");
    for &client in &clients {
        assert_eq!(world.take(client), "lo-bye!");
    }
    assert_eq!(world.upstreams.len(), 1);
    assert_eq!(world.take(upstream).matches("GET /x").count(), 1);
}

#[test]
fn a_body_without_a_length_is_chunked_for_1_1_and_ends_with_the_connection_for_1_0() {
    let mut world = World::new(1);
    let new = world.connect(0);
    let old = world.connect(0);
    world.say(new, GET);
    world.say(old, "GET /x HTTP/1.0\r\nHost: a.example\r\n\r\n");
    let upstream = world.upstream();
    world.say(
        upstream,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=9\r\n\r\n",
    );
    world.say(upstream, "5\r\nhello\r\n");
    world.say(upstream, "0\r\n\r\n");
    let answer = world.take(new);
    assert!(answer.contains("Transfer-Encoding: chunked\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{answer}");
    let answer = world.take(old);
    assert!(
        answer.contains("Connection: close\r\n") && answer.ends_with("\r\n\r\nhello"),
        "{answer}"
    );
    assert!(world.peer(old).closed && !world.peer(new).closed);
    let later = ask(&mut world, 0, GET);
    assert!(later.contains("Content-Length: 5\r\n") && !later.contains("chunked"), "{later}");
}

#[test]
fn a_head_of_nothing_stored_fetches_the_whole_for_the_next() {
    let head = GET.replace("GET", "HEAD");
    let mut world = World::new(1);
    let client = world.connect(0);
    world.say(client, &head);
    let upstream = world.upstream();
    assert!(world.take(upstream).starts_with("GET /x "));
    let theirs = "X-Request-Id: theirs\r\nCache-Control: max-age=60\r\n";
    world.say(upstream, &ok(theirs, "hello"));
    let answer = world.take(client);
    assert_eq!(status_of(&answer), "MISS", "{answer}");
    assert!(answer.contains("Content-Length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    world.say(client, &format!("{head}{GET}"));
    let answers = world.take(client);
    assert_eq!(answers.matches("X-Cache-Status: HIT\r\n").count(), 2, "{answers}");
    assert!(answers.ends_with("\r\n\r\nhello"), "{answers}");
    // The id of a request is its own, not that of the one which filled the cache.
    assert_eq!(answers.matches("X-Request-Id: ").count(), 2, "{answers}");
    assert_eq!(world.upstreams.len(), 1);
}

#[test]
fn a_head_whose_answer_may_not_be_stored_ends_with_the_head() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for fields in ["Cache-Control: private\r\n", "Cache-Control: no-store\r\n"] {
        world.say(client, &GET.replace("GET", "HEAD").replace("/x", &format!("/{}", fields.len())));
        let upstream = world.upstream();
        assert!(world.take(upstream).starts_with("GET "));
        world.say(upstream, &ok(fields, "hello")[..]);
        let answer = world.take(client);
        assert!(answer.contains("Content-Length: 5\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(!world.peer(client).closed);
    }
}

#[test]
fn a_stale_response_is_validated_and_a_304_makes_it_fresh() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=1\r\nETag: \"v1\"\r\n", "hello"));
    world.wait_ms(5_000);
    let client = world.connect(0);
    world.say(client, GET);
    let upstream = world.upstream();
    assert!(world.take(upstream).contains("If-None-Match: \"v1\"\r\n"));
    world.say(
        upstream,
        "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nCache-Control: max-age=60\r\n\r\n",
    );
    let answer = world.take(client);
    assert_eq!(status_of(&answer), "REVALIDATED", "{answer}");
    assert!(answer.ends_with("hello"));
    assert_eq!(status_of(&ask(&mut world, 0, GET)), "HIT");
    let conditional = GET.replace("\r\n\r\n", "\r\nIf-None-Match: \"v1\"\r\n\r\n");
    let answer = ask(&mut world, 0, &conditional);
    assert!(answer.starts_with("HTTP/1.1 304 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn what_was_fetched_across_a_purge_is_not_stored() {
    let mut world = World::new(2);
    let client = world.connect(0);
    world.say(client, GET);
    world.purge(Scope::Site { site: "s1".into() }, false);
    let late = world.connect(1);
    world.say(late, GET);
    let upstream = world.upstreams[0];
    world.say(upstream, &ok("Cache-Control: max-age=60\r\n", "old"));
    assert!(world.take(client).ends_with("old"), "who waited before gets it");
    assert!(!world.take(late).ends_with("old"), "who came after does not");
    let upstream = world.upstream();
    world.say(upstream, &ok("Cache-Control: max-age=60\r\n", "new"));
    assert!(world.take(late).ends_with("new"));
    assert!(ask(&mut world, 0, GET).ends_with("new"));
}

#[test]
fn a_purged_response_is_not_served_from_any_near_table() {
    let mut world = World::new(2);
    fill(&mut world, &ok("Cache-Control: max-age=60\r\n", "old"));
    for shard in 0..2 {
        assert_eq!(status_of(&ask(&mut world, shard, GET)), "HIT");
    }
    world.purge(Scope::Url { site: "s1".into(), target: "/x".into() }, false);
    for shard in 0..2 {
        let client = world.connect(shard);
        world.say(client, GET);
        assert_eq!(world.take(client), "", "shard {shard} asks the origin");
        world.hang_up(client);
    }
}

#[test]
fn an_origin_that_fails_is_covered_by_what_is_stored() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=1\r\n", "hello"));
    let upstream = world.upstream();
    world.eof(upstream);
    world.wait_ms(10_000);
    world.connect = Err(std::io::ErrorKind::ConnectionRefused);
    let answer = ask(&mut world, 0, GET);
    assert_eq!(status_of(&answer), "STALE", "{answer}");
    assert!(answer.contains("Warning: 110 - \"Response is Stale\"\r\n"));
    assert!(answer.ends_with("hello"));
    let answer = ask(&mut world, 0, "GET /other HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("connection refused"),
        "{answer}"
    );
}

#[test]
fn an_origin_that_is_silent_is_a_504_in_time() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.say(client, GET);
    world.wait_ms(4_000);
    assert_eq!(world.take(client), "");
    world.wait_ms(1_500);
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let upstream = world.upstream();
    assert!(world.peer(upstream).closed);
}

#[test]
fn a_safe_request_on_a_dead_kept_connection_is_sent_once_more() {
    let mut world = World::new(1);
    fill(&mut world, &ok("", "one"));
    let dead = world.upstream();
    let client = world.connect(0);
    world.say(client, "GET /y HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(world.upstream(), dead, "the kept one");
    world.eof(dead);
    let fresh = world.upstream();
    assert_ne!(fresh, dead);
    world.say(fresh, &ok("", "two"));
    assert!(world.take(client).ends_with("two"));
    let client = world.connect(0);
    world.say(client, "POST /pass/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nx");
    world.eof(fresh);
    assert!(world.take(client).starts_with("HTTP/1.1 502 "), "not what may change things");
}

#[test]
fn pass_traffic_is_not_stored_and_flows_both_ways_with_back_pressure() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.say(
        client,
        "POST /pass/up HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\
         Expect: 100-continue\r\n\r\n",
    );
    assert_eq!(world.take(client), "HTTP/1.1 100 Continue\r\n\r\n");
    let upstream = world.upstream();
    world.peer(upstream).blocked = true;
    let piece = "x".repeat(64 * 1024);
    for _ in 0..4 {
        world.say(client, &format!("10000\r\n{piece}\r\n"));
    }
    assert!(!world.peer(client).receiving, "the origin does not read");
    world.unblock(upstream);
    assert!(world.peer(client).receiving);
    world.say(client, "0\r\n\r\n");
    let request = world.take(upstream);
    assert!(request.contains("Transfer-Encoding: chunked\r\n") && !request.contains("Expect"));
    assert!(request.ends_with("\r\n0\r\n\r\n"));
    world.peer(client).blocked = true;
    world.say(upstream, "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..16 {
        world.say(upstream, &format!("10000\r\n{piece}\r\n"));
    }
    assert!(!world.peer(upstream).receiving, "the client does not read");
    world.unblock(client);
    assert!(world.peer(upstream).receiving);
    world.say(upstream, "0\r\n\r\n");
    let answer = world.take(client);
    assert_eq!(status_of(&answer), "PASS");
    assert_eq!(answer.matches(&piece).count(), 16);
    assert!(answer.ends_with("\r\n0\r\n\r\n"));
    assert_eq!(world.cache.stats().entries, 0);
}

#[test]
fn a_client_that_sends_one_byte_a_second_is_told_408() {
    let mut world = World::new(1);
    let client = world.connect(0);
    for byte in GET.bytes().take(11) {
        world.say_bytes(client, &[byte]);
        world.wait_ms(1_000);
    }
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(world.peer(client).closed);
    let silent = world.connect(0);
    world.wait_ms(11_000);
    assert_eq!(world.take(silent), "");
    assert!(world.peer(silent).closed, "nothing was asked, nothing is answered");
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    let client = world.connect(0);
    world.say(client, GET);
    world.wait_ms(60_000);
    assert!(!world.peer(client).closed);
    world.say(client, GET);
    world.take(client);
    world.wait_ms(64_000);
    assert!(!world.peer(client).closed, "a request starts the wait anew");
    world.wait_ms(2_000);
    assert!(world.peer(client).closed);
    assert_eq!(world.take(client), "");
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    let client = world.connect(0);
    world.peer(client).blocked = true;
    world.say(client, GET);
    world.wait_ms(60_000);
    assert!(world.peer(client).closed);
    assert_eq!(world.metric(Metric::SlowClient), 1);
}

#[test]
fn a_request_that_cannot_be_read_is_refused_and_ends_the_connection() {
    let mut world = World::new(1);
    for (request, status) in [
        ("GET /x HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            "400",
        ),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40_000)), "414"),
        (
            "POST /pass/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 9999999999\r\n\r\n"
                .to_owned(),
            "413",
        ),
    ] {
        let client = world.connect(0);
        world.say(client, &request);
        let answer = world.take(client);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("X-Request-Id: ") && world.peer(client).closed);
    }
}

#[test]
fn what_no_site_claims_is_said_clearly() {
    let mut world = World::new(1);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "421"),
        ("TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n", "405"),
        ("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "204"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nCDN-Loop: pharos-e1\r\n\r\n", "508"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\nCache-Control: only-if-cached\r\n\r\n", "504"),
    ] {
        let answer = ask(&mut world, 0, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request} {answer}");
    }
    assert!(world.upstreams.is_empty());
}

#[test]
fn head_is_answered_from_what_get_stored() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    let answer = ask(&mut world, 0, &GET.replace("GET", "HEAD"));
    assert!(answer.contains("Content-Length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(status_of(&answer), "HIT");
}

#[test]
fn a_write_that_succeeds_outdates_what_is_stored() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    let client = world.connect(0);
    world.say(client, "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n");
    let upstream = world.upstream();
    world.say(upstream, "HTTP/1.1 204 No Content\r\n\r\n");
    assert!(world.take(client).starts_with("HTTP/1.1 204 "));
    let client = world.connect(0);
    world.say(client, GET);
    assert_eq!(world.take(client), "", "asked of the origin again");
}

#[test]
fn a_fetch_goes_on_without_the_one_who_asked() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.say(client, GET);
    world.hang_up(client);
    let upstream = world.upstream();
    world.say(upstream, &ok("Cache-Control: max-age=600\r\n", "hello"));
    assert_eq!(status_of(&ask(&mut world, 0, GET)), "HIT");
}

#[test]
fn a_large_body_is_lent_and_arrives_whole_at_a_slow_readers_pace() {
    let mut world = World::new(1);
    let body = "0123456789abcdef".repeat(128 * 1024);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", &body));
    let client = world.connect(0);
    world.peer(client).blocked = true;
    world.say(client, &GET.repeat(2));
    let mut got = String::new();
    for _ in 0..100 {
        let piece = world.take(client);
        assert!(piece.len() <= 2 * body.len().max(limits::WRITE_BYTES_MAX));
        got.push_str(&piece);
        world.unblock(client);
        world.peer(client).blocked = true;
    }
    assert_eq!(got.matches(&body).count(), 2);
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() {
    let mut world = World::new(1);
    let client = world.connect(0);
    world.say(client, GET);
    let upstream = world.upstream();
    world.say(
        upstream,
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nCache-Control: max-age=9\r\n\r\nhel",
    );
    world.eof(upstream);
    assert!(world.take(client).ends_with("hel"));
    assert!(world.peer(client).closed);
    assert_eq!(world.cache.stats().entries, 0);
}

#[test]
fn a_page_is_fetched_from_control_by_its_id_and_without_its_last_slash_redirected() {
    let mut world = World::with_control(1);
    let answer = ask(&mut world, 0, "GET /demo?x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 308 ") && answer.contains("Location: /demo/?x\r\n"));
    let client = world.connect(0);
    world.say(client, "GET /demo/?utm=1 HTTP/1.1\r\nHost: localhost:8080\r\n\r\n");
    let upstream = world.upstream();
    let request = world.take(upstream);
    assert!(
        request.starts_with("GET /pages/p1/ HTTP/1.1\r\nHost: 127.0.0.1:7400\r\n"),
        "{request}"
    );
    let fields = "Cache-Control: no-cache\r\nCDN-Cache-Control: max-age=3600\r\n\
                  Surrogate-Key: page/p1\r\nPharos-Version: eu-00000001:5\r\n";
    world.say(upstream, &ok(fields, "page"));
    assert!(world.take(client).ends_with("page"));
    let answer = ask(&mut world, 0, "GET /demo/ HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(status_of(&answer), "HIT");
    assert!(answer.contains("Pharos-Version: eu-00000001:5\r\n"), "{answer}");
    let answer = ask(&mut world, 0, "POST /demo/ HTTP/1.1\r\nHost: other\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405 "));
}

#[test]
fn an_origin_has_its_time_for_a_head_from_the_end_of_the_request() {
    for (framing, piece, end) in [
        ("Content-Length: 15", "fivefive", "five..."),
        ("Transfer-Encoding: chunked", "8\r\nfivefive\r\n", "7\r\nfive...\r\n0\r\n\r\n"),
    ] {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say(client, &format!("POST /x HTTP/1.1\r\nHost: a.example\r\n{framing}\r\n\r\n"));
        // Pauses of an upload are the client's affair up to `transfer_ms`, however many there are.
        world.wait_ms(19_000);
        world.say(client, piece);
        world.wait_ms(19_000);
        world.say(client, end);
        assert_eq!(world.take(client), "", "{framing}");
        let asked = {
            let upstream = world.upstream();
            world.take(upstream)
        };
        assert!(asked.contains("five..."), "{asked}");
        world.wait_ms(4_500);
        assert_eq!(world.take(client), "", "the origin still has time");
        world.wait_ms(2_000);
        let answer = world.take(client);
        assert!(answer.starts_with("HTTP/1.1 504 "), "{framing}: {answer}");
    }
}

#[test]
fn an_upload_that_stalls_for_too_long_is_the_clients_fault() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let head = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n";
    world.say(client, &format!("{head}12345"));
    world.wait_ms(19_000);
    assert_eq!(world.take(client), "");
    world.wait_ms(3_000);
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn an_upload_that_its_origin_does_not_take_is_the_origins_fault() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let head = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n";
    world.say(client, head);
    let upstream = world.upstream();
    assert!(world.take(upstream).starts_with("POST /x "));
    world.peer(upstream).blocked = true;
    // The first piece is on its way, the second fills what the edge holds.
    world.say(client, &"x".repeat(1_000));
    world.say(client, &"x".repeat(limits::REQUEST_PIPE_BYTES));
    assert!(!world.peer(client).receiving, "the client is read no further");
    world.wait_ms(19_000);
    assert_eq!(world.take(client), "");
    world.wait_ms(3_000);
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[test]
fn a_client_held_back_by_its_origin_has_its_time_anew_when_it_may_go_on() {
    let mut world = World::new(1);
    let client = world.connect(0);
    let head = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1000000\r\n\r\n";
    world.say(client, head);
    let upstream = world.upstream();
    world.peer(upstream).blocked = true;
    world.say(client, &"x".repeat(1_000));
    world.say(client, &"x".repeat(limits::REQUEST_PIPE_BYTES));
    world.wait_ms(15_000);
    world.unblock(upstream);
    assert!(world.peer(client).receiving);
    world.wait_ms(15_000);
    assert_eq!(world.take(client), "", "15 s of 20 are over");
    world.wait_ms(7_000);
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_page_and_its_documents_are_asked_for_by_id_and_without_query() {
    let mut world = World::with_control(1);
    let client = world.connect(0);
    for (path, target) in
        [("/demo/", "/pages/p1/"), ("/demo/api/v2/summary.json", "/pages/p1/api/v2/summary.json")]
    {
        world.say(client, &format!("GET {path}?1 HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let upstream = world.upstream();
        let request = world.take(upstream);
        assert!(request.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{request}");
        world.say(upstream, &ok("CDN-Cache-Control: max-age=3600\r\n", "page"));
        assert!(world.take(client).ends_with("page"));
        let again = format!("GET {path}?2&x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(status_of(&ask(&mut world, 0, &again)), "HIT");
    }
}

#[test]
fn a_page_older_than_the_version_asked_for_is_fetched_again_and_at_last_refused() {
    let mut world = World::with_control(1);
    let get = "GET /demo/ HTTP/1.1\r\nHost: localhost\r\n";
    let page = |version: u32| {
        let fields =
            format!("CDN-Cache-Control: max-age=3600\r\nPharos-Version: eu-00000001:{version}\r\n");
        ok(&fields, "page")
    };
    let client = world.connect(0);
    world.say(client, &format!("{get}\r\n"));
    let upstream = world.upstream();
    world.say(upstream, &page(5));
    assert!(world.take(client).ends_with("page"));
    world.take(upstream);
    world.say(client, &format!("{get}Pharos-Min-Version: eu-00000001:5\r\n\r\n"));
    assert_eq!(status_of(&world.take(client)), "HIT");
    world.say(client, &format!("{get}Pharos-Min-Version: eu-00000001:6\r\n\r\n"));
    let request = world.take(upstream);
    assert!(request.contains("Pharos-Min-Version: eu-00000001:6\r\n"), "{request}");
    world.say(upstream, &page(5));
    assert!(world.take(client).starts_with("HTTP/1.1 503 "), "control has not got it");
    world.say(client, &format!("{get}Pharos-Min-Version: eu-00000001:6\r\n\r\n"));
    world.say(upstream, &page(6));
    assert!(world.take(client).contains("Pharos-Version: eu-00000001:6\r\n"));
}

#[test]
fn a_version_that_cannot_be_fetched_with_control_gone_is_a_503_to_come_back_for() {
    let mut world = World::with_control(1);
    let get = "GET /demo/ HTTP/1.1\r\nHost: localhost\r\n";
    let client = world.connect(0);
    world.say(client, &format!("{get}\r\n"));
    let upstream = world.upstream();
    let version = "CDN-Cache-Control: max-age=3600\r\nPharos-Version: eu-00000001:5\r\n";
    world.say(upstream, &ok(version, "page"));
    world.eof(upstream);
    world.take(client);
    world.connect = Err(std::io::ErrorKind::ConnectionRefused);
    world.say(client, &format!("{get}Pharos-Min-Version: eu-00000001:6\r\n\r\n"));
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("Retry-After: 1\r\n"), "{answer}");
    // What is here is still here for those who ask for no more than that.
    world.say(client, &format!("{get}Pharos-Min-Version: eu-00000001:5\r\n\r\n"));
    assert_eq!(status_of(&world.take(client)), "HIT");
}

#[test]
fn a_softly_purged_page_is_served_stale_when_control_is_gone() {
    let mut world = World::with_control(1);
    let get = "GET /demo/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let client = world.connect(0);
    world.say(client, get);
    let upstream = world.upstream();
    world.say(
        upstream,
        &ok("CDN-Cache-Control: max-age=3600\r\nSurrogate-Key: page/p1\r\n", "page"),
    );
    world.eof(upstream);
    world.take(client);
    world.purge(Scope::Key { site: None, key: "page/p1".into() }, true);
    world.connect = Err(std::io::ErrorKind::ConnectionRefused);
    let answer = ask(&mut world, 0, get);
    assert_eq!(status_of(&answer), "STALE", "{answer}");
}

#[test]
fn the_admin_listener_tells_of_health_and_serves_no_site() {
    let mut world = World::with_control(1);
    let mut admin = |request: &str| {
        let operator = world.accept(0, 1);
        world.say(operator, &format!("{request} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        world.take(operator)
    };
    assert!(admin("GET /livez").starts_with("HTTP/1.1 200 "));
    assert!(admin("GET /readyz").starts_with("HTTP/1.1 200 "));
    assert!(admin("GET /x").starts_with("HTTP/1.1 404 "));
    assert!(admin("DELETE /livez").starts_with("HTTP/1.1 405 "));
    let status = admin("GET /v1/status");
    assert!(status.contains("\"connected\":false") && status.contains("\"pages\":1"), "{status}");
    assert!(admin("GET /metrics").contains("pharos_requests_total 6\n"));
}

#[test]
fn a_web_page_cannot_make_the_edge_drain() {
    let mut world = World::new(1);
    for fields in [
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: 127.0.0.1:7401\r\nSec-Fetch-Site: cross-site\r\n",
        "Host: evil.example\r\n",
    ] {
        let operator = world.accept(0, 1);
        world.say(operator, &format!("POST /v1/drain HTTP/1.1\r\n{fields}\r\n"));
        let answer = world.take(operator);
        assert!(answer.starts_with("HTTP/1.1 403 "), "{fields}: {answer}");
    }
    assert!(world.accepting.is_empty());
    let operator = world.accept(0, 1);
    world.say(operator, "POST /v1/drain HTTP/1.1\r\nHost: [::1]:7401\r\n\r\n");
    assert!(world.take(operator).starts_with("HTTP/1.1 202 "));
}

#[test]
fn a_slow_head_on_an_idle_connection_is_refused_in_its_own_time() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    let client = world.connect(0);
    world.say(client, GET);
    world.wait_ms(15_000);
    world.take(client);
    world.say(client, "GET /x HT");
    world.wait_ms(10_100);
    assert!(world.take(client).starts_with("HTTP/1.1 408 "));
}

#[test]
fn an_attempt_that_comes_too_late_is_not_taken_for_another() {
    let mut world = World::new(1);
    world.hold_connects = true;
    let client = world.connect(0);
    world.say(client, GET);
    world.wait_ms(3_100);
    assert!(world.take(client).starts_with("HTTP/1.1 504 "));
    world.say(client, GET);
    world.release_connect();
    let late = world.upstream();
    assert!(world.peer(late).closed, "nobody wants it any more");
    world.release_connect();
    let upstream = world.upstream();
    world.say(upstream, &ok("", "hello"));
    assert!(world.take(client).ends_with("hello"));
}

#[test]
fn a_stream_takes_over_after_what_was_asked_before_it() {
    let mut world = World::with_control(1);
    let client = world.connect(0);
    let before = "GET /none/ HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let events = "GET /demo/events?last_event_id= HTTP/1.1\r\nHost: localhost\r\n\r\n";
    world.peer(client).blocked = true;
    world.say(client, &format!("{before}{events}{before}"));
    assert!(!world.take(client).contains("text/event-stream"), "not before that has left");
    world.unblock(client);
    let answer = world.take(client);
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains("text/event-stream"),
        "{answer}"
    );
    assert!(!world.peer(client).receiving && !world.peer(client).closed);
    assert_eq!(world.metric(Metric::HttpConns), 0);
    let answer = ask(&mut world, 0, &events.replace("GET", "POST"));
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[test]
fn a_dead_entry_is_let_go_of_in_bounded_time_without_any_request() {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=600\r\n", "hello"));
    ask(&mut world, 0, GET);
    world.purge(Scope::Everything, false);
    assert_eq!(world.cache.stats().used_bytes, 0);
}

/// Requests of every kind on one connection: hits, own answers, bodies that are thrown away, a
/// refusal at the end.
const SCRIPT: &str = "GET /x HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: 1\r\n\r\n\
     POST / HTTP/1.1\r\nHost: b\r\nX-Request-Id: 2\r\nContent-Length: 5\r\n\r\nhello\
     HEAD /x HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: 3\r\n\r\n\
     POST / HTTP/1.1\r\nHost: b\r\nX-Request-Id: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
     5\r\nhello\r\n0\r\nT: 1\r\n\r\n\
     OPTIONS * HTTP/1.1\r\nHost: b\r\nX-Request-Id: 5\r\n\r\n\
     GET /x HTTP/1.1\r\nHost: a.example\r\nX-Request-Id: 6\r\nIf-None-Match: \"1\"\r\n\r\n\
     GET  /x\r\n\r\n";

/// All that a client gets when it sends `bytes` cut at these places.
fn answers(bytes: &[u8], cuts: &[usize]) -> String {
    let mut world = World::new(1);
    fill(&mut world, &ok("Cache-Control: max-age=60\r\nETag: \"1\"\r\n", "hello"));
    let client = world.connect(0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    for pair in cuts.windows(2) {
        if pair[0] < pair[1] && !world.peer(client).closed {
            world.say_bytes(client, &bytes[pair[0]..pair[1]]);
        }
    }
    // The refusal's id is made by the edge.
    let answers = world.take(client);
    answers.split("HTTP/1.1 400 ").next().unwrap_or_default().to_owned() + "refused"
}

/// Nearly an answer.
const ANSWER: &str =
    "HTTP/1.1 [1-5][0-9][0-9] (\r\n|[A-Za-z-]{1,20}: [ -~]{0,20}\r\n){0,6}\r\n[ -~]{0,30}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn answers_do_not_depend_on_how_the_requests_were_cut(
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        prop_assert_eq!(answers(SCRIPT.as_bytes(), &cuts), answers(SCRIPT.as_bytes(), &[]));
    }

    #[test]
    fn no_bytes_of_a_client_or_an_origin_break_the_shard(
        request in prop::collection::vec(any::<u8>(), 0..300),
        flip in any::<usize>(),
        answer in ANSWER,
        end in any::<bool>(),
    ) {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say_bytes(client, if request.is_empty() { b"G" } else { &request });
        let mut script = SCRIPT.as_bytes().to_vec();
        let at = flip % script.len();
        script[at] = request.first().copied().unwrap_or(0);
        let second = world.connect(0);
        world.say_bytes(second, &script);
        if let Some(&upstream) = world.upstreams.last() {
            if !world.peer(upstream).closed {
                world.say(upstream, &answer);
            }
            if end && !world.peer(upstream).closed {
                world.eof(upstream);
            }
        }
        world.wait_ms(120_000);
        prop_assert!(world.peer(client).closed && world.peer(second).closed);
        prop_assert_eq!(world.metric(Metric::FetchActive), 0);
    }
}
