//! What a load asks for: the requests, as bytes, what their answers must be, and which comes next.

use crate::{
    failure::Failure, options::BodyCheck, origin::body, popularity::Popularity, target::Target,
    verify::Expectation,
};

/// Requests of one run, chosen by popularity.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    requests: Vec<Request>,
    popularity: Popularity,
    check: BodyCheck,
    /// Makes many objects out of one request.
    numbers: Option<Numbers>,
}

/// Numbers that go into the query of each request, so that one request stands for many objects with
/// the same body: a table of a million requests and their bodies would cost the load more than the
/// server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Numbers {
    /// How many were used before this load.
    pub(crate) used: u64,
    /// Objects, at least 1. Each is asked for once before any comes again.
    pub(crate) count: u64,
}

impl Numbers {
    /// The next one. Neighbours in time are far apart in number, so that nothing is gained from
    /// objects having been stored one after the other.
    fn next(&mut self) -> u64 {
        let at = u128::from(self.used % self.count);
        self.used += 1;
        // A prime above every count in use: the products run through all remainders.
        (at * u128::from(STRIDE) % u128::from(self.count)) as u64
    }
}

/// One request, and what is known of its answer.
#[derive(Clone, Debug)]
struct Request {
    bytes: Vec<u8>,
    expected: Option<Expectation>,
}

impl Workload {
    /// GET requests for `paths` paths below a target, or for the target itself if that is 1.
    ///
    /// # Errors
    /// A field that is none, or [`BodyCheck::Origin`] for a target that is not `/bytes/<n>`.
    pub(crate) fn new(
        target: &Target,
        fields: &[String],
        (paths, zipf, seed): (u32, f64, u64),
        check: BodyCheck,
    ) -> Result<Self, Failure> {
        if let Some(bad) = fields.iter().find(|field| !is_field(field)) {
            return Err(Failure::usage(format!("expected --field \"Name: value\", found {bad:?}")));
        }
        let request = |index: u32| {
            let path = if paths == 1 { target.path.clone() } else { below(&target.path, index) };
            let expected = match check {
                BodyCheck::Origin => {
                    let body = body::of_path(&path).map_err(|what| {
                        Failure::usage(format!("--check origin cannot foretell {path}: {what}"))
                    })?;
                    Some(Expectation::exactly(200, &body))
                }
                BodyCheck::Same | BodyCheck::Framing => None,
            };
            Ok(Request { bytes: get(target, &path, fields), expected })
        };
        if paths == 0 {
            return Err(Failure::usage("--paths is at least 1"));
        }
        let requests = (0..paths).map(request).collect::<Result<_, Failure>>()?;
        let popularity = Popularity::zipf(paths, zipf, seed);
        Ok(Self { requests, popularity, check, numbers: None })
    }

    /// The same, each request with a number in its query.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn numbered(
        target: &Target,
        fields: &[String],
        numbers: Numbers,
        check: BodyCheck,
    ) -> Result<Self, Failure> {
        let mut target = target.clone();
        target.path.push(if target.path.contains('?') { '&' } else { '?' });
        target.path += &format!("{NUMBER}{:0DIGITS$}", 0);
        let plain = Self::new(&target, fields, (1, 0.0, 1), check)?;
        Ok(Self { numbers: Some(numbers), ..plain })
    }

    /// Which request comes next.
    pub(crate) fn draw(&mut self) -> u32 {
        self.popularity.draw()
    }

    /// Appends a request.
    pub(crate) fn write(&mut self, request: u32, out: &mut Vec<u8>) {
        let bytes = &self.requests[request as usize].bytes;
        let from = out.len();
        out.extend_from_slice(bytes);
        let Some(numbers) = &mut self.numbers else { return };
        let mut rest = numbers.next();
        // The request line ends with the number and the version.
        let line = bytes.iter().position(|&byte| byte == b'\r').unwrap_or(0);
        let end = from + line.saturating_sub(VERSION.len());
        for digit in out[end - DIGITS..end].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    pub(crate) fn expected(&self, request: u32) -> Option<&Expectation> {
        self.requests[request as usize].expected.as_ref()
    }

    /// The first request from `from` on whose answer has to be learned before the load begins.
    pub(crate) fn to_learn(&self, from: u32) -> Option<u32> {
        let unknown = |&index: &u32| self.requests[index as usize].expected.is_none();
        let count = self.requests.len() as u32;
        (self.check != BodyCheck::Framing).then(|| (from..count).find(unknown)).flatten()
    }

    pub(crate) fn learn(&mut self, request: u32, expected: Expectation) {
        self.requests[request as usize].expected = Some(expected);
    }
}

/// `path/index`, in front of the query.
fn below(path: &str, index: u32) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    format!("{}/{index}{query}", path.trim_end_matches('/'))
}

fn get(target: &Target, path: &str, fields: &[String]) -> Vec<u8> {
    let mut text = format!("GET {path}{VERSION}\r\n");
    if !fields.iter().any(|field| is_named(field, "host")) {
        text += &format!("Host: {}\r\n", target.authority);
    }
    for field in fields {
        text += &format!("{field}\r\n");
    }
    text += "\r\n";
    text.into_bytes()
}

/// `Name: value` in visible characters.
pub(crate) fn is_field(text: &str) -> bool {
    let Some((name, value)) = text.split_once(':') else { return false };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
    !name.is_empty()
        && name.bytes().all(token)
        && value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

fn is_named(field: &str, name: &str) -> bool {
    field.split_once(':').is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

/// What ends a request line.
const VERSION: &str = " HTTP/1.1";
/// Name of the number in a query.
const NUMBER: &str = "number=";
/// Digits of a number.
const DIGITS: usize = 12;
const STRIDE: u64 = 1_000_000_007;

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        "http://127.0.0.1:80/bytes/16?max_age=60".parse().expect("target")
    }

    fn written(workload: &mut Workload, request: u32) -> String {
        let mut out = Vec::new();
        workload.write(request, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn numbered_requests_ask_for_every_object_before_one_comes_again() {
        let numbers = Numbers { used: 0, count: 1_000 };
        let mut workload =
            Workload::numbered(&target(), &[], numbers, BodyCheck::Origin).expect("fine");
        let text = written(&mut workload, 0);
        let line = "GET /bytes/16?max_age=60&number=000000000000 HTTP/1.1\r\n";
        assert_eq!(text, format!("{line}Host: 127.0.0.1:80\r\n\r\n"));
        let rest: std::collections::HashSet<String> =
            (0..999).map(|_| written(&mut workload, 0)).collect();
        assert_eq!(rest.len(), 999);
        assert!(!rest.contains(&text));
        assert_eq!(written(&mut workload, 0), text);
    }

    #[test]
    fn further_paths_lie_below_the_url_and_keep_its_query() {
        let mut workload =
            Workload::new(&target(), &[], (2, 1.0, 1), BodyCheck::Same).expect("fine");
        let text = written(&mut workload, 1);
        assert_eq!(text, "GET /bytes/16/1?max_age=60 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n");
        assert_eq!(workload.to_learn(1), Some(1));
    }

    #[test]
    fn a_host_given_by_name_replaces_the_authority() {
        let fields = ["host: shop.example".to_owned()];
        let workload = Workload::new(&target(), &fields, (1, 1.0, 1), BodyCheck::Framing);
        let text = written(&mut workload.expect("fine"), 0);
        assert!(text.ends_with("HTTP/1.1\r\nhost: shop.example\r\n\r\n"));
    }

    #[test]
    fn a_field_cannot_smuggle_a_line() {
        let fields = ["A: b\r\nC: d".to_owned()];
        assert!(Workload::new(&target(), &fields, (1, 1.0, 1), BodyCheck::Same).is_err());
    }

    #[test]
    fn bodies_of_the_origin_are_known_before_they_arrive() {
        let workload = Workload::new(&target(), &[], (3, 1.0, 1), BodyCheck::Origin).expect("fine");
        assert_eq!(workload.expected(2).map(|expected| expected.length), Some(16));
        assert_eq!(workload.to_learn(0), None);
    }
}
