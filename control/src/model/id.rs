//! Identities: 100 random or derived bits as 20 characters, the same wherever a retried request
//! arrives.

use sha2::{Digest as _, Sha256};

/// Where the ids of one request come from: random, or from its `Idempotency-Key`, so that the same
/// request creates the same entities in any region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seed(pub [u8; 32]);

impl Seed {
    /// The seed of a request with an `Idempotency-Key`.
    pub fn of_idempotency_key(tenant: &str, idempotency_key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"pharos-id\0");
        hash.update(tenant.as_bytes());
        hash.update(b"\0");
        hash.update(idempotency_key.as_bytes());
        Self(hash.finalize().into())
    }

    /// The `nth` id of this request.
    pub fn id(&self, nth: u32) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(nth.to_be_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut id = base32(&digest);
        id.truncate(ID_BYTES);
        id
    }
}

/// Length of an id.
pub const ID_BYTES: usize = 20;

/// Whether a text can be an id at all.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_BYTES && text.bytes().all(|b| ALPHABET.contains(&b))
}

/// Five bits a character, lower case, without the letters that are mistaken for digits.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut held, mut bits) = (0u32, 0u32);
    for &byte in bytes {
        held = (held << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits) as usize & 31]));
        }
        held &= (1 << bits) - 1;
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits)) as usize & 31]));
    }
    text
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_idempotency_key_gives_the_same_ids_and_another_gives_others() {
        let seed = Seed::of_idempotency_key("default", "k");
        assert_eq!(seed.id(0), Seed::of_idempotency_key("default", "k").id(0));
        assert_ne!(seed.id(0), seed.id(1));
        assert_ne!(seed.id(0), Seed::of_idempotency_key("default", "l").id(0));
        assert!(is_id(&seed.id(0)));
    }

    #[test]
    fn base32_keeps_every_bit() {
        assert_eq!(base32(&[]), "");
        assert_eq!(base32(&[0xff]), "zw");
        assert_eq!(base32(&[0, 0, 0, 0, 1]), "00000001");
        assert_eq!(base32(&[7; 32]).len(), 52);
    }
}
