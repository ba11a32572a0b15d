//! Which form a file has, and its parts that can be read one by one.
//!
//! Forms are known by their content, never by the name of the file. Lines of JSON are read one by one, unless they are
//! those of a session; any other file is one part.

use super::imported::{ImportError, Imported};
use super::options::ImportOptions;
use super::{atif, claude_code, codex, har, jaeger, json, mitmproxy, otlp};
use serde_json::Value as JsonValue;

/// A form that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Json,
    OtlpJson,
    Otlp,
    Jaeger,
    Har,
    Atif,
    Mitmproxy,
    ClaudeCode,
    Codex,
}

impl FileFormat {
    /// The name of the form, as exports have it.
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::OtlpJson => "otlp-json",
            Self::Otlp => "otlp",
            Self::Jaeger => "jaeger",
            Self::Har => "har",
            Self::Atif => "atif",
            Self::Mitmproxy => "mitmproxy",
            Self::ClaudeCode => "claude-code",
            Self::Codex => "codex",
        }
    }

    /// The form of a file of lines that belong together, by the first of them.
    fn of_session(first: &[JsonValue]) -> Option<Self> {
        if first.first().is_some_and(codex::is_first_line) {
            return Some(Self::Codex);
        }
        first.iter().any(claude_code::is_line).then_some(Self::ClaudeCode)
    }

    /// The form of a JSON value.
    fn of_json(value: &JsonValue) -> Option<Self> {
        let first = value.as_array().map_or(value, |list| list.first().unwrap_or(&JsonValue::Null));
        let has = |name: &str| first.get(name).is_some();
        if has("resourceSpans") || has("resource_spans") {
            Some(Self::OtlpJson)
        } else if first["log"]["entries"].is_array() {
            Some(Self::Har)
        } else if first["data"].is_array() || has("traceID") {
            Some(Self::Jaeger)
        } else if first["schema_version"].as_str().is_some_and(|version| version.starts_with("ATIF-")) {
            Some(Self::Atif)
        } else if has("rollout") && has("spans") || has("rollout_id") && has("span_id") {
            Some(Self::Json)
        } else {
            None
        }
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// JSON.
    Json(&'a [u8]),
    /// Lines of JSON that belong together.
    Session(FileFormat, &'a [u8]),
    /// Anything else.
    Binary(&'a [u8]),
}

/// The parts of a file: its lines if each is a JSON value, else the whole.
pub(crate) fn parts(file: &[u8]) -> Vec<Part<'_>> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let start = file.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(file.len());
    if !matches!(file.get(start), Some(b'{' | b'[')) {
        return vec![Part::Binary(file)];
    }
    let lines = || lines(file);
    let first: Vec<JsonValue> =
        lines().take(MAX_FIRST_LINES).map_while(|line| serde_json::from_slice(line).ok()).collect();
    if let Some(format) = FileFormat::of_session(&first) {
        return vec![Part::Session(format, file)];
    }
    // A line that begins like a value and is whole. An indented document has a first line that is not.
    if !first.is_empty() && lines().nth(1).is_some() {
        lines().map(Part::Json).collect()
    } else {
        vec![Part::Json(file)]
    }
}

/// The lines of a file that are not empty.
fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// Lines at the start of a file that tell its form. Sessions begin with summaries and other notes.
const MAX_FIRST_LINES: usize = 32;

impl Part<'_> {
    /// Reads the part. Returns the name of its form with what is in it.
    pub(crate) fn read(self, options: &ImportOptions) -> Result<(&'static str, Imported), ImportError> {
        let (format, imported) = match self {
            Part::Json(text) => json_part(text, options)?,
            Part::Session(format, file) => (format, session(format, file)),
            Part::Binary(file) if mitmproxy::is_start(file) => (FileFormat::Mitmproxy, mitmproxy::read(file, options)),
            Part::Binary(file) => (FileFormat::Otlp, otlp::protobuf(file)?),
        };
        Ok((format.name(), imported.checked(&options.spans.redactor)))
    }
}

/// Reads a JSON value by its form.
fn json_part(text: &[u8], options: &ImportOptions) -> Result<(FileFormat, Imported), ImportError> {
    let value: JsonValue = serde_json::from_slice(text)?;
    let format = FileFormat::of_json(&value).ok_or(ImportError::Unknown)?;
    let imported = match format {
        FileFormat::Json => json::read(value)?,
        FileFormat::Jaeger => jaeger::read(&value)?,
        FileFormat::Atif => atif::read(text, &value)?,
        FileFormat::OtlpJson => otlp::json(text, &value)?,
        FileFormat::Har => har::read(text, &value, options)?,
        // No JSON value is one of these.
        FileFormat::Otlp | FileFormat::Mitmproxy | FileFormat::ClaudeCode | FileFormat::Codex => {
            return Err(ImportError::Unknown);
        }
    };
    Ok((format, imported))
}

/// Reads a session. A line that is cut or damaged costs only itself.
fn session(format: FileFormat, file: &[u8]) -> Imported {
    let (mut values, mut damaged) = (Vec::new(), 0);
    for line in lines(file) {
        match serde_json::from_slice(line) {
            Ok(value) => values.push(value),
            Err(_) => damaged += 1,
        }
    }
    let mut imported = if format == FileFormat::Codex { codex::read(&values) } else { claude_code::read(&values) };
    (0..damaged).for_each(|_| imported.leave_out("a line that is not JSON"));
    imported
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::format::ExportFormat;
    use crate::export::sample::SampleOptions;
    use crate::export::stream::{ExportStream, FileType};
    use crate::trace::span::{Event, Link, Resource, SpanContext};
    use crate::trace::{AttemptedRollout, Attributes, Rollout, Span, SpanKind, Status, StatusCode, Timestamp, Value};
    use crate::wire::redact::RedactSettings;
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Texts of any characters; those that look like secrets are redacted, which is another test.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), Just(String::new()), Just("\u{202e}\u{0}\u{10ffff}".to_owned())]
    }

    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9a-f]{16}",
            "[0-9a-f]{32}",
            "[0-9A-F]{16}",
            Just("0000000000000000".to_owned()),
            "[a-zäöü !-~]{1,20}".prop_filter("an id", |id| !id.trim().is_empty()),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        let float = || any::<f64>().prop_filter("finite", |number| number.is_finite());
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            float().prop_map(Value::Float),
            text().prop_map(Value::String),
            vec(any::<bool>(), 0..4).prop_map(Value::Bools),
            vec(any::<i64>(), 1..40).prop_map(Value::Ints),
            vec(float(), 1..40).prop_map(Value::Floats),
            vec(text(), 1..4).prop_map(Value::Strings),
        ]
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        btree_map("[a-z]{1,5}(\\.[a-z]{1,5})?|\u{e4}\u{0}", value(), 0..6)
    }

    /// Times that float seconds can hold.
    fn time() -> impl Strategy<Value = Option<Timestamp>> {
        option::of(
            (1..4_000_000_000_u64, 0..1000_u64)
                .prop_map(|(seconds, fraction)| Timestamp::from_unix_secs(seconds as f64 + fraction as f64 / 1024.0)),
        )
    }

    fn context(trace_id: &str, span_id: &str, is_remote: bool) -> SpanContext {
        let (trace_id, span_id) = (trace_id.to_owned(), span_id.to_owned());
        SpanContext { trace_id, span_id, is_remote, trace_state: BTreeMap::default() }
    }

    prop_compose! {
        fn event()(name in text(), attributes in attributes(), timestamp in time()) -> Event {
            Event { name, attributes, timestamp }
        }
    }

    prop_compose! {
        fn link()(trace_id in "[1-9a-f][0-9a-f]{31}", span_id in "[1-9a-f][0-9a-f]{15}", attributes in attributes()) -> Link {
            Link { context: context(&trace_id, &span_id, false), attributes: Some(attributes) }
        }
    }

    prop_compose! {
        fn resource()(attributes in attributes(), schema_url in text()) -> Resource {
            Resource { attributes, schema_url }
        }
    }

    prop_compose! {
        fn span()(
            ids in (id(), id(), option::of(id())),
            name in text(),
            kind in prop_oneof![
                Just(SpanKind::Internal), Just(SpanKind::Server), Just(SpanKind::Client), Just(SpanKind::Producer),
                Just(SpanKind::Consumer),
            ],
            status_code in prop_oneof![Just(StatusCode::Unset), Just(StatusCode::Ok), Just(StatusCode::Error)],
            description in option::of(text().prop_filter("OTLP has no empty description", |text| !text.is_empty())),
            attributes in attributes(),
            events in vec(event(), 0..3),
            links in vec(link(), 0..2),
            times in (time(), time()),
            state in btree_map("[a-z]{1,5}", "[a-z]{1,5}", 0..3),
            is_remote in option::of(any::<bool>()),
            resource in resource(),
            place in (0..i64::MAX as u64, "ro-[0-9a-f]{1,3}", "at-[0-9]"),
        ) -> Span {
            let (trace_id, span_id, parent_id) = ids;
            let parent = parent_id.as_deref().zip(is_remote).map(|(id, is_remote)| context(&trace_id, id, is_remote));
            Span {
                rollout_id: place.1.as_str().into(),
                attempt_id: place.2.as_str().into(),
                sequence_id: place.0,
                context: Some(SpanContext { trace_state: state, ..context(&trace_id, &span_id, false) }),
                parent,
                trace_id,
                span_id,
                parent_id,
                name,
                kind: Some(kind),
                status: Status { status_code, description },
                attributes,
                events,
                links,
                start_time: times.0,
                end_time: times.1,
                resource,
            }
        }
    }

    /// The spans of an export of these, imported.
    fn again(format: &str, spans: Vec<Span>) -> Vec<Span> {
        let redact = RedactSettings { keep_secrets: true, ..RedactSettings::default() };
        let rollout = Rollout::running("ro-1".into(), Timestamp::default());
        let found = AttemptedRollout { rollout, attempt: None };
        let mut export = ExportStream::new(ExportFormat::named(format).unwrap(), FileType::Jsonl).unwrap();
        let prepared = export.preparation().prepare(found, spans, &SampleOptions::default());
        let mut file = export.add(prepared).unwrap();
        file.extend(export.finish().unwrap().0);
        let options = ImportOptions::new(redact);
        let mut imported = Vec::new();
        for part in parts(&file) {
            let (name, part) = part.read(&options).unwrap();
            assert_eq!((name, part.left_out), (format, BTreeMap::new()));
            imported.extend(part.spans);
        }
        imported
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn our_json_loses_nothing(spans in vec(span(), 0..5)) {
            prop_assert_eq!(again("json", spans.clone()), spans);
        }

        /// OTLP groups spans by their resource.
        #[test]
        fn otlp_loses_nothing(spans in vec(span(), 1..5)) {
            for format in ["otlp", "otlp-json"] {
                let mut imported = again(format, spans.clone());
                for span in &spans {
                    let at = imported.iter().position(|one| one == span);
                    prop_assert!(at.is_some(), "{}: {:?}\nis not among\n{:#?}", format, span, imported);
                    imported.remove(at.unwrap());
                }
                prop_assert!(imported.is_empty());
            }
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in vec(any::<u8>(), 0..200), cut in 0..2000_usize, span in span()) {
            let options = ImportOptions::new(RedactSettings::default());
            for part in parts(&bytes) {
                let _ = part.read(&options);
            }
            for format in ["json", "otlp", "otlp-json", "jaeger", "har"] {
                let mut export = ExportStream::new(ExportFormat::named(format).unwrap(), FileType::Jsonl).unwrap();
                let found = AttemptedRollout { rollout: Rollout::running("ro-1".into(), Timestamp::default()), attempt: None };
                let prepared = export.preparation().prepare(found, vec![span.clone()], &SampleOptions::default());
                let mut file = export.add(prepared).unwrap();
                file.truncate(cut);
                for part in parts(&file) {
                    let _ = part.read(&options);
                }
            }
        }
    }
}
