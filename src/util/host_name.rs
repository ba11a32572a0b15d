//! One spelling for each host, so that settings that name hosts can't be evaded by another one.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

/// A host as patterns compare it: without the dot at its end, and an IP address in its usual notation. `127.1`,
/// `0x7f000001`, `2130706433`, `0177.0.0.1` and `::ffff:127.0.0.1` are all `127.0.0.1`, as system resolvers take them.
pub(crate) fn canonical(host: &str) -> Cow<'_, str> {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let name = name.strip_suffix('.').unwrap_or(name);
    let address = name.parse::<IpAddr>().ok().or_else(|| inet_aton(name).map(IpAddr::V4));
    match address {
        Some(address) => Cow::Owned(address.to_canonical().to_string()),
        None => Cow::Borrowed(name),
    }
}

/// An IPv4 address of one to four numbers, each decimal, octal or hexadecimal; the last fills the rest, as `inet_aton` of
/// POSIX reads it.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 {
        return None;
    }
    let mut address = 0_u32;
    for part in leading {
        address = address << 8 | number(part).filter(|number| *number <= 0xff)?;
    }
    let bits = 32 - 8 * u32::try_from(leading.len()).ok()?;
    let rest = number(last).filter(|number| bits == 32 || *number < 1 << bits)?;
    Some(Ipv4Addr::from(address.checked_shl(bits).unwrap_or(0) | rest))
}

fn number(text: &str) -> Option<u32> {
    let digits = |digits: &str, radix| {
        // `from_str_radix` also takes a sign.
        let is_number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
        is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if text.len() > 1 && text.starts_with('0') => digits(&text[1..], 8),
        None => digits(text, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_an_address_is_one() {
        for host in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f000001",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "017700000001",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "127.0.0.1.",
        ] {
            assert_eq!(canonical(host), "127.0.0.1", "{host}");
        }
        for (host, expected) in [
            ("API.example.com.", "API.example.com"),
            ("1.2.3.4.5", "1.2.3.4.5"),
            ("256.1.1.1", "256.1.1.1"),
            ("127.0.0.08", "127.0.0.08"),
            ("+1.2.3.4", "+1.2.3.4"),
            ("a.1", "a.1"),
            ("::1", "::1"),
            ("", ""),
        ] {
            assert_eq!(canonical(host), expected);
        }
    }

    proptest! {
        #[test]
        fn any_notation_of_any_address_is_the_address(octets in any::<[u8; 4]>(), parts in 1usize..5, radix in 0usize..3) {
            let address = u32::from_be_bytes(octets);
            let leading = octets[..parts - 1].iter().map(|octet| u32::from(*octet));
            let rest = if parts == 1 { address } else { address & ((1_u64 << (32 - 8 * (parts - 1))) - 1) as u32 };
            let text: Vec<String> = leading.chain([rest]).map(|number| match radix {
                0 => number.to_string(),
                1 => format!("0x{number:x}"),
                _ => format!("0{number:o}"),
            }).collect();
            let text = text.join(".");
            prop_assert_eq!(canonical(&text), Ipv4Addr::from(octets).to_string());
        }

        #[test]
        fn nothing_panics(text in "[0-9a-fx.:\\[\\]-]{0,24}") {
            drop(canonical(&text));
        }
    }
}
