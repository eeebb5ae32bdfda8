//! What a request may ask of its connection that is not offered here: another protocol, a tunnel,
//! gRPC. Each is refused by a status and a text that names what to do instead; docs/reach.md has
//! them all.
//!
//! RFC 9110 §7.8 lets a server go on as if there were no `Upgrade`. So it is for `h2c` and all
//! others whose clients are content with HTTP/1.1. A WebSocket client is not: what it got instead
//! would be an error without a reason, and an origin's answer to what it did not ask, cached.
//!
//! Leaves to others: what is refused before it is a request (`proto::http1::refusal`).

use proto::{
    field::{list, name::Known},
    http1::head::{Method, RequestHead, Version},
};

use super::respond::Own;

/// The answer to a request that is not for any route here.
pub fn refused(head: &RequestHead<'_>) -> Option<Own<'static>> {
    match head.method {
        // It would show what the proxies in front added (RFC 9110 §9.3.8).
        Method::Trace => {
            Some(Own { fields: ALLOW, ..Own::text(405, "TRACE is not offered here.") })
        }
        Method::Connect => Some(Own::text(501, "CONNECT is not offered here.")),
        Method::Get if asks_for_websocket(head) => Some(Own::text(501, WEBSOCKET)),
        Method::Post if is_grpc(head) => Some(Own::text(501, GRPC)),
        _ => None,
    }
}

/// Methods there are, for who asked for another.
pub const ALLOW: &str = "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n";

const WEBSOCKET: &str = "WebSocket is not carried here: route it past Pharos to its origin, or use \
                         an event stream (SSE), which is.";
const GRPC: &str = "gRPC is not carried here, because it needs HTTP/2 from end to end: route it \
                    past Pharos to its origin, or use gRPC-Web, which is carried.";

/// RFC 6455 §4.1. In HTTP/1.0, and where `Connection` does not name it, there is no `Upgrade`.
fn asks_for_websocket(head: &RequestHead<'_>) -> bool {
    let fields = &head.fields;
    fields.has(Known::Upgrade)
        && head.version == Version::Http11
        && fields.has_token(Known::Upgrade, "websocket")
        && fields.has_token(Known::Connection, "upgrade")
}

/// `application/grpc`, bare or with a codec behind `+`; not `application/grpc-web`, which is made
/// for HTTP/1.1.
fn is_grpc(head: &RequestHead<'_>) -> bool {
    let Some(value) = head.fields.known(Known::ContentType) else { return false };
    let (media, _) = list::split_outside_quotes(value, b';');
    let media = list::trim(media);
    let begin = b"application/grpc";
    media.get(..begin.len()).is_some_and(|start| start.eq_ignore_ascii_case(begin))
        && matches!(media.get(begin.len()), None | Some(b'+'))
}

#[cfg(test)]
mod tests {
    use crate::shard::{observe::Metric, testing::World};

    /// Status and body of the answer, or whether the origin was asked.
    fn check(request: &str, expected: Option<(&str, &str)>) {
        let mut world = World::new(1);
        let client = world.connect(0);
        world.say(client, request);
        let got = world.take(client);
        match expected {
            Some((status, word)) => {
                assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {got}");
                assert!(got.contains(word), "{request}: {got}");
                assert!(world.upstreams.is_empty(), "{request}");
                assert_eq!(world.metric(Metric::NotOffered), 1, "{request}");
            }
            None => assert_eq!((got.as_str(), world.upstreams.len()), ("", 1), "{request}"),
        }
    }

    fn get(fields: &str) -> String {
        format!("GET /x HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n")
    }

    fn post(media: &str) -> String {
        format!(
            "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Type: {media}\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn a_websocket_is_refused_by_a_status_and_a_text_that_say_so() {
        let refused = Some(("501", "WebSocket is not carried here"));
        check(&get("Connection: Upgrade\r\nUpgrade: websocket\r\n"), refused);
        check(&get("Connection: keep-alive, upgrade\r\nUpgrade: h2c, WebSocket\r\n"), refused);
    }

    #[test]
    fn rfc9110_7_8_an_upgrade_that_http_1_1_will_do_for_is_ignored() {
        check(&get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), None);
        check(&get("Upgrade: websocket\r\n"), None);
        let old = "GET /x HTTP/1.0\r\nHost: a.example\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
        check(old, None);
    }

    #[test]
    fn grpc_is_refused_and_grpc_web_is_carried() {
        for media in ["application/grpc", "application/gRPC+proto", "application/grpc ; a=b"] {
            check(&post(media), Some(("501", "gRPC is not carried here")));
        }
        for media in ["application/grpc-web+proto", "application/grpc-web-text", "text/plain"] {
            check(&post(media), None);
        }
    }
}
