//! Tokens for private topics: a JSON Web Token (RFC 7519, JWS compact form RFC 7515 §3.1) says
//! which topics its bearer may listen to, and until when.
//!
//! A key is for one algorithm, and the token's header only chooses among the keys: it never says
//! how a key is to be used. So a public key is never taken for a secret, and `none` is no key's.
//!
//! Pure: the time is an argument. Leaves to others: where a token stands in a request
//! (`stream_request`), ending a stream whose token expires (`stream`).

use proto::{
    base64url,
    feed::site::{TokenAlg, TokenKey, matches},
};
use ring::{hmac, signature};
use serde::Deserialize;

use crate::limits;

/// Why a token does not open what was asked for. Permanent: the client needs another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenRefusal {
    /// There is none.
    Missing,
    /// It is none that this edge can read.
    Malformed,
    /// None of the site's keys has signed it.
    Unsigned,
    /// Its time is over, or has not come.
    Untimely,
    /// It is good, but not for all topics that were asked for.
    OtherTopics,
}

impl TokenRefusal {
    /// 401: another token is needed; 403: this one, but for other topics.
    pub const fn status(self) -> u16 {
        match self {
            Self::OtherTopics => 403,
            _ => 401,
        }
    }

    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Missing => {
                "These topics are private: send a token as `Authorization: Bearer` or \
                 `?access_token=`."
            }
            Self::Malformed => "The token is no JWT with exp and topics.",
            Self::Unsigned => "The token is not signed with a key of this site.",
            Self::Untimely => "The token has expired, or is not yet valid.",
            Self::OtherTopics => "The token is not for all of these topics.",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 §4.1.11); none is.
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    /// NumericDate: seconds, perhaps with a fraction.
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    topics: Topics,
}

/// Names of topics, or beginnings of names and `*`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Topics {
    One(String),
    Several(Vec<String>),
}

/// Judges a token. Returns when it expires, ms since the Unix epoch.
pub fn judge(
    token: Option<&str>,
    keys: &[TokenKey],
    topics: &[String],
    now_ms: u64,
) -> Result<u64, TokenRefusal> {
    let token = token.ok_or(TokenRefusal::Missing)?;
    let claims = verified(token, keys)?;
    let now_s = now_ms as f64 / 1000.0;
    let begins = claims.nbf.unwrap_or(0.0) - NOT_BEFORE_LEEWAY_S;
    // Written so that what is no number is refused.
    if !(claims.exp > now_s && begins <= now_s) {
        return Err(TokenRefusal::Untimely);
    }
    let granted = match &claims.topics {
        Topics::One(pattern) => std::slice::from_ref(pattern),
        Topics::Several(patterns) => patterns,
    };
    let is_granted = |topic: &String| granted.iter().any(|pattern| matches(pattern, topic));
    if !topics.iter().all(is_granted) {
        return Err(TokenRefusal::OtherTopics);
    }
    // Saturates.
    Ok((claims.exp * 1000.0) as u64)
}

fn verified(token: &str, keys: &[TokenKey]) -> Result<Claims, TokenRefusal> {
    const MALFORMED: TokenRefusal = TokenRefusal::Malformed;
    if token.len() > limits::TOKEN_BYTES_MAX {
        return Err(MALFORMED);
    }
    let (signed, sig) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
    let sig = base64url::decode(sig).ok_or(MALFORMED)?;
    let header: Header = json(header).ok_or(MALFORMED)?;
    if header.crit.is_some() {
        return Err(MALFORMED);
    }
    let alg = match header.alg.as_str() {
        "HS256" => TokenAlg::Hs256,
        "EdDSA" => TokenAlg::EdDsa,
        _ => return Err(TokenRefusal::Unsigned),
    };
    let mut fitting = keys
        .iter()
        .filter(|key| key.alg == alg && header.kid.as_ref().is_none_or(|kid| *kid == key.id));
    if !fitting.any(|key| is_signed(signed.as_bytes(), &sig, key)) {
        return Err(TokenRefusal::Unsigned);
    }
    // Only now: what nobody vouches for is not even read.
    json(claims).ok_or(MALFORMED)
}

/// Whether this very key, by its own algorithm, made the signature.
fn is_signed(signed: &[u8], sig: &[u8], key: &TokenKey) -> bool {
    let Some(bytes) = base64url::decode(&key.key) else { return false };
    match key.alg {
        TokenAlg::Hs256 if bytes.len() < SECRET_BYTES_MIN => false,
        TokenAlg::Hs256 => {
            hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), signed, sig).is_ok()
        }
        TokenAlg::EdDsa => {
            let key = signature::UnparsedPublicKey::new(&signature::ED25519, bytes);
            key.verify(signed, sig).is_ok()
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&base64url::decode(text)?).ok()
}

/// RFC 7518 §3.2: a key as long as the hash, at least.
const SECRET_BYTES_MIN: usize = 32;
/// How far the clock of whoever signs may be ahead. An expiry has none.
const NOT_BEFORE_LEEWAY_S: f64 = 60.0;

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const EXP: u64 = NOW_MS / 1000 + 60;
    const SECRET: [u8; 32] = [7; 32];

    fn pair() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a seed")
    }

    pub(crate) fn secret_key(id: &str) -> TokenKey {
        TokenKey { id: id.into(), alg: TokenAlg::Hs256, key: base64url::encode(&SECRET) }
    }

    fn public_key(id: &str) -> TokenKey {
        let key = base64url::encode(pair().public_key().as_ref());
        TokenKey { id: id.into(), alg: TokenAlg::EdDsa, key }
    }

    fn unsigned(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| base64url::encode(value.to_string().as_bytes());
        format!("{}.{}", part(header), part(claims))
    }

    fn hs256_with(secret: &[u8], header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        format!("{signed}.{}", base64url::encode(tag.as_ref()))
    }

    pub(crate) fn hs256(claims: &Value) -> String {
        hs256_with(&SECRET, &json!({"alg": "HS256", "typ": "JWT"}), claims)
    }

    fn eddsa(header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let sig = pair().sign(signed.as_bytes());
        format!("{signed}.{}", base64url::encode(sig.as_ref()))
    }

    #[track_caller]
    fn check(token: &str, keys: &[TokenKey], expected: Result<u64, TokenRefusal>) {
        let topics = ["orders/eu".to_owned()];
        assert_eq!(judge(Some(token), keys, &topics, NOW_MS), expected);
    }

    fn good() -> Value {
        json!({"exp": EXP, "topics": ["orders/*"]})
    }

    #[test]
    fn a_signed_token_opens_its_topics_until_it_expires() {
        let (hs, ed) = ([secret_key("s")], [public_key("p")]);
        let ed_header = json!({"alg": "EdDSA"});
        check(&hs256(&good()), &hs, Ok(EXP * 1000));
        check(&eddsa(&ed_header, &good()), &ed, Ok(EXP * 1000));
        check(&hs256(&json!({"exp": EXP, "topics": "orders/eu"})), &hs, Ok(EXP * 1000));
        let untimely = Err(TokenRefusal::Untimely);
        check(&hs256(&json!({"exp": NOW_MS / 1000, "topics": "*"})), &hs, untimely);
        check(&hs256(&json!({"exp": EXP, "nbf": EXP + 60, "topics": "*"})), &hs, untimely);
        check(&hs256(&json!({"exp": EXP, "topics": []})), &hs, Err(TokenRefusal::OtherTopics));
        check(
            &hs256(&json!({"exp": EXP, "topics": "orders"})),
            &hs,
            Err(TokenRefusal::OtherTopics),
        );
        assert_eq!(judge(None, &hs, &[], NOW_MS), Err(TokenRefusal::Missing));
    }

    #[test]
    fn a_public_key_is_never_taken_for_a_secret() {
        let public = pair().public_key().as_ref().to_vec();
        let forged = hs256_with(&public, &json!({"alg": "HS256"}), &good());
        check(&forged, &[public_key("p")], Err(TokenRefusal::Unsigned));
        let named = hs256_with(&public, &json!({"alg": "HS256", "kid": "p"}), &good());
        check(&named, &[public_key("p"), secret_key("s")], Err(TokenRefusal::Unsigned));
        // Nor the other way round.
        let header = json!({"alg": "EdDSA", "kid": "s"});
        check(&eddsa(&header, &good()), &[secret_key("s")], Err(TokenRefusal::Unsigned));
    }

    #[test]
    fn a_token_that_nobody_signed_opens_nothing() {
        let keys = [secret_key("s"), public_key("p")];
        for alg in ["none", "None", "NONE", "", "HS512", "hs256", "RS256"] {
            let bare = unsigned(&json!({"alg": alg}), &good());
            check(&format!("{bare}."), &keys, Err(TokenRefusal::Unsigned));
            let signed = hs256_with(&SECRET, &json!({"alg": alg}), &good());
            check(&signed, &keys, Err(TokenRefusal::Unsigned));
        }
        check(
            &format!("{}.", unsigned(&json!({"alg": "HS256"}), &good())),
            &keys,
            Err(TokenRefusal::Unsigned),
        );
        let other = hs256_with(&[8; 32], &json!({"alg": "HS256"}), &good());
        check(&other, &keys, Err(TokenRefusal::Unsigned));
        check(&hs256(&good()), &[], Err(TokenRefusal::Unsigned));
        let short = TokenKey { key: base64url::encode(b"short"), ..secret_key("s") };
        let weak = hs256_with(b"short", &json!({"alg": "HS256"}), &good());
        check(&weak, &[short], Err(TokenRefusal::Unsigned));
    }

    #[test]
    fn a_token_chooses_among_the_keys_by_their_ids() {
        let keys =
            [secret_key("new"), TokenKey { key: base64url::encode(&[8; 32]), ..secret_key("old") }];
        let by = |kid: &str, secret: &[u8]| {
            hs256_with(secret, &json!({"alg": "HS256", "kid": kid}), &good())
        };
        check(&by("new", &SECRET), &keys, Ok(EXP * 1000));
        check(&by("old", &[8; 32]), &keys, Ok(EXP * 1000));
        check(&by("old", &SECRET), &keys, Err(TokenRefusal::Unsigned));
        check(&by("gone", &SECRET), &keys, Err(TokenRefusal::Unsigned));
    }

    #[test]
    fn a_changed_or_unreadable_token_is_refused() {
        let keys = [secret_key("s")];
        let token = hs256(&good());
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            let judged = judge(Some(&changed), &keys, &["orders/eu".to_owned()], NOW_MS);
            assert!(judged.is_err(), "byte {at}");
        }
        for token in ["", ".", "..", "a.b", "a.b.c", &format!("{token}.x"), &"a".repeat(5000)] {
            check(token, &keys, Err(TokenRefusal::Malformed));
        }
        let signed = |header: &Value, claims: &Value| hs256_with(&SECRET, header, claims);
        let header = json!({"alg": "HS256"});
        for claims in
            [json!({"topics": "*"}), json!({"exp": EXP}), json!({"exp": "x", "topics": "*"})]
        {
            check(&signed(&header, &claims), &keys, Err(TokenRefusal::Malformed));
        }
        let critical = json!({"alg": "HS256", "crit": ["exp"]});
        check(&signed(&critical, &good()), &keys, Err(TokenRefusal::Malformed));
    }
}
