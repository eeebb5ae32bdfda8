//! Every error of the API as problem+json (RFC 9457), and the one table of refusal → status.
//!
//! A handler returns a [`Failure`]; the outermost layer (`api::mod`) writes it, because only there
//! the request's id is at hand for every kind of error, axum's own included.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::types::{Problem, ProblemField};
use crate::{
    app::{FieldError, Refusal},
    store::sqlite::{StoreError, writer::WriteError},
};

/// Why a request failed, before it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    /// This occurrence, and what to do.
    pub detail: String,
    /// Every broken rule.
    pub errors: Vec<FieldError>,
    /// When to come again, s.
    pub retry_after_s: Option<u32>,
    /// The present tag, for 412.
    pub etag: Option<String>,
}

impl Failure {
    /// A failure with a status and a sentence.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), retry_after_s: None, etag: None }
    }

    /// A request that cannot be read.
    pub fn bad_request(pointer: &str, code: &str, expected: impl Into<String>) -> Self {
        let error = FieldError::new(pointer, code, expected);
        let detail = format!("{}: expected {}", error.pointer, error.expected);
        Self { errors: vec![error], ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }

    /// Too much at once; come again.
    pub fn busy(status: StatusCode, detail: &str) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(status, detail) }
    }

    /// The answer, given the request's id.
    pub fn write(self, request_id: &str) -> Response {
        let title = title(self.status);
        let errors = self.errors.into_iter().map(|error| ProblemField {
            pointer: error.pointer,
            code: error.code,
            expected: error.expected,
        });
        let problem = Problem {
            kind: format!("urn:pharos:problem:{}", title.to_ascii_lowercase().replace(' ', "-")),
            title: title.into(),
            status: self.status.as_u16(),
            detail: self.detail,
            errors: errors.collect(),
            request_id: request_id.into(),
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(retry_after_s) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
        }
        if let Some(etag) = self.etag.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            headers.insert(header::ETAG, etag);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"pharos\""),
            );
        }
        response
    }
}

impl IntoResponse for Failure {
    /// Only carries the failure to the outermost layer.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound { what, name } => {
                Self::new(StatusCode::NOT_FOUND, format!("there is no {what} {name:?}"))
            }
            Refusal::Conflict(error) => {
                let detail = format!("expected {}", error.expected);
                Self { errors: vec![error], ..Self::new(StatusCode::CONFLICT, detail) }
            }
            Refusal::Stale { etag } => {
                let detail = "it has changed since you read it: read it again, then decide";
                let failure = Self::new(StatusCode::PRECONDITION_FAILED, detail);
                Self { etag: Some(etag), ..failure }
            }
            Refusal::Invalid(errors) => {
                let detail = match errors.as_slice() {
                    [one] if one.pointer.is_empty() => format!("expected {}", one.expected),
                    [one] => format!("{}: expected {}", one.pointer, one.expected),
                    many => format!("{} fields break their rules", many.len()),
                };
                Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
            }
            Refusal::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self {
                retry_after_s: Some(5),
                ..Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    "the disk under control's data is full: nothing was written; reads go on, and \
                     writes return by themselves when there is space",
                )
            },
            StoreError::RecordTooLarge { bytes } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                format!(
                    "edges would have to be told {bytes} bytes at once, over {} that a record of \
                     the feed may have: nothing was written",
                    proto::limits::RECORD_BYTES_MAX
                ),
            ),
            StoreError::Busy => {
                Self::busy(StatusCode::SERVICE_UNAVAILABLE, "control is busy: try again")
            }
            error => {
                tracing::error!(
                    %error, cause = ?std::error::Error::source(&error), "the store failed"
                );
                Self::busy(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "control's store failed; its log says why, find it by request_id",
                )
            }
        }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal.into(),
            WriteError::OtherRequest => {
                let error = FieldError::new(
                    "Idempotency-Key",
                    "other_request",
                    "a new Idempotency-Key for a request that differs from the one it was used for",
                );
                let detail = format!("expected {}", error.expected);
                Self { errors: vec![error], ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
            }
        }
    }
}

/// The title of a kind of problem, one for each status that control answers.
pub fn title(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "Malformed request",
        401 => "API key missing or unknown",
        403 => "API key not allowed",
        404 => "Not found",
        405 => "Method not allowed",
        408 => "Request too slow",
        409 => "Conflict",
        412 => "Changed meanwhile",
        413 => "Request too large",
        422 => "Rules broken",
        431 => "Request head too large",
        429 => "Too many requests at once",
        503 => "Unavailable",
        507 => "Disk full",
        _ => status.canonical_reason().unwrap_or("Failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status() {
        let full = rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL),
            None,
        );
        let error = || FieldError::new("/slug", "taken", "another");
        for (refusal, status) in [
            (Refusal::not_found("page", "x"), 404),
            (Refusal::Conflict(error()), 409),
            (Refusal::Stale { etag: "\"e\"".into() }, 412),
            (Refusal::Invalid(vec![error()]), 422),
            (Refusal::Store(StoreError::Busy), 503),
            (Refusal::Store(full.into()), 507),
        ] {
            assert_eq!(Failure::from(refusal).status.as_u16(), status);
        }
        assert_eq!(Failure::from(WriteError::OtherRequest).status.as_u16(), 422);
    }
}
