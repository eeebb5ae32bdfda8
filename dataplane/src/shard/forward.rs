//! What a proxy adds, changes and takes away: the head of a request on its way to an origin, and
//! the rule for each field of a response on its way back.
//!
//! Hop-by-hop fields and those that `Connection` names stay on their hop (RFC 9110 §7.6.1). Framing
//! is made anew for each hop. `Via` and `CDN-Loop` (RFC 8586) are added; a request that carries our
//! own name in `CDN-Loop` has come round and is refused. `X-Forwarded-For` and `Forwarded` (RFC
//! 7239) are extended by the address of the peer; what they said of addresses before stays.
//! Protocol, host, port and prefix are ours alone: only the last hop can vouch for them. The
//! protocol is that of the configuration, and the host is the one that the cache key was made of.
//! An origin that builds links from any other would let one visitor choose what all others are
//! served.
//!
//! Leaves to others: which conditionals to send (`cache`), which target and host (`route`).

use std::{io::Write, net::IpAddr};

use proto::{
    feed::cursor::VersionVector,
    field::{
        list,
        name::{Known, is_token, same},
    },
    http1::{
        framing::BodyFraming,
        head::{Fields, Method, RequestHead},
    },
    target::Form,
};

use super::{explain::DEBUG_FIELD, purge_request::PURGE_KEY_FIELD};
use crate::config::{Forward, Scheme};

/// This edge's name in messages, and the lines made of it once.
#[derive(Clone, Debug)]
pub struct Names {
    /// `pharos-<id>`: pseudonym in `Via`, cdn-id in `CDN-Loop`.
    pseudonym: String,
    /// `Via: 1.1 pharos-<id>\r\n`.
    via_line: Vec<u8>,
    /// `Cache-Status: pharos-<id>`, to be gone on with.
    status_start: Vec<u8>,
    forward: Forward,
}

/// What the client said that the origin is told beside its own fields.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Its address.
    pub peer: IpAddr,
    /// The request's id.
    pub request_id: &'a str,
}

/// What goes to the origin.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// The method.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Value of `Host`.
    pub host: &'a str,
    /// The body's framing on this hop.
    pub body: BodyFraming,
    /// Whether the answer is for the cache: the client's conditionals and ranges are answered here.
    pub for_cache: bool,
}

impl Names {
    /// For the edge with this id.
    pub fn new(edge_id: &str, forward: Forward) -> Self {
        let pseudonym = Self::pseudonym(edge_id);
        let via_line = format!("Via: 1.1 {pseudonym}\r\n").into_bytes();
        let status_start = format!("Cache-Status: {pseudonym}").into_bytes();
        Self { pseudonym, via_line, status_start, forward }
    }

    /// What the edge with this id is called in messages; a token.
    pub fn pseudonym(edge_id: &str) -> String {
        format!("pharos-{edge_id}")
    }

    /// The beginning of `Cache-Status` of relayed answers.
    pub fn status_start(&self) -> &[u8] {
        &self.status_start
    }

    /// The `Via` line of our own answers.
    pub fn via_line(&self) -> &[u8] {
        &self.via_line
    }

    /// Whether a request for a URL of the other scheme cannot be for us: `https` is not spoken here
    /// (RFC 9110 §7.4). What ends TLS in front of an edge may ask it for `http`.
    pub fn is_misdirected(&self, form: Form) -> bool {
        form == Form::AbsoluteHttps && self.forward.proto == Scheme::Http
    }

    /// Whether this request has been here before.
    pub fn is_loop(&self, fields: &Fields<'_>) -> bool {
        // Every comma separates, also within quotes: a visitor's quote that nobody closes would
        // hide all names behind it.
        let members = |value| <[u8]>::split(value, |b| *b == b',');
        fields.has(Known::CdnLoop)
            && fields.known_all(Known::CdnLoop).flat_map(members).any(|member| {
                let id = member.split(|b| *b == b';').next().unwrap_or_default();
                list::trim(id).eq_ignore_ascii_case(self.pseudonym.as_bytes())
            })
    }

    /// Our name behind those of others; before them, where a quote of theirs could hide it.
    fn write_loop(&self, fields: &Fields<'_>, to: &mut Vec<u8>) {
        let name = &self.pseudonym;
        let mut others = fields.known_all(Known::CdnLoop);
        if others.any(|value| value.contains(&b'"')) {
            let _ = write!(to, "CDN-Loop: {name}\r\n");
            for value in fields.known_all(Known::CdnLoop) {
                write_field("CDN-Loop", value, to);
            }
            return;
        }
        write_joined("CDN-Loop", fields.known_all(Known::CdnLoop), to);
        let _ = write!(to, "{name}\r\n");
    }

    /// Writes the head for the origin, up to where conditionals and the empty line go.
    pub fn write_request(
        &self,
        head: &RequestHead<'_>,
        upstream: Upstream<'_>,
        client: Client<'_>,
        to: &mut Vec<u8>,
    ) {
        let Upstream { method, target, host, .. } = upstream;
        let _ = write!(to, "{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        let named = ConnectionNamed::of(&head.fields);
        let counts_hops = head.method == Method::Options && head.fields.has(Known::MaxForwards);
        for (name, value) in head.fields.iter() {
            if counts_hops && same(name, "Max-Forwards") {
                write_field(name, &one_hop_less(value), to);
            } else if passes_to_origin(name, upstream.for_cache) && !named.holds(name) {
                write_field(name, value, to);
            }
        }
        write_framing(&head.method, upstream.body, to);
        self.write_chain(&head.fields, host, client, to);
    }

    /// Writes the head for control, of which a page is asked, up to where conditionals and the
    /// empty line go. A page is the same for everyone: nothing of what the visitor says goes on
    /// but the version that the answer must have reached.
    pub fn write_page_request(
        &self,
        head: &RequestHead<'_>,
        upstream: Upstream<'_>,
        client: Client<'_>,
        min_version: Option<&VersionVector>,
        to: &mut Vec<u8>,
    ) {
        let Upstream { method, target, host, .. } = upstream;
        let _ = write!(to, "{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        if let Some(version) = min_version {
            let _ = write!(to, "Pharos-Min-Version: {version}\r\n");
        }
        self.write_chain(&head.fields, host, client, to);
    }

    /// The fields that tell of the hops so far and of this one.
    fn write_chain(&self, fields: &Fields<'_>, host: &str, client: Client<'_>, to: &mut Vec<u8>) {
        let Client { peer, request_id } = client;
        let proto = self.forward.proto.word();
        write_joined("Via", fields.known_all(Known::Via), to);
        let _ = write!(to, "1.1 {}\r\n", self.pseudonym);
        self.write_loop(fields, to);
        if self.forward.x_forwarded {
            write_joined("X-Forwarded-For", fields.known_all(Known::XForwardedFor), to);
            let _ = write!(to, "{peer}\r\nX-Forwarded-Proto: {proto}\r\n");
            if !host.is_empty() {
                let _ = write!(to, "X-Forwarded-Host: {host}\r\n");
            }
        }
        if self.forward.forwarded {
            to.extend_from_slice(b"Forwarded: ");
            for node in fields.known_all(Known::Forwarded).flat_map(list::members) {
                if let Some(node) = forwarded_for(node) {
                    to.extend_from_slice(b"for=");
                    to.extend_from_slice(node);
                    to.extend_from_slice(b", ");
                }
            }
            let _ = match peer {
                IpAddr::V4(peer) => write!(to, "for={peer}"),
                IpAddr::V6(peer) => write!(to, "for=\"[{peer}]\""),
            };
            if !host.is_empty() {
                let _ = write!(to, ";host=\"{host}\"");
            }
            let _ = write!(to, ";proto={proto}\r\n");
        }
        let _ = write!(to, "X-Request-Id: {request_id}\r\n");
    }
}

/// The field names that `Connection` names, which stay on this hop.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionNamed<'a>(Option<Fields<'a>>);

impl<'a> ConnectionNamed<'a> {
    /// Of a head.
    pub fn of(fields: &Fields<'a>) -> Self {
        Self(fields.has(Known::Connection).then_some(*fields))
    }

    /// Whether this name is among them.
    pub fn holds(&self, name: &str) -> bool {
        match &self.0 {
            None => false,
            Some(fields) => fields
                .known_all(Known::Connection)
                .flat_map(list::members)
                .any(|member| member.eq_ignore_ascii_case(name.as_bytes())),
        }
    }
}

/// Whether a response field goes on to clients, and into the cache. Hop-by-hop fields and framing
/// do not; `Age` and our own names are written anew for each answer.
pub fn passes_to_client(name: &str) -> bool {
    match Known::of(name) {
        Some(Known::ContentLength | Known::Age | Known::XCacheStatus | Known::XRequestId) => false,
        Some(known) => !known.is_hop_by_hop(),
        None => true,
    }
}

/// Writes one field line.
pub fn write_field(name: &str, value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(name.as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value);
    to.extend_from_slice(b"\r\n");
}

/// Whether a request field goes on as it is.
fn passes_to_origin(name: &str, for_cache: bool) -> bool {
    match Known::of(name) {
        Some(
            Known::Host
            | Known::ContentLength
            | Known::Expect
            | Known::Via
            | Known::CdnLoop
            | Known::XForwardedFor
            | Known::XForwardedProto
            | Known::XForwardedHost
            | Known::Forwarded
            | Known::XRequestId,
        ) => false,
        Some(
            Known::IfMatch
            | Known::IfNoneMatch
            | Known::IfModifiedSince
            | Known::IfUnmodifiedSince
            | Known::IfRange
            | Known::Range,
        ) => !for_cache,
        Some(known) => !known.is_hop_by_hop(),
        // Obsolete and unknown to the RFC's list, but of the same kind (RFC 9110 appendix B.5).
        // A key for this edge is nobody else's to see.
        None => {
            let ours = ["HTTP2-Settings", DEBUG_FIELD, PURGE_KEY_FIELD];
            let is_one_of = |names: &[&str]| names.iter().any(|it| same(name, it));
            // Many origins take an underscore for a hyphen: such a name would be another spelling
            // of any field that is dropped, replaced or part of a key here.
            let is_dropped = is_one_of(&ours)
                || name.contains('_')
                || tells_of_another_url(name)
                || for_cache && is_one_of(&ANOTHER_METHOD);
            !is_dropped
        }
    }
}

/// Whether origins take a field of this name for a part of the URL that was asked for: no key holds
/// it, so one visitor would choose what all others are served.
fn tells_of_another_url(name: &str) -> bool {
    let family = b"X-Forwarded-";
    let in_family = name.as_bytes().get(..family.len());
    in_family.is_some_and(|begin| begin.eq_ignore_ascii_case(family))
        || ANOTHER_URL.iter().any(|it| same(name, it))
}

/// Beside `X-Forwarded-…`: what frameworks and servers rewrite the URL by.
const ANOTHER_URL: [&str; 10] = [
    "Front-End-Https",
    "X-Backend-Host",
    "X-Envoy-Original-Path",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-Original-Host",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Scheme",
    "X-Url-Scheme",
];

/// What frameworks take another method from; what is asked for the cache is a GET for all.
const ANOTHER_METHOD: [&str; 3] = ["X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override"];

/// The hops that are left to a request behind this one (RFC 9110 §7.6.2), where it says how many.
fn one_hop_less(value: &[u8]) -> Vec<u8> {
    match list::delta_seconds(value) {
        Some(hops) => hops.saturating_sub(1).to_string().into_bytes(),
        None => value.to_vec(),
    }
}

/// The address in an element of `Forwarded`, if it is written as RFC 7239 §6 has it: nothing that a
/// client made up may pass for another parameter, or open a quote that swallows ours.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    let mut rest = Some(element);
    while let Some(text) = rest {
        let (pair, further) = list::split_outside_quotes(text, b';');
        rest = further;
        let pair = list::trim(pair);
        let Some(equals) = pair.iter().position(|&byte| byte == b'=') else { continue };
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if name.eq_ignore_ascii_case(b"for") {
            return is_node(value).then_some(value);
        }
    }
    None
}

/// A token, or a quoted string of what addresses, ports and names are made of.
fn is_node(value: &[u8]) -> bool {
    let inner = match value {
        [b'"', inner @ .., b'"'] => inner,
        bare => return is_token(bare),
    };
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(byte);
    !inner.is_empty() && inner.iter().all(allowed)
}

fn write_framing(method: &Method<'_>, body: BodyFraming, to: &mut Vec<u8>) {
    match body {
        BodyFraming::Length(length) => {
            let _ = write!(to, "Content-Length: {length}\r\n");
        }
        BodyFraming::Chunked => to.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // RFC 9110 §8.6: methods that usually have content say when they have none.
        BodyFraming::None if matches!(method, Method::Post | Method::Put | Method::Patch) => {
            to.extend_from_slice(b"Content-Length: 0\r\n");
        }
        BodyFraming::None | BodyFraming::UntilClose => {}
    }
}

/// `Name: a, b, ` with all values so far, ready for ours.
fn write_joined<'a>(name: &str, values: impl Iterator<Item = &'a [u8]>, to: &mut Vec<u8>) {
    let _ = write!(to, "{name}: ");
    for value in values.filter(|value| !value.is_empty()) {
        to.extend_from_slice(value);
        to.extend_from_slice(b", ");
    }
}

#[cfg(test)]
mod tests {
    use proto::http1::head::{FieldSpace, parse_request};

    use super::*;

    fn forwarded(request: &str, for_cache: bool) -> String {
        forwarded_as(request, for_cache, Forward::default())
    }

    fn forwarded_as(request: &str, for_cache: bool, forward: Forward) -> String {
        let mut space = FieldSpace::new();
        let (head, _) =
            parse_request(request.as_bytes(), &mut space).expect("well-formed").expect("complete");
        let upstream = Upstream {
            method: head.method.as_str(),
            target: "/t",
            host: "o.example",
            body: BodyFraming::None,
            for_cache,
        };
        let client = Client { peer: [10, 0, 0, 1].into(), request_id: "id1" };
        let mut to = Vec::new();
        Names::new("e1", forward).write_request(&head, upstream, client, &mut to);
        String::from_utf8(to).expect("text")
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_stay_on_their_hop() {
        let sent = forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
             TE: trailers\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Connection: x\r\n\
             Cookie: c=1\r\nX-Other: 2\r\n\r\n",
            false,
        );
        for gone in ["close", "X-Mine", "TE:", "Keep-Alive", "Upgrade", "Proxy-Connection"] {
            assert!(!sent.contains(gone), "{gone} in {sent}");
        }
        assert!(
            sent.starts_with("GET /t HTTP/1.1\r\nHost: o.example\r\nCookie: c=1\r\nX-Other: 2\r\n")
        );
    }

    #[test]
    fn the_chain_of_hops_is_extended_and_what_only_we_know_is_replaced() {
        let sent = forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 x\r\nX-Forwarded-For: 1.2.3.4\r\nCDN-Loop: y\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.2.3.4\r\n\
             X-Request-Id: theirs\r\n\r\n",
            false,
        );
        for line in [
            "Via: 1.0 x, 1.1 pharos-e1\r\n",
            "CDN-Loop: y, pharos-e1\r\n",
            "X-Forwarded-For: 1.2.3.4, 10.0.0.1\r\n",
            "X-Forwarded-Proto: http\r\n",
            "X-Forwarded-Host: o.example\r\n",
            "Forwarded: for=1.2.3.4, for=10.0.0.1;host=\"o.example\";proto=http\r\n",
            "X-Request-Id: id1\r\n",
        ] {
            assert!(sent.contains(line), "{line} in {sent}");
        }
        assert!(!sent.contains("evil") && !sent.contains("theirs"));
    }

    #[test]
    fn no_client_tells_an_origin_of_another_url() {
        for name in [
            "X-Forwarded-Port",
            "x-forwarded-prefix",
            "X-Forwarded-Ssl",
            "X-Original-URL",
            "X_Original_URL",
            "X_Forwarded-Host",
            "x-tenant_id",
        ] {
            for forward in
                [Forward::default(), Forward { x_forwarded: false, ..Forward::default() }]
            {
                let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: evil\r\n\r\n");
                let sent = forwarded_as(&request, true, forward);
                assert!(!sent.contains("evil"), "{sent}");
            }
        }
        assert!(
            forwarded("GET / HTTP/1.1\r\nHost: a\r\nX-Real: x\r\n\r\n", true).contains("X-Real: x")
        );
    }

    #[test]
    fn of_what_clients_say_in_forwarded_only_well_formed_addresses_pass() {
        for (said, passes) in [
            ("for=1.2.3.4", "for=1.2.3.4, "),
            ("For=\"[2001:db8::1]:80\";host=evil;proto=https", "for=\"[2001:db8::1]:80\", "),
            ("proto=https;for=_hidden, for=unknown", "for=_hidden, for=unknown, "),
            ("host=evil.example;proto=https;x=\"", ""),
            ("for=\"1.2.3.4", ""),
            ("for=\"a;host=evil\"", ""),
            ("for=", ""),
            ("by=1.2.3.4", ""),
        ] {
            let sent = forwarded(
                &format!("GET / HTTP/1.1\r\nHost: a\r\nForwarded: {said}\r\n\r\n"),
                false,
            );
            let ours = "for=10.0.0.1;host=\"o.example\";proto=http\r\n";
            assert!(sent.contains(&format!("\r\nForwarded: {passes}{ours}")), "{said}: {sent}");
        }
    }

    #[test]
    fn what_is_not_to_be_told_of_the_client_is_not_passed_on_either() {
        let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\n\
                       Forwarded: for=1.2.3.4\r\n\r\n";
        let of = |x_forwarded, forwarded| Forward { x_forwarded, forwarded, ..Forward::default() };
        for (x_forwarded, forwarded) in [(true, false), (false, true), (false, false)] {
            let sent = forwarded_as(request, false, of(x_forwarded, forwarded));
            assert_eq!(sent.contains("X-Forwarded-"), x_forwarded, "{sent}");
            assert_eq!(sent.contains("\nForwarded: "), forwarded, "{sent}");
        }
    }

    #[test]
    fn origins_are_told_the_protocol_of_the_configuration_whatever_a_request_says() {
        let forward = Forward { proto: Scheme::Https, ..Forward::default() };
        let sent = forwarded_as(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http\r\n\r\n",
            false,
            forward,
        );
        assert!(sent.contains("\r\nX-Forwarded-Proto: https\r\n"), "{sent}");
        assert!(!sent.contains("X-Forwarded-Proto: http\r\n"), "{sent}");
        assert!(sent.contains("host=\"o.example\";proto=https\r\n"), "{sent}");
    }

    #[test]
    fn conditionals_and_ranges_pass_only_when_the_answer_is_not_for_the_cache() {
        let request =
            "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: \"x\"\r\nRange: bytes=0-1\r\n\r\n";
        assert!(forwarded(request, false).contains("If-None-Match: \"x\"\r\nRange: bytes=0-1\r\n"));
        let sent = forwarded(request, true);
        assert!(!sent.contains("If-None-Match") && !sent.contains("Range"), "{sent}");
    }

    #[test]
    fn a_post_without_a_body_says_so() {
        let sent = forwarded("POST / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        assert!(sent.contains("Content-Length: 0\r\n"), "{sent}");
    }

    #[test]
    fn a_request_that_carries_our_name_has_come_round() {
        let is_loop = |value: &str| {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nCDN-Loop: {value}\r\n\r\n");
            let mut space = FieldSpace::new();
            let (head, _) = parse_request(request.as_bytes(), &mut space)
                .expect("well-formed")
                .expect("complete");
            Names::new("e1", Forward::default()).is_loop(&head.fields)
        };
        assert!(is_loop("x, Pharos-E1; v=1"));
        assert!(!is_loop("pharos-e11, x;y=\"pharos-e1\""));
        // A quote that is not closed hides nothing.
        assert!(is_loop("x=\", pharos-e1") && is_loop("x;y=\"\\\", pharos-e1"));
    }

    #[test]
    fn our_name_stands_before_a_quote_that_could_hide_it() {
        let sent = forwarded("GET / HTTP/1.1\r\nHost: a\r\nCDN-Loop: x=\"\r\n\r\n", false);
        assert!(sent.contains("CDN-Loop: pharos-e1\r\nCDN-Loop: x=\"\r\n"), "{sent}");
    }
}
