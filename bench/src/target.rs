//! Where load goes: a parsed `http://` URL whose host is an address, loopback unless a private one
//! was allowed by name.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use crate::failure::Failure;

/// An address, the authority to send as `Host`, and the path with its query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// As written in the URL.
    pub authority: String,
    /// Begins with `/`.
    pub path: String,
}

impl Target {
    /// Refuses what this tool must not load: anything beyond loopback, or beyond private networks
    /// if those are allowed.
    ///
    /// # Errors
    /// Names the address and the flag that would allow it, if any.
    pub fn check_reach(&self, allow_private: bool) -> Result<(), Failure> {
        let address = self.address.ip();
        if address.is_loopback() || (allow_private && is_private(address)) {
            return Ok(());
        }
        Err(Failure::usage(if is_private(address) {
            format!("{address} is not loopback; --allow-private permits private networks")
        } else {
            format!(
                "{address} is a public address; this tool loads loopback and private networks only"
            )
        }))
    }
}

/// Private by RFC 1918, RFC 4193 or link-local.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or("expected a URL that begins with http://")?;
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if path.bytes().any(|byte| byte <= b' ' || byte >= 0x7f || byte == b'#') {
            return Err("expected a path of visible ASCII characters without a fragment".into());
        }
        Ok(Self { address: address_of(authority)?, authority: authority.to_owned(), path })
    }
}

/// The address that an authority names. Names other than `localhost` are not looked up: load goes
/// where it was told to.
fn address_of(authority: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return Ok(address);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => {
            (host, port.parse().map_err(|_| format!("expected a port, found {port:?}"))?)
        }
        _ => (authority, 80),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    }
    let address = host.parse().map_err(|_| {
        format!("expected an address or localhost, found {host:?}; names are not looked up")
    })?;
    Ok(SocketAddr::new(address, port))
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_address_authority_and_path() {
        let check = |text: &str, address: &str, path: &str| {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.address.to_string(), address, "{text}");
            assert_eq!(target.path, path, "{text}");
        };
        check("http://127.0.0.1:8080/a/b?c=d", "127.0.0.1:8080", "/a/b?c=d");
        check("http://localhost", "127.0.0.1:80", "/");
        check("http://[::1]:81?x", "[::1]:81", "/?x");
        check("http://[::1]/x", "[::1]:80", "/x");
        for bad in [
            "https://127.0.0.1/",
            "http://shop.example/",
            "http://127.0.0.1:x/",
            "http://127.0.0.1/ a",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn load_stays_on_loopback_unless_private_is_allowed() {
        let check = |text: &str, allow_private: bool, fine: bool| {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.check_reach(allow_private).is_ok(), fine, "{text} {allow_private}");
        };
        check("http://127.0.0.9/", false, true);
        check("http://10.0.0.1/", false, false);
        check("http://10.0.0.1/", true, true);
        check("http://203.0.113.7/", true, false);
    }
}
