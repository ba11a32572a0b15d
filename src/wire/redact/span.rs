//! Redacts spans that other programs made: OTLP exports of agents.

use super::names::{REDACTED, is_secret_name};
use super::redactor::Redactor;
use crate::trace::{Span, Value};
use std::borrow::Cow;

impl Redactor {
    /// Redacts a span of another program: by the names of its attributes, and by the shape of their values.
    pub fn span(&self, span: &mut Span) {
        let links = span.links.iter_mut().filter_map(|link| link.attributes.as_mut());
        let events = span.events.iter_mut().map(|event| &mut event.attributes);
        let all = [&mut span.attributes, &mut span.resource.attributes].into_iter().chain(events).chain(links);
        for (name, value) in all.flat_map(|attributes| attributes.iter_mut()) {
            match value {
                Value::String(text) => self.clean_text(name, text),
                Value::Strings(arguments) if name == "process.command_args" => clean_arguments(self, arguments),
                Value::Strings(texts) => texts.iter_mut().for_each(|text| self.clean_text(name, text)),
                _ => {}
            }
        }
        self.clean_text("", &mut span.name);
        if let Some(description) = &mut span.status.description {
            self.clean_text("", description);
        }
    }

    fn clean_text(&self, name: &str, text: &mut String) {
        let field = name.split_once(".header.").map(|(_, field)| field);
        let cleaned = match field {
            Some(field) => self.header_value(field, text),
            None if is_secret_name(name.rsplit('.').next().unwrap_or_default()) => Cow::Owned(REDACTED.to_owned()),
            None if name == "url.query" => self
                .url(&format!("?{text}"))
                .strip_prefix('?')
                .map_or(Cow::Borrowed(text.as_str()), |query| Cow::Owned(query.to_owned())),
            None if name.starts_with("url.") || matches!(name, "http.url" | "http.target") => self.url(text),
            None if text.trim_start().starts_with(['{', '[']) => self.body(Some("application/json"), "", text),
            None => self.text(text),
        };
        if cleaned != *text {
            *text = cleaned.into_owned();
        }
    }
}

/// Redacts the arguments of a command: what an option of a secret name has, in the same argument or in the next, and what else
/// has the shape of a secret.
fn clean_arguments(redactor: &Redactor, arguments: &mut [String]) {
    let mut follows_option = false;
    for argument in arguments {
        let is_option = argument.starts_with('-');
        let (option, value) = argument.split_once('=').map_or((&**argument, None), |(name, value)| (name, Some(value)));
        let is_secret = is_option && is_secret_name(option.trim_start_matches('-'));
        let value_at = value.map(|value| argument.len() - value.len());
        match value_at {
            _ if follows_option && !is_option => REDACTED.clone_into(argument),
            Some(at) if is_secret => argument.replace_range(at.., REDACTED),
            _ => redactor.clean_text("", argument),
        }
        follows_option = is_secret && value_at.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_commands_are_redacted_by_their_options() {
        let command = "deploy --token abc --api-key=abc -v --password --user A_KEY=abcdefgh abc";
        let mut arguments: Vec<_> = command.split(' ').map(str::to_owned).collect();
        clean_arguments(&Redactor::default(), &mut arguments);
        let expected = "deploy --token REDACTED --api-key=REDACTED -v --password --user A_KEY=REDACTED abc";
        assert_eq!(arguments.join(" "), expected);
    }
}
