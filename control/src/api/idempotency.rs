//! `Idempotency-Key`: what makes two requests the same one.
//!
//! The answer itself is stored by the writer, in the transaction of the operations it tells of.

use axum::http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use super::problem::Failure;
use crate::{limits, model::id::Seed, store::sqlite::writer::Idempotency};

/// The only tenant so far.
pub const TENANT: &str = "default";

/// Reads the header; `None` when it is absent.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let refusal = || {
        Failure::bad_request(
            "Idempotency-Key",
            "length",
            "1 to 255 bytes of visible ASCII, such as a UUID",
        )
    };
    let text = value.to_str().map_err(|_| refusal())?;
    if text.is_empty() || text.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(refusal());
    }
    Ok(Some(text.to_owned()))
}

/// Names a request: two with the same key are the same if method, path and body are.
pub fn identify(key: &str, method: &Method, path: &str, body: &[u8]) -> (Idempotency, Seed) {
    let digest = sha256(&[b"pharos-answer", TENANT.as_bytes(), key.as_bytes()]);
    let fingerprint = sha256(&[method.as_str().as_bytes(), path.as_bytes(), body]);
    (Idempotency { digest, fingerprint }, Seed::of_idempotency_key(TENANT, key))
}

fn sha256(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_has_one_name_and_another_body_another_fingerprint() {
        let (one, seed) = identify("k", &Method::POST, "/v1/pages", b"{}");
        assert_eq!((one.clone(), seed), identify("k", &Method::POST, "/v1/pages", b"{}"));
        let (other, _) = identify("k", &Method::POST, "/v1/pages", b"{ }");
        assert_eq!(one.digest, other.digest);
        assert_ne!(one.fingerprint, other.fingerprint);
    }
}
