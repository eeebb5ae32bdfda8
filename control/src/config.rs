//! `control.toml`, and how file, environment and flags make one configuration: flag > environment >
//! file > default.
//!
//! Unknown keys are errors with file, line and what was expected. Leaves to others: reading flags
//! and environment (the binary fills one [`Settings`] from each), opening what is named here.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use proto::feed::cursor::Replica;
use serde::{Deserialize, Serialize};

/// What control runs with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Config {
    /// This region's name: `[a-z0-9-]{1,15}`.
    pub region: String,
    /// Where API, feed and public pages are served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The data directory.
    pub data: PathBuf,
    /// The address that edges and people reach control at, for `edge.toml`; `http://<listen>`
    /// unless said.
    pub url: Option<String>,
    /// Where visitors reach pages that have no host of their own, such as `https://status.example`:
    /// makes the addresses in public JSON absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages_url: Option<String>,
    /// Whether plain text beyond loopback is meant.
    pub allow_plaintext: bool,
    /// How long things are kept.
    pub retention: Retention,
}

/// How long things are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Retention {
    /// Operations of class state, days.
    pub log_days: u32,
    /// Feed records and purges, hours. An edge away for longer takes a snapshot.
    pub feed_hours: u32,
    /// Answers stored for an `Idempotency-Key`, hours.
    pub idempotency_hours: u32,
    /// Events that customers published, minutes; the newest of each event key is kept for
    /// `feed_hours`.
    /// An edge away for longer tells streams a gap.
    pub event_minutes: u32,
}

/// One layer of settings: a file, the environment, or the flags. What is absent is left to the
/// layer below.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// See [`Config::region`].
    pub region: Option<String>,
    /// See [`Config::listen`].
    pub listen: Option<SocketAddr>,
    /// See [`Config::data`].
    pub data: Option<PathBuf>,
    /// See [`Config::url`].
    pub url: Option<String>,
    /// See [`Config::pages_url`].
    pub pages_url: Option<String>,
    /// See [`Config::allow_plaintext`].
    pub allow_plaintext: Option<bool>,
    /// See [`Config::retention`].
    #[serde(default)]
    pub retention: RetentionSettings,
}

/// One layer of [`Retention`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    /// See [`Retention::log_days`].
    pub log_days: Option<u32>,
    /// See [`Retention::feed_hours`].
    pub feed_hours: Option<u32>,
    /// See [`Retention::idempotency_hours`].
    pub idempotency_hours: Option<u32>,
    /// See [`Retention::event_minutes`].
    pub event_minutes: Option<u32>,
}

impl Settings {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable(path.to_owned(), error))?;
        Self::parse(path, &text)
    }

    /// Reads the text of a file.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            ConfigError::Malformed {
                file: path.to_owned(),
                line: text[..at.min(text.len())].matches('\n').count() + 1,
                message: error.message().to_owned(),
            }
        })
    }

    /// These settings where they say something, `below` elsewhere.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let (retention, kept) = (self.retention, below.retention);
        Self {
            region: self.region.or(below.region),
            listen: self.listen.or(below.listen),
            data: self.data.or(below.data),
            url: self.url.or(below.url),
            pages_url: self.pages_url.or(below.pages_url),
            allow_plaintext: self.allow_plaintext.or(below.allow_plaintext),
            retention: RetentionSettings {
                log_days: retention.log_days.or(kept.log_days),
                feed_hours: retention.feed_hours.or(kept.feed_hours),
                idempotency_hours: retention.idempotency_hours.or(kept.idempotency_hours),
                event_minutes: retention.event_minutes.or(kept.event_minutes),
            },
        }
    }

    /// The configuration they make, defaults filled in and rules checked.
    pub fn build(self) -> Result<Config, ConfigError> {
        let region = self.region.unwrap_or_else(|| "local".into());
        if Replica::new(&region, 0).is_err() {
            return Err(ConfigError::Invalid {
                key: "region",
                expected: "1 to 15 of a-z, 0-9 and dashes",
                found: region,
            });
        }
        let listen = self.listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7400)));
        let allow_plaintext = self.allow_plaintext.unwrap_or(false);
        if !listen.ip().is_loopback() && !allow_plaintext {
            return Err(ConfigError::Plaintext(listen));
        }
        for (key, url) in [("url", &self.url), ("pages_url", &self.pages_url)] {
            if let Some(url) = url
                && !(url.starts_with("http://") || url.starts_with("https://"))
            {
                return Err(ConfigError::Invalid {
                    key,
                    expected: "http://host[:port] or https://host[:port]",
                    found: url.clone(),
                });
            }
        }
        let retention = Retention {
            log_days: self.retention.log_days.unwrap_or(365),
            feed_hours: self.retention.feed_hours.unwrap_or(24),
            idempotency_hours: self.retention.idempotency_hours.unwrap_or(24),
            event_minutes: self.retention.event_minutes.unwrap_or(30),
        };
        for (key, value) in [
            ("retention.log_days", retention.log_days),
            ("retention.feed_hours", retention.feed_hours),
            ("retention.idempotency_hours", retention.idempotency_hours),
            ("retention.event_minutes", retention.event_minutes),
        ] {
            if value == 0 {
                let found = value.to_string();
                return Err(ConfigError::Invalid { key, expected: "a number from 1", found });
            }
        }
        Ok(Config {
            region,
            listen,
            data: self.data.unwrap_or_else(|| "pharos-data".into()),
            url: self.url.map(|url| url.trim_end_matches('/').to_owned()),
            pages_url: self.pages_url.map(|url| url.trim_end_matches('/').to_owned()),
            allow_plaintext,
            retention,
        })
    }
}

impl Config {
    /// The effective configuration as a file would say it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration has only keys and plain values")
    }

    /// Where edges reach control, given where it really listens.
    pub fn url(&self, bound: SocketAddr) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://{bound}"))
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file does not say what a configuration can say.
    Malformed {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What was found and expected.
        message: String,
    },
    /// A value breaks its rule.
    Invalid {
        /// Which key.
        key: &'static str,
        /// What would have been right.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A plain-text listener beyond loopback that nobody asked for by name.
    Plaintext(SocketAddr),
}

impl ConfigError {
    /// The key whose value breaks a rule, as `retention.log_days`.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable(..) | Self::Malformed { .. } => None,
            Self::Invalid { key, .. } => Some(key),
            Self::Plaintext(_) => Some("listen"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(file, _) => write!(f, "cannot read {}", file.display()),
            Self::Malformed { file, line, message } => {
                write!(f, "{}:{line}: {}", file.display(), message.trim_end())
            }
            Self::Invalid { key, expected, found } => {
                write!(f, "{key} = {found:?}: expected {expected}")
            }
            Self::Plaintext(listen) => write!(
                f,
                "listen = \"{listen}\" is reachable beyond this machine and speaks plain text: \
                 put TLS before it and listen on loopback, or set allow_plaintext = true"
            ),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let path = Path::new("control.toml");
        match Settings::parse(path, text).and_then(Settings::build) {
            Ok(config) => panic!("{config:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_mistake_is_named_with_file_line_and_what_was_expected() {
        let error = refusal("region = \"eu\"\nlistn = \"127.0.0.1:7400\"\n");
        assert!(error.starts_with("control.toml:2: "), "{error}");
        assert!(error.contains("listn") && error.contains("`listen`"), "{error}");
        let error = refusal("[retention]\nlog_days = \"long\"\n");
        assert!(error.starts_with("control.toml:2: "), "{error}");
        assert!(refusal("region = \"Europe West\"").contains("a-z"));
        assert!(refusal("[retention]\nfeed_hours = 0").contains("from 1"));
    }

    #[test]
    fn plain_text_beyond_loopback_must_be_allowed_by_name() {
        assert!(refusal("listen = \"0.0.0.0:7400\"").contains("allow_plaintext"));
        let text = "listen = \"0.0.0.0:7400\"\nallow_plaintext = true";
        let settings = Settings::parse(Path::new("f"), text).expect("parses");
        assert!(settings.build().is_ok());
    }

    #[test]
    fn flags_come_before_environment_before_file_before_defaults() {
        let file = Settings {
            region: Some("file".into()),
            data: Some("file".into()),
            retention: RetentionSettings { log_days: Some(1), ..Default::default() },
            ..Default::default()
        };
        let environment =
            Settings { region: Some("env".into()), data: Some("env".into()), ..Default::default() };
        let flags = Settings { region: Some("flag".into()), ..Default::default() };
        let config = flags.over(environment).over(file).build().expect("valid");
        assert_eq!((config.region.as_str(), config.data.to_str()), ("flag", Some("env")));
        assert_eq!((config.retention.log_days, config.retention.feed_hours), (1, 24));
        let again = Settings::parse(Path::new("f"), &config.to_toml()).expect("prints itself");
        assert_eq!(again.build().expect("valid"), config);
    }
}
