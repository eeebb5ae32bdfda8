//! Leading a visitor's stream to the edge that the placement circle prefers: 307 to that edge's own
//! name, and what is found there.
//!
//! ```text
//!   GET live.example/t ──preferred: another──▶ 307 http://edge-2/.pharos/at/live.example/t
//!                      └─this one, or no circle─▶ the stream
//!   GET edge-2/.pharos/at/live.example/t ────────▶ the stream, whatever the circle says
//! ```
//! Whoever was led is never led on, on any edge: two edges that see different circles make no loop.
//! An `EventSource` follows the redirect, and comes back to where it was made for: it is led anew
//! each time. What it is told there is for any origin to read (CORS), or a browser would give up.
//!
//! Leaves to others: who is preferred (`placement`), streams that are here already (`stream`).

use std::{fmt::Write, rc::Rc, sync::Arc};

use proto::{
    feed::site::Placement,
    field::name::Known,
    http1::head::{Method, RequestHead},
};

use super::{
    Edge,
    observe::Metric,
    placement::{Circle, CircleNews},
    route::Routed,
    stream::migrate::Rearranged,
    stream_route::StreamRoute,
};
use crate::seam::Now;

/// The circle as a shard uses it.
#[derive(Debug)]
pub struct Lead {
    /// This edge's own name.
    own: Arc<str>,
    circle: Option<Arc<Circle>>,
    /// The circle is told of now: visitors may be led by it.
    is_current: bool,
    /// Of each member, as control told, and those led there since.
    streams: Vec<u64>,
}

impl Lead {
    /// Of an edge with this name; no circle yet.
    pub fn new(own: Arc<str>) -> Self {
        Self { own, circle: None, is_current: false, streams: Vec::new() }
    }

    /// Another edge that is preferred for one more stream of these topics.
    fn elsewhere(&mut self, topics: &str) -> Option<&str> {
        let circle = self.circle.as_ref().filter(|_| self.is_current)?;
        let at = circle.pick(topics, &self.streams);
        let name = circle.members().get(at)?;
        if **name == *self.own {
            return None;
        }
        self.streams[at] += 1;
        Some(name)
    }

    /// Takes what control told. What has changed, if this edge was and is one of them.
    fn take(&mut self, news: Option<&CircleNews>) -> Option<Rearranged> {
        self.is_current = news.is_some();
        let news = news?;
        self.streams = news.streams.to_vec();
        let old = self.circle.replace(Arc::clone(&news.circle))?;
        let new = Arc::clone(&news.circle);
        let own = new.member(&self.own)?;
        (!Arc::ptr_eq(&old, &new)).then_some(Rearranged { old, new, own })
    }
}

impl Edge {
    /// Control has told of the edges that visitors can be led to.
    pub(super) fn take_circle(&mut self, now: Now, news: Option<&CircleNews>) {
        let Some(rearranged) = self.lead.as_mut().and_then(|lead| lead.take(news)) else { return };
        let over_ms = self.rates.move_over_ms;
        self.streams.rearrange(now, rearranged, over_ms, &mut self.out);
    }

    /// Where a request for a stream is to be led, if not here.
    pub(super) fn lead_elsewhere(
        &mut self,
        head: &RequestHead<'_>,
        topics: &[String],
        route: &StreamRoute,
    ) -> Option<String> {
        let wanted = route.rules.placement == Placement::Redirect
            && self.feed_state.connected
            && !was_led(head);
        let lead = self.lead.as_mut().filter(|_| wanted)?;
        let to = lead.elsewhere(&topics.join(","))?;
        let (host, path) = (head.authority.host, head.target.path());
        let mut location = format!("{to}{AT}{host}{path}");
        let cursor = head.fields.known(Known::LastEventId).filter(|cursor| !cursor.is_empty());
        // Not every client takes its fields along to another host.
        let cursor = cursor.map(|cursor| format!("last_event_id={}", encoded(cursor)));
        let query = head.target.query().map(str::to_owned);
        for (nth, part) in query.into_iter().chain(cursor).enumerate() {
            let _ = write!(location, "{}{part}", if nth == 0 { '?' } else { '&' });
        }
        self.observe.count(Metric::StreamsLed);
        Some(location)
    }

    /// What a request asks for that was led here; `None` for all others.
    pub(super) fn led_here<'h>(&self, head: &RequestHead<'h>) -> Option<Routed<'h>> {
        let rest = head.target.path().strip_prefix(AT)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let found = self.routes.find(host, path);
        let is_stream = matches!(found, Routed::Streams(..) | Routed::Events(_));
        // Everything else is where it is.
        Some(if is_stream && head.method == Method::Get { found } else { Routed::NotFound })
    }

    /// By which rules pages have streams from now on.
    pub(super) fn place_pages(&mut self, placement: Placement) {
        if self.page_streams.rules.placement != placement {
            self.page_streams = Rc::new(StreamRoute::of_pages_placed(placement));
        }
    }
}

/// Whether a request was led to where it is.
pub(super) fn was_led(head: &RequestHead<'_>) -> bool {
    head.target.path().starts_with(AT)
}

/// What may stand in a query as it is, and the rest in percent.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' | b',' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// Behind it: a host, and the path that was asked for there.
const AT: &str = "/.pharos/at/";

#[cfg(test)]
mod tests {
    use proto::feed::record::CircleEdge;

    use super::*;
    use crate::shard::{mail::Mail, stream_rules::explained, testing::World};

    const SITE: &str = r#"{"id": "s9", "name": "s9", "hosts": ["live.example"],
        "origins": [{"url": "http://127.0.0.1:9000"}], "routes": [
            {"prefix": "/live/", "policy": "stream",
             "stream": {"topics": ["*"], "placement": "redirect"}},
            {"prefix": "/here/", "policy": "stream", "stream": {"topics": ["*"]}}]}"#;
    const OWN: &str = "http://edge-a";

    fn news(names: &[&str], streams: u64) -> CircleNews {
        let told: Vec<CircleEdge> =
            names.iter().map(|&url| CircleEdge { url: url.into(), streams }).collect();
        CircleNews::of(&told, None).expect("some")
    }

    fn tell(world: &mut World, news: Option<CircleNews>) {
        let news = news.map(Arc::new);
        world.mail_all(|| Mail::Circle(news.clone()));
    }

    fn world(shards: u16) -> World {
        let mut world = World::named(shards, OWN);
        let site = serde_json::from_str(SITE).expect("a site");
        world.configure(vec![site], vec![crate::shard::testing::page()]);
        world.feed(true);
        let mut live = world.live_now();
        live.rates.move_over_ms = 60_000;
        world.live.put(live);
        world.control(crate::seam::Control::Reload);
        world
    }

    fn ask(world: &mut World, target: &str, fields: &str) -> String {
        let client = world.connect(0);
        let host = "Host: live.example\r\n";
        world.say(client, &format!("GET {target} HTTP/1.1\r\n{host}{fields}\r\n"));
        world.take(client)
    }

    fn location(answer: &str) -> Option<&str> {
        answer.starts_with("HTTP/1.1 307 ").then_some(())?;
        answer.lines().find_map(|line| line.strip_prefix("Location: "))
    }

    /// A topic at home on this edge, and one on the other.
    fn topics(circle: &Circle) -> (String, String) {
        let own = circle.member(OWN).expect("a member");
        let find = |here: bool| {
            let mut names = (0..).map(|number| format!("t{number}"));
            names.find(|topic| (circle.home(topic) == own) == here).expect("one of many")
        };
        (find(true), find(false))
    }

    #[test]
    fn a_stream_is_led_to_the_preferred_edges_own_name_with_its_cursor() {
        let mut world = world(1);
        let news = news(&[OWN, "http://edge-b"], 0);
        let (here, there) = topics(&news.circle);
        assert!(
            ask(&mut world, &format!("/live/{there}"), "").contains("event: beat"),
            "no circle"
        );
        tell(&mut world, Some(news));
        assert!(ask(&mut world, &format!("/live/{here}"), "").contains("event: beat"));
        let fields = "Last-Event-ID: a-00000000:7\r\nX-Request-Id: led-1\r\n";
        let answer = ask(&mut world, &format!("/live/{there}?x=1"), fields);
        let to = format!(
            "http://edge-b/.pharos/at/live.example/live/{there}?x=1&last_event_id=a-00000000:7"
        );
        assert_eq!(location(&answer), Some(&*to));
        assert!(answer.contains("Access-Control-Allow-Origin: *\r\n"), "{answer}");
        assert_eq!(world.metric(Metric::StreamsLed), 1);
        let (stream, record) = explained(&mut world, "led-1");
        let told = serde_json::json!({
            "decision": "led to http://edge-b", "cursor": "a-00000000:7", "topics": [there],
        });
        assert_eq!((stream, &record["status"]), (told, &307.into()));
        // Where the route does not ask for it, and while control is gone or cannot tell: here.
        assert!(ask(&mut world, &format!("/here/{there}"), "").contains("event: beat"));
        tell(&mut world, None);
        assert!(ask(&mut world, &format!("/live/{there}"), "").contains("event: beat"));
    }

    #[test]
    fn who_was_led_is_never_led_on() {
        let mut world = world(1);
        let news = news(&[OWN, "http://edge-b"], 0);
        let (_, there) = topics(&news.circle);
        tell(&mut world, Some(news));
        for path in [format!("/live/{there}"), "/demo/events".to_owned()] {
            let host = if path.starts_with("/demo") { "status.example" } else { "live.example" };
            let answer = ask(&mut world, &format!("/.pharos/at/{host}{path}"), "");
            assert!(answer.contains("event: beat"), "{path}: {answer}");
            assert!(answer.contains("Access-Control-Allow-Origin: *\r\n"), "any origin may read");
        }
        // What is no stream is not there.
        for path in ["/.pharos/at/live.example/x", "/.pharos/at/live.example"] {
            assert!(ask(&mut world, path, "").starts_with("HTTP/1.1 4"), "{path}");
        }
    }

    #[test]
    fn a_full_edge_leads_even_what_is_at_home_there() {
        let mut world = world(1);
        let told = [(OWN, 100), ("http://edge-b", 10)];
        let told: Vec<_> =
            told.map(|(url, streams)| CircleEdge { url: url.into(), streams }).into();
        let news = CircleNews::of(&told, None).expect("some");
        let (here, _) = topics(&news.circle);
        tell(&mut world, Some(news));
        let answer = ask(&mut world, &format!("/live/{here}"), "");
        assert!(location(&answer).is_some_and(|to| to.starts_with("http://edge-b/")), "{answer}");
    }

    #[test]
    fn a_change_of_the_circle_moves_its_share_over_the_window_and_nothing_else() {
        let mut world = world(1);
        let old = news(&[OWN, "http://edge-b"], 1000);
        tell(&mut world, Some(old.clone()));
        let own = old.circle.member(OWN).expect("a member");
        let mut open = Vec::new();
        for number in 0..60 {
            let topic = format!("t{number}");
            let client = world.connect(0);
            let target = format!("/live/{topic}");
            world.say(client, &format!("GET {target} HTTP/1.1\r\nHost: live.example\r\n\r\n"));
            if world.take(client).contains("event: beat") {
                assert_eq!(old.circle.home(&topic), own);
                open.push((topic, client));
            }
        }
        // One that is here though it is at home elsewhere, and one that no circle moves.
        let route = world.connect(0);
        world.say(route, "GET /here/t1 HTTP/1.1\r\nHost: live.example\r\n\r\n");
        let new = news(&[OWN, "http://edge-b", "http://edge-c"], 1000);
        tell(&mut world, Some(new.clone()));
        world.wait_ms(30_000);
        let halfway = world.metric(Metric::StreamsMigrated);
        world.wait_ms(31_000);
        let own = new.circle.member(OWN).expect("a member");
        let mut moved = 0;
        for (topic, client) in &open {
            let leaves = new.circle.home(topic) != own;
            assert_eq!(world.peer(*client).closed, leaves, "{topic}");
            if leaves {
                assert!(world.take(*client).contains(r#""reason":"circle""#));
                moved += 1;
            }
        }
        assert!(moved > 0 && moved < open.len(), "{moved} of {}", open.len());
        assert!(halfway > 0 && halfway < moved as u64, "{halfway} of {moved} halfway");
        assert_eq!(world.metric(Metric::StreamsMigrated), moved as u64);
        assert!(!world.peer(route).closed);
        // The same circle again, with other loads: nothing moves.
        let again = CircleNews::of(
            &[OWN, "http://edge-b", "http://edge-c"]
                .map(|url| CircleEdge { url: url.into(), streams: 5 }),
            Some(&new.circle),
        );
        tell(&mut world, again);
        world.wait_ms(120_000);
        assert_eq!(world.metric(Metric::StreamsMigrated), moved as u64);
    }
}
