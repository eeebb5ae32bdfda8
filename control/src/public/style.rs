//! The one style sheet, and the response's Content-Security-Policy, which names it and the script
//! by digest.
//!
//! Digests rather than a nonce: a nonce would be the same in every cached copy, and so worth
//! nothing.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

use super::script::SCRIPT;

/// Text of the page's `<style>`.
pub const STYLE: &str = include_str!("../../templates/style.css");

/// Value of `Content-Security-Policy` for every page: nothing from elsewhere, no inline text but
/// ours, no frames. Our script, and there is no other, may connect anywhere: an edge may lead its
/// stream to another edge's name, which nobody knows when the page is rendered.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; connect-src 'self' http: https:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        base64(&Sha256::digest(STYLE)),
        base64(&Sha256::digest(SCRIPT)),
    )
});

/// RFC 4648 §4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [0, 1, 2].map(|at| chunk.get(at).copied().map_or(0, u32::from));
        let bits = group[0] << 16 | group[1] << 8 | group[2];
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > chunk.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_rfc4648_section_10_shows() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn the_policy_forbids_everything_it_does_not_name() {
        assert!(POLICY.starts_with("default-src 'none';"));
        assert!(!POLICY.contains("unsafe-inline"));
    }

    #[test]
    fn style_and_script_cannot_end_their_element() {
        for text in [STYLE, SCRIPT] {
            assert!(!text.contains("</") && !text.contains("<!--"));
        }
    }
}
