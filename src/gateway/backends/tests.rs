//! Registration, keys, bounds, and health of backends.

use super::*;

fn settings(url: &str) -> BackendSettings {
    let (version, weight, engine, key) = (0, 1.0, BackendEngine::Auto, Secret::default());
    BackendSettings { model: "m".into(), url: url.into(), version, weight, engine, key }
}

#[test]
fn registering_again_changes_the_same_backend() {
    let backends = Backends::default();
    let first = backends.register(&settings("http://gpu:8000/v1/"), None).unwrap();
    let call = first.enter();
    let again = BackendSettings { version: 7, weight: 2.0, ..settings("http://GPU:8000/v1") };
    let second = backends.register(&again, None).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((first.version(), first.weight(), first.in_flight()), (7, 2.0, 1));
    drop(call);
    assert_eq!((first.in_flight(), backends.remove(|_| true), backends.all().len()), (0, 1, 0));
}

#[test]
fn the_key_is_sent_in_the_header_of_the_engine() {
    for (engine, name, value) in
        [("auto", "authorization", "Bearer k"), ("anthropic", "x-api-key", "k"), ("gemini", "x-goog-api-key", "k")]
    {
        let json = serde_json::json!({ "model": "m", "url": "http://gpu/v1", "engine": engine, "key": "k" });
        let backend = Backend::new(&serde_json::from_value(json).unwrap(), None).unwrap();
        let expected = (HeaderName::from_static(name), HeaderValue::from_static(value));
        assert_eq!(backend.credential(), Some(expected), "{engine}");
    }
    assert_eq!(Backend::new(&settings("http://gpu/v1"), None).unwrap().credential(), None);
}

#[test]
fn invalid_backends_are_rejected() {
    let backends = Backends::default();
    for url in ["gpu:8000", "ftp://gpu/v1", "http://", "http://user:secret@gpu/v1", ""] {
        assert!(backends.register(&settings(url), None).is_err(), "{url}");
    }
    let weightless = BackendSettings { weight: 0.0, ..settings("http://gpu/v1") };
    assert!(backends.register(&weightless, None).is_err());
}

#[test]
fn the_number_of_backends_is_bounded() {
    let backends = Backends::default();
    for at in 0..MAX_BACKENDS {
        backends.register(&settings(&format!("http://gpu{at}/v1")), None).unwrap();
    }
    assert_eq!(backends.register(&settings("http://other/v1"), None).unwrap_err(), BackendError::TooMany);
    assert!(backends.register(&settings("http://gpu0/v1"), None).is_ok(), "it is registered");
}

#[test]
fn a_failing_backend_is_ejected_until_it_answers() {
    let backends = Backends::default();
    let backend = backends.register(&settings("http://gpu/v1"), None).unwrap();
    backend.on_failure(&"test");
    assert!(!backend.is_healthy());
    backend.on_success();
    assert!(backend.is_healthy());
    backend.on_probe(ProbeResult::Missed);
    assert!(backend.is_healthy(), "one probe may be late");
    (0..2).for_each(|_| backend.on_probe(ProbeResult::Missed));
    assert!(!backend.is_healthy());
    backend.on_probe(ProbeResult::Answered);
    assert!(backend.is_healthy());
}

#[test]
fn ejections_double_up_to_a_limit_and_start_again_after_a_success() {
    let ejections: Vec<u64> = EJECTIONS.build().take(8).map(|ejection| ejection.as_secs()).collect();
    assert_eq!(ejections, [1, 2, 4, 8, 16, 32, 32, 32]);
    let backends = Backends::default();
    let backend = backends.register(&settings("http://gpu/v1"), None).unwrap();
    let next_ejection = || backend.state().ejections.next().unwrap().as_secs();
    (0..3).for_each(|_| backend.on_failure(&"test"));
    backend.state().ejected_until = Some(Instant::now());
    (0..3).for_each(|_| backend.on_failure(&"test"));
    assert_eq!(next_ejection(), 4, "failures at a time count once");
    backend.on_success();
    assert_eq!(next_ejection(), 1);
}
