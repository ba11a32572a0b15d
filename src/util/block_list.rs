//! The hosts that agents must not reach: a host is compared as it is written, and by each address that its name resolves to.

use super::glob::{any_matches, host_matches};
use super::host_name::canonical;
use super::host_patterns;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Patterns of hosts. The entry `metadata` stands for [`METADATA`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct BlockList(#[serde(deserialize_with = "host_patterns::deserialize")] Vec<String>);

impl BlockList {
    /// Adds the entry `metadata`.
    pub(crate) fn add_metadata(&mut self) {
        self.0.push(METADATA_GROUP.to_owned());
    }

    /// True when an entry names the host as it is written, in any spelling of an address. Names are not resolved.
    pub(crate) fn has_host(&self, host: &str, port: u16) -> bool {
        let host = canonical(host);
        let is_metadata = || METADATA.iter().any(|pattern| host_matches(pattern, &host, port));
        any_matches(&self.0, &host, port) || (self.0.iter().any(|pattern| pattern == METADATA_GROUP) && is_metadata())
    }

    /// True when an entry names the address, or the one that the system connects to in its place.
    pub(crate) fn has_address(&self, address: SocketAddr) -> bool {
        let has = |ip: IpAddr| self.has_host(&ip.to_string(), address.port());
        // Linux and macOS connect to the loopback address if the address is unspecified.
        has(address.ip())
            || match address.ip().to_canonical() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => has(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => has(Ipv6Addr::LOCALHOST.into()),
                _ => false,
            }
    }
}

/// The entry that stands for [`METADATA`].
const METADATA_GROUP: &str = "metadata";
/// The metadata services of clouds, which give a machine's credentials to any of its programs, and all link-local addresses.
const METADATA: &[&str] = &[
    "169.254.*",
    "fe80:*",
    // The link-local IPv4 addresses behind NAT64 (RFC 6052).
    "64:ff9b::a9fe:*",
    // Amazon, Google.
    "fd00:ec2::254",
    "fd20:ce::254",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    // Alibaba, Oracle, Azure.
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> BlockList {
        BlockList(patterns.iter().map(|&pattern| pattern.to_owned()).collect())
    }

    #[test]
    fn addresses_are_compared_with_names_of_addresses_groups_and_ports() {
        let blocked = list(&["127.*", "::1", "10.0.0.5:8443", "metadata"]);
        for address in [
            "127.0.0.3:80",
            "[::ffff:127.0.0.3]:80",
            "0.0.0.0:80",
            "[::]:80",
            "[::1]:80",
            "[::ffff:0.0.0.0]:80",
            "10.0.0.5:8443",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[fe80::1%3]:80",
            "[fd00:ec2::254]:80",
            "100.100.100.200:80",
        ] {
            assert!(blocked.has_address(address.parse().unwrap()), "{address}");
        }
        for address in ["128.0.0.1:80", "10.0.0.5:443", "[::2]:80", "169.253.0.1:80", "[64:ff9b::8.8.8.8]:80"] {
            assert!(!blocked.has_address(address.parse().unwrap()), "{address}");
        }
        assert!(!list(&[]).has_address("0.0.0.0:80".parse().unwrap()));
        assert!(!list(&["127.0.0.1"]).has_address("[::]:80".parse().unwrap()), "`::` is the other family's loopback");
    }

    #[test]
    fn a_list_with_what_is_no_pattern_is_refused() {
        assert_eq!(serde_json::from_str::<BlockList>(r#"["metadata"]"#).unwrap(), list(&["metadata"]));
        for wrong in [r#"["10.0.0.0/8"]"#, r#"["http://a"]"#, r#"[""]"#, r#""metadata""#, "[1]"] {
            assert!(serde_json::from_str::<BlockList>(wrong).is_err(), "{wrong}");
        }
    }
}
