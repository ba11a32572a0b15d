//! The blocks of an answer as they grow, and what happens to them in which order.
//!
//! It must not know where the pieces come from, nor where they go.

use super::untranslatable::{Untranslatable, refusal};
use crate::wire::json::parse;

/// What happens in a stream. The numbers are those of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The answer has begun.
    Began,
    /// A block has begun.
    Opened(usize),
    /// More of a block.
    Grew(usize, String),
    /// A block is whole.
    Closed(usize),
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the model thought.
    Reasoning,
    /// What it said.
    Text,
    /// The call of a function; the block's text are its arguments.
    Call {
        /// The call's own id.
        id: String,
        /// The function.
        name: String,
    },
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// What it is.
    pub(super) kind: Kind,
    /// Its text so far.
    pub(super) text: String,
    open: bool,
}

impl Block {
    /// True when nothing more is to come once another block begins. Pieces of calls may come in turns.
    fn is_over(&self) -> bool {
        !matches!(self.kind, Kind::Call { .. }) || parse(self.text.as_bytes()).is_ok()
    }
}

/// The blocks, and what has happened to them that is not told yet.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    list: Vec<Block>,
    events: Vec<Event>,
}

impl Blocks {
    /// All of them.
    pub(super) fn list(&self) -> &[Block] {
        &self.list
    }

    /// What has happened since it was asked last.
    pub(super) fn happened(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The answer begins.
    pub(super) fn begin(&mut self) {
        self.events.push(Event::Began);
    }

    /// More of the last block if it is of this kind, else a new one.
    pub(super) fn say(&mut self, kind: Kind, text: &str) -> Result<(), Untranslatable> {
        if text.is_empty() {
            return Ok(());
        }
        let goes_on = self.list.last().is_some_and(|last| last.open && last.kind == kind);
        let block = if goes_on { self.list.len().saturating_sub(1) } else { self.open(kind) };
        self.grow(block, text)
    }

    /// A new block. What is over ends with its beginning.
    pub(super) fn open(&mut self, kind: Kind) -> usize {
        self.close(Block::is_over);
        let block = self.list.len();
        self.list.push(Block { kind, text: String::new(), open: true });
        self.events.push(Event::Opened(block));
        block
    }

    /// More of a block.
    pub(super) fn grow(&mut self, block: usize, text: &str) -> Result<(), Untranslatable> {
        if text.is_empty() {
            return Ok(());
        }
        let open = self.list.get_mut(block).filter(|block| block.open);
        let late = || refusal("choices[0].delta.tool_calls", "a piece of a call came after its end");
        open.ok_or_else(late)?.text.push_str(text);
        self.events.push(Event::Grew(block, text.to_owned()));
        Ok(())
    }

    fn close(&mut self, which: impl Fn(&Block) -> bool) {
        for (index, block) in self.list.iter_mut().enumerate() {
            if block.open && which(block) {
                block.open = false;
                self.events.push(Event::Closed(index));
            }
        }
    }

    /// The end of every block.
    pub(super) fn close_all(&mut self) {
        self.close(|_| true);
    }
}
