//! The parity cases: what every engine has to do, seen from its clients.
#![expect(missing_docs, reason = "a case's name states its rule")]

use std::{io, net::SocketAddr};

use dataplane::seam::{Control, SocketId};

use super::{End, Harness, Journal, Note, Setup, actor::pattern};

/// Names all cases for one harness, as tests.
#[macro_export]
macro_rules! parity_cases {
    ($harness:ty) => {
        $crate::parity_cases! { $harness;
            an_echo_keeps_the_order
            pipelined_lines_are_answered_in_order
            a_large_exchange_arrives_whole
            a_large_payload_of_many_segments_waits_for_a_slow_reader
            a_response_is_not_lost_to_unread_input
            a_finished_connection_ends_without_the_client
            a_finished_connection_waits_for_what_was_sent
            an_abort_is_seen_as_a_reset
            a_reset_is_told_while_receiving
            a_reset_is_told_while_only_watched
            a_close_is_told_while_only_watched
            a_half_closed_client_still_gets_its_answer
            a_client_that_goes_while_a_send_waits_is_told
            a_refused_connect_is_told
            a_connection_passes_bytes_both_ways
            the_upstream_end_is_passed_on
            a_frame_reaches_all_subscribers
            a_fanout_of_many_batches_reaches_all
            a_stalled_subscriber_is_told_and_continues_where_it_stopped
            a_stalled_subscriber_gets_nothing_between
            a_reset_subscriber_fails_or_is_told
            nothing_is_received_while_not_asked_for
            mail_goes_both_ways_through_small_mailboxes
            mail_to_itself_goes_through_a_small_mailbox
            a_deadline_never_comes_early
            other_inputs_come_before_continue
            nothing_is_accepted_with_a_full_table_until_there_is_room
            nothing_is_accepted_while_the_actor_says_so
            a_slot_is_reused_under_a_new_generation
            every_close_is_told_once
            files_are_written_and_read_by_helpers
            names_are_looked_up_by_helpers
            cold_work_is_done_by_helpers
            an_operator_is_heard_by_all_shards
            sends_under_way_are_flushed_before_the_end
        }
    };
    ($harness:ty; $($case:ident)*) => {
        $(#[test]
        fn $case() {
            $crate::parity::cases::$case::<$harness>();
        })*
    };
}

/// More than a socket's buffers hold together, on loopback with its defaults.
const LARGE: usize = 24 << 20;

fn start<H: Harness>(setup: Setup) -> (H, Journal) {
    let journal = Journal::default();
    (H::start(setup, &journal), journal)
}

fn say<H: Harness>(harness: &mut H, line: &str) -> H::Client {
    let mut client = harness.connect();
    harness.send(&mut client, format!("{line}\n").as_bytes());
    client
}

fn expect<H: Harness>(harness: &mut H, client: &mut H::Client, bytes: &[u8]) {
    let got = harness.receive(client, bytes.len());
    assert!(got == bytes, "{} bytes expected, {} others came", bytes.len(), got.len());
}

fn subscribe<H: Harness>(harness: &mut H) -> H::Client {
    let mut client = say(harness, "S");
    expect(harness, &mut client, b"ok");
    client
}

/// Fans so many bytes out and waits until that is handed over.
fn publish<H: Harness>(harness: &mut H, len: usize) {
    let mut client = say(harness, &format!("F{len}"));
    expect(harness, &mut client, b"ok");
    harness.close(client);
}

fn accepted(journal: &Journal) -> Vec<(SocketId, SocketAddr)> {
    let notes = journal.notes().into_iter();
    notes
        .filter_map(|note| match note {
            Note::Accepted(socket, peer) => Some((socket, peer)),
            _ => None,
        })
        .collect()
}

fn finish<H: Harness>(mut harness: H) {
    let mut client = say(&mut harness, "X0");
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    harness.join();
}

pub fn an_echo_keeps_the_order<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "E");
    for round in 0..50 {
        let bytes = pattern(round..round + 997);
        harness.send(&mut client, &bytes);
        expect(&mut harness, &mut client, &bytes);
    }
    harness.half_close(&mut client);
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn pipelined_lines_are_answered_in_order<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut clients: Vec<_> = (0..20).map(|_| say(&mut harness, "E")).collect();
    let bytes = pattern(0..40_000);
    for piece in bytes.chunks(401) {
        for client in &mut clients {
            harness.send(client, piece);
        }
    }
    for client in &mut clients {
        expect(&mut harness, client, &bytes);
    }
    finish(harness);
}

pub fn a_large_exchange_arrives_whole<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "E");
    let bytes = pattern(0..LARGE);
    assert!(harness.exchange(&mut client, &bytes, LARGE) == bytes);
    finish(harness);
}

pub fn a_large_payload_of_many_segments_waits_for_a_slow_reader<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut slow = say(&mut harness, &format!("B{LARGE}"));
    harness.until("asked", || journal.count(|note| matches!(note, Note::Received(..))) == 1);
    // Others are served meanwhile.
    let mut other = say(&mut harness, "B1000");
    assert!(harness.receive(&mut other, 2000) == pattern(0..1000));
    assert!(harness.receive(&mut slow, LARGE) == pattern(0..LARGE));
    assert_eq!(harness.end(&mut slow, b""), End::Eof);
    finish(harness);
}

pub fn a_response_is_not_lost_to_unread_input<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut client = harness.connect();
    let mut bytes = b"R300000\n".to_vec();
    bytes.resize(200_000, b'x');
    assert!(harness.exchange(&mut client, &bytes, 300_000) == pattern(0..300_000));
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    finish(harness);
}

pub fn a_finished_connection_ends_without_the_client<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = harness.connect();
    harness.send(&mut client, b"Q3000\n");
    // It fits the socket's buffers: nobody waits for the client to read it, let alone to close.
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    assert!(harness.receive(&mut client, 3_000) == pattern(0..3_000));
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    finish(harness);
}

pub fn a_finished_connection_waits_for_what_was_sent<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = harness.connect();
    let bytes = format!("Q{LARGE}\n").into_bytes();
    assert!(harness.exchange(&mut client, &bytes, LARGE) == pattern(0..LARGE));
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn an_abort_is_seen_as_a_reset<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "A");
    assert_eq!(harness.end(&mut client, b""), End::Reset);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn a_reset_is_told_while_receiving<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "E");
    harness.send(&mut client, b"x");
    expect(&mut harness, &mut client, b"x");
    harness.reset(client);
    harness.until("hung up", || journal.count(|note| matches!(note, Note::HungUp(_))) == 1);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn a_reset_is_told_while_only_watched<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let client = subscribe(&mut harness);
    harness.reset(client);
    harness.until("hung up", || journal.count(|note| matches!(note, Note::HungUp(_))) == 1);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn a_close_is_told_while_only_watched<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let client = subscribe(&mut harness);
    harness.close(client);
    harness.until("hung up", || journal.count(|note| matches!(note, Note::HungUp(_))) == 1);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    finish(harness);
}

pub fn a_half_closed_client_still_gets_its_answer<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = harness.connect();
    harness.send(&mut client, b"E\nall that I say");
    harness.half_close(&mut client);
    harness.until("eof", || journal.count(|note| matches!(note, Note::Eof(_))) == 1);
    expect(&mut harness, &mut client, b"all that I say");
    assert_eq!(harness.end(&mut client, b""), End::Eof);
    finish(harness);
}

pub fn a_client_that_goes_while_a_send_waits_is_told<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, &format!("B{LARGE}"));
    assert!(harness.receive(&mut client, 1000) == pattern(0..1000));
    harness.reset(client);
    harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 1);
    let failed = |note: &Note| matches!(note, Note::SendError(..));
    assert_eq!(journal.count(failed), 1);
    finish(harness);
}

pub fn a_refused_connect_is_told<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let (upstream, addr) = harness.upstream();
    drop(upstream);
    let mut client = say(&mut harness, &format!("C{addr}"));
    let error = format!("{:?}", io::ErrorKind::ConnectionRefused);
    assert_eq!(harness.end(&mut client, error.as_bytes()), End::Eof);
    finish(harness);
}

pub fn a_connection_passes_bytes_both_ways<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let (mut upstream, addr) = harness.upstream();
    let mut client = say(&mut harness, &format!("C{addr}"));
    let mut origin = harness.accept(&mut upstream);
    expect(&mut harness, &mut client, b"ok");
    harness.send(&mut client, b"a question");
    expect(&mut harness, &mut origin, b"a question");
    let answer = pattern(0..300_000);
    harness.send(&mut origin, &answer);
    expect(&mut harness, &mut client, &answer);
    finish(harness);
}

pub fn the_upstream_end_is_passed_on<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let (mut upstream, addr) = harness.upstream();
    let mut client = say(&mut harness, &format!("C{addr}"));
    let mut origin = harness.accept(&mut upstream);
    expect(&mut harness, &mut client, b"ok");
    harness.send(&mut origin, b"last words");
    harness.close(origin);
    assert_eq!(harness.end(&mut client, b"last words"), End::Eof);
    harness.close(client);
    harness.until("both closed", || journal.count(|note| matches!(note, Note::Closed(_))) == 2);
    finish(harness);
}

pub fn a_frame_reaches_all_subscribers<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut clients: Vec<_> = (0..30).map(|_| subscribe(&mut harness)).collect();
    for _ in 0..20 {
        publish(&mut harness, 100);
    }
    for client in &mut clients {
        expect(&mut harness, client, &pattern(0..2000));
    }
    assert_eq!(journal.count(|note| matches!(note, Note::FanoutFailed(..))), 0);
    finish(harness);
}

pub fn a_fanout_of_many_batches_reaches_all<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut clients: Vec<_> = (0..1500).map(|_| subscribe(&mut harness)).collect();
    publish(&mut harness, 100);
    publish(&mut harness, 100);
    for client in &mut clients {
        expect(&mut harness, client, &pattern(0..200));
    }
    finish(harness);
}

/// Publishes to one subscriber that does not read, until it fails. Returns the bytes published.
fn stall<H: Harness>(harness: &mut H, journal: &Journal, frame: usize) -> usize {
    let failed = || journal.count(|note| matches!(note, Note::FanoutFailed(..)));
    let mut published = 0;
    while failed() == 0 {
        assert!(published < 64 << 20, "a socket buffer is not endless");
        publish(harness, frame);
        published += frame;
    }
    published
}

pub fn a_stalled_subscriber_is_told_and_continues_where_it_stopped<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut slow = subscribe(&mut harness);
    let frame = 1_000_003;
    let published = stall(&mut harness, &journal, frame);
    let failures = journal.notes().into_iter().filter_map(|note| match note {
        Note::FanoutFailed(_, sent_bytes, error) => Some((sent_bytes as usize, error)),
        _ => None,
    });
    let failures: Vec<_> = failures.collect();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].1, io::ErrorKind::WouldBlock);
    assert!(failures[0].0 < frame);
    assert!(harness.receive(&mut slow, published) == pattern(0..published));
    assert_eq!(journal.count(|note| matches!(note, Note::Writable(_))), 1);
    // It takes part again.
    publish(&mut harness, 100);
    expect(&mut harness, &mut slow, &pattern(published..published + 100));
    finish(harness);
}

pub fn a_stalled_subscriber_gets_nothing_between<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let (mut slow, mut quick) = (subscribe(&mut harness), subscribe(&mut harness));
    let mut published = 0;
    while journal.count(|note| matches!(note, Note::FanoutFailed(..))) == 0 {
        assert!(published < 64 << 20, "a socket buffer is not endless");
        publish(&mut harness, 500_000);
        expect(&mut harness, &mut quick, &pattern(published..published + 500_000));
        published += 500_000;
    }
    for _ in 0..50 {
        publish(&mut harness, 7);
        expect(&mut harness, &mut quick, &pattern(published..published + 7));
        published += 7;
    }
    assert!(harness.receive(&mut slow, published) == pattern(0..published));
    finish(harness);
}

pub fn a_reset_subscriber_fails_or_is_told<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut clients: Vec<_> = (0..20).map(|_| subscribe(&mut harness)).collect();
    for client in clients.drain(..10) {
        harness.reset(client);
    }
    publish(&mut harness, 100);
    publish(&mut harness, 100);
    for client in &mut clients {
        expect(&mut harness, client, &pattern(0..200));
    }
    let closed = || journal.count(|note| matches!(note, Note::Closed(_)));
    harness.until("resets and publishers closed", || closed() == 12);
    finish(harness);
}

pub fn nothing_is_received_while_not_asked_for<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "P300");
    let received = || journal.count(|note| matches!(note, Note::Received(..)));
    harness.until("asked", || received() == 1);
    let bytes = pattern(0..100_000);
    harness.send(&mut client, &bytes);
    expect(&mut harness, &mut client, &bytes);
    let notes = journal.notes();
    let again = notes.iter().position(|note| matches!(note, Note::Deadline(..)));
    // What the kernel had handed over before may come, and nothing else.
    let early = notes[..again.expect("came")].iter();
    let early: usize =
        early.map(|note| if let Note::Received(_, bytes) = note { *bytes } else { 0 }).sum();
    assert!(early < bytes.len(), "{early} bytes came early");
    finish(harness);
}

pub fn mail_goes_both_ways_through_small_mailboxes<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { shards: 2, mail_max: 2, ..Setup::default() });
    let mut clients: Vec<_> = (0..8).map(|_| say(&mut harness, "M200")).collect();
    // An answer that is the last of all those missing on its shard says so to its own client only.
    harness
        .until("all answers", || journal.count(|note| matches!(note, Note::Answer(_))) == 8 * 200);
    drop(clients.drain(..));
    finish(harness);
}

pub fn mail_to_itself_goes_through_a_small_mailbox<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { mail_max: 3, ..Setup::default() });
    let mut client = say(&mut harness, "M1000");
    expect(&mut harness, &mut client, b"ok");
    let answers = journal.notes().into_iter().filter_map(|note| match note {
        Note::Answer(number) => Some(number),
        _ => None,
    });
    assert!(answers.eq(1..=1000), "in order");
    finish(harness);
}

pub fn a_deadline_never_comes_early<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    for ms in [0, 1, 3, 20, 50] {
        let mut client = say(&mut harness, &format!("D{ms}"));
        expect(&mut harness, &mut client, b"ok");
    }
    for note in journal.notes() {
        if let Note::Deadline(asked, came) = note {
            assert!(came >= asked);
            assert!(came.since_ns(asked) < 2_000_000_000, "late by {}", came.since_ns(asked));
        }
    }
    finish(harness);
}

pub fn other_inputs_come_before_continue<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "E");
    harness.send(&mut client, b"x");
    expect(&mut harness, &mut client, b"x");
    let mut yields: Vec<_> = (0..5).map(|_| say(&mut harness, "Y")).collect();
    harness.until("five", || journal.count(|note| *note == Note::Continue) == 5);
    drop(yields.drain(..));
    finish(harness);
}

pub fn nothing_is_accepted_with_a_full_table_until_there_is_room<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { sockets_max: 8, ..Setup::default() });
    let mut clients: Vec<_> = (0..12).map(|_| say(&mut harness, "E")).collect();
    harness.until("a full table", || accepted(&journal).len() == 8);
    harness.advance(50);
    assert_eq!(accepted(&journal).len(), 8);
    for client in clients.drain(..4) {
        harness.close(client);
    }
    harness.until("the others", || accepted(&journal).len() == 12);
    for client in &mut clients {
        harness.send(client, b"still here");
        expect(&mut harness, client, b"still here");
    }
    clients.into_iter().for_each(|client| harness.close(client));
    finish(harness);
}

pub fn nothing_is_accepted_while_the_actor_says_so<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "L300");
    expect(&mut harness, &mut client, b"ok");
    let mut late = say(&mut harness, "E");
    harness.send(&mut late, b"x");
    expect(&mut harness, &mut late, b"x");
    let notes = journal.notes();
    let on = notes.iter().position(|note| matches!(note, Note::Deadline(..))).expect("came");
    let second = notes.iter().rposition(|note| matches!(note, Note::Accepted(..))).expect("came");
    assert!(on < second, "accepted while off");
    finish(harness);
}

pub fn a_slot_is_reused_under_a_new_generation<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { sockets_max: 1, ..Setup::default() });
    for round in 1..=20 {
        let mut client = say(&mut harness, "E");
        harness.send(&mut client, b"x");
        expect(&mut harness, &mut client, b"x");
        harness.close(client);
        harness.until("closed", || journal.count(|note| matches!(note, Note::Closed(_))) == round);
    }
    let ids: Vec<_> = accepted(&journal).into_iter().map(|(id, _)| id).collect();
    assert!(ids.iter().all(|id| id.slot == ids[0].slot));
    for (index, id) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(id));
    }
    finish(harness);
}

pub fn every_close_is_told_once<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { shards: 2, ..Setup::default() });
    for round in 0..10 {
        let mut clients = Vec::new();
        for index in 0..30 {
            let line = ["E", "R5", "A", "R100000", "B70000"][(index + round) % 5];
            clients.push(say(&mut harness, line));
        }
        for (index, client) in clients.into_iter().enumerate() {
            if index % 3 == 0 { harness.reset(client) } else { harness.close(client) }
        }
    }
    // The actor itself asserts that none is told twice. A client reset in the backlog may never
    // have been accepted.
    harness.until("all closed", || {
        let closed = journal.count(|note| matches!(note, Note::Closed(_)));
        closed >= 200 && closed == accepted(&journal).len()
    });
    finish(harness);
}

pub fn files_are_written_and_read_by_helpers<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("deep").join("file");
    let mut client = say(&mut harness, &format!("W{}", path.display()));
    expect(&mut harness, &mut client, b"ok");
    finish(harness);
}

pub fn names_are_looked_up_by_helpers<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "N127.0.0.1");
    expect(&mut harness, &mut client, b"1");
    let mut client = say(&mut harness, "Nname.invalid");
    expect(&mut harness, &mut client, b"none");
    finish(harness);
}

pub fn cold_work_is_done_by_helpers<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup::default());
    let mut client = say(&mut harness, "Z100000");
    expect(&mut harness, &mut client, b"[1f, 8b]");
    finish(harness);
}

pub fn an_operator_is_heard_by_all_shards<H: Harness>() {
    let (mut harness, journal) = start::<H>(Setup { shards: 2, ..Setup::default() });
    harness.control(Control::Reload);
    let heard = |control| journal.count(|note| *note == Note::Control(control));
    harness.until("reload", || heard(Control::Reload) == 2);
    harness.control(Control::Drain);
    harness.until("drain", || heard(Control::Drain) == 2);
    finish(harness);
}

pub fn sends_under_way_are_flushed_before_the_end<H: Harness>() {
    let (mut harness, _) = start::<H>(Setup { shards: 2, ..Setup::default() });
    let mut client = say(&mut harness, &format!("X{LARGE}"));
    assert!(harness.receive(&mut client, LARGE) == pattern(0..LARGE));
    harness.join();
}
