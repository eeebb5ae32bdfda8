//! An edge's admin listener, asked for its state or ordered. Leaves control's API to `client`.

use serde_json::Value;
use ureq::Agent;

use crate::{exit::Failure, limits};

/// Where the admin listener of an edge is unless its configuration says otherwise.
pub(crate) const DEFAULT_ADMIN: &str = "http://127.0.0.1:7401";

/// One edge, at its admin address.
pub(crate) struct Admin<'a> {
    agent: Agent,
    /// As the user gave it, without a slash at its end.
    url: &'a str,
}

/// What is done to a resource.
#[derive(Clone, Copy)]
pub(crate) enum Method {
    Get,
    Post,
    Delete,
}

impl<'a> Admin<'a> {
    /// Asks nothing yet.
    pub(crate) fn at(url: &'a str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(limits::CONNECT_AFTER))
            .timeout_global(Some(limits::REQUEST_AFTER))
            .build();
        Self { agent: config.into(), url: url.trim_end_matches('/') }
    }

    /// The answer's JSON; `None` for 404.
    ///
    /// # Errors
    /// If nobody answers, or with another status than 200, 202 and 404, or no JSON.
    pub(crate) fn ask(&self, method: Method, path: &str) -> Result<Option<Value>, Failure> {
        let url = format!("{}{path}", self.url);
        let unanswered = |error: &ureq::Error| {
            Failure::error(format!("the edge at {} does not answer: {error}", self.url))
                .remedy("is it running, and is --admin (PHAROS_ADMIN) its admin address?")
        };
        let answer = match method {
            Method::Get => self.agent.get(&url).call(),
            Method::Post => self.agent.post(&url).send_empty(),
            Method::Delete => self.agent.delete(&url).call(),
        };
        let mut response = answer.map_err(|error| unanswered(&error))?;
        let text = response.body_mut().read_to_string().map_err(|error| unanswered(&error))?;
        match response.status().as_u16() {
            200 | 202 => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| Failure::because(format!("{url} answered no JSON"), &error)),
            404 => Ok(None),
            status => Err(Failure::error(format!("{url} answered {status}: {}", text.trim()))),
        }
    }
}
