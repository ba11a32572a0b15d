//! What the engines' own APIs have in common: several prompts in a request, and several answers in a response, which is then
//! a list of answers or a stream of their events.

use crate::llm::call::{Choice, LlmCall, MAX_PARTS, UnreadPart};
use crate::llm::token_ids::tokens::Tokens;
use crate::llm::usage::Usage;
use crate::wire::json::Json;

impl LlmCall {
    /// Reads the ids of the prompt, or of each prompt.
    pub(super) fn prompt_ids_of_request(&mut self, ids: &Json<'_>) {
        let prompts = ids.list();
        if !prompts.iter().any(|prompt| prompt.is_number_list()) {
            return self.prompt_ids_once(ids);
        }
        if let [only] = prompts {
            return self.prompt_ids_once(only);
        }
        if prompts.len() > MAX_PARTS {
            self.mark_unread(UnreadPart::Choices);
        }
        let read = |ids: &Json<'_>| {
            let mut prompt = Tokens::default();
            prompt.push_ids(ids);
            prompt
        };
        self.prompts_ids = prompts.iter().take(MAX_PARTS).map(read).collect();
    }

    /// Gives the prompts of the request to the choices that have none. Those of one prompt follow each other.
    pub(super) fn share_prompts(&mut self) {
        let (prompts, per_prompt) =
            (std::mem::take(&mut self.prompts_ids), self.request.choice_count.unwrap_or(1).max(1));
        for choice in self.choices.iter_mut().filter(|choice| choice.prompt_ids.ids.is_none()) {
            let prompt = usize::try_from(choice.index / per_prompt).ok().and_then(|at| prompts.get(at));
            prompt.into_iter().for_each(|prompt| choice.prompt_ids = prompt.clone());
        }
    }

    /// The choice that an answer or event belongs to. In a list of answers without an index, the next one begins after the
    /// end of the one before.
    pub(super) fn answered_choice(&mut self, answer: &Json<'_>) -> &mut Choice {
        let next = self.choices.last().map_or(0, |last| last.index + i64::from(last.finish_reason.is_some()));
        self.choice(answer.get("index").int().unwrap_or(next))
    }

    /// The engine counts each answer alone: the call's usage is their sum.
    pub(super) fn add_up_usage(&mut self) {
        self.usage = self.choices.iter().fold(Usage::default(), |sum, choice| sum.plus(choice.usage));
    }
}
