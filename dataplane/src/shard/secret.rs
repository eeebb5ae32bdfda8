//! Secrets that are known by their SHA-256 only: what a configuration says of keys that visitors
//! send.

use ring::digest::{SHA256, digest};

/// Hash of a secret that is long and random.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Of the hash itself.
    pub fn new(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Of the secret.
    pub fn of(secret: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret).as_ref());
        Self(hash)
    }

    /// Whether `given` is the secret. Takes the same time for every other of its length.
    pub fn is(&self, given: &[u8]) -> bool {
        let hash = digest(&SHA256, given);
        let differs = hash.as_ref().iter().zip(&self.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

/// Eight digits by which two values can be told apart, and nothing else be learnt: keyed with what
/// only this process knows.
pub(super) fn short_digest(seed: u64, name: &str, value: &str) -> String {
    let length = (name.len() as u64).to_le_bytes();
    let keyed = [&seed.to_le_bytes()[..], &length, name.as_bytes(), value.as_bytes()].concat();
    digest(&SHA256, &keyed).as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proto::feed::site::PurgeKey;

    use super::*;

    #[test]
    fn only_the_secret_itself_fits_its_hash() {
        let sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae".into();
        let key = PurgeKey { id: "k".into(), sha256 };
        let hash = SecretHash::new(key.hash().expect("digits"));
        assert!(hash.is(b"foo") && !hash.is(b"fop") && !hash.is(b"") && !hash.is(b"foo "));
    }
}
