//! Secrets go, everything else stays, and redacting twice is redacting once.

use super::names::REDACTED;
use super::*;
use proptest::prelude::*;
use std::sync::LazyLock;

fn redactor() -> &'static Redactor {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
        Redactor::new(RedactSettings { extra_headers: vec!["X-Mine".into()], ..RedactSettings::default() })
    });
    &REDACTOR
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
        ("X-Auth-Key", "v", "REDACTED"),
        ("DD-APPLICATION-KEY", "v", "REDACTED"),
        ("X-JWT", "v", "REDACTED"),
        ("X-Access-Key", "v", "REDACTED"),
        ("refresh", "5; url=https://h/?token=t", "5; url=https://h/?token=REDACTED"),
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
        ("Bearer abcdefghijk1.lm", "Bearer REDACTED"),
        (r"key:\nsk-proj-abcdefghijklmnop123", r"key:\nsk-REDACTED"),
        (r"key:\u000ask-proj-abcdefghijklmnop123", r"key:\u000ask-REDACTED"),
        (r"env:\u000aDB_PASS=abcdefgh", r"env:\u000aDB_PASS=REDACTED"),
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
fn names_in_every_notation() {
    for name in [
        "token",
        "accessToken",
        "refreshToken",
        "clientSecret",
        "secret_key",
        "auth_token",
        "session_token",
        "api-key",
        "API_KEY",
        "aws_secret_access_key",
        "OPENAI_API_KEY",
        "DB_PASSWORD",
        "pwd",
        "privateKey",
        "X-Api-Key",
        "GITHUB_TOKEN",
        "idToken",
        "db.password",
        "connectionString",
        "Cookie",
        "X-Auth-Key",
        "DD-APPLICATION-KEY",
        "X-JWT",
    ] {
        let body = format!(r#"{{"a":1,"{name}":"hunter2-canary"}}"#);
        let nested =
            serde_json::json!({ "arguments": body, "b": [serde_json::json!({ "c": body }).to_string()] }).to_string();
        let json = Some("application/json");
        for text in [&body, &nested] {
            let out = redactor().body(json, "/", text).into_owned();
            assert!(!out.contains("canary"), "{name}: {out}");
            assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        }
        assert_eq!(redactor().url(&format!("https://h/?{name}=canary&b=1")), format!("https://h/?{name}=REDACTED&b=1"));
        let part = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\ncanary\r\n--x--\r\n");
        let out = redactor().body(Some("multipart/form-data; boundary=x"), "/", &part).into_owned();
        assert!(!out.contains("canary") && out.ends_with("REDACTED\r\n--x--\r\n"), "{out}");
    }
}

#[test]
fn keys_and_values_that_events_divide() {
    let event = |index: u64, piece: &str| {
        format!(
            "data: {}\n\n",
            serde_json::json!({ "choices": [{ "delta": { "tool_calls": [{ "index": index, "function": { "arguments": piece } }] } }] })
        )
    };
    let text = [
        "event: x\n".to_owned(),
        event(0, "{\"user\":\"me\",\"pass"),
        event(1, "{\"city\":"),
        event(0, "word\":\"can"),
        event(1, "\"Rome\"}"),
        event(0, "ary\"}"),
        "data: [DONE]\n\n".to_owned(),
    ];
    let out = redactor().body(Some("text/event-stream"), "/", &text.concat()).into_owned();
    assert!(out.contains("REDACTED") && !out.contains("ary"), "{out}");
    assert!(out.contains("\\\"Rome\\\"}") && out.starts_with("event: x\n") && out.ends_with("[DONE]\n\n"), "{out}");
    assert_eq!(redactor().body(Some("text/event-stream"), "/", &out), out);
    let plain = [event(0, "{\"a\":1"), event(0, "}")].concat();
    assert_eq!(redactor().body(Some("text/event-stream"), "/", &plain), plain);
}

#[test]
fn what_only_resembles_a_secret_stays() {
    for text in [
        r#"{"token":" the","logprob":-0.1,"bytes":[32]}"#,
        r#"{"logprob":-0.1,"token":"pass"}"#,
        r#"{"usage":{"prompt_tokens":5,"max_tokens":100},"eos_token":"</s>","pad_token":"<pad>"}"#,
        r#"{"properties":{"password":{"type":"string"},"token":{"type":"string"}}}"#,
        r#"{"has_password":true,"password":null,"secret":"","tokenizer":"x","keyboard":"y","next_page_token_count":3}"#,
        r#"{"content":"client = OpenAI(api_key=os.environ[\"OPENAI_API_KEY\"])"}"#,
        "def login(password=None, token=token): pass",
        "export OPENAI_API_KEY=$KEY; Authorization: Bearer <token>",
        "headers = {'Authorization': f'Bearer {token}'}",
        "docker run -u 1000:1000 image; git clone ssh://git@github.com/a/b; see https://h/a:b@c",
        "use bearer credentials and npm_config_https_proxy_setting; the bearer of this letter understands the basic authorization model: authorization is hard",
        "PATH=/usr/bin PRIMARY_KEY=user_identifier OLD_PWD=/home/me/project",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 task-list-of-things sk-learn is scikit-learn",
        "asia akia ASIA PACIFIC and aviation: AKIA is a prefix",
        "headers.Authorization = validateToken(request)",
        "the API_KEY: a text; MAX_TOKEN: unlimited; see --token FILE and --password prompt, and ?token=${token}",
        "pub const IFLA_INET6_TOKEN: _bindgen_ty_7 = 3;",
        "x-api-key is a header; TOKEN: none; compass= north; monkey: banana",
        "os.environ['MY_API_KEY'] == 'something' and os.environ[\"MY_API_KEY\"] = value and f('MY_API_KEY', 'anything')",
        "process.env.MY_TOKEN = other.value; MY_TOKEN = \"access_token\"; os.Setenv(\"MY_TOKEN\", token); A_KEY = \"${KEY}\"",
    ] {
        assert_eq!(redactor().body(None, "/", text), text);
    }
}

#[test]
fn secrets_in_text() {
    for text in [
        "postgres://u:canary@h:5432/db",
        "https://user:canary@h/x",
        "curl -u me:canary https://h",
        "curl --user 'me:canary' https://h",
        "Authorization: Basic canary",
        r#"-H "Authorization: Bearer canary""#,
        "STRIPE_API_KEY=canary-of-stripe",
        "export DB_PASSWORD='canary'",
        "Server=h;User Id=u;Password=canary;",
        "host=h user=u password=canary dbname=x",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\ncanary\n-----END PGP PRIVATE KEY BLOCK-----",
        "xoxb-123456789012-canary",
        "sk_live_0123456789canary",
        "glpat-canary0canary1canary00",
        "SG.canary0canary1canary.canarycanary",
        "r8_canary0canary1canary",
        "pplx-canary0canary1canary",
        "nvapi-canary0canary1canary",
        "lsv2_pt_canary0canary1canary",
        "tvly-canary0canary1canary",
        "hvs.canary0canary1canarycanary",
        "dckr_pat_canary0canary1canary",
        "DB_PASS=canary1",
        "TOKEN=canary1canary",
        "OPENAI_API_KEY: canary0canary1",
        "aws_secret_access_key = canary1canary",
        "curl -H 'X-Api-Key: canary1'",
        "https://h/x?a=1&token=canary1",
        "https://h/x?X-Amz-Signature=canary1&b=2",
        "deploy --token canary0canary1",
        "deploy --token=canary0canary1",
        "export DB_PASSWORD='canary horse battery canary'",
        "os.environ['MY_API_KEY'] = 'canary'",
        "os.environ[\"MY_API_KEY\"]=\"canary\"",
        "ENV['DB_PASSWORD'] = 'canary horse'",
        "os.environ.setdefault(\"MY_API_KEY\", \"canary\")",
        "os.Setenv(\"MY_TOKEN\", \"canary\")",
        "process.env.MY_TOKEN = \"canary\";",
        "$env:MY_TOKEN = 'canary'",
        "MY_TOKEN = \"canary0canary1\"",
    ] {
        let message = serde_json::json!([{ "role": "user", "content": format!("see\n{text}\nend") }]).to_string();
        for text in [text, &message] {
            let out = redactor().body(None, "/", text).into_owned();
            assert!(!out.contains("canary"), "{out}");
            assert_eq!(redactor().body(None, "/", &out), out);
        }
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
            "bearer abcdefghi1", "ghp_abcdefghijklmnopqrstuv", "-----BEGIN A PRIVATE KEY-----", "", "MY_API_KEY=abcdefgh",
            "postgres://u:pass@h", "Authorization: Basic abcdefgh", "curl -u me:secret", ";Password=abc;", "\"a\":\"{\\\"pwd\\\":1}\"",
            "glpat-abcdefghijklmnopqrst", "A_KEY: abcdefgh1jkl", "?token=abcdefgh", "--token abcdefgh1jkl", "X-Api-Key: abcdefg",
            "aws_secret_access_key = abcdefg", "DB_PASS=abcdefgh", "X-Amz-Signature=abcdefg", "environ['A_KEY'] = 'abcdefg'",
            "setenv(\"A_KEY\", \"abcdefg\")", "env.A_KEY = 'abcdefg'", "environ[\\\"A_PWD\\\"]=\\\"abcdefg\\\"", "--token=abcdefgh1jkl",
        ]),
        after in "[a-z\"{}:, ]{0,20}",
    ) {
        let (redactor, text) = (redactor(), format!("{before}{secret}{after}"));
        let slow = json::redact_json(&text, &|key| redactor.is_secret_body_key(key));
        let slow = credential::redact(&slow).into_owned();
        prop_assert_eq!(redactor.body(None, "/", &text), slow);
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
