//! The blocks of a response as they grow, and the events of it in order.
//!
//! Neither the format that is read nor the one that is written is known here.

use super::untranslatable::{Untranslatable, untranslatable};
use crate::wire::json::parse;

/// An event of a streamed response. The numbers are indexes of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockEvent {
    /// The response begins.
    Started,
    /// A block begins.
    Opened(usize),
    /// This text is added to a block.
    Appended(usize, String),
    /// A block is complete.
    Closed(usize),
}

/// The kind of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Reasoning of the model.
    Reasoning,
    /// Text of the answer.
    Text,
    /// A tool call; the block's text is its arguments.
    ToolCall {
        /// The id of the call.
        id: String,
        /// The name of the function.
        name: String,
    },
}

/// A part of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Whether it is text, reasoning or a tool call.
    pub(super) kind: BlockKind,
    /// The text that has come.
    pub(super) text: String,
    open: bool,
}

impl Block {
    /// True when no more text can come once another block begins. Pieces of several tool calls may alternate.
    fn is_complete(&self) -> bool {
        !matches!(self.kind, BlockKind::ToolCall { .. }) || parse(self.text.as_bytes()).is_ok()
    }
}

/// The blocks, and the events that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    list: Vec<Block>,
    events: Vec<BlockEvent>,
}

impl Blocks {
    /// The blocks, in order.
    pub(super) fn list(&self) -> &[Block] {
        &self.list
    }

    /// Takes the events since the last call.
    pub(super) fn take_events(&mut self) -> Vec<BlockEvent> {
        std::mem::take(&mut self.events)
    }

    /// Begins the response.
    pub(super) fn start(&mut self) {
        self.events.push(BlockEvent::Started);
    }

    /// Adds text to the last block if that is open and of this kind, else to a new one.
    pub(super) fn append_or_open(&mut self, kind: BlockKind, text: &str) -> Result<(), Untranslatable> {
        if text.is_empty() {
            return Ok(());
        }
        let continues = self.list.last().is_some_and(|last| last.open && last.kind == kind);
        let block = if continues { self.list.len().saturating_sub(1) } else { self.open(kind) };
        self.append(block, text)
    }

    /// Opens a new block, and closes those that are complete.
    pub(super) fn open(&mut self, kind: BlockKind) -> usize {
        self.close(Block::is_complete);
        let block = self.list.len();
        self.list.push(Block { kind, text: String::new(), open: true });
        self.events.push(BlockEvent::Opened(block));
        block
    }

    /// Adds text to a block.
    pub(super) fn append(&mut self, block: usize, text: &str) -> Result<(), Untranslatable> {
        if text.is_empty() {
            return Ok(());
        }
        let open = self.list.get_mut(block).filter(|block| block.open);
        let late = || untranslatable("choices[0].delta.tool_calls", "a piece of a tool call came after its end");
        open.ok_or_else(late)?.text.push_str(text);
        self.events.push(BlockEvent::Appended(block, text.to_owned()));
        Ok(())
    }

    fn close(&mut self, which: impl Fn(&Block) -> bool) {
        for (index, block) in self.list.iter_mut().enumerate() {
            if block.open && which(block) {
                block.open = false;
                self.events.push(BlockEvent::Closed(index));
            }
        }
    }

    /// Closes every block.
    pub(super) fn close_all(&mut self) {
        self.close(|_| true);
    }
}
