//! base64url without padding (RFC 4648 §5): how keys and tokens are written (RFC 7515 §2).
//!
//! Strict, so that a token has one text only: no padding, no white space, no bits beyond the last
//! byte.

/// The bytes; `None` when the text is no base64url.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut held, mut bits) = (0u32, 0);
    for digit in text.bytes() {
        held = held << 6 | u32::from(value(digit)?);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // Six left-over bits are a digit that belongs to no byte.
    (bits < 6 && held == 0).then_some(bytes)
}

/// The text.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let held =
            three.iter().enumerate().fold(0, |held, (at, &b)| held | u32::from(b) << (16 - 8 * at));
        for at in 0..=three.len() {
            text.push(char::from(DIGITS[(held >> (18 - 6 * at) & 63) as usize]));
        }
    }
    text
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc7515_appendix_c_is_read_and_written() {
        assert_eq!(decode("A-z_4ME"), Some(vec![3, 236, 255, 224, 193]));
        assert_eq!(encode(&[3, 236, 255, 224, 193]), "A-z_4ME");
    }

    #[test]
    fn a_text_that_is_not_the_only_one_for_its_bytes_is_refused() {
        for text in ["A", "A-z_4MF", "A-z_4ME=", "A-z 4ME", "A+z/4ME", "AB"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode(""), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
