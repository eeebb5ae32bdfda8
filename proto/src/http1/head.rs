//! Request and response heads: bytes → head, without a copy, each field looked at once.
//!
//! httparse finds lines, names and values; everything that RFC 9112 wants refused and httparse lets
//! pass (bare LF, targets, `Host`) is refused here. While the fields are checked they are
//! classified into a [`Summary`], so that whoever needs one later asks by name in constant time.
//!
//! Leaves to others: what the fields say about the body (`framing`), which bytes to feed (`server`,
//! `client`).

use std::mem::MaybeUninit;

use super::{client::ResponseError, refusal::Refusal};
use crate::{
    field::name::{self, Known},
    limits,
    target::{Authority, Form, Target},
};

/// Room for the fields of one head, made on the stack for each parse: the rows are not initialised,
/// so it costs next to nothing.
pub struct FieldSpace<'a> {
    rows: [MaybeUninit<httparse::Header<'a>>; limits::FIELD_COUNT_MAX],
    /// Here and not in [`Fields`], so that a head is cheap to hand over.
    summary: Summary,
}

impl FieldSpace<'_> {
    /// Empty room.
    #[inline]
    pub const fn new() -> Self {
        Self {
            rows: [const { MaybeUninit::uninit() }; limits::FIELD_COUNT_MAX],
            summary: Summary::EMPTY,
        }
    }
}

impl Default for FieldSpace<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of a request. Borrowed from the received bytes.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// What to do.
    pub method: Method<'a>,
    /// With what, checked to be of a form that the method allows.
    pub target: Target<'a>,
    /// Of which host: of the target if it is absolute, else of `Host`; empty host for HTTP/1.0
    /// without either.
    pub authority: Authority<'a>,
    /// 1.0 or 1.1.
    pub version: Version,
    /// In the order received.
    pub fields: Fields<'a>,
}

/// The head of a response. Borrowed from the received bytes.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// 1.0 or 1.1.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    /// May be empty; empty too if it holds anything but ASCII.
    pub reason: &'a str,
    /// In the order received.
    pub fields: Fields<'a>,
}

/// A request method. Methods are case-sensitive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Method<'a> {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token; passed on, never refused for being unknown.
    Other(&'a str),
}

impl<'a> Method<'a> {
    /// Names a method; the caller has checked that it is a token.
    #[inline]
    pub fn of(token: &'a str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            other => Self::Other(other),
        }
    }

    /// As it stands in a request line.
    pub const fn as_str(&self) -> &'a str {
        match *self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other(token) => token,
        }
    }

    /// Whether it only reads (RFC 9110 §9.2.1). Unknown methods count as unsafe.
    pub const fn is_safe(&self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// Whether doing it twice is doing it once (RFC 9110 §9.2.2).
    pub const fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }
}

/// A protocol version that is spoken here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// The fields of a head, in the order received. Names are tokens, values hold no control bytes and
/// no white space around them. Cheap to copy around by reference.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    rows: &'a [httparse::Header<'a>],
    summary: &'a Summary,
}

/// Which known names are there, and where first.
#[derive(Clone, Copy)]
struct Summary {
    /// Bit `known as u8`.
    present: u64,
    /// Present more than once.
    repeated: u64,
    /// Index of the first row; only meaningful where `present` is set.
    first: [u8; Known::COUNT],
}

impl Summary {
    const EMPTY: Self = Self { present: 0, repeated: 0, first: [0; Known::COUNT] };
}

impl<'a> Fields<'a> {
    /// No fields.
    pub const EMPTY: Fields<'static> = Fields { rows: &[], summary: &Summary::EMPTY };

    /// All fields: name as sent, value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a [u8])> + Clone + use<'a> {
        self.rows.iter().map(|row| (row.name, row.value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether a field of this name is there. One bit test.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.summary.present >> known as u8 & 1 == 1
    }

    /// Whether any of these is there. One mask test for a constant list.
    #[inline]
    pub fn has_any(&self, names: &[Known]) -> bool {
        let mask = names.iter().fold(0u64, |mask, &known| mask | 1 << known as u8);
        self.summary.present & mask != 0
    }

    /// Whether there is more than one field line of this name.
    #[inline]
    pub fn is_repeated(&self, known: Known) -> bool {
        self.summary.repeated >> known as u8 & 1 == 1
    }

    /// The first value of this name. No scan.
    #[inline]
    pub fn known(&self, known: Known) -> Option<&'a [u8]> {
        if !self.has(known) {
            return None;
        }
        self.rows.get(usize::from(self.summary.first[known as usize])).map(|row| row.value)
    }

    /// All values of this name, in order. Scans only from the first one, and only if it is
    /// repeated.
    pub fn known_all(&self, known: Known) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let rows = if self.has(known) {
            let from = usize::from(self.summary.first[known as usize]);
            let to = if self.is_repeated(known) { self.rows.len() } else { from + 1 };
            self.rows.get(from..to).unwrap_or_default()
        } else {
            &[]
        };
        rows.iter().filter(move |row| Known::of(row.name) == Some(known)).map(|row| row.value)
    }

    /// The first value of a name, whatever its case. A scan; prefer [`Fields::known`].
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.rows.iter().find(|row| name::same(row.name, name)).map(|row| row.value)
    }

    /// All values of a name, in order. A scan.
    pub fn get_all<'n>(
        &self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a, 'n> {
        self.rows.iter().filter(move |row| name::same(row.name, name)).map(|row| row.value)
    }

    /// Whether a list field holds this token, in whatever case, over all its lines.
    pub fn has_token(&self, known: Known, token: &str) -> bool {
        self.has(known)
            && self.known_all(known).any(|value| crate::field::list::has_token(value, token))
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// Reads a request head at the start of `bytes`. `Ok(None)` if it is not complete; else the head
/// and its length. The caller bounds `bytes` and has skipped empty lines in front.
#[inline(always)]
pub fn parse_request<'a>(
    bytes: &'a [u8],
    space: &'a mut FieldSpace<'a>,
) -> Result<Option<(RequestHead<'a>, usize)>, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, &mut space.rows) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return refuse(error, bytes),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::RequestLine);
    };
    // httparse skips empty lines in front; only the caller may.
    if method.as_ptr() != bytes.as_ptr().cast() {
        return Err(Refusal::LineEnd);
    }
    let first_line = method.len() + 1 + target.len() + 1 + "HTTP/1.1".len();
    let fields = classify(bytes, first_line, len, request.headers, &mut space.summary)
        .ok_or(Refusal::LineEnd)?;
    if target.len() > limits::TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let method = Method::of(method);
    let (target, own) = Target::parse(target).map_err(|_| Refusal::Target)?;
    let host = check_host(version, &fields)?;
    check_form(&method, target.form)?;
    // RFC 9112 §3.2.2: an absolute target replaces the `Host` field, which must be valid all the
    // same.
    let authority = if target.is_absolute() { own } else { host };
    Ok(Some((RequestHead { method, target, authority, version, fields }, len)))
}

/// Reads a response head at the start of `bytes`. `Ok(None)` if it is not complete; else the head
/// and its length.
pub fn parse_response<'a>(
    bytes: &'a [u8],
    space: &'a mut FieldSpace<'a>,
) -> Result<Option<(ResponseHead<'a>, usize)>, ResponseError> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        // RFC 9112 §5.1: a proxy must remove such white space from a response; a request with it is
        // refused.
        .allow_spaces_after_header_name_in_responses(true)
        .parse_response_with_uninit_headers(&mut response, bytes, &mut space.rows);
    let len = match parsed {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(ResponseError::HeadTooLarge),
        Err(_) => return Err(ResponseError::Head),
    };
    let (Some(minor), Some(status)) = (response.version, response.code) else {
        return Err(ResponseError::Head);
    };
    let line_end = bytes.iter().position(|&b| b == b'\n').unwrap_or(0);
    if !bytes.starts_with(b"HTTP/") || status < 100 {
        return Err(ResponseError::Head);
    }
    let fields =
        classify(bytes, line_end.saturating_sub(1), len, response.headers, &mut space.summary)
            .ok_or(ResponseError::Head)?;
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    Ok(Some((ResponseHead { version, status, reason: response.reason.unwrap_or(""), fields }, len)))
}

/// Fields of a trailer section, each line checked, as it was received. Framing, routing and
/// authentication fields mean nothing in a trailer (RFC 9110 §6.5.1): pass on or drop, never merge
/// into the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trailers<'a>(&'a [u8]);

impl<'a> Trailers<'a> {
    /// No trailers.
    pub const EMPTY: Trailers<'static> = Trailers(b"");

    /// Checks a whole section, its final empty line included.
    pub fn parse(section: &'a [u8]) -> Option<Self> {
        if section == b"\r\n" {
            return Some(Self(b""));
        }
        let mut rows = [httparse::EMPTY_HEADER; limits::FIELD_COUNT_MAX];
        match httparse::parse_headers(section, &mut rows) {
            Ok(httparse::Status::Complete((len, rows))) if len == section.len() => {
                let crlf = ends_in_crlf(section, len, rows.len())
                    && rows.iter().skip(1).all(|row| cr_before(section, offset(section, row)));
                crlf.then(|| Self(&section[..len - 2]))
            }
            _ => None,
        }
    }

    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.0.split(|&b| b == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            let name = std::str::from_utf8(&line[..colon]).ok()?;
            let value = line[colon + 1..].strip_suffix(b"\r")?;
            Some((name, crate::field::list::trim(value)))
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One pass over the fields: are all lines ended by CRLF, and which known names are where. `None`
/// if a line ends otherwise. `first_line` is the length of the first line without its end,
/// `summary` is empty.
#[inline(always)]
fn classify<'a>(
    bytes: &'a [u8],
    first_line: usize,
    len: usize,
    rows: &'a [httparse::Header<'a>],
    summary: &'a mut Summary,
) -> Option<Fields<'a>> {
    let mut crlf = bytes.get(first_line) == Some(&b'\r') && ends_in_crlf(bytes, len, rows.len());
    for (at, row) in rows.iter().enumerate() {
        crlf &= cr_before(bytes, offset(bytes, row));
        if let Some(known) = Known::of(row.name) {
            let bit = 1u64 << known as u8;
            if summary.present & bit == 0 {
                // FIELD_COUNT_MAX ≤ 256.
                summary.first[known as usize] = at as u8;
            }
            summary.repeated |= summary.present & bit;
            summary.present |= bit;
        }
    }
    crlf.then_some(Fields { rows, summary })
}

/// Whether the line before the one at `at` ends in CRLF. httparse takes a bare LF as an end, and
/// two parsers that disagree on that disagree on where a request ends. A line ends right before the
/// next one's name, so one byte tells.
#[inline]
fn cr_before(bytes: &[u8], at: usize) -> bool {
    bytes.get(at.wrapping_sub(2)) == Some(&b'\r')
}

/// Whether the empty line, and the last field's line before it, end in CRLF.
#[inline]
fn ends_in_crlf(bytes: &[u8], len: usize, row_count: usize) -> bool {
    cr_before(bytes, len) && (row_count == 0 || cr_before(bytes, len.wrapping_sub(2)))
}

#[inline]
fn offset(bytes: &[u8], row: &httparse::Header<'_>) -> usize {
    (row.name.as_ptr() as usize).wrapping_sub(bytes.as_ptr() as usize)
}

/// RFC 9112 §3.2: exactly one valid `Host` in HTTP/1.1, at most one in 1.0.
#[inline(always)]
fn check_host<'a>(version: Version, fields: &Fields<'a>) -> Result<Authority<'a>, Refusal> {
    let Some(value) = fields.known(Known::Host) else {
        return match version {
            Version::Http10 => Ok(Authority::default()),
            Version::Http11 => Err(Refusal::HostMissing),
        };
    };
    if fields.is_repeated(Known::Host) {
        return Err(Refusal::HostRepeated);
    }
    std::str::from_utf8(value).ok().and_then(Authority::parse).ok_or(Refusal::HostInvalid)
}

/// Which forms a method allows (RFC 9112 §3.2).
#[inline(always)]
fn check_form(method: &Method<'_>, form: Form) -> Result<(), Refusal> {
    match (method, form) {
        (Method::Connect, _) => Err(Refusal::Connect),
        (_, Form::Origin | Form::AbsoluteHttp | Form::AbsoluteHttps) => Ok(()),
        (Method::Options, Form::Asterisk) => Ok(()),
        (_, Form::Asterisk | Form::Authority) => Err(Refusal::Target),
    }
}

/// What httparse's error means. A first line that is not complete is not judged by its version yet,
/// so that the answer does not depend on how the bytes were cut.
#[cold]
fn refuse<T>(error: httparse::Error, bytes: &[u8]) -> Result<Option<T>, Refusal> {
    if PROXY_HEADER_V2.starts_with(bytes) && bytes.len() < PROXY_HEADER_V2.len() {
        return Ok(None);
    }
    Err(match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::HeaderName => Refusal::FieldName,
        httparse::Error::HeaderValue => Refusal::FieldValue,
        httparse::Error::NewLine => Refusal::LineEnd,
        httparse::Error::Token | httparse::Error::Status => foreign(bytes),
        httparse::Error::Version => {
            let Some(end) = bytes.iter().position(|&b| b == b'\n') else { return Ok(None) };
            let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
            let mut words = line.split(|&b| b == b' ').skip(2);
            match (words.next(), words.next()) {
                (Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']), None) => {
                    if line == b"PRI * HTTP/2.0" {
                        Refusal::Http2
                    } else {
                        Refusal::Version
                    }
                }
                _ => foreign(bytes),
            }
        }
    })
}

/// Where in a request line of HTTP/1.2 to HTTP/1.9 the minor version stands.
pub(super) fn newer_minor(bytes: &[u8]) -> Option<usize> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.split(|&b| b == b' ').skip(2);
    match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']), None) => {
            Some(line.len() - 1)
        }
        _ => None,
    }
}

/// Whether a status line begins with HTTP/1.2 to HTTP/1.9.
#[inline]
pub(super) fn is_newer_minor(bytes: &[u8]) -> bool {
    matches!(bytes, [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', ..])
}

/// `HTTP/1.1`.
pub(super) const VERSION_BYTES: usize = 8;

/// What no request line was, by its first bytes: another protocol, which the refusal then names.
fn foreign(bytes: &[u8]) -> Refusal {
    let is_proxy_header = bytes.starts_with(PROXY_HEADER_V2)
        || PROXY_HEADERS_V1.iter().any(|begin| bytes.starts_with(begin));
    match bytes.first() {
        Some(&TLS_HANDSHAKE) => Refusal::Tls,
        _ if is_proxy_header => Refusal::ProxyHeader,
        _ => Refusal::RequestLine,
    }
}

/// The content type of the first TLS record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
/// How the PROXY protocol begins, version 1 (haproxy's proxy-protocol.txt §2.1).
const PROXY_HEADERS_V1: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];
/// And version 2 (§2.2), behind the two empty lines that its signature begins with.
const PROXY_HEADER_V2: &[u8] = b"\0\r\nQUIT\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn with_head(input: &str, check: impl FnOnce(RequestHead<'_>)) {
        let mut space = FieldSpace::new();
        let (head, len) =
            parse_request(input.as_bytes(), &mut space).expect(input).expect("complete");
        assert_eq!(len, input.len());
        check(head);
    }

    #[test]
    fn fields_are_found_by_name_and_by_known_name() {
        let input = "GET /x HTTP/1.1\r\nhost: h:81\r\nX-Own:\t a b \r\nCache-Control: \
                     no-cache\r\nx-own: c\r\ncache-control: no-store\r\nEmpty:\r\n\r\n";
        with_head(input, |head| {
            let fields = head.fields;
            assert_eq!((fields.len(), fields.is_empty()), (6, false));
            assert_eq!(fields.get("X-OWN"), Some(&b"a b"[..]));
            assert_eq!(fields.get_all("x-own").collect::<Vec<_>>(), [&b"a b"[..], b"c"]);
            assert_eq!(fields.get("Empty"), Some(&b""[..]));
            assert_eq!(fields.get("absent"), None);
            assert_eq!(fields.known(Known::CacheControl), Some(&b"no-cache"[..]));
            assert_eq!(
                fields.known_all(Known::CacheControl).collect::<Vec<_>>(),
                [&b"no-cache"[..], b"no-store"]
            );
            assert_eq!(fields.known_all(Known::Host).collect::<Vec<_>>(), [&b"h:81"[..]]);
            assert_eq!(fields.known_all(Known::Age).count(), 0);
            assert!(fields.has(Known::Host) && !fields.has(Known::Range));
            assert!(
                fields.has_any(&[Known::Range, Known::CacheControl])
                    && !fields.has_any(&[Known::Range])
            );
            assert!(fields.is_repeated(Known::CacheControl) && !fields.is_repeated(Known::Host));
            assert!(fields.has_token(Known::CacheControl, "NO-STORE"));
            assert_eq!(head.authority, Authority { host: "h", port: Some(81) });
        });
    }

    #[test]
    fn the_last_of_all_fields_is_found() {
        let fields = "X: y\r\n".repeat(limits::FIELD_COUNT_MAX - 2);
        with_head(
            &format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Range: bytes=0-\r\n\r\n"),
            |head| {
                assert_eq!(head.fields.known(Known::Range), Some(&b"bytes=0-"[..]));
            },
        );
    }

    #[test]
    fn rfc9112_3_2_2_an_absolute_target_replaces_the_host() {
        with_head("GET http://b:8/x HTTP/1.1\r\nHost: a\r\n\r\n", |head| {
            assert_eq!(head.authority, Authority { host: "b", port: Some(8) });
            assert_eq!(head.target.path_and_query(), "/x");
        });
    }

    #[test]
    fn rfc9112_3_2_an_empty_host_and_an_old_request_without_one_are_taken() {
        for input in ["GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            with_head(input, |head| assert_eq!(head.authority.host, ""));
        }
    }

    #[test]
    fn unknown_methods_are_taken_and_known_ones_have_their_nature() {
        with_head("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", |head| {
            assert_eq!(head.method, Method::Other("M-SEARCH"));
            assert!(!head.method.is_safe() && !head.method.is_idempotent());
        });
        with_head("get / HTTP/1.1\r\nHost: a\r\n\r\n", |head| {
            assert_eq!(head.method, Method::Other("get"))
        });
        with_head("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", |head| {
            assert_eq!((head.method, head.target.form), (Method::Options, Form::Asterisk));
        });
        assert!(Method::Put.is_idempotent() && !Method::Put.is_safe() && Method::Head.is_safe());
    }

    #[test]
    fn bytes_of_a_value_beyond_ascii_are_kept() {
        let input = b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\xe9\r\n\r\n";
        let mut space = FieldSpace::new();
        let parsed = parse_request(input, &mut space).expect("taken").expect("complete");
        assert_eq!(parsed.0.fields.get("x"), Some(&b"\xff\xe9"[..]));
    }

    #[test]
    fn trailers_are_checked_line_by_line() {
        let of = |text: &'static str| {
            Trailers::parse(text.as_bytes()).map(|trailers| trailers.iter().collect::<Vec<_>>())
        };
        assert_eq!(of("\r\n"), Some(vec![]));
        assert_eq!(of("X: a:b \r\nY:\r\n\r\n"), Some(vec![("X", &b"a:b"[..]), ("Y", b"")]));
        for bad in [
            "",
            "X: y\r\n",
            "X: y\n\r\n",
            "X: y\r\n\n",
            "X y\r\n\r\n",
            "X: y\r\n z\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        let many = "X: y\r\n".repeat(limits::FIELD_COUNT_MAX + 1) + "\r\n";
        assert_eq!(Trailers::parse(many.as_bytes()), None);
    }
}
