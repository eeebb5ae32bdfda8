//! The origin dies under load: what is stored and may be served stale is, and says so; what must be
//! validated is not; back again, it is asked once a key.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use pharos_tests::{
    client::http::Reply,
    process::{
        client::Client,
        edge::Edge,
        gate::{Answer, Asked, Gate},
        load::metric,
        origin::Origin,
        wait::until,
    },
};

const HOST: &str = "shop.example";

/// What becomes of an answer whose origin is gone, once its lifetime is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It is fresh for long.
    Hit,
    /// Served, and marked.
    Stale,
    /// Refused with this status: 504 for what must be validated, 502 for what is not served stale
    /// for another reason.
    Refused(u16),
}

/// The working set: a name, what the origin says of caching, and what that comes to.
const KINDS: [(&str, &str, Fate); 7] = [
    ("fresh", "max-age=3600", Fate::Hit),
    ("silent", "max-age=1", Fate::Stale),
    ("allowed", "max-age=1, stale-if-error=600", Fate::Stale),
    ("must", "max-age=1, must-revalidate", Fate::Refused(504)),
    ("proxy", "max-age=1, proxy-revalidate", Fate::Refused(504)),
    ("shared", "s-maxage=1", Fate::Refused(504)),
    ("forbidden", "max-age=1, stale-if-error=0", Fate::Refused(502)),
];
const KEYS: usize = 10;
const LOADS: usize = 4;
/// Who asks for each key at once when the origin is back.
const HERD: usize = 12;

fn target(kind: usize, key: usize) -> String {
    let (name, control, _) = KINDS[kind];
    let control = control.replace(", ", "%2C%20").replace('=', "%3D");
    format!("/bytes/{}/{name}/{key}?cache_control={control}&etag=v{key}", 100 + key)
}

fn all() -> impl Iterator<Item = (usize, usize)> {
    (0..KINDS.len()).flat_map(|kind| (0..KEYS).map(move |key| (kind, key)))
}

/// Those that are not fresh any more.
fn old() -> impl Iterator<Item = (usize, usize)> {
    all().filter(|&(kind, _)| KINDS[kind].2 != Fate::Hit)
}

/// What came of a request, which is whole and says what it is; anything else is a failure.
fn fate(reply: &Reply, kind: usize, key: usize) -> Option<Fate> {
    let (name, _, expected) = KINDS[kind];
    let status = reply.field("x-cache-status");
    if reply.status >= 500 {
        assert_eq!(expected, Fate::Refused(reply.status), "{name}/{key}: {reply:?}");
        return Some(expected);
    }
    assert_eq!((reply.status, reply.body.len()), (200, 100 + key), "{name}/{key}: {reply:?}");
    let warned = reply.field("warning") == Some("110 - \"Response is Stale\"");
    assert_eq!(warned, status == Some("STALE"), "{name}/{key}: {reply:?}");
    match status {
        Some("STALE") => {
            assert_eq!(expected, Fate::Stale, "{name}/{key} may not be served stale");
            Some(Fate::Stale)
        }
        Some("HIT") => Some(Fate::Hit),
        // From the origin, or with its consent.
        _ => None,
    }
}

/// When the origin is there, when it dies, and when every key has met its fate.
const UP: usize = 0;
const DYING: usize = 1;
const DOWN: usize = 2;
const OVER: usize = 3;

/// Asks for the whole set again and again. Once the origin is down for all keys, each answer is
/// exactly what it has to be; how many there were then of each key.
fn load(edge: &Edge, phase: &Arc<AtomicUsize>) -> JoinHandle<Vec<usize>> {
    let (address, phase) = (edge.address, Arc::clone(phase));
    let run = move || {
        let mut counts = vec![0; KINDS.len() * KEYS];
        let mut client = Client::connect(address).expect("connects");
        while phase.load(Ordering::SeqCst) != OVER {
            for (kind, key) in all() {
                let asked_in = phase.load(Ordering::SeqCst);
                let found = fate(&client.get(HOST, &target(kind, key)), kind, key);
                if asked_in == DOWN {
                    assert_eq!(found, Some(KINDS[kind].2), "{}/{key}", KINDS[kind].0);
                    counts[kind * KEYS + key] += 1;
                } else if asked_in == UP {
                    let gone = matches!(found, Some(Fate::Stale | Fate::Refused(_)));
                    let dies = phase.load(Ordering::SeqCst) != UP;
                    assert!(!gone || dies, "{}/{key}: the origin is there", KINDS[kind].0);
                }
            }
        }
        counts
    };
    std::thread::Builder::new().spawn(run).expect("a thread")
}

/// The origin of afterwards: validates what is stored, for long, and answers nothing before the
/// gate opens.
fn validated(asked: &Asked) -> Answer {
    let head = asked.head.to_ascii_lowercase();
    let tag = |key: usize| format!("\r\nif-none-match: \"v{key}\"\r\n");
    let known = all().find(|&(kind, key)| asked.target == target(kind, key));
    let text = match known.filter(|&(_, key)| head.contains(&tag(key))) {
        Some((_, key)) => format!(
            "HTTP/1.1 304 Not Modified\r\nETag: \"v{key}\"\r\nCache-Control: max-age=3600\r\n\r\n"
        ),
        None => "HTTP/1.1 400 No Validation\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    Answer { bytes: text.into_bytes(), gate: 1 }
}

#[test]
fn what_is_stored_outlives_its_origin_and_is_validated_once_a_key_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut origin = Origin::start(folder.path());
    let edge = Edge::start(folder.path(), HOST, origin.address, "");
    let mut client = Client::connect(edge.address).expect("connects");
    for (kind, key) in all() {
        fate(&client.get(HOST, &target(kind, key)), kind, key);
    }
    let phase = Arc::new(AtomicUsize::new(UP));
    let loads: Vec<_> = (0..LOADS).map(|_| load(&edge, &phase)).collect();
    until("each short-lived key has been validated under load", 60, || {
        let counts = origin.counts();
        let count = |(kind, key)| counts.get(&target(kind, key)).and_then(|count| count.as_u64());
        old().all(|at| count(at) > Some(1)).then_some(())
    });
    phase.store(DYING, Ordering::SeqCst);
    origin.kill();
    for (kind, key) in all() {
        until("its lifetime is over", 60, || {
            let found = fate(&client.get(HOST, &target(kind, key)), kind, key);
            (found == Some(KINDS[kind].2)).then_some(())
        });
    }
    phase.store(DOWN, Ordering::SeqCst);
    let before = answers(&edge);
    until("each key has been asked for while the origin is down", 60, || {
        // A load is at most one answer behind the change of phase when it counts its first.
        (answers(&edge) - before > 4.0 * (LOADS * KINDS.len() * KEYS) as f64).then_some(())
    });
    phase.store(OVER, Ordering::SeqCst);
    let counts: Vec<Vec<usize>> =
        loads.into_iter().map(|load| load.join().expect("fine")).collect();
    for (kind, key) in all() {
        let count: usize = counts.iter().map(|counts| counts[kind * KEYS + key]).sum();
        assert!(count > 0, "{}/{key} was not asked for while the origin was down", KINDS[kind].0);
    }
    back(&edge, &Gate::start_at(origin.address, validated));
}

/// A herd asks for every key; each that is not fresh is validated once, and all are served that.
fn back(edge: &Edge, origin: &Gate) {
    let collapsed = || metric(edge.admin, "pharos_collapsed_requests_total") as usize;
    let before = collapsed();
    let labels = Arc::new(Mutex::new(Vec::new()));
    let ask = |(kind, key): (usize, usize)| {
        let (address, labels) = (edge.address, Arc::clone(&labels));
        let run = move || {
            let mut client = Client::connect(address).expect("connects");
            // That it has failed is remembered for a second, and that second may not be over.
            let reply = until("it is validated", 120, || {
                let reply = client.get(HOST, &target(kind, key));
                let found = fate(&reply, kind, key);
                let served = !matches!(found, Some(Fate::Stale | Fate::Refused(_)));
                served.then_some(reply)
            });
            let label = reply.field("x-cache-status").unwrap_or_default().to_owned();
            labels.lock().expect("no panic under it").push(label);
        };
        let thread = std::thread::Builder::new().stack_size(256 << 10);
        thread.spawn(run).expect("a thread")
    };
    let herd: Vec<_> = old().flat_map(|at| [at; HERD]).map(ask).collect();
    let keys = old().count();
    // Who may be served what is stale does not wait for the one who finds out: it failed before.
    let waits = old().filter(|&(kind, _)| KINDS[kind].2 != Fate::Stale).count() * (HERD - 1);
    until("each key is being validated once, and who may not be served waits for that", 60, || {
        let now = (origin.held(), collapsed() - before);
        assert!(now.0 <= keys && now.1 <= waits, "{now:?} of {keys} and {waits}");
        (now == (keys, waits)).then_some(())
    });
    origin.open();
    herd.into_iter().for_each(|asker| asker.join().expect("served"));
    let mut client = Client::connect(edge.address).expect("connects");
    for (kind, key) in all() {
        let found = fate(&client.get(HOST, &target(kind, key)), kind, key);
        assert_eq!(found, Some(Fate::Hit), "{}/{key}", KINDS[kind].0);
    }
    let asked = origin.asked();
    let expected: Vec<String> = old().map(|(kind, key)| target(kind, key)).collect();
    assert!(expected.iter().all(|target| asked.get(target) == Some(&1)), "{asked:?}");
    assert_eq!(asked.len(), keys, "and nothing else: {asked:?}");
    let labels = labels.lock().expect("no panic under it");
    let validated = labels.iter().filter(|label| *label == "REVALIDATED").count();
    assert!(validated >= keys, "{validated} of {} were told REVALIDATED", labels.len());
}

fn answers(edge: &Edge) -> f64 {
    metric(edge.admin, "pharos_requests_total")
}
