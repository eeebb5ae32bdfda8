//! Collapsing on real processes: many concurrent requests for few cold keys make one origin request
//! a key; what may not be shared is not waited for twice.
//!
//! The origin holds its answers until the test has seen who waits where, so that nothing here
//! depends on how fast anything is.

use pharos_tests::process::{
    client::Client,
    descriptors,
    edge::Edge,
    gate::{Answer, Gate},
    load::metric,
    wait::until,
};

const HOST: &str = "shop.example";

/// Requests that follow another's fetch, by the edge's own count.
fn waiting(edge: &Edge) -> usize {
    metric(edge.admin, "pharos_collapsed_requests_total") as usize
}

/// A connection for each target, and all of them asked for.
fn ask_each(edge: &Edge, targets: impl Iterator<Item = String>) -> Vec<Client> {
    let ask = |target: String| {
        let mut client = Client::connect(edge.address).expect("connects");
        client.ask("GET", HOST, &target, &[]);
        client
    };
    targets.map(ask).collect()
}

/// Connections that this process and the edge can hold, of `wanted`; fewer are told.
#[expect(clippy::print_stdout, reason = "what a test leaves out is told by name")]
fn connections(name: &str, wanted: usize) -> usize {
    let room = descriptors::raise().saturating_sub(1_000);
    if room < wanted {
        println!("SKIPPED in part {name}: descriptors for {room} of {wanted} connections");
    }
    wanted.min(room)
}

/// Ten thousand connections with one request each; the origin answers when all of them wait.
#[test]
fn ten_thousand_requests_for_a_hundred_cold_keys_make_a_hundred_origin_requests() {
    const KEYS: usize = 100;
    let name = "ten_thousand_requests_for_a_hundred_cold_keys_make_a_hundred_origin_requests";
    let count = connections(name, 10_000);
    let folder = tempfile::tempdir().expect("a folder");
    let origin = Gate::start(|asked| {
        let body = asked.target.repeat(300);
        let length = body.len();
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length";
        Answer { bytes: format!("{head}: {length}\r\n\r\n{body}").into_bytes(), gate: 1 }
    });
    let edge = Edge::start(folder.path(), HOST, origin.address, "");
    let target = |number: usize| format!("/k{:03}", number % KEYS);
    let mut clients = ask_each(&edge, (0..count).map(target));
    until("one of each key is with the origin, all others wait for it", 60, || {
        let now = (origin.held(), waiting(&edge));
        assert!(now.0 <= KEYS, "{now:?}");
        (now == (KEYS, count - KEYS)).then_some(())
    });
    origin.open();
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.answer().expect("an answer");
        assert_eq!(reply.status, 200);
        assert!(reply.body == target(number).repeat(300).as_bytes(), "another key's body");
    }
    let asked = origin.asked();
    assert_eq!(asked.len(), KEYS);
    assert!(asked.values().all(|&count| count == 1), "{asked:?}");
    assert_eq!(waiting(&edge), count - KEYS, "nobody waited twice");
}

/// The first answer says that it may not be stored: those who waited for it are with the origin
/// together, none behind another, and who comes later does not wait at all.
#[test]
fn an_answer_that_may_not_be_stored_releases_those_who_waited_and_is_remembered() {
    const COUNT: usize = 200;
    let folder = tempfile::tempdir().expect("a folder");
    // The first goes out when all others wait for it; these when all of them are here at once.
    let origin = Gate::start(|asked| {
        let gate = match asked.nth {
            1 => 1,
            2..=COUNT => 2,
            _ => 3,
        };
        let head = "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 5";
        Answer { bytes: format!("{head}\r\n\r\n{:05}", asked.nth).into_bytes(), gate }
    });
    let edge = Edge::start(folder.path(), HOST, origin.address, "");
    let numbers = |clients: &mut [Client]| {
        let number = |client: &mut Client| {
            let reply = client.answer().expect("an answer");
            let number = String::from_utf8_lossy(&reply.body).parse::<usize>();
            assert_eq!(reply.status, 200);
            number.expect("the number that the origin gave")
        };
        let mut numbers: Vec<usize> = clients.iter_mut().map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    let mut first = ask_each(&edge, (0..COUNT).map(|_| "/private".to_owned()));
    until("one is with the origin, all others wait for it", 60, || {
        let now = (origin.held(), waiting(&edge));
        (now == (1, COUNT - 1)).then_some(())
    });
    origin.open();
    until("all who waited are with the origin at the same time", 60, || {
        (origin.held() == COUNT - 1).then_some(())
    });
    origin.open();
    let each: Vec<usize> = (1..=COUNT).collect();
    assert_eq!(numbers(&mut first), each, "each has an answer of its own");
    assert_eq!(waiting(&edge), COUNT - 1, "nobody waited twice");
    let mut second = ask_each(&edge, (0..COUNT).map(|_| "/private".to_owned()));
    until("all who came later are with the origin at the same time", 60, || {
        (origin.held() == COUNT).then_some(())
    });
    origin.open();
    let each: Vec<usize> = (COUNT + 1..=2 * COUNT).collect();
    assert_eq!(numbers(&mut second), each);
    assert_eq!(waiting(&edge), COUNT - 1, "it is remembered that waiting is of no use");
}
