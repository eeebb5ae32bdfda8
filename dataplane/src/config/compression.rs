//! `[compression]` of `edge.toml`: which stored responses visitors may have encoded, and how.

use cache::Coding;
use serde::{Deserialize, Serialize};

use super::{ConfigError, read_size, refuse, write_size};
use crate::{compress::Levels, limits};

/// Which stored responses may be had encoded.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// `br`, `zstd`, `gzip`: those offered, the best of what a request weighs alike first. Empty:
    /// nothing is encoded.
    pub codings: Vec<String>,
    /// Media types without parameters: `text/html`, `text/*`, `*+json`.
    pub types: Vec<String>,
    /// Bytes of the shortest body worth it.
    #[serde(serialize_with = "write_size", deserialize_with = "read_size")]
    pub min: u64,
    /// Bytes of the longest body that is encoded.
    #[serde(serialize_with = "write_size", deserialize_with = "read_size")]
    pub max: u64,
    /// How hard each coding tries.
    pub levels: Levels,
}

impl Compression {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let mut known: Vec<Coding> = Vec::new();
        for coding in &self.codings {
            match Coding::ALL.into_iter().find(|known| known.token() == coding) {
                Some(coding) if !known.contains(&coding) => known.push(coding),
                _ => {
                    let expected = format!("{coding:?}: br, zstd and gzip, each once");
                    return refuse("compression.codings", expected);
                }
            }
        }
        let is_type = |text: &String| {
            let stars = text.bytes().filter(|&b| b == b'*').count();
            let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
            let is_star = stars == 1 && (text.starts_with("*+") || text.ends_with("/*"));
            is_plain && !text.contains(';') && (is_star || (stars == 0 && text.contains('/')))
        };
        if let Some(text) = self.types.iter().find(|text| !is_type(text)) {
            let expected = format!("{text:?}: lower case, as text/html, text/* or *+json");
            return refuse("compression.types", expected);
        }
        if self.max > limits::ENCODED_BODY_BYTES_MAX {
            return refuse("compression.max", "at most 16MiB");
        }
        for coding in Coding::ALL {
            let (level, range) = (self.levels.of(coding), Levels::range(coding));
            if !range.contains(&level) {
                let key = format!("compression.levels.{}", coding.token());
                return refuse(key, format!("{level}: {} to {}", range.start(), range.end()));
            }
        }
        Ok(())
    }

    /// As the cache takes it. What [`Compression::check`] refuses is left out.
    pub fn for_cache(&self) -> cache::Compression {
        let coding = |text: &String| Coding::from_token(text.as_bytes());
        cache::Compression {
            codings: self.codings.iter().filter_map(coding).collect(),
            types: self.types.clone(),
            bytes_min: self.min,
            bytes_max: self.max,
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            codings: ["br", "zstd", "gzip"].map(String::from).to_vec(),
            types: TYPES.map(String::from).to_vec(),
            min: 1 << 10,
            max: 4 << 20,
            levels: Levels::default(),
        }
    }
}

/// What is text under whatever name. Images, fonts in WOFF, archives and media are compressed
/// already.
const TYPES: [&str; 10] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
];
