//! Applies a tokenizer to the calls of an attempt, and to the breaks between them.

use super::load::ModelTokenizer;
use crate::export::conversation::{answer, request_messages, tools};
use crate::trajectory::{BreakSide, Call, Exclusion, Trajectory};

impl ModelTokenizer {
    /// Gives ids to the calls without, and checks the ids of the others.
    pub(crate) fn apply(&self, calls: &mut [Call]) {
        for call in calls {
            match call.exclusion {
                // There is no complete answer, or its ids are wrong as they were recorded.
                Some(Exclusion::Failed | Exclusion::Aborted | Exclusion::Unproved) => {}
                _ if call.prompt.is_empty() || call.sampled.is_empty() => self.complete(call),
                _ => self.check(call),
            }
        }
    }

    /// Makes the ids that are missing from the recorded messages.
    fn complete(&self, call: &mut Call) {
        let messages = request_messages(call);
        if messages.is_empty() {
            return;
        }
        match self.ids(&messages, answer(call).as_ref(), &tools(call)) {
            Ok((prompt, sampled)) => {
                call.is_retokenized = true;
                if call.prompt.is_empty() {
                    call.prompt = prompt.into();
                }
                if call.sampled.is_empty() {
                    (call.sampled, call.logprobs, call.sampling_mask) = (sampled, None, None);
                }
                let has_both = !call.prompt.is_empty() && !call.sampled.is_empty();
                call.exclusion = call.exclusion.filter(|why| *why != Exclusion::NoTokenIds || !has_both);
            }
            Err(error) => call.token_issue = Some(error.to_string()),
        }
    }

    /// Finds ids that are not the tokenizer's, or that say something else than the recorded answer.
    fn check(&self, call: &mut Call) {
        let unknown = self.unknown_id(&call.prompt).or_else(|| self.unknown_id(&call.sampled));
        let issue = match unknown {
            Some(id) => Some(format!("the tokenizer has no token {id}")),
            None => self.contradiction(call),
        };
        if let Some(issue) = issue {
            call.token_issue = Some(issue);
            call.exclusion = call.exclusion.or(Some(Exclusion::Unproved));
        }
    }

    fn contradiction(&self, call: &Call) -> Option<String> {
        let answer = answer(call)?;
        // Engines trim the text, and take reasoning and tool calls out of it.
        let letters = |text: &str| text.split_whitespace().collect::<String>();
        let (recorded, sampled) = (letters(answer["content"].as_str()?), letters(&self.text(&call.sampled)?));
        (!sampled.contains(&recorded)).then(|| "the sampled ids are not those of the recorded answer".to_owned())
    }

    /// Adds the text of the ids on both sides of each break.
    pub(crate) fn explain(&self, tree: &mut Trajectory) {
        let with_text = |side: &mut BreakSide| side.decoded = self.text(&side.ids);
        for found in tree.nodes.iter_mut().filter_map(|node| node.diagnosis.as_mut()) {
            with_text(&mut found.expected);
            with_text(&mut found.found);
        }
    }
}
