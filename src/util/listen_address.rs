//! Addresses to listen on, as users write them: `127.0.0.1:8080`, `[::1]:0`, `localhost:8080`.

use serde::{Deserialize, Deserializer, de::Error};
use std::net::{Ipv4Addr, SocketAddr};

/// A text that is no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address to listen on; use IP:PORT or localhost:PORT, such as 127.0.0.1:8080 (port 0: any free port)"
)]
pub(crate) struct InvalidAddress(String);

/// Parses an IP address and a port. `localhost` is 127.0.0.1; other names may stand for several addresses.
pub(crate) fn parse(text: &str) -> Result<SocketAddr, InvalidAddress> {
    let local = |port: &str| Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?)));
    let named = || match text.rsplit_once(':') {
        Some((name, port)) if name.eq_ignore_ascii_case("localhost") => local(port),
        _ => None,
    };
    text.parse().ok().or_else(named).ok_or_else(|| InvalidAddress(text.to_owned()))
}

/// Reads an address as users write it; for `deserialize_with`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// As [`deserialize`], for an optional address.
pub(crate) fn deserialize_some<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_users_write_them() {
        for (text, expected) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:0", "127.0.0.1:0"),
            ("LOCALHOST:1", "127.0.0.1:1"),
            ("[::]:4747", "[::]:4747"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected);
        }
        for invalid in [
            "",
            "8080",
            ":8080",
            "localhost",
            "localhost:x",
            "127.0.0.1",
            "http://127.0.0.1:1",
            "proxy.corp:1",
            "1.2.3.4:70000",
        ] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }
}
