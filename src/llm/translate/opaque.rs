//! Reasoning as a text that only its writer reads. Clients that keep no reasoning send such a text back with the history, and
//! the backend then reads the reasoning again.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;

/// Reasoning as the `encrypted_content` of OpenAI responses.
pub(super) fn opaque(reasoning: &str) -> String {
    format!("{PREFIX}{}", BASE64_STANDARD.encode(reasoning))
}

/// The reasoning in an `encrypted_content`. `None`: another server wrote it.
pub(super) fn read_opaque(encrypted: &str) -> Option<String> {
    let text = BASE64_STANDARD.decode(encrypted.strip_prefix(PREFIX)?).ok()?;
    String::from_utf8(text).ok()
}

/// Reasoning as the `thoughtSignature` of Gemini. Its clients parse it as base64.
pub(super) fn signature(reasoning: &str) -> String {
    BASE64_STANDARD.encode(format!("{PREFIX}{reasoning}"))
}

/// The reasoning in a `thoughtSignature`. Clients that parsed it may write it in the other alphabet, and without padding.
pub(super) fn read_signature(signature: &str) -> Option<String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let alphabet = if signature.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    let text = GeneralPurpose::new(&alphabet, config).decode(signature).ok()?;
    Some(String::from_utf8(text).ok()?.strip_prefix(PREFIX)?.to_owned())
}

const PREFIX: &str = "tracewire.";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(reasoning in "\\PC{0,60}") {
            prop_assert_eq!(read_opaque(&opaque(&reasoning)), Some(reasoning.clone()));
            let signature = signature(&reasoning);
            let unpadded = signature.replace('+', "-").replace('/', "_").replace('=', "");
            for signature in [signature, unpadded] {
                prop_assert_eq!(read_signature(&signature), Some(reasoning.clone()));
            }
        }

        #[test]
        fn other_texts_are_not_read(text in "\\PC{0,60}") {
            prop_assert_eq!(read_opaque(&text), None);
            prop_assert_eq!(read_signature(&text), None);
        }
    }
}
