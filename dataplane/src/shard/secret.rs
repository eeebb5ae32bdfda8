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

    /// Whether `given` is the secret. Takes the same time for every other of its length.
    pub fn is(&self, given: &[u8]) -> bool {
        let hash = digest(&SHA256, given);
        let differs = hash.as_ref().iter().zip(&self.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differs) == 0
    }
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
