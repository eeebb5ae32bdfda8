//! The operator's connection to control: one request at a time, retried where that is safe,
//! failures in words.
//!
//! Every POST carries an `Idempotency-Key`, the same for all its attempts, so a retry after a lost
//! answer creates nothing twice. Attempts end after a bounded number; a refusal by control is never
//! retried unless it asks for it (429, 503).
//!
//! Leaves to others: what is asked (`crate::verb`), what a status means as an exit code
//! (`crate::exit`).

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

use crate::{
    clock,
    exit::{Failure, Kind},
    limits,
    output::{self, Format},
};

/// How a verb reaches control, and how it prints.
#[derive(Debug, Args)]
pub(crate) struct Connection {
    /// Address of control's API
    #[arg(long, env = "PHAROS_URL", default_value = DEFAULT_URL, value_name = "URL")]
    pub(crate) url: String,
    /// File with an API key [default: ./pharos-data/admin.key, if it is there]
    #[arg(long, env = "PHAROS_KEY_FILE", value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// How to print the answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

impl Connection {
    /// A client with the key that the options name.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let path = match &self.key_file {
            Some(path) => path.as_path(),
            None if Path::new(DEFAULT_KEY_FILE).exists() => Path::new(DEFAULT_KEY_FILE),
            None => {
                return Err(Failure::new(Kind::Auth, "no API key").remedy(format!(
                    "give --key-file FILE or set PHAROS_KEY_FILE; `pharos up` writes {DEFAULT_KEY_FILE} \
                     into the folder it is started in"
                )));
            }
        };
        Client::new(&self.url, &read_key(path)?)
    }
}

/// A connection to control.
pub(crate) struct Client {
    agent: Agent,
    url: String,
    authorization: String,
}

/// How a request differs from a GET.
enum Method<'a> {
    Get,
    Delete,
    Post { body: &'a Value, idempotency_key: &'a str },
    Patch { body: &'a Value },
}

/// Why one attempt did not bring an answer.
enum Attempt {
    /// May go better next time; after this long if control said so.
    Again(Option<Duration>, Failure),
    /// Would end the same way again.
    Final(Failure),
}

impl Client {
    /// To the control at `url`, with this API key.
    pub(crate) fn new(url: &str, key: &str) -> Result<Self, Failure> {
        let url = url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") || url.len() == "http://".len() {
            return Err(Failure::new(Kind::Usage, format!("{url:?} is not an address of control"))
                .remedy("expected http://HOST:PORT, such as http://127.0.0.1:7400"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(limits::CONNECT_AFTER))
            .timeout_global(Some(limits::REQUEST_AFTER))
            .user_agent(concat!("pharos/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.into(), url, authorization: format!("Bearer {key}") })
    }

    /// Reads.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(path, &Method::Get)
    }

    /// Reads all items of a list, page by page.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let after = if cursor.is_empty() {
                String::new()
            } else {
                format!("{separator}cursor={}", encode(&cursor))
            };
            let mut page = self.get(&format!("{path}{after}"))?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) if items.len() < limits::LIST_ITEMS_MAX => next.clone_into(&mut cursor),
                Some(_) => {
                    output::talk(&format!("there are more than these {} items", items.len()));
                    return Ok(items);
                }
                None => return Ok(items),
            }
        }
    }

    /// Creates, under an `Idempotency-Key` of its own.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.post_as(path, body, &idempotency_key()?)
    }

    /// Creates, under this `Idempotency-Key`: the same key within a day gives the same thing again.
    pub(crate) fn post_as(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: &str,
    ) -> Result<Value, Failure> {
        self.ask(path, &Method::Post { body, idempotency_key })
    }

    /// Changes.
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(path, &Method::Patch { body })
    }

    /// Removes.
    pub(crate) fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask(path, &Method::Delete).map(drop)
    }

    fn ask(&self, path: &str, method: &Method<'_>) -> Result<Value, Failure> {
        let mut pause = limits::ATTEMPT_PAUSE_FIRST;
        let mut attempt = 1;
        loop {
            match self.attempt(path, method) {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Again(after, _)) if attempt < limits::ATTEMPTS_MAX => {
                    clock::wait(after.unwrap_or(pause).min(limits::ATTEMPT_PAUSE_MAX));
                    pause *= 2;
                    attempt += 1;
                }
                Err(Attempt::Again(_, failure) | Attempt::Final(failure)) => return Err(failure),
            }
        }
    }

    fn attempt(&self, path: &str, method: &Method<'_>) -> Result<Value, Attempt> {
        let url = format!("{}{path}", self.url);
        let authorization = &self.authorization;
        let sent = match method {
            Method::Get => self.agent.get(&url).header("Authorization", authorization).call(),
            Method::Delete => self.agent.delete(&url).header("Authorization", authorization).call(),
            Method::Post { body, idempotency_key } => self
                .agent
                .post(&url)
                .header("Authorization", authorization)
                .header("Idempotency-Key", *idempotency_key)
                .send_json(body),
            Method::Patch { body } => {
                self.agent.patch(&url).header("Authorization", authorization).send_json(body)
            }
        };
        // A PATCH or DELETE whose answer was lost may have been done; doing it again could undo
        // somebody else's change.
        let repeatable = matches!(method, Method::Get | Method::Post { .. });
        let mut response = sent.map_err(|error| self.unanswered(&error, repeatable))?;
        let text = read_body(&mut response).map_err(|error| self.unanswered(&error, repeatable))?;
        let status = response.status().as_u16();
        if (200..300).contains(&status) {
            if text.is_empty() {
                return Ok(Value::Null);
            }
            return serde_json::from_str(&text).map_err(|error| {
                Attempt::Final(Failure::because(format!("{url} answered no JSON"), &error))
            });
        }
        let failure = problem(status, &text);
        match status {
            429 | 503 => Err(Attempt::Again(retry_after(&response), failure)),
            _ => Err(Attempt::Final(failure)),
        }
    }

    fn unanswered(&self, error: &ureq::Error, repeatable: bool) -> Attempt {
        let kind = match error {
            ureq::Error::Timeout(_) => Kind::Timeout,
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Error,
        };
        let refused = matches!(error, ureq::Error::ConnectionFailed)
            || matches!(error, ureq::Error::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused);
        let failure =
            Failure::new(kind, format!("control at {} does not answer: {error}", self.url))
                .remedy("is it running (`pharos up`), and is --url (PHAROS_URL) its address?");
        if repeatable || refused { Attempt::Again(None, failure) } else { Attempt::Final(failure) }
    }
}

/// Percent-encodes one segment of a path or one value of a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Reads an API key from its file: one line, surrounding white space ignored.
pub(crate) fn read_key(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(limits::KEY_FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| {
            let message = format!("reading the API key in {}: {error}", path.display());
            Failure::new(Kind::Auth, message)
        })?;
    let key = text.trim();
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
        let message = format!("{} holds no API key: expected one line of text", path.display());
        return Err(Failure::new(Kind::Auth, message));
    }
    Ok(key.to_owned())
}

fn idempotency_key() -> Result<String, Failure> {
    let random = getrandom::u64()
        .and_then(|high| Ok((high, getrandom::u64()?)))
        .map_err(|error| Failure::because("asking the kernel for random numbers", &error))?;
    Ok(format!("cli-{:016x}{:016x}", random.0, random.1))
}

fn read_body(response: &mut Response<Body>) -> Result<String, ureq::Error> {
    response.body_mut().with_config().limit(limits::ANSWER_BYTES_MAX).read_to_string()
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What control said in `application/problem+json` (RFC 9457), as a failure.
fn problem(status: u16, text: &str) -> Failure {
    let kind = match status {
        400 | 413 | 415 | 422 => Kind::Usage,
        401 | 403 => Kind::Auth,
        404 | 410 => Kind::NotFound,
        409 | 412 => Kind::Conflict,
        408 | 504 => Kind::Timeout,
        _ => Kind::Error,
    };
    let Ok(problem) = serde_json::from_str::<Value>(text) else {
        return Failure::new(kind, format!("control answered {status}"));
    };
    let said = |pointer| Some(output::text(&problem, pointer)).filter(|text| !text.is_empty());
    let listed = problem["errors"].as_array().is_some_and(|errors| !errors.is_empty());
    let message = match (said("/title"), said("/detail").filter(|_| !listed)) {
        (Some(title), Some(detail)) if title != detail => format!("{title}: {detail}"),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => format!("control answered {status}"),
    };
    let mut lines: Vec<String> = problem
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(describe)
        .collect();
    if status == 401 {
        lines.push("give the file of a valid API key by --key-file or PHAROS_KEY_FILE".to_owned());
    }
    lines.extend(said("/request_id").map(|id| format!("request {id}")));
    let failure = Failure::new(kind, message);
    if lines.is_empty() { failure } else { failure.remedy(lines.join("\n")) }
}

/// One of a problem's `errors[]`: where, and what was expected there.
fn describe(error: &Value) -> String {
    // As the API and the documents have it: a JSON pointer into what was sent.
    let place = output::text(error, "/pointer");
    let texts = ["/detail", "/message", "/expected"].map(|pointer| output::text(error, pointer));
    let said = match texts.iter().position(|text| !text.is_empty()) {
        Some(2) => format!("expected {}", texts[2]),
        Some(at) => texts[at].clone(),
        None => output::text(error, "/code"),
    };
    if place.is_empty() { said } else { format!("{place}: {said}") }
}

/// Where `pharos up` puts control's API.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7400";
/// Where `pharos up` puts the first admin key, seen from the folder it is started in.
const DEFAULT_KEY_FILE: &str = "pharos-data/admin.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_the_exit_code_of_the_contract() {
        for (status, kind) in [
            (400, Kind::Usage),
            (401, Kind::Auth),
            (403, Kind::Auth),
            (404, Kind::NotFound),
            (409, Kind::Conflict),
            (412, Kind::Conflict),
            (422, Kind::Usage),
            (500, Kind::Error),
            (507, Kind::Error),
        ] {
            assert_eq!(problem(status, "").kind(), kind, "{status}");
        }
    }

    #[test]
    fn a_problem_names_the_field_and_what_was_expected_there() {
        let error =
            serde_json::json!({"pointer": "/components/api", "code": "x", "expected": "a word"});
        assert_eq!(describe(&error), "/components/api: expected a word");
        let error = serde_json::json!({"pointer": "", "code": "unknown"});
        assert_eq!(describe(&error), "unknown");
    }

    #[test]
    fn path_segments_cannot_leave_their_place() {
        assert_eq!(encode("a/b?c#d e"), "a%2Fb%3Fc%23d%20e");
        assert_eq!(encode("demo-1._~"), "demo-1._~");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for url in ["", "127.0.0.1:7400", "https://x", "http://"] {
            assert!(Client::new(url, "k").is_err(), "{url}");
        }
    }
}
