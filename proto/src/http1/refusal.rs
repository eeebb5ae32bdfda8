//! Why a request is refused, and which status that is: the only table of its kind.
//!
//! A refusal always ends the connection: after bytes whose framing is in doubt there is no safe
//! place to go on reading.

/// Why a request is refused by its form, before anybody asked what it wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Not `method SP target SP version`.
    RequestLine,
    /// A line that ends in anything but CRLF, a bare CR or bare LF.
    LineEnd,
    /// A field name that is no token: white space before the colon, a folded line, a control byte.
    FieldName,
    /// A control byte in a field value.
    FieldValue,
    /// A target of none of the forms its method allows.
    Target,
    /// A target over [`crate::limits::TARGET_BYTES_MAX`].
    TargetTooLong,
    /// A head over [`crate::limits::HEAD_BYTES_MAX`].
    HeadTooLarge,
    /// More than [`crate::limits::FIELD_COUNT_MAX`] fields.
    TooManyFields,
    /// A major version that is not 1, or a minor one that is no digit.
    Version,
    /// The preface of HTTP/2 (RFC 9113 §3.4).
    Http2,
    /// A TLS handshake (RFC 8446 §5.1): these bytes are not plain HTTP at all.
    Tls,
    /// A PROXY protocol header, version 1 or 2, before the request.
    ProxyHeader,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// More than one `Host`.
    HostRepeated,
    /// A `Host` that is no host and port.
    HostInvalid,
    /// CONNECT: no tunnels here.
    Connect,
    /// A `Content-Length` that is not plain digits, or too large to count.
    LengthInvalid,
    /// More than one `Content-Length`, in one field or several.
    LengthRepeated,
    /// `Content-Length` and `Transfer-Encoding` together.
    LengthAndCoding,
    /// A `Transfer-Encoding` that does not end in one single `chunked`.
    CodingNotChunked,
    /// A transfer coding other than `chunked`.
    CodingUnknown,
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// A malformed chunk, or extensions over their limits.
    Chunk,
    /// A malformed trailer section, or one over its limits.
    Trailer,
    /// A body over the limit.
    BodyTooLarge,
    /// More pipelined bytes than are kept while a response is outstanding.
    PipelineTooLong,
    /// The head did not come in time.
    HeadTimeout,
    /// The body stopped coming.
    BodyTimeout,
    /// The client ended its side in the middle of a request.
    Truncated,
    /// A body without a length where one is needed.
    LengthRequired,
    /// No site for this host here.
    Misdirected,
}

impl Refusal {
    /// The status code.
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestLine
            | Self::Tls
            | Self::ProxyHeader
            | Self::LineEnd
            | Self::FieldName
            | Self::FieldValue
            | Self::Target
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::LengthInvalid
            | Self::LengthRepeated
            | Self::LengthAndCoding
            | Self::CodingNotChunked
            | Self::CodingInHttp10
            | Self::Chunk
            | Self::Trailer
            | Self::PipelineTooLong
            | Self::Truncated => 400,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::LengthRequired => 411,
            Self::BodyTooLarge => 413,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::Misdirected => 421,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::Connect | Self::CodingUnknown => 501,
            Self::Version | Self::Http2 => 505,
        }
    }

    /// One sentence for the person who reads the response.
    pub const fn text(self) -> &'static str {
        match self {
            Self::RequestLine => "The request line is not \"method target HTTP/1.1\".",
            Self::LineEnd => "A line of the request head does not end in CR LF.",
            Self::FieldName => {
                "A field name is malformed: no space before the colon, no folded lines, no control \
                 bytes."
            }
            Self::FieldValue => "A field value holds a control byte.",
            Self::Target => {
                "The request target does not fit the method, or holds a byte that it must not."
            }
            Self::TargetTooLong => "The request target is too long.",
            Self::HeadTooLarge => "The request head is too large.",
            Self::TooManyFields => "The request has too many fields.",
            Self::Version => "Only HTTP/1.0 and HTTP/1.1 are spoken here.",
            Self::Http2 => {
                "HTTP/2 is not spoken here: use HTTP/1.1, or put a proxy in front that speaks both."
            }
            Self::Tls => {
                "This listener speaks plain HTTP, not TLS: use http://, or put a proxy with TLS in \
                 front."
            }
            Self::ProxyHeader => {
                "A PROXY protocol header is not taken here: turn it off where it is sent, and send \
                 X-Forwarded-For instead."
            }
            Self::HostMissing => "The request has no Host field.",
            Self::HostRepeated => "The request has more than one Host field.",
            Self::HostInvalid => "The Host field is not a host with an optional port.",
            Self::Connect => "CONNECT is not offered here.",
            Self::LengthInvalid => "The Content-Length is not a plain decimal number.",
            Self::LengthRepeated => "The request has more than one Content-Length.",
            Self::LengthAndCoding => "The request has both Content-Length and Transfer-Encoding.",
            Self::CodingNotChunked => "The Transfer-Encoding does not end in a single \"chunked\".",
            Self::CodingUnknown => "The only transfer coding understood is \"chunked\".",
            Self::CodingInHttp10 => "HTTP/1.0 has no Transfer-Encoding.",
            Self::Expectation => "The only expectation met here is \"100-continue\".",
            Self::Chunk => "A chunk of the request body is malformed.",
            Self::Trailer => "The trailer section of the request is malformed or too large.",
            Self::BodyTooLarge => "The request body is too large.",
            Self::PipelineTooLong => "Too many requests were sent without waiting for responses.",
            Self::HeadTimeout => "The request head did not arrive in time.",
            Self::BodyTimeout => "The request body did not arrive in time.",
            Self::Truncated => "The request ended before it was complete.",
            Self::LengthRequired => "The request body needs a Content-Length.",
            Self::Misdirected => "No site with this host name is served here.",
        }
    }

    /// A short stable word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::LineEnd => "line_end",
            Self::FieldName => "field_name",
            Self::FieldValue => "field_value",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::Version => "version",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::ProxyHeader => "proxy_header",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::Connect => "connect",
            Self::LengthInvalid => "length_invalid",
            Self::LengthRepeated => "length_repeated",
            Self::LengthAndCoding => "length_and_coding",
            Self::CodingNotChunked => "coding_not_chunked",
            Self::CodingUnknown => "coding_unknown",
            Self::CodingInHttp10 => "coding_in_http10",
            Self::Expectation => "expectation",
            Self::Chunk => "chunk",
            Self::Trailer => "trailer",
            Self::BodyTooLarge => "body_too_large",
            Self::PipelineTooLong => "pipeline_too_long",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::Truncated => "truncated",
            Self::LengthRequired => "length_required",
            Self::Misdirected => "misdirected",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_single_sentences_that_fit_a_field_and_names_are_words() {
        for refusal in [
            Refusal::RequestLine,
            Refusal::Misdirected,
            Refusal::HeadTimeout,
            Refusal::Version,
            Refusal::Http2,
            Refusal::Tls,
            Refusal::ProxyHeader,
        ] {
            assert!(crate::field::name::is_value(refusal.text().as_bytes()));
            assert!(refusal.text().ends_with('.'));
            assert!(
                refusal
                    .name()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit())
            );
        }
    }

    #[test]
    fn statuses_are_those_of_the_rfcs() {
        for (refusal, status) in [
            (Refusal::RequestLine, 400),
            (Refusal::HeadTimeout, 408),
            (Refusal::LengthRequired, 411),
            (Refusal::BodyTooLarge, 413),
            (Refusal::TargetTooLong, 414),
            (Refusal::Expectation, 417),
            (Refusal::Misdirected, 421),
            (Refusal::TooManyFields, 431),
            (Refusal::CodingUnknown, 501),
            (Refusal::Version, 505),
            (Refusal::Http2, 505),
            (Refusal::ProxyHeader, 400),
        ] {
            assert_eq!(refusal.status(), status);
        }
    }
}
