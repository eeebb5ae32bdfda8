//! Rules of pages, as visitors and control see them: the same for everyone, and never kept from
//! anyone by what somebody else asks for.

use proto::feed::record::Scope;

use super::{
    mail::Advance,
    observe::Metric,
    testing::{End, World},
};
use crate::limits;

const GET: &str = "GET /demo/ HTTP/1.1\r\nHost: localhost\r\n";
const PURGE: Scope = Scope::Everything;

fn page(version: u32, fields: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCDN-Cache-Control: max-age=3600\r\n\
         Pharos-Version: eu-00000001:{version}\r\n{fields}\r\npage"
    )
}

fn wait_for(what: &str) -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\
         Pharos-Wait: {what}\r\n\r\n"
    )
}

/// A world whose edge has the page at version 5, and the feed.
fn with_page() -> World {
    let mut world = World::with_control(1);
    world.feed(true);
    world.applied("eu-00000001:5", Advance::Onward);
    let client = world.connect(0);
    world.say(client, &format!("{GET}\r\n"));
    let upstream = world.upstream();
    world.say(upstream, &page(5, ""));
    assert!(world.take(client).ends_with("page"));
    world.take(upstream);
    world
}

fn ask(world: &mut World, fields: &str) -> End {
    let client = world.connect(0);
    world.say(client, &format!("{GET}{fields}\r\n"));
    client
}

/// Connections to control that have been asked something, in the order in which they were opened.
fn asked(world: &mut World) -> Vec<(End, String)> {
    let mut ends = world.upstreams.clone();
    ends.dedup();
    let asked = ends.into_iter().map(|end| (end, world.take(end)));
    asked.filter(|(_, request)| !request.is_empty()).collect()
}

#[test]
fn a_page_is_fetched_once_whatever_its_visitors_say_of_themselves() {
    let mut world = with_page();
    world.purge(PURGE, true);
    let odd = ["Authorization: x", "Cookie: a=1", "If-Match: \"x\"", "Cache-Control: no-store"];
    let clients = odd.map(|field| ask(&mut world, &format!("{field}\r\nX-Odd: 1\r\n")));
    let asked = asked(&mut world);
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (upstream, request) = &asked[0];
    let said = ["Authorization", "Cookie", "If-Match", "no-store", "X-Odd"];
    assert!(said.iter().all(|it| !request.contains(it)), "{request}");
    world.say(*upstream, &page(6, ""));
    for client in clients {
        let answer = world.take(client);
        assert!(answer.contains("Pharos-Version: eu-00000001:6\r\n"), "{answer}");
    }
}

#[test]
fn a_version_that_nobody_announced_keeps_no_visitor_from_the_page() {
    let mut world = with_page();
    let forged = "Pharos-Min-Version: eu-00000001:999\r\n";
    let before: Vec<End> = (0..40).map(|_| ask(&mut world, forged)).collect();
    let held = asked(&mut world);
    assert_eq!(held.len(), limits::UNANNOUNCED_FETCHES_MAX);
    assert!(
        held.iter().all(|(_, request)| request.contains("Pharos-Min-Version: eu-00000001:999"))
    );
    let answers: Vec<String> = before.iter().map(|&client| world.take(client)).collect();
    let shed = answers.iter().filter(|it| it.contains("503 ") && it.contains("Retry-After: 1"));
    assert_eq!(shed.count(), 40 - held.len());
    assert_eq!(world.metric(Metric::VersionShed), 40 - held.len() as u64);
    // An event comes: the page is fetched once for all who ask, and none of them waits for those.
    world.purge(PURGE, true);
    let plain = [ask(&mut world, ""), ask(&mut world, "")];
    let fetched = asked(&mut world);
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    // Control tells the others that they wait in vain, which says nothing of the page.
    held.iter().for_each(|&(upstream, _)| world.say(upstream, &wait_for("version")));
    let late = ask(&mut world, "");
    assert_eq!(asked(&mut world).len(), 0, "still one fetch");
    world.say(fetched[0].0, &page(6, ""));
    for client in [plain[0], plain[1], late] {
        let answer = world.take(client);
        assert!(answer.contains("Pharos-Version: eu-00000001:6\r\n"), "{answer}");
    }
    let refused = before.iter().filter(|&&client| world.take(client).contains("Retry-After: 1"));
    assert_eq!(refused.count(), held.len());
    // They have given their places back.
    let after = ask(&mut world, forged);
    assert_eq!(asked(&mut world).len(), 1);
    assert_eq!(world.take(after), "");
}

#[test]
fn a_version_that_the_feed_announced_is_fetched_for_everyone() {
    let mut world = with_page();
    world.purge(PURGE, true);
    world.applied("eu-00000001:6", Advance::Onward);
    let told = "Pharos-Min-Version: eu-00000001:6\r\n";
    let clients = [ask(&mut world, told), ask(&mut world, told), ask(&mut world, "")];
    let fetched = asked(&mut world);
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    world.say(fetched[0].0, &page(6, ""));
    for client in clients {
        assert!(world.take(client).contains("Pharos-Version: eu-00000001:6\r\n"));
    }
}

#[test]
fn control_without_room_is_not_control_gone() {
    for (connected, soft, expected) in [
        (true, true, "HTTP/1.1 503 "),
        (true, false, "X-Cache-Status: STALE\r\n"),
        (false, true, "X-Cache-Status: STALE\r\n"),
    ] {
        let mut world = with_page();
        world.feed(connected);
        match soft {
            true => world.purge(PURGE, true),
            // Nothing is newer: it is only old.
            false => world.now.wall_ms += 4_000_000,
        }
        let clients = [ask(&mut world, ""), ask(&mut world, "")];
        let fetched = asked(&mut world);
        assert_eq!(fetched.len(), 1);
        world.say(fetched[0].0, &wait_for("room"));
        for client in clients {
            let answer = world.take(client);
            assert!(answer.contains(expected), "{connected} {soft}: {answer}");
            assert_eq!(answer.contains("Retry-After: 1\r\n"), expected.ends_with("503 "));
        }
        // The next one asks again at once, if there is something newer.
        ask(&mut world, "");
        assert_eq!(asked(&mut world).len(), usize::from(connected || soft));
    }
}
