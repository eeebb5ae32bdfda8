//! What has become of a fetch, as the one who asked sees it: an entry, a head to relay, a failure.
//!
//! Made by `fetch`, taken by `answer`.

use std::{io, sync::Arc};

use cache::{CacheStatus, Entry, Freshness};
use proto::http1::{client::ResponseError, framing::BodyFraming};

use super::{observe::Metric, request::CacheLabel};

/// What has become of a fetch, as its reader sees it.
pub enum Outcome {
    /// Nothing yet.
    Pending,
    /// The cache answers with this.
    Stored(StoredAnswer),
    /// Relayed: this head, then the pipe.
    Relay(RelayHead),
    /// There is no answer.
    Failed(Failure),
    /// What came is of no use with what was stored, which is gone: ask the cache again.
    Again,
    /// The reader has taken it.
    Taken,
}

/// An entry to answer with.
pub struct StoredAnswer {
    /// Which.
    pub entry: Arc<Entry>,
    /// Why it may be served.
    pub freshness: Freshness,
    /// As what.
    pub label: CacheLabel,
    /// What is told of it.
    pub told: CacheStatus,
    /// Field lines for the one whom the fetch was for, behind the entry's head.
    pub first_hand: Box<[u8]>,
    /// The body's overflow is not lost before the reader has begun.
    _hold: cache::Hold,
}

/// A head to pass on.
pub struct RelayHead {
    /// Status.
    pub status: u16,
    /// Status line and fields, without framing and without the empty line.
    pub text: Vec<u8>,
    /// How long the body is; `UntilClose` where only its end tells.
    pub body: BodyFraming,
    /// `Content-Length` of an answer without a body, to be passed on.
    pub length: Option<u64>,
    /// `text` has a `Date`.
    pub has_date: bool,
    /// Why it is relayed.
    pub label: CacheLabel,
    /// What is told of it.
    pub told: CacheStatus,
}

impl StoredAnswer {
    /// Because the origin failed.
    pub fn of_failed(entry: Arc<Entry>, told: CacheStatus) -> Self {
        let (freshness, label) = (Freshness::OriginFailed, CacheLabel::Stale);
        let told = CacheStatus { detail: "origin-failed", ..told };
        Self::new(entry, (freshness, label, told), Box::default())
    }

    /// Keeps the way to the body's rest open until the reader has begun.
    pub fn new(
        entry: Arc<Entry>,
        (freshness, label, told): (Freshness, CacheLabel, CacheStatus),
        first_hand: Box<[u8]>,
    ) -> Self {
        let hold = cache::Hold::new(&entry);
        Self { entry, freshness, label, told, first_hand, _hold: hold }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The origin's name has no address.
    Unresolved,
    /// No connection.
    Connect(io::ErrorKind),
    /// No connection in time.
    ConnectTimeout,
    /// No head in time.
    HeadTimeout,
    /// The body stopped coming.
    BodyTimeout,
    /// The connection broke, or what came is no HTTP.
    Response(ResponseError),
    /// The request could not be sent.
    Send,
    /// This shard has as many fetches as it may.
    Overloaded,
    /// The origin lives, and will answer later.
    PutOff,
    /// One of these, and what is stored must be validated before it is used (RFC 9111 §5.2.2.2).
    Unvalidated,
}

impl Failure {
    /// Status and text for the client.
    pub fn answer(self) -> (u16, String) {
        match self {
            Self::Unresolved => (502, "The origin's name has no address.".to_owned()),
            Self::Connect(kind) => (502, format!("The origin could not be reached: {kind}.")),
            Self::ConnectTimeout => (504, "The origin did not take a connection in time.".into()),
            Self::HeadTimeout => (504, "The origin did not answer in time.".to_owned()),
            Self::BodyTimeout => (504, "The origin stopped answering.".to_owned()),
            Self::Response(error) => (502, format!("The origin's answer is of no use: {error}.")),
            Self::Send => (502, "The origin did not take the request.".to_owned()),
            Self::Unvalidated => {
                let text = "What is stored must be validated, and the origin cannot be asked.";
                (504, text.to_owned())
            }
            Self::PutOff => (503, PUT_OFF.to_owned()),
            Self::Overloaded => (503, "Too many requests wait for origins.".to_owned()),
        }
    }

    /// In one word, for who asks why there was no answer.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Connect(io::ErrorKind::ConnectionRefused) => "connection-refused",
            Self::Connect(_) => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::HeadTimeout => "answer-timeout",
            Self::BodyTimeout => "body-timeout",
            Self::Response(ResponseError::ClosedBeforeHead | ResponseError::Truncated) => {
                "connection-broken"
            }
            Self::Response(_) => "answer-malformed",
            Self::Send => "send-failed",
            Self::Overloaded => "overloaded",
            Self::PutOff => "put-off",
            Self::Unvalidated => "must-revalidate",
        }
    }

    /// Where it is counted.
    pub fn metric(self) -> Metric {
        match self {
            Self::Unresolved | Self::Connect(_) | Self::Send => Metric::FetchConnectFailed,
            Self::ConnectTimeout | Self::HeadTimeout | Self::BodyTimeout => Metric::FetchTimeout,
            Self::Response(ResponseError::ClosedBeforeHead | ResponseError::Truncated) => {
                Metric::FetchBroken
            }
            Self::Response(_) | Self::Unvalidated => Metric::FetchMalformed,
            Self::Overloaded => Metric::Overloaded,
            Self::PutOff => Metric::PutOff,
        }
    }

    /// Field lines for the client.
    pub fn fields(self) -> &'static str {
        match self {
            Self::PutOff | Self::Overloaded => "Retry-After: 1\r\n",
            _ => "",
        }
    }
}

/// To the client when the origin lives and will answer later.
pub const PUT_OFF: &str = "There is no room for this request at the moment.";
