//! One request, as a table of steps: what it is → where it leads → what the cache says → answer or
//! fetch.
//!
//! ```text
//!  admin? ─ method ─ loop? ─ route ─┬─ own answer (redirect, unknown host, …)
//!                                   ├─ stream
//!                                   ├─ pass ─────────────────────────▶ fetch, relayed
//!                                   └─ cache ─┬─ hit, stale ─────────▶ written at once
//!                                             ├─ miss, revalidate ───▶ fetch, stored
//!                                             ├─ wait ───────────────▶ asked again when woken
//!                                             └─ bypass ─────────────▶ fetch, relayed
//! ```
//! A near hit allocates nothing: the key is made in place, the head is copied from the entry's, and
//! what changes is written behind it.
//!
//! Leaves to others: bytes ↔ requests (`conn`, `proto`), the decision (`cache`), the exchange with
//! the origin (`fetch`).

use std::{net::IpAddr, rc::Rc, sync::Arc};

use cache::{
    Asking, BypassReason, CacheStatus, Decision, FieldSource, Forward, Freshness, Hit, Lease,
    Waiter, WakeWith,
};
use proto::{
    feed::{cursor::VersionVector, rule::LifetimeRule},
    field::name::Known,
    http1::{
        encode,
        framing::BodyFraming,
        head::{FieldSpace, Fields, Method, RequestHead, Version, parse_request},
        server::Request,
    },
};

use super::{
    Edge,
    answer::{Advance, Answer, Coding, State, StoredBody},
    conn::{Exchange, StreamRequest},
    explain::{self, Telling},
    fetch::{Invalidation, Plan},
    forward::{Client, Upstream},
    kept_head::{keep_head, without_named},
    not_offered,
    observe::Metric,
    outcome::StoredAnswer,
    part::{Parts, write_unsatisfiable},
    purge_request::{PURGE, only_here},
    respond::{Frame, Own, Persistence, Writer, id_text, usable_request_id, write_own},
    route::{PageRoute, Routed},
    rule::Rules,
    slab::Ref,
};
use crate::{limits, seam::Now};

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// The connection.
    pub at: Ref,
    /// Its other side.
    pub peer: IpAddr,
    /// By which listener it came in.
    pub door: Door,
}

/// What a listener is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Visitors.
    Public,
    /// The operator.
    Admin,
    /// Other edges that follow this one.
    Relay,
}

/// Whose request it is, and what it has waited for.
#[derive(Clone, Copy)]
pub struct Turn<'w> {
    /// Whose.
    pub scene: Scene,
    /// How often it waited for another's fetch.
    pub waits: u8,
    /// What it was woken with.
    pub with: Option<&'w WakeWith>,
}

/// What an answer depends on, while the request is at hand.
#[derive(Clone, Copy, Debug)]
pub struct AskedRef<'a> {
    /// How the connection goes on.
    pub persistence: Persistence,
    /// The method is HEAD.
    pub to_head: bool,
    /// The request's id.
    pub request_id: &'a [u8],
}

/// The same, kept for an answer that comes later.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How the connection goes on.
    pub persistence: Persistence,
    /// The method is HEAD.
    pub to_head: bool,
    /// The request's id.
    pub request_id: Box<[u8]>,
    /// Where it is told of.
    pub telling: Telling,
}

impl Asked {
    /// As lent.
    pub fn lend(&self) -> AskedRef<'_> {
        let Self { persistence, to_head, request_id, telling: _ } = self;
        AskedRef { persistence: *persistence, to_head: *to_head, request_id }
    }
}

impl AskedRef<'_> {
    /// For later.
    pub fn keep(&self) -> Asked {
        let Self { persistence, to_head, request_id } = *self;
        let telling = Telling::default();
        Asked { persistence, to_head, request_id: request_id.into(), telling }
    }
}

/// What a request came to, as `X-Cache-Status` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CacheLabel {
    /// From the cache, fresh.
    Hit,
    /// From the origin.
    Miss,
    /// From the cache, after the origin said that it still holds.
    Revalidated,
    /// From the cache, though stale.
    Stale,
    /// From the origin, because of the request.
    Bypass,
    /// From the origin, because of the route.
    Pass,
}

impl CacheLabel {
    /// As `X-Cache-Status` says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Revalidated => "REVALIDATED",
            Self::Stale => "STALE",
            Self::Bypass => "BYPASS",
            Self::Pass => "PASS",
        }
    }

    /// `X-Cache-Status: …`, and the beginning of the next line, which has the request's id: the
    /// fewer pieces, the less a hit costs.
    fn line_and_id(self) -> &'static [u8] {
        match self {
            Self::Hit => b"X-Cache-Status: HIT\r\nX-Request-Id: ",
            Self::Miss => b"X-Cache-Status: MISS\r\nX-Request-Id: ",
            Self::Revalidated => b"X-Cache-Status: REVALIDATED\r\nX-Request-Id: ",
            Self::Stale => {
                b"Warning: 110 - \"Response is Stale\"\r\nX-Cache-Status: STALE\r\nX-Request-Id: "
            }
            Self::Bypass => b"X-Cache-Status: BYPASS\r\nX-Request-Id: ",
            Self::Pass => b"X-Cache-Status: PASS\r\nX-Request-Id: ",
        }
    }

    /// Where it is counted.
    pub fn metric(self) -> Metric {
        match self {
            Self::Hit => Metric::Hit,
            Self::Miss => Metric::Miss,
            Self::Revalidated => Metric::Revalidated,
            Self::Stale => Metric::Stale,
            Self::Bypass => Metric::Bypass,
            Self::Pass => Metric::Pass,
        }
    }
}

/// Fields of a head, as the cache reads them.
pub struct HeadFields<'a>(pub Fields<'a>);

impl FieldSource for HeadFields<'_> {
    fn each<'s>(&'s self, show: &mut dyn FnMut(&'s [u8], &'s [u8])) {
        for (name, value) in self.0.iter() {
            show(name.as_bytes(), value);
        }
    }

    fn get_all<'s>(&'s self, name: &str, show: &mut dyn FnMut(&'s [u8])) {
        match Known::of(name) {
            Some(known) => self.0.known_all(known).for_each(show),
            None => self.0.get_all(name).for_each(show),
        }
    }

    fn get<'s>(&'s self, name: &str) -> Option<&'s [u8]> {
        match Known::of(name) {
            Some(known) => self.0.known(known),
            None => self.0.get(name),
        }
    }

    fn may_have(&self, names: &[Known]) -> bool {
        self.0.has_any(names)
    }
}

/// Where a request leads that goes through the cache or to an origin.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Part of the cache key: the site's id, empty for pages.
    pub(super) site_id: &'a str,
    /// Part of the cache key: the host that the origin sees; empty for pages.
    pub(super) key_host: &'a str,
    /// Part of the cache key.
    pub(super) target: &'a str,
    /// Part of the cache key: what a rule adds of the request's fields; empty for most.
    pub(super) added: &'a [u8],
    /// What the origin is asked for, for the cache.
    pub(super) asks: &'a str,
    /// As the client asked.
    pub(super) raw: &'a str,
    /// What a rule says of lifetimes.
    pub(super) lifetime: Option<&'a Arc<LifetimeRule>>,
    /// Of the site.
    pub(super) rules: Option<&'a Rules>,
    /// `Host` for the origin.
    pub(super) host: &'a str,
    /// Whom to ask.
    pub(super) origins: &'a Rc<[u32]>,
    /// It is a page: control's, and the same for everyone.
    pub(super) is_page: bool,
}

impl Edge {
    /// Answers a request, or says what it waits for.
    pub fn request(
        &mut self,
        now: Now,
        scene: Scene,
        request: &Request<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        self.observe.count(Metric::Requests);
        let made;
        let (request_id, number) = match request.head.fields.known(Known::XRequestId) {
            Some(theirs) if usable_request_id(theirs) => (theirs, explain::number_of(theirs)),
            _ => {
                let number = self.ids.make_number();
                made = id_text(number);
                (&made[..], number)
            }
        };
        let asked = AskedRef {
            persistence: Persistence {
                keep_alive: persists(request) && !self.draining,
                http10: request.head.version == Version::Http10,
            },
            to_head: request.head.method == Method::Head,
            request_id,
        };
        match scene.door {
            Door::Public => {}
            Door::Admin => {
                self.explain_resumes(now, Telling::default());
                return self.admin(now, scene.at, request, asked, writer);
            }
            Door::Relay => {
                self.explain_resumes(now, Telling::default());
                return self.follow(now, request, asked, writer);
            }
        }
        self.explain_begins(now, number, Some(&request.head.fields));
        self.access_begins(scene.peer, &request.head, request_id);
        let turn = Turn { scene, waits: 0, with: None };
        if let Some(text) = without_named(&request.head) {
            let mut space = FieldSpace::new();
            let Ok(Some((head, _))) = parse_request(&text, &mut space) else {
                return self.own(now, &unreadable(), asked, writer);
            };
            return self.answer(now, turn, &Request { head, ..*request }, asked, writer);
        }
        self.answer(now, turn, request, asked, writer)
    }

    /// The steps, from the route on.
    fn answer(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let head = &request.head;
        if let Some(own) = not_offered::refused(head) {
            self.observe.count(Metric::NotOffered);
            return self.own(now, &own, asked, writer);
        }
        if self.names.is_misdirected(head.target.form) {
            self.observe.count(Metric::UnknownHost);
            let own = Own::text(421, "https is not spoken here, so this URL is not served here.");
            return self.own(now, &own, asked, writer);
        }
        if let Some(own) = own_options(head) {
            return self.own(now, &own, asked, writer);
        }
        if self.names.is_loop(&head.fields) {
            self.observe.count(Metric::Loop);
            let text = "This request has been here before: the origin's name leads back here.";
            return self.own(now, &Own::text(508, text), asked, writer);
        }
        let led = if self.lead.is_some() { self.led_here(head) } else { None };
        let find = || self.routes.find(head.authority.host, head.target.path());
        match led.unwrap_or_else(find) {
            Routed::Site(site, policy) => {
                self.site(now, turn, request, asked, (&site, policy), writer)
            }
            Routed::Page(page, rest) => {
                let mut target = std::mem::take(&mut self.scratch);
                write_page_target(&page, rest, &mut target);
                let exchange = self.page(now, turn, request, asked, &target, writer);
                self.scratch = target;
                exchange
            }
            Routed::Index => self.page(now, turn, request, asked, "/pages/", writer),
            Routed::Streams(route, rest) => {
                self.streams(now, request, asked, (&route, rest), writer)
            }
            Routed::Events(page) => self.events(now, request, asked, &page, writer),
            Routed::AddSlash(page) => {
                let query = head.target.query().map(|query| format!("?{query}"));
                let fields = format!("Location: /{}/{}\r\n", page.slug, query.unwrap_or_default());
                let own = Own { fields: &fields, ..Own::text(308, "") };
                self.own(now, &own, asked, writer)
            }
            Routed::NotFound | Routed::UnknownHost
                if !self.routes.loaded() && asks_for_stream(head) =>
            {
                // Whatever it asks for may exist as soon as the configuration is here.
                self.explain_opens(None, [head.authority.host, head.target.path_and_query()], 0);
                Exchange::Stream(Box::new(StreamRequest {
                    wanted: None,
                    last_event_id: None,
                    asked: Asked { telling: self.telling(), ..asked.keep() },
                }))
            }
            Routed::NotFound | Routed::UnknownHost if !self.routes.loaded() => {
                let text = "This edge waits for its configuration.";
                let own = Own { fields: "Retry-After: 1\r\n", ..Own::text(503, text) };
                self.own(now, &own, asked, writer)
            }
            Routed::NotFound => {
                let own = Own::text(404, "There is no status page at this address.");
                self.own(now, &own, asked, writer)
            }
            Routed::UnknownHost => {
                self.observe.count(Metric::UnknownHost);
                let own = Own::text(421, "No site with this host name is served here.");
                self.own(now, &own, asked, writer)
            }
        }
    }

    fn page(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        target: &str,
        writer: &mut Writer,
    ) -> Exchange {
        if !matches!(request.head.method, Method::Get | Method::Head) {
            return self.own(now, &only_get(), asked, writer);
        }
        let Some(control) = self.control.clone() else {
            return self.own(now, &Own::text(404, "This edge has no pages."), asked, writer);
        };
        let place = Place {
            site_id: "",
            key_host: "",
            target,
            added: b"",
            asks: target,
            raw: target,
            lifetime: None,
            rules: None,
            host: &control.host_field,
            origins: &control.origins,
            is_page: true,
        };
        self.cached(now, request, asked, turn, place, writer)
    }

    /// Asks the cache.
    pub(super) fn cached(
        &mut self,
        now: Now,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        turn: Turn<'_>,
        place: Place<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let fields = HeadFields(request.head.fields);
        let min_version = min_version(&request.head.fields);
        let asking = Asking {
            now_ms: now.wall_ms,
            waiter: self.waiter(turn.scene.at),
            min_version: min_version.as_ref(),
            waits: turn.waits,
        };
        let mut question = self.question(request, place, &fields);
        let mut unannounced = false;
        if place.is_page {
            unannounced = min_version.as_ref().is_some_and(|it| !self.streams.is_announced(it));
            question = question.public();
            if unannounced {
                question = question.alone();
            }
        }
        let decision = match turn.with {
            None => self.cache.lookup(&mut self.near, &question, &asking),
            Some(with) => self.cache.lookup_woken(&mut self.near, &question, &asking, with),
        };
        let scene = turn.scene;
        if !matches!(decision, Decision::Hit(_) | Decision::Stale { .. }) {
            self.explain_opens(Some(question.cache_key()), [place.host, place.raw], turn.waits);
        }
        match decision {
            Decision::Hit(hit) => {
                let answer = (CacheLabel::Hit, told_of(&hit, turn.with), &[][..]);
                self.write_hit(scene, hit, answer, asked, writer)
            }
            Decision::Stale { hit, revalidate } => {
                if let Some(lease) = revalidate {
                    self.fetch_for_cache(now, None, request, asked, place, lease);
                }
                let answer = (CacheLabel::Stale, told_of(&hit, turn.with), &[][..]);
                self.write_hit(scene, hit, answer, asked, writer)
            }
            Decision::Revalidate(lease) | Decision::Miss(lease) => {
                let held = unannounced.then(|| Rc::clone(&self.unannounced));
                if unannounced
                    && Rc::strong_count(&self.unannounced) > limits::UNANNOUNCED_FETCHES_MAX + 1
                {
                    self.observe.count(Metric::VersionShed);
                    return self.own(now, &version_missing(), asked, writer);
                }
                let fetch = self.fetch_for_cache(now, Some(scene), request, asked, place, lease);
                if let Some(fetch) = self.fetches.get_mut(fetch) {
                    fetch.unannounced = held;
                }
                let state = State::Fetch { fetch, takes_body: false };
                self.later(request, asked, turn.waits, state)
            }
            Decision::Wait => {
                self.observe.count(Metric::Collapsed);
                self.later(request, asked, turn.waits + 1, State::Collapsed { woken: None })
            }
            Decision::Bypass(reason) => {
                // Its answer may be one to GET as well.
                let lease = (question.method() == cache::Method::Post)
                    .then(|| self.cache.lease_for_post(&question).with_rule(place.lifetime));
                let forward = match reason {
                    BypassReason::Method => Forward::Method,
                    BypassReason::Precondition | BypassReason::RequestNoStore => Forward::Request,
                };
                let how = (CacheLabel::Bypass, forward, lease);
                self.relay(now, scene, request, asked, place, how)
            }
            Decision::Unsatisfiable => {
                self.explain_cause("only-if-cached");
                let own = Own::text(504, "Nothing usable is stored, and only that was asked for.");
                self.own(now, &own, asked, writer)
            }
        }
    }

    fn question<'q>(
        &self,
        request: &Request<'_>,
        place: Place<'q>,
        fields: &'q HeadFields<'_>,
    ) -> cache::Request<'q> {
        let Place { site_id, key_host, target, added, .. } = place;
        let (host, target) = (key_host.as_bytes(), target.as_bytes());
        let cache_key = self.cache.cache_key_with(site_id, host, target, added);
        let method = match request.head.method {
            Method::Get => cache::Method::Get,
            other => cache::Method::from_name(other.as_str().as_bytes()),
        };
        cache::Request::new(method, cache_key, fields)
    }

    /// Writes a stored response, or as much of it as is there.
    fn write_hit(
        &mut self,
        scene: Scene,
        mut hit: Hit,
        (label, told, first_hand): (CacheLabel, CacheStatus, &[u8]),
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        if let Some(order) = hit.order.take() {
            self.encode(order);
        }
        let entry = hit.local.entry();
        self.observe.count(label.metric());
        let mut parts = None;
        let text = writer.text(&mut self.out);
        let (status, has_body) = match &hit.answer {
            cache::Answer::NotModified => {
                text.extend_from_slice(&hit.local.not_modified_head());
                (304, false)
            }
            cache::Answer::Parts(ranges) => {
                let boundary = self.ids.make();
                parts = Some(Parts::of(&hit.local, ranges, &boundary, text));
                (206, true)
            }
            cache::Answer::Unsatisfiable(length) => {
                write_unsatisfiable(&hit.local, *length, text);
                (416, false)
            }
            cache::Answer::Full => {
                text.extend_from_slice(entry.head_and_status());
                let status = entry.status();
                (status, !asked.to_head && !matches!(status, 204 | 304))
            }
        };
        self.note_answered(status, Some(label));
        let text = writer.text(&mut self.out);
        told.write(text);
        text.extend_from_slice(first_hand);
        // An age says that the answer was not made for this request (RFC 9111 §5.1).
        let is_stored = matches!(label, CacheLabel::Hit | CacheLabel::Stale);
        if is_stored || (hit.age_s > 0 && !entry.times().is_first_hand) {
            text.extend_from_slice(b"Age: ");
            encode::decimal(text, hit.age_s);
            text.extend_from_slice(b"\r\n");
        }
        self.explain_hit(status, &hit, label, &told);
        let text = match self.explain_field() {
            None => writer.text(&mut self.out),
            Some(explained) => {
                let text = writer.text(&mut self.out);
                text.extend_from_slice(explained.as_bytes());
                text
            }
        };
        let mut persistence = asked.persistence;
        let is_known = entry.has_length() || !has_body || parts.is_some();
        let coding = match (is_known, persistence.http10) {
            (true, _) => Coding::Length,
            (false, true) => {
                persistence.keep_alive = false;
                Coding::Close
            }
            (false, false) => {
                text.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
                Coding::Chunked
            }
        };
        write_tail(text, label, asked.request_id, persistence);
        if !has_body {
            return Exchange::None;
        }
        if let (Coding::Length, None, Some(body)) =
            (coding, &parts, entry.short_body(limits::COPIED_BYTES_MAX))
        {
            writer.text(&mut self.out).extend_from_slice(body);
            return Exchange::None;
        }
        let mut body = match parts {
            None => StoredBody::new(hit.local.clone(), coding),
            Some(parts) => StoredBody::of_parts(hit.local.clone(), parts.list, parts.trailer),
        };
        match body.write(self.waiter(scene.at), &mut self.out, writer) {
            Advance::Done => Exchange::None,
            _ => {
                let mut asked = asked.keep();
                asked.persistence = persistence;
                let state = State::Stored(body);
                Exchange::Answer(Box::new(Answer { asked, kept: Rc::from([]), waits: 0, state }))
            }
        }
    }

    /// An answer that comes later.
    fn later(
        &self,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        waits: u8,
        state: State,
    ) -> Exchange {
        let kept = keep_head(&request.head);
        let asked = Asked { telling: self.telling(), ..asked.keep() };
        Exchange::Answer(Box::new(Answer { asked, kept, waits, state }))
    }

    /// Fetches for the cache, and for a connection if one asks.
    fn fetch_for_cache(
        &mut self,
        now: Now,
        reader: Option<Scene>,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        place: Place<'_>,
        lease: Lease,
    ) -> Ref {
        let forward = lease.forward();
        let to_head = lease.method() == cache::Method::Head;
        let method = if to_head { "HEAD" } else { "GET" };
        let lease = lease.with_rule(place.lifetime);
        let upstream = Upstream {
            method,
            target: place.asks,
            host: place.host,
            body: BodyFraming::None,
            for_cache: true,
        };
        let peer = reader.map_or(IpAddr::from([127, 0, 0, 1]), |scene| scene.peer);
        let mut head = Vec::with_capacity(limits::SEND_BUFFER_BYTES);
        let client = client(asked, peer);
        if place.is_page {
            let least = min_version(&request.head.fields);
            self.names.write_page_request(
                &request.head,
                upstream,
                client,
                least.as_ref(),
                &mut head,
            );
        } else {
            self.names.write_request(&request.head, upstream, client, &mut head);
        }
        lease.conditional_fields(&mut head);
        head.extend_from_slice(b"\r\n");
        self.start_fetch(
            now,
            Plan {
                origins: Rc::clone(place.origins),
                head,
                kept: keep_head(&request.head),
                body: BodyFraming::None,
                lease: Some(lease),
                reader: reader.map(|scene| scene.at),
                label: CacheLabel::Miss,
                forward,
                to_head,
                idempotent: true,
                invalidates: None,
                story: reader.map_or(0, |_| self.telling().story()),
            },
        )
    }

    /// Passes a request on and its answer back, past the cache.
    pub(super) fn relay(
        &mut self,
        now: Now,
        scene: Scene,
        request: &Request<'_>,
        asked: AskedRef<'_>,
        place: Place<'_>,
        (label, forward, lease): (CacheLabel, Forward, Option<Lease>),
    ) -> Exchange {
        let method = request.head.method;
        if label == CacheLabel::Pass {
            self.explain_opens(None, [place.host, place.raw], 0);
        }
        let upstream = Upstream {
            method: method.as_str(),
            target: place.raw,
            host: place.host,
            body: request.body,
            for_cache: false,
        };
        let mut head = Vec::with_capacity(limits::SEND_BUFFER_BYTES);
        let client = client(asked, scene.peer);
        self.names.write_request(&request.head, upstream, client, &mut head);
        head.extend_from_slice(b"\r\n");
        let invalidates = (!method.is_safe()).then(|| Invalidation {
            site_id: place.site_id.into(),
            host: place.key_host.into(),
            target: place.target.into(),
            raw: place.raw.into(),
            rules: place.rules.cloned().unwrap_or_default(),
        });
        let kept = if lease.is_some() { keep_head(&request.head) } else { Rc::from([]) };
        let fetch = self.start_fetch(
            now,
            Plan {
                origins: Rc::clone(place.origins),
                head,
                kept: Rc::clone(&kept),
                body: request.body,
                lease,
                reader: Some(scene.at),
                label,
                forward,
                to_head: method == Method::Head,
                idempotent: method.is_idempotent(),
                invalidates,
                story: self.telling().story(),
            },
        );
        let state = State::Fetch { fetch, takes_body: request.body.has_content() };
        let asked = Asked { telling: self.telling(), ..asked.keep() };
        Exchange::Answer(Box::new(Answer { asked, kept, waits: 0, state }))
    }

    /// Asks again for a request that waited.
    pub fn ask_again(
        &mut self,
        now: Now,
        turn: Turn<'_>,
        kept: &[u8],
        asked: &Asked,
        writer: &mut Writer,
    ) -> Exchange {
        let mut space = FieldSpace::new();
        let Ok(Some((head, _))) = parse_request(kept, &mut space) else {
            return self.own(now, &unreadable(), asked.lend(), writer);
        };
        let body = BodyFraming::None;
        let keep_alive = asked.persistence.keep_alive;
        let request = Request { head, body, keep_alive, expect_continue: false };
        self.answer(now, turn, &request, asked.lend(), writer)
    }

    /// Answers with what our own fetch has brought.
    pub fn answer_with(
        &mut self,
        now: Now,
        scene: Scene,
        stored: &StoredAnswer,
        kept: &[u8],
        asked: &Asked,
        writer: &mut Writer,
    ) -> Exchange {
        let mut space = FieldSpace::new();
        let Ok(Some((head, _))) = parse_request(kept, &mut space) else {
            return self.own(now, &unreadable(), asked.lend(), writer);
        };
        let StoredAnswer { entry, freshness, label, told, first_hand, .. } = stored;
        if let (Some(least), Some(version)) = (min_version(&head.fields), entry.version())
            && !version.covers(&least)
        {
            // Control itself waited for it and did not reach it.
            self.observe.count(Metric::VersionTooOld);
            return self.own(now, &version_missing(), asked.lend(), writer);
        }
        let fields = HeadFields(head.fields);
        let cache_key = entry.cache_key().borrowed();
        let method = cache::Method::from_name(head.method.as_str().as_bytes());
        let question = cache::Request::new(method, cache_key, &fields);
        let hit = self.cache.serve(&mut self.near, &question, now.wall_ms, entry, *freshness);
        let told = CacheStatus { ttl_s: hit.ttl_s, ..*told };
        self.write_hit(scene, hit, (*label, told, first_hand), asked.lend(), writer)
    }

    /// Answers that the fetch, ours or the one we waited for, has failed. Who asked for a version
    /// is told that it is not here yet and when to come again, not whose fault that is.
    pub fn unfetched(
        &mut self,
        now: Now,
        own: &Own<'_>,
        kept: &[u8],
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        let mut space = FieldSpace::new();
        let head = parse_request(kept, &mut space).ok().flatten().map(|(head, _)| head);
        if head.as_ref().is_some_and(|head| head.method.as_str() == PURGE) {
            return self.own(now, &only_here(), asked, writer);
        }
        if head.is_some_and(|head| min_version(&head.fields).is_some()) {
            return self.own(now, &version_missing(), asked, writer);
        }
        self.own(now, own, asked, writer)
    }

    /// Writes an answer of our own.
    pub fn own(
        &mut self,
        now: Now,
        own: &Own<'_>,
        asked: AskedRef<'_>,
        writer: &mut Writer,
    ) -> Exchange {
        self.note_answered(own.status, None);
        self.explain_own(own.status);
        let explained = self.explain_field().unwrap_or_default();
        let frame = Frame {
            persistence: asked.persistence,
            to_head: asked.to_head,
            request_id: asked.request_id,
            via_line: self.names.via_line(),
            more_lines: explained.as_bytes(),
            date_line: self.date.at(now),
        };
        write_own(own, frame, writer.text(&mut self.out));
        Exchange::None
    }

    /// How the cache finds a connection again.
    pub fn waiter(&self, at: Ref) -> Waiter {
        Waiter { shard: self.settings.shard, id: at.to_u64() }
    }
}

/// What is told of an answer that the cache gave at once, or when it was woken.
fn told_of(hit: &Hit, with: Option<&WakeWith>) -> CacheStatus {
    let from_cache = CacheStatus::hit(hit.ttl_s);
    let collapsed = |forward| CacheStatus { forward: Some(forward), collapsed: true, ..from_cache };
    let stale = |detail| CacheStatus { detail, ..from_cache };
    match (hit.freshness, with) {
        (Freshness::Fresh, _) => from_cache,
        (Freshness::Collapsed, _) => collapsed(Forward::Miss),
        (Freshness::MaxStale, _) => stale("max-stale"),
        (Freshness::WhileRevalidating, _) => stale("stale-while-revalidate"),
        (Freshness::OriginFailed, Some(WakeWith::Stale(_))) => {
            CacheStatus { detail: "origin-failed", ..collapsed(Forward::Stale) }
        }
        (Freshness::OriginFailed, _) => stale("origin-failed"),
    }
}

/// Appends the lines that change with each answer, and the empty line.
pub fn write_tail(
    text: &mut Vec<u8>,
    label: CacheLabel,
    request_id: &[u8],
    persistence: Persistence,
) {
    text.extend_from_slice(label.line_and_id());
    text.extend_from_slice(request_id);
    text.extend_from_slice(persistence.end());
}

/// Whether the connection can go on after an answer that is given at once; as `Server::persists`,
/// which cannot be asked while the request is lent.
fn persists(request: &Request<'_>) -> bool {
    request.keep_alive
        && !request.expect_continue
        && match request.body {
            BodyFraming::Length(length) => length <= proto::limits::DRAIN_BYTES_MAX,
            _ => true,
        }
}

/// Whether this looks like a request for a stream, before there is a configuration that could tell:
/// it says so, or it asks for the path of a page's stream and takes anything.
fn asks_for_stream(head: &RequestHead<'_>) -> bool {
    if head.method != Method::Get {
        return false;
    }
    let takes = |what: &[u8]| {
        head.fields.known_all(Known::Accept).any(|value| {
            let mut ranges = value.split(|&b| b == b',' || b == b';');
            ranges.any(|range| range.trim_ascii().eq_ignore_ascii_case(what))
        })
    };
    let path = head.target.path();
    let below_slug = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let is_stream_path = path == "/events" || below_slug.is_some_and(|(_, rest)| rest == "events");
    let takes_all = !head.fields.has(Known::Accept) || takes(b"*/*");
    takes(b"text/event-stream") || is_stream_path && takes_all && !takes(b"application/json")
}

/// What is asked of this edge itself, and answered without a look at the route.
fn own_options(head: &RequestHead<'_>) -> Option<Own<'static>> {
    match head.method {
        Method::Options if head.target.path_and_query() == "*" => {
            Some(Own { fields: not_offered::ALLOW, ..Own::text(204, "") })
        }
        // A proxy answers itself when it may not pass on (RFC 9110 §7.6.2).
        Method::Options if head.fields.known(Known::MaxForwards) == Some(b"0") => {
            Some(Own { fields: "Allow: GET, HEAD, OPTIONS\r\n", ..Own::text(204, "") })
        }
        _ => None,
    }
}

/// For a head that was at the limits and, written anew, went beyond them.
fn unreadable() -> Own<'static> {
    Own::text(431, "The request head is too large to be asked again.")
}

pub(super) fn only_get() -> Own<'static> {
    Own { fields: "Allow: GET, HEAD\r\n", ..Own::text(405, "Only GET and HEAD are offered here.") }
}

/// What the origin is told of the client.
fn client<'a>(asked: AskedRef<'a>, peer: IpAddr) -> Client<'a> {
    Client { peer, request_id: std::str::from_utf8(asked.request_id).unwrap_or_default() }
}

/// The answer to `Pharos-Min-Version` when nothing that new can be had.
fn version_missing() -> Own<'static> {
    let text = "The version asked for has not arrived here yet.";
    Own { fields: "Retry-After: 1\r\n", ..Own::text(503, text) }
}

/// `Pharos-Min-Version`; one that cannot be read asks for nothing.
fn min_version(fields: &Fields<'_>) -> Option<VersionVector> {
    let value = fields.known(Known::PharosMinVersion)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What control is asked for: the page by its id, without query. No resource of a page takes one,
/// so a link with tracking parameters finds the same entry, and no visitor can make control render
/// the same thing again, nor the cache store it again, by making queries up.
fn write_page_target(page: &PageRoute, rest: &str, to: &mut String) {
    to.clear();
    to.push_str("/pages/");
    to.push_str(&page.id);
    to.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_conditions_is_not_searched_for_them() {
        let may_have = |text: &[u8]| {
            let mut space = FieldSpace::new();
            let (head, _) = parse_request(text, &mut space).expect("well-formed").expect("whole");
            HeadFields(head.fields).may_have(&[Known::IfNoneMatch, Known::CacheControl])
        };
        assert!(!may_have(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\n\r\n"));
        assert!(may_have(b"GET / HTTP/1.1\r\nHost: a\r\nif-none-match: b\r\n\r\n"));
    }
}
