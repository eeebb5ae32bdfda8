//! A request for a stream: which topics, from which cursor, and whether its bearer may.
//!
//! What is wrong for good is told by a status of its own, which ends an `EventSource`: no such
//! topic, no good token. What may be right later is left to the streams, which refuse by 200,
//! `retry:` and a close.
//!
//! Leaves to others: which route it is (`route`), topics of a route (`stream_route`), judging a
//! token (`token`), opening the stream (`conn`, `stream`).

use std::rc::Rc;

use proto::{
    field::name::Known,
    http1::{
        head::{Method, RequestHead},
        server::Request,
    },
};

use super::{
    Edge,
    conn::{Exchange, StreamRequest, WantedTopics},
    lead::was_led,
    observe::Metric,
    request::{Asked, AskedRef, only_get},
    respond::{Own, Writer},
    route::PageRoute,
    stream_route::{NoTopics, StreamRoute},
    token,
    topic::is_name as is_topic_name,
};
use crate::seam::Now;

impl Edge {
    /// The stream of a page.
    pub(super) fn events(
        &mut self,
        now: Now,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        page: &PageRoute,
        writer: &mut Writer,
    ) -> Exchange {
        let head = &request.head;
        self.explain_opens(None, [head.authority.host, head.target.path_and_query()], 0);
        match request.head.method {
            Method::Get if !is_topic_name(&page.topic) => {
                self.explain_stream("refused: no such topic", None, &[]);
                let own = Own::text(404, "This page can have no stream: its id is no topic.");
                self.own(now, &own, asked, writer)
            }
            Method::Get => {
                let topics = vec![page.topic.clone()];
                let route = self.page_streams.clone();
                if let Some(to) = self.lead_elsewhere(&request.head, &topics, &route) {
                    return self.led(now, (&to, &topics), &request.head, asked, writer);
                }
                let was_led = was_led(&request.head);
                let wanted = WantedTopics { topics, route, expires_at_ms: None, was_led };
                self.stream(&request.head, asked, wanted)
            }
            _ => self.no_stream(now, request, asked, writer),
        }
    }

    /// Streams of a site's topics. `found`: by which route, and the path behind its prefix.
    pub(super) fn streams(
        &mut self,
        now: Now,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        found: (&Rc<StreamRoute>, &str),
        writer: &mut Writer,
    ) -> Exchange {
        let head = &request.head;
        if head.method != Method::Get {
            return self.no_stream(now, request, asked, writer);
        }
        self.explain_opens(None, [head.authority.host, head.target.path_and_query()], 0);
        let (route, rest) = found;
        let query = head.target.query();
        let topics = match route.topics(rest, query_values(query, "topic").collect()) {
            Ok(topics) => topics,
            Err(why) => {
                let own = no_topics(why);
                let text = std::str::from_utf8(own.body).unwrap_or_default();
                self.explain_stream(&format!("refused: {}", text.trim_end()), None, &[]);
                return self.own(now, &own, asked, writer);
            }
        };
        let mut expires_at_ms = None;
        if route.rules.private {
            let token = token_of(head);
            match token::judge(token.as_deref(), &route.token_keys, &topics, now.wall_ms) {
                Ok(at_ms) => expires_at_ms = Some(at_ms),
                Err(why) => {
                    self.observe.count(Metric::TokensRefused);
                    let text = why.text();
                    self.explain_stream(&format!("refused: {}", text.trim_end()), None, &topics);
                    return self.own(now, &refused(why), asked, writer);
                }
            }
        }
        if let Some(to) = self.lead_elsewhere(head, &topics, route) {
            return self.led(now, (&to, &topics), head, asked, writer);
        }
        let (route, was_led) = (Rc::clone(route), was_led(head));
        self.stream(head, asked, WantedTopics { topics, route, expires_at_ms, was_led })
    }

    /// The connection becomes a stream.
    fn stream(
        &mut self,
        head: &RequestHead<'_>,
        asked: AskedRef<'_>,
        wanted: WantedTopics,
    ) -> Exchange {
        let (wanted, last_event_id) = (Some(wanted), last_event_id(head));
        let asked = Asked { telling: self.telling(), ..asked.keep() };
        Exchange::Stream(Box::new(StreamRequest { wanted, last_event_id, asked }))
    }

    /// The stream is at another address.
    fn led(
        &mut self,
        now: Now,
        (to, topics): (&str, &[String]),
        head: &RequestHead<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        // Only which edge: what is behind it may hold a token.
        let edge = to.split("/.pharos/").next().unwrap_or_default();
        self.explain_stream(&format!("led to {edge}"), last_event_id(head).as_deref(), topics);
        let fields = format!(
            "Location: {to}\r\nCache-Control: no-store\r\nAccess-Control-Allow-Origin: *\r\n"
        );
        self.own(now, &Own { fields: &fields, ..Own::text(307, "") }, asked, writer)
    }

    /// What is not asked for by GET.
    fn no_stream(
        &mut self,
        now: Now,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        if request.head.method != Method::Head {
            return self.own(now, &only_get(), asked, writer);
        }
        let fields = "Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n";
        let own = Own { status: 200, content_type: "text/event-stream", fields, body: b"" };
        self.own(now, &own, asked, writer)
    }
}

/// The cursor that a client comes back with. Bytes that are no text are an id that nobody here
/// gave, as other garbage is: told as a gap.
fn last_event_id(head: &RequestHead<'_>) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match head.fields.known(Known::LastEventId) {
        Some(value) => Some(text(value)),
        None => query_bytes(head.target.query(), "last_event_id").next().map(|id| text(&id)),
    }
}

fn no_topics(why: NoTopics) -> Own<'static> {
    let fields = "Cache-Control: no-store\r\n";
    match why {
        NoTopics::Unnamed => Own {
            fields,
            ..Own::text(404, "Name a topic, behind this path or as ?topic=, up to 16 times.")
        },
        NoTopics::NotHere => Own { fields, ..Own::text(404, "There is no such topic here.") },
        NoTopics::TooMany => {
            Own { fields, ..Own::text(400, "A stream carries at most 16 topics.") }
        }
    }
}

fn refused(why: token::TokenRefusal) -> Own<'static> {
    let fields = match why.status() {
        401 => {
            "Cache-Control: no-store\r\nWWW-Authenticate: Bearer realm=\"topics\", \
             error=\"invalid_token\"\r\n"
        }
        _ => "Cache-Control: no-store\r\n",
    };
    Own { fields, ..Own::text(why.status(), why.text()) }
}

/// `Authorization: Bearer`, or `?access_token=` for clients that cannot set fields (RFC 6750 §2.1,
/// §2.3), as a browser's `EventSource`.
fn token_of(head: &RequestHead<'_>) -> Option<String> {
    let field = head.fields.known(Known::Authorization);
    let text = field.and_then(|value| std::str::from_utf8(value).ok());
    let token = text.and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match token {
        Some((_, token)) => Some(token.trim().to_owned()),
        None => query_values(head.target.query(), "access_token").next(),
    }
}

/// Values of a name in a query, percent-decoded; what is no text then is left out.
fn query_values<'q>(query: Option<&'q str>, name: &'q str) -> impl Iterator<Item = String> + 'q {
    query_bytes(query, name).filter_map(|bytes| String::from_utf8(bytes).ok())
}

fn query_bytes<'q>(query: Option<&'q str>, name: &'q str) -> impl Iterator<Item = Vec<u8>> + 'q {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    let values = pairs.filter_map(move |pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    });
    values.map(decoded)
}

fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let decoded = match (first, behind) {
            (b'%', [high, low, ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                digit(high).zip(digit(low)).map(|(high, low)| (high * 16 + low) as u8)
            }
            _ => None,
        };
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &behind[2..] } else { behind };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_name_is_read_and_decoded() {
        let values = |query| query_values(Some(query), "topic").collect::<Vec<_>>();
        assert_eq!(values("topic=a&x=1&topic=orders%2Feu&topic=%ff"), ["a", "orders/eu"]);
        assert_eq!(values("topic=50%&topic=eu%3A1%2cus"), ["50%", "eu:1,us"]);
        assert_eq!(values("topics=a&topic&x_topic=1"), [""; 0]);
        assert_eq!(query_values(None, "topic").count(), 0);
    }
}
