//! `upstream.connect_to`: dial another address for a host and port.

use std::str::FromStr;

/// One rule, as of curl's `--connect-to`: `HOST:PORT:HOST:PORT`. An empty part on the left matches everything; an empty
/// part on the right keeps the original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectTo {
    from_host: String,
    from_port: Option<u16>,
    to_host: String,
    to_port: Option<u16>,
}

/// A text that is not a rule.
#[derive(Debug, thiserror::Error)]
#[error("connect-to {0:?} is not HOST:PORT:HOST:PORT (put IPv6 addresses in brackets; parts may be empty)")]
pub(crate) struct InvalidConnectTo(String);

impl ConnectTo {
    /// Returns the host and port to dial, or `None` if the rule does not apply.
    pub(super) fn apply<'a>(&'a self, host: &'a str, port: u16) -> Option<(&'a str, u16)> {
        let matches = (self.from_host.is_empty() || self.from_host.eq_ignore_ascii_case(host))
            && self.from_port.is_none_or(|from| from == port);
        let to_host = if self.to_host.is_empty() { host } else { &self.to_host };
        matches.then(|| (to_host, self.to_port.unwrap_or(port)))
    }
}

impl FromStr for ConnectTo {
    type Err = InvalidConnectTo;

    fn from_str(text: &str) -> Result<Self, InvalidConnectTo> {
        let invalid = || InvalidConnectTo(text.to_owned());
        let mut rest = text;
        let mut parts = Vec::with_capacity(4);
        while parts.len() < 3 {
            let end = match rest.strip_prefix('[') {
                Some(inner) => inner.find(']').ok_or_else(invalid)? + 2,
                None => rest.find(':').ok_or_else(invalid)?,
            };
            parts.push(rest.get(..end).ok_or_else(invalid)?.trim_matches(['[', ']']));
            rest = rest.get(end..).and_then(|rest| rest.strip_prefix(':')).ok_or_else(invalid)?;
        }
        parts.push(rest);
        let port = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) };
        Ok(Self {
            from_host: parts[0].to_owned(),
            from_port: port(parts[1])?,
            to_host: parts[2].to_owned(),
            to_port: port(parts[3])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_curls_form() {
        let rule: ConnectTo = "api.openai.com:443:127.0.0.1:8443".parse().unwrap();
        assert_eq!(rule.apply("API.openai.com", 443), Some(("127.0.0.1", 8443)));
        assert_eq!(rule.apply("api.openai.com", 80), None);
        let rule: ConnectTo = "::[::1]:8443".parse().unwrap();
        assert_eq!(rule.apply("anything", 1), Some(("::1", 8443)));
        let rule: ConnectTo = "a:::81".parse().unwrap();
        assert_eq!(rule.apply("a", 80), Some(("a", 81)));
        for wrong in ["", "a", "a:1", "a:1:b", "a:x:b:2", "[::1:1:b:2"] {
            assert!(wrong.parse::<ConnectTo>().is_err(), "{wrong:?}");
        }
    }
}
