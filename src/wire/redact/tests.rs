//! Secrets go, everything else stays, and redacting twice is redacting once.

use super::names::REDACTED;
use super::*;
use proptest::prelude::*;

fn redactor() -> Redactor {
    Redactor::new(RedactSettings { extra_headers: vec!["X-Mine".into()], ..RedactSettings::default() })
}

#[test]
fn headers() {
    for (name, value, expected) in [
        ("Authorization", "Bearer abc", "Bearer REDACTED"),
        ("authorization", "abc", "REDACTED"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature=y",
            "AWS4-HMAC-SHA256 Credential=REDACTED, SignedHeaders=host, Signature=REDACTED",
        ),
        ("Cookie", "a=b", "REDACTED"),
        ("x-mine", "v", "REDACTED"),
        ("x-some-secret", "v", "REDACTED"),
        ("x-ratelimit-remaining-tokens", "100", "100"),
        ("anthropic-ratelimit-tokens-limit", "5", "5"),
        ("idempotency-key", "k", "k"),
        ("content-type", "text/plain", "text/plain"),
        (
            "sec-websocket-protocol",
            "realtime, openai-insecure-api-key.sk-1",
            "realtime, openai-insecure-api-key.REDACTED",
        ),
        ("location", "https://u:p@h/?code=1&x=2", "https://REDACTED:REDACTED@h/?code=REDACTED&x=2"),
    ] {
        assert_eq!(redactor().header_value(name, value), expected, "{name}");
    }
}

#[test]
fn urls() {
    for (url, expected) in [
        ("https://h/p?a=1&KEY=s&b", "https://h/p?a=1&KEY=REDACTED&b"),
        ("https://h/p?%6bey=s", "https://h/p?%6bey=REDACTED"),
        ("https://api.telegram.org/bot12345:ABCDEFGHIJKLMNOPQRS/send", "https://api.telegram.org/botREDACTED/send"),
        ("https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/REDACTED/REDACTED/REDACTED"),
        ("https://h/plain?x=%20y", "https://h/plain?x=%20y"),
    ] {
        assert_eq!(redactor().url(url), expected);
    }
}

#[test]
fn bodies() {
    let json = Some("application/json");
    for (text, expected) in [
        (r#"{"password":"p","kept":"password"}"#, r#"{"password":"REDACTED","kept":"password"}"#),
        (
            r#"{"a":{"api_key" : 12, "b":[{"secret":{"x":"}"}}]}}"#,
            r#"{"a":{"api_key" : "REDACTED", "b":[{"secret":"REDACTED"}]}}"#,
        ),
        (r#"{"pass\u0077ord":"p"}"#, r#"{"pass\u0077ord":"REDACTED"}"#),
        (r#"{"password":"cut of"#, r#"{"password":"REDACTED""#),
        ("data: {\"access_token\":\"t\"}\n\n", "data: {\"access_token\":\"REDACTED\"}\n\n"),
        (r#"{"password":null}"#, r#"{"password":null}"#),
    ] {
        assert_eq!(redactor().body(json, "/", text), expected);
    }
    let form = Some("application/x-www-form-urlencoded");
    assert_eq!(redactor().body(form, "/x", "a=1&password=p"), "a=1&password=REDACTED");
    assert_eq!(redactor().body(form, "/oauth/token", "grant=x&y=z"), REDACTED);
}

#[test]
fn shapes() {
    for (text, expected) in [
        ("key sk-proj-abcdefghijklmnop123 end", "key sk-REDACTED end"),
        ("ask-for-something-quite-long-here", "ask-for-something-quite-long-here"),
        ("AKIAABCDEFGHIJKLMNOP", "AKIAREDACTED"),
        ("Bearer abcdefghijk.lm", "Bearer REDACTED"),
        (r"key:\nsk-proj-abcdefghijklmnop123", r"key:\nsk-REDACTED"),
        (r"key:\u000ask-proj-abcdefghijklmnop123", r"key:\u000ask-REDACTED"),
        (
            r#"["see -----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nthen","more"]"#,
            r#"["see REDACTED\nthen","more"]"#,
        ),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nafter", "REDACTED\nafter"),
    ] {
        assert_eq!(redactor().text(text), expected);
    }
}

#[test]
fn a_word_with_many_possible_starts_is_measured_once() {
    let text = format!("eyJ {}", "e.".repeat(1 << 20));
    assert_eq!(redactor().body(None, "/", &text), text);
}

#[test]
fn extra_names_are_patterns() {
    let extra = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<_>>();
    let redactor = Redactor::new(RedactSettings {
        extra_headers: extra(&["X-*-Note", "Location"]),
        extra_query_keys: extra(&["*_pin"]),
        extra_body_keys: extra(&["*_PIN*"]),
        ..RedactSettings::default()
    });
    assert_eq!(redactor.header_value("x-private-note", "v"), REDACTED);
    assert_eq!(redactor.header_value("location", "/plain"), REDACTED);
    assert_eq!(redactor.url("https://h/?my_pin=1&pin=2"), "https://h/?my_pin=REDACTED&pin=2");
    let body = redactor.body(Some("application/json"), "/", r#"{"my_pin_code":1,"zip":2}"#);
    assert_eq!(body, r#"{"my_pin_code":"REDACTED","zip":2}"#);
}

#[test]
fn keeping_secrets_is_a_setting() {
    let keeping = Redactor::new(RedactSettings { keep_secrets: true, ..RedactSettings::default() });
    assert_eq!(keeping.header_value("authorization", "Bearer abc"), "Bearer abc");
}

proptest! {
    #[test]
    fn twice_is_once_and_nothing_panics(text in "[ -~\\n\u{e9}\u{1F600}]{0,120}") {
        let redactor = redactor();
        for once in [redactor.url(&text).into_owned(), redactor.text(&text).into_owned(), redactor.body(None, "/", &text).into_owned()] {
            let _ = redactor.header_value("location", &once);
            prop_assert_eq!(redactor.text(&once), once.as_str());
        }
        let once = redactor.body(Some("application/json"), "/", &text).into_owned();
        prop_assert_eq!(redactor.body(Some("application/json"), "/", &once), once.as_str());
    }

    #[test]
    fn the_prefilter_lets_no_secret_through(
        before in "[a-zA-Z_\"{}:,. \\\\-]{0,40}",
        secret in prop::sample::select(vec![
            "\"api_key\":\"x\"", "\"ApiKey\" : 1", "\"pass\\u0077ord\":2", "sk-abcdefghijklmnopqrstu", "eyJ", "AKIAABCDEFGHIJKLMNOP",
            "bearer abcdefghi", "ghp_abcdefghijklmnopqrstuv", "-----BEGIN A PRIVATE KEY-----", "",
        ]),
        after in "[a-z\"{}:, ]{0,20}",
    ) {
        let (redactor, text) = (redactor(), format!("{before}{secret}{after}"));
        let slow = json::redact_json(&text, |key| redactor.is_secret_body_key(key));
        let slow = credential::redact(&slow);
        prop_assert_eq!(redactor.body(None, "/", &text), slow.as_ref());
    }

    #[test]
    fn no_planted_secret_survives(before in "[a-z{}\\[\\]:,0-9 ]{0,20}", canary in "CANARY[a-zA-Z0-9]{1,20}") {
        let redactor = redactor();
        let body = format!("{before}{{\"x\":1,\"client_secret\":\"{canary}\"}}");
        prop_assert!(!redactor.body(None, "/", &body).contains(&canary));
        let url = format!("https://h/?a=1&token={canary}&b=2");
        prop_assert!(!redactor.url(&url).contains(&canary));
        prop_assert!(!redactor.header_value("x-auth-token", &canary).contains(&canary));
    }
}
