//! Bodies that anyone can foretell: each byte is a function of the path, a seed and its offset.
//! Pure.

use crate::{limits::BODY_KEPT_BYTES_MAX, popularity::mix, verify::Hash};

/// The body of `/bytes/<n>…`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Body {
    seed: u64,
    pub(crate) length: u64,
}

impl Body {
    /// `path` is without a query; `seed` tells versions of the same path apart.
    pub(crate) fn new(path: &str, seed: u64, length: u64) -> Self {
        Self { seed: Hash::of(path.as_bytes()) ^ mix(seed), length }
    }

    /// Appends up to `count` bytes from `offset` on to `out`, fewer at the end; how many.
    pub(crate) fn append(&self, offset: u64, count: usize, out: &mut Vec<u8>) -> usize {
        let count = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(count).min(count);
        let end = offset + count as u64;
        let mut at = offset;
        out.reserve(count);
        while at < end {
            let word = word(self.seed, at / 8);
            let from = (at % 8) as usize;
            let to = (end - (at - from as u64)).min(8) as usize;
            out.extend_from_slice(&word[from..to]);
            at += (to - from) as u64;
        }
        count
    }

    /// The whole of it.
    pub(crate) fn whole(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(0, usize::try_from(self.length).unwrap_or(usize::MAX), &mut out);
        out
    }
}

/// Eight visible characters.
fn word(seed: u64, index: u64) -> [u8; 8] {
    mix(seed.wrapping_add(index)).to_le_bytes().map(|byte| ALPHABET[usize::from(byte & 63)])
}

/// The body that the origin sends for `/bytes/<n>[/…][?…seed=…]`.
///
/// # Errors
/// What about the path makes it none that can be foretold.
pub(crate) fn of_path(target: &str) -> Result<Vec<u8>, String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let length = length_of(path).ok_or("it is not /bytes/<n>")?;
    if length > BODY_KEPT_BYTES_MAX as u64 {
        return Err(format!("its body is over {BODY_KEPT_BYTES_MAX} bytes"));
    }
    let mut seed = 0;
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "seed" => seed = value.parse().map_err(|_| "its seed is no number")?,
            "status" | "abort_at" => return Err(format!("it asks for {name}")),
            _ => {}
        }
    }
    Ok(Body::new(path, seed, length).whole())
}

/// `n` of `/bytes/<n>[/…]`.
pub(crate) fn length_of(path: &str) -> Option<u64> {
    path.strip_prefix("/bytes/")?.split('/').next()?.parse().ok()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_body_is_the_same_bytes() {
        let body = Body::new("/bytes/1000/7", 3, 1_000);
        let whole = body.whole();
        assert_eq!(whole.len(), 1_000);
        for step in [1, 3, 8, 13, 999] {
            let (mut out, mut offset) = (Vec::new(), 0);
            while offset < 1_000 {
                offset += body.append(offset, step, &mut out) as u64;
            }
            assert_eq!(out, whole, "step {step}");
        }
    }

    #[test]
    fn another_path_or_seed_is_another_body() {
        let body = |target: &str| of_path(target).expect(target);
        assert_eq!(body("/bytes/64?max_age=1"), body("/bytes/64"));
        assert_ne!(body("/bytes/64"), body("/bytes/64/1"));
        assert_ne!(body("/bytes/64?seed=1"), body("/bytes/64?seed=2"));
        assert!(of_path("/other").is_err() && of_path("/bytes/1?status=500").is_err());
    }
}
