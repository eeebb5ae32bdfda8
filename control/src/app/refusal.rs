//! Why a request is not done: the closed list that the API turns into statuses, in one place there.

use crate::{limits, model::Invalid, store::sqlite::StoreError};

/// Why a request is not done.
#[derive(Debug)]
pub enum Refusal {
    /// What it names is not there.
    NotFound {
        /// A page, a component …
        what: &'static str,
        /// As it was named.
        name: String,
    },
    /// What it wants is taken or has changed meanwhile.
    Conflict(FieldError),
    /// `If-Match` names another state than the present one.
    Stale {
        /// The present `ETag`.
        etag: String,
    },
    /// It breaks rules, all of which are named.
    Invalid(Vec<FieldError>),
    /// The store could not.
    Store(StoreError),
}

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// JSON pointer into the request's body, or `?name` of a query parameter.
    pub pointer: String,
    /// Stable, machine-readable.
    pub code: String,
    /// What would have been right, for people.
    pub expected: String,
}

impl FieldError {
    /// Names a broken rule.
    pub fn new(
        pointer: impl Into<String>,
        code: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self { pointer: pointer.into(), code: code.into(), expected: expected.into() }
    }

    /// Names a broken rule of the model.
    pub fn of(pointer: impl Into<String>, invalid: Invalid) -> Self {
        Self::new(pointer, invalid.code, invalid.expected)
    }
}

impl Refusal {
    /// Refuses for one broken rule.
    pub fn invalid(pointer: impl Into<String>, code: &str, expected: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(pointer, code, expected)])
    }

    /// Refuses because a thing is not there.
    pub fn not_found(what: &'static str, name: impl Into<String>) -> Self {
        Self::NotFound { what, name: name.into() }
    }

    /// Refuses if any rule is broken; names at most [`limits::FIELD_ERRORS_MAX`].
    pub fn unless_empty(mut errors: Vec<FieldError>) -> Result<(), Self> {
        errors.truncate(limits::FIELD_ERRORS_MAX);
        if errors.is_empty() { Ok(()) } else { Err(Self::Invalid(errors)) }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
