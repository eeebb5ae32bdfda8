//! Ranges: from what is stored whole, from stored parts, and what is asked of the origin to
//! complete them (RFC 9110 §14, RFC 9111 §3.3, §3.4); as tests through the seam.

use super::testing::World;

const FRESH: &str = "Cache-Control: max-age=60\r\n";
const TAGGED: &str = "Cache-Control: max-age=60\r\nETag: \"v1\"\r\nContent-Type: text/x\r\n";
const BODY: &str = "0123456789";

fn get(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
}

fn range(value: &str) -> String {
    get(&format!("Range: bytes={value}\r\n"))
}

fn whole(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{fields}\r\n{BODY}")
}

/// A 206 with `first..=last` of [`BODY`].
fn part(fields: &str, first: usize, last: usize) -> String {
    let body = &BODY[first..=last];
    format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/10\r\n\
         Content-Length: {}\r\n{fields}\r\n{body}",
        body.len()
    )
}

/// Asks; `None` as long as the origin is asked first.
fn ask(world: &mut World, request: &str) -> Option<String> {
    let client = world.connect(0);
    world.say(client, request);
    let text = world.take(client);
    world.hang_up(client);
    (!text.is_empty()).then_some(text)
}

/// Asks, and answers as the origin. Returns what the origin and the client got.
fn exchange(world: &mut World, request: &str, answer: &str) -> (String, String) {
    let client = world.connect(0);
    world.say(client, request);
    let upstream = world.upstream();
    let asked = world.take(upstream);
    world.say(upstream, answer);
    let got = world.take(client);
    world.hang_up(client);
    (asked, got)
}

fn range_line(asked: &str) -> Option<&str> {
    asked.lines().find_map(|line| line.strip_prefix("Range: "))
}

/// That `got` is this part of the whole.
fn check_part(got: &str, first: usize, last: usize) {
    assert!(got.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{got}");
    assert!(got.contains(&format!("Content-Range: bytes {first}-{last}/10\r\n")), "{got}");
    assert!(got.contains(&format!("Content-Length: {}\r\n", last - first + 1)), "{got}");
    assert!(got.ends_with(&format!("\r\n\r\n{}", &BODY[first..=last])), "{got}");
}

fn check_whole(got: &str) {
    assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    assert!(got.contains("Content-Length: 10\r\n") && !got.contains("Content-Range"), "{got}");
    assert!(got.ends_with(&format!("\r\n\r\n{BODY}")), "{got}");
}

#[test]
fn rfc9110_14_2_ranges_are_served_from_what_is_stored_whole() {
    let mut world = World::new(1);
    exchange(&mut world, &get(""), &whole(TAGGED));
    for (value, first, last) in [("0-1", 0, 1), ("1-", 1, 9), ("-1", 9, 9), ("8-99", 8, 9)] {
        let got = ask(&mut world, &range(value)).expect("a hit");
        check_part(&got, first, last);
        for line in ["ETag: \"v1\"", "Content-Type: text/x", "X-Cache-Status: HIT", "; hit; ttl="] {
            assert!(got.contains(line), "{line} {got}");
        }
    }
    let got = ask(&mut world, &range("10-")).expect("a hit");
    assert!(got.starts_with("HTTP/1.1 416 "), "{got}");
    assert!(got.contains("Content-Range: bytes */10\r\nContent-Length: 0\r\n"), "{got}");
    for ignored in ["5-2", "x", "0-1\r\nRange: bytes=x"] {
        let got = ask(&mut world, &range(ignored)).expect("a hit");
        let is_first = ignored.starts_with("0-1");
        if is_first { check_part(&got, 0, 1) } else { check_whole(&got) }
    }
    let head = ask(&mut world, &range("0-1").replace("GET", "HEAD")).expect("a hit");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Content-Length: 10\r\n"), "{head}");
}

#[test]
fn rfc9110_15_3_7_a_206_says_of_caching_what_a_200_would_have_said() {
    let mut world = World::new(1);
    let said = [
        "Date: Tue, 14 Nov 2023 22:13:20 GMT",
        "Cache-Control: max-age=60",
        "CDN-Cache-Control: max-age=90",
        "ETag: \"v1\"",
        "Expires: Tue, 14 Nov 2023 22:14:20 GMT",
        "Content-Location: /x.en",
        "Vary: Accept-Language",
        "Last-Modified: Tue, 14 Nov 2023 20:13:20 GMT",
    ];
    let fields: String = said.iter().map(|line| format!("{line}\r\n")).collect();
    exchange(&mut world, &get(""), &whole(&fields));
    for asked in [range("0-1"), range("0-1, 4-5"), range("0-1\r\nIf-Range: \"v1\"")] {
        let got = ask(&mut world, &asked).expect("a hit");
        assert!(got.starts_with("HTTP/1.1 206 "), "{got}");
        let missing = said.iter().find(|line| !got.contains(&format!("\r\n{line}\r\n")));
        assert_eq!(missing, None, "{got}");
    }
}

#[test]
fn rfc9110_15_3_7_2_several_ranges_are_sent_as_multipart() {
    let mut world = World::new(1);
    exchange(&mut world, &get(""), &whole(TAGGED));
    let got = ask(&mut world, &range("0-1, 4-5,-2")).expect("a hit");
    assert!(got.starts_with("HTTP/1.1 206 "), "{got}");
    let (head, body) = got.split_once("\r\n\r\n").expect("a head");
    assert!(!head.contains("Content-Range") && !head.contains("text/x"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{got}");
    let (_, boundary) = head.split_once("multipart/byteranges; boundary=").expect("a boundary");
    let boundary = boundary.lines().next().expect("a line");
    let parts: Vec<_> = body.split(&format!("\r\n--{boundary}")).collect();
    assert_eq!(parts.len(), 5);
    assert_eq!((parts[0], parts[4]), ("", "--\r\n"));
    for (text, first, last) in [(parts[1], 0, 1), (parts[2], 4, 5), (parts[3], 8, 9)] {
        let expected = format!(
            "\r\nContent-Type: text/x\r\nContent-Range: bytes {first}-{last}/10\r\n\r\n{}",
            &BODY[first..=last]
        );
        assert_eq!(text, expected);
    }
    let got = ask(&mut world, &range("0-,0-,0-")).expect("a hit");
    check_whole(&got);
}

#[test]
fn rfc9110_13_1_5_if_range_wants_the_part_only_of_the_same_bytes() {
    let dates = "Cache-Control: max-age=60\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\
                 Last-Modified: Tue, 14 Nov 2023 20:00:00 GMT\r\n";
    let recent = dates.replace("20:00:00", "22:13:00");
    for (fields, condition, is_part) in [
        (TAGGED, "\"v1\"", true),
        (TAGGED, "\"v2\"", false),
        (TAGGED, "W/\"v1\"", false),
        (FRESH, "\"v1\"", false),
        (dates, "Tue, 14 Nov 2023 20:00:00 GMT", true),
        (dates, "Tue, 14 Nov 2023 20:00:01 GMT", false),
        (&recent, "Tue, 14 Nov 2023 22:13:00 GMT", false),
    ] {
        let mut world = World::new(1);
        exchange(&mut world, &get(""), &whole(fields));
        let request = get(&format!("Range: bytes=2-3\r\nIf-Range: {condition}\r\n"));
        let got = ask(&mut world, &request).expect("a hit");
        if is_part { check_part(&got, 2, 3) } else { check_whole(&got) }
    }
}

#[test]
fn rfc9110_13_2_2_conditions_come_before_ranges() {
    let mut world = World::new(1);
    exchange(&mut world, &get(""), &whole(TAGGED));
    let request = get("Range: bytes=99-\r\nIf-None-Match: \"v1\"\r\n");
    assert!(ask(&mut world, &request).expect("a hit").starts_with("HTTP/1.1 304 "));
}

#[test]
fn rfc9111_3_3_a_part_is_stored_and_what_lies_in_it_is_served() {
    for fields in [FRESH, TAGGED] {
        let mut world = World::new(1);
        let (asked, got) = exchange(&mut world, &range("4-8"), &part(fields, 4, 8));
        assert_eq!(range_line(&asked), Some("bytes=4-8"));
        check_part(&got, 4, 8);
        assert!(got.contains("MISS") && got.contains("; fwd=uri-miss; fwd-status=206; stored"));
        for (value, first, last) in [("4-8", 4, 8), ("6-7", 6, 7), ("-6", 4, 9)] {
            match ask(&mut world, &range(value)) {
                Some(got) => check_part(&got, first, last),
                None => assert_eq!(value, "-6"),
            }
        }
        let multi = ask(&mut world, &range("4-4,6-6")).expect("a hit");
        assert!(multi.contains("multipart/byteranges"), "{multi}");
        let head = ask(&mut world, &get("").replace("GET", "HEAD")).expect("a hit");
        assert!(head.contains("Content-Length: 10\r\n"), "{head}");
        assert!(ask(&mut world, &get("")).is_none(), "the whole is not there");
    }
}

#[test]
fn rfc9111_3_4_only_the_holes_are_fetched_and_joined() {
    let mut world = World::new(1);
    exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
    let (asked, got) = exchange(&mut world, &range("2-6"), &part(TAGGED, 4, 6));
    assert_eq!(range_line(&asked), Some("bytes=4-6"));
    assert!(asked.contains("If-Range: \"v1\"\r\n"), "{asked}");
    check_part(&got, 2, 6);
    assert!(got.contains("; fwd=partial; fwd-status=206; stored"), "{got}");
    let updated = TAGGED.replace("text/x", "text/y");
    let (asked, got) = exchange(&mut world, &get(""), &part(&updated, 7, 9));
    assert_eq!(range_line(&asked), Some("bytes=7-"));
    check_whole(&got);
    assert!(got.contains("Content-Type: text/y\r\n"), "the newer fields count: {got}");
    check_whole(&ask(&mut world, &get("")).expect("a hit"));
    check_part(&ask(&mut world, &range("3-7")).expect("a hit"), 3, 7);
}

#[test]
fn rfc9111_3_4_a_completion_streams_while_it_arrives() {
    let mut world = World::new(1);
    exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
    let client = world.connect(0);
    world.say(client, &get(""));
    let upstream = world.upstream();
    let answer = part(TAGGED, 4, 9);
    let (first, rest) = answer.split_at(answer.len() - 4);
    world.say(upstream, first);
    assert!(world.take(client).ends_with("\r\n\r\n012345"));
    let late = world.connect(0);
    world.say(late, &range("3-8"));
    assert!(world.take(late).ends_with("\r\n\r\n345"));
    world.say(upstream, rest);
    assert_eq!((world.take(client), world.take(late)), ("6789".into(), "678".into()));
}

#[test]
fn rfc9111_3_4_parts_of_another_representation_are_not_joined() {
    let other = TAGGED.replace("v1", "v2");
    for answer in [
        part(&other, 4, 9),
        part(FRESH, 4, 9),
        part(&TAGGED.replace("\"v1\"", "W/\"v1\""), 4, 9),
        part(TAGGED, 4, 9).replace("/10", "/11"),
        part(TAGGED, 4, 8),
        part(TAGGED, 4, 9).replace("Content-Range: bytes 4-9/10\r\n", ""),
        "HTTP/1.1 416 No\r\nContent-Length: 0\r\n\r\n".into(),
        // It was asked on no condition that this could be the answer to.
        "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\n\r\n".into(),
    ] {
        let mut world = World::new(1);
        exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
        let client = world.connect(0);
        world.say(client, &get(""));
        let upstream = world.upstream();
        assert_eq!(range_line(&world.take(upstream)), Some("bytes=4-"));
        world.say(upstream, &answer);
        assert_eq!(world.take(client), "", "asked again: {answer}");
        let upstream = world.upstream();
        let asked = world.take(upstream);
        assert!(asked.starts_with("GET /x ") && range_line(&asked).is_none(), "{asked}");
        world.say(upstream, &whole(&other));
        check_whole(&world.take(client));
        check_whole(&ask(&mut world, &get("")).expect("a hit"));
    }
}

#[test]
fn rfc9111_3_4_the_whole_instead_of_the_hole_replaces_what_was_stored() {
    let mut world = World::new(1);
    exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
    let (asked, got) = exchange(&mut world, &range("2-6"), &whole(&TAGGED.replace("v1", "v2")));
    assert_eq!(range_line(&asked), Some("bytes=4-6"));
    check_part(&got, 2, 6);
    check_whole(&ask(&mut world, &get("")).expect("a hit"));
}

#[test]
fn rfc9111_3_4_without_a_validator_the_rest_is_asked_for_but_never_joined() {
    let mut world = World::new(1);
    let (_, got) = exchange(&mut world, &range("-5"), &part(FRESH, 0, 4));
    check_part(&got, 0, 4);
    let (asked, got) = exchange(&mut world, &get(""), &whole(FRESH));
    assert_eq!(range_line(&asked), Some("bytes=5-"));
    assert!(!asked.contains("If-Range"), "{asked}");
    check_whole(&got);
}

#[test]
fn rfc9110_14_4_a_content_range_with_a_mistake_is_passed_on_and_not_stored() {
    let good = part(FRESH, 4, 8);
    for (from, to) in [
        ("bytes 4-8/10", "bytes 4-9/10"),
        ("bytes 4-8/10", "bytes 8-4/10"),
        ("bytes 4-8/10", "bytes 4-8/8"),
        ("bytes 4-8/10", "bytes 4-8/*"),
        ("bytes 4-8/10", "items 4-8/10"),
        ("Content-Range: bytes 4-8/10", "Content-Type: multipart/byteranges; boundary=b"),
    ] {
        let mut world = World::new(1);
        let (_, got) = exchange(&mut world, &range("4-8"), &good.replace(from, to));
        assert!(got.starts_with("HTTP/1.1 206 ") && got.ends_with("45678"), "{got}");
        assert!(got.contains(to) && got.contains("detail=partial"), "{got}");
        assert!(ask(&mut world, &range("5-6")).is_none(), "{to}");
    }
}

#[test]
fn rfc9110_14_2_what_the_origin_sends_whole_is_cut_for_who_asked() {
    let mut world = World::new(1);
    let (asked, got) = exchange(&mut world, &range("2-3"), &whole(FRESH));
    assert_eq!(range_line(&asked), Some("bytes=2-3"));
    check_part(&got, 2, 3);
    check_whole(&ask(&mut world, &get("")).expect("a hit"));
    let mut world = World::new(1);
    let (asked, _) = exchange(&mut world, &range("0-1,3-4"), &whole(FRESH));
    assert_eq!(range_line(&asked), None, "several ranges are cut here");
}

#[test]
fn rfc9111_4_3_1_a_stale_part_is_validated_and_keeps_its_bytes() {
    let mut world = World::new(1);
    let fields = "Cache-Control: max-age=1\r\nETag: \"v1\"\r\n";
    exchange(&mut world, &range("4-8"), &part(fields, 4, 8));
    world.wait_ms(5_000);
    let same = "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n";
    let (asked, got) = exchange(&mut world, &range("5-6"), same);
    assert!(asked.contains("If-None-Match: \"v1\"\r\n") && range_line(&asked).is_none(), "{asked}");
    check_part(&got, 5, 6);
    check_part(&ask(&mut world, &range("5-6")).expect("a hit"), 5, 6);
}

#[test]
fn a_range_of_what_arrives_is_waited_for() {
    let mut world = World::new(2);
    let first = world.connect(0);
    world.say(first, &get(""));
    let upstream = world.upstream();
    let answer = whole(FRESH);
    let (begun, rest) = answer.split_at(answer.len() - 8);
    world.say(upstream, begun);
    let late = [world.connect(0), world.connect(1)];
    for client in late {
        world.say(client, &range("5-7"));
        assert!(world.take(client).ends_with("\r\n\r\n"));
    }
    world.say(upstream, &rest[..2]);
    assert_eq!(world.take(late[0]), "");
    world.say(upstream, &rest[2..]);
    for client in late {
        assert_eq!(world.take(client), "567");
    }
    check_whole(&world.take(first));
}

#[test]
fn many_requests_for_one_range_make_one_request_to_the_origin() {
    let mut world = World::new(2);
    let clients: Vec<_> = (0..6).map(|at| world.connect(at % 2)).collect();
    for &client in &clients {
        world.say(client, &range("4-8"));
    }
    assert_eq!(world.upstreams.len(), 1);
    let upstream = world.upstream();
    world.say(upstream, &part(FRESH, 4, 8));
    for &client in &clients {
        check_part(&world.take(client), 4, 8);
    }
}

#[test]
fn a_part_that_breaks_off_is_not_kept_and_what_was_there_is_back() {
    let mut world = World::new(1);
    exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
    let client = world.connect(0);
    world.say(client, &get(""));
    let upstream = world.upstream();
    let answer = part(TAGGED, 4, 9);
    world.say(upstream, &answer[..answer.len() - 3]);
    world.eof(upstream);
    assert!(world.take(client).ends_with("\r\n\r\n0123456"));
    assert!(world.peer(client).closed);
    check_part(&ask(&mut world, &range("1-2")).expect("a hit"), 1, 2);
    assert!(ask(&mut world, &range("4-5")).is_none());
}

#[test]
fn a_purge_takes_the_parts() {
    let mut world = World::new(1);
    exchange(&mut world, &range("0-3"), &part(TAGGED, 0, 3));
    world.purge(proto::feed::record::Scope::Everything, false);
    assert!(ask(&mut world, &range("1-2")).is_none());
}
