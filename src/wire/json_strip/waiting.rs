//! The bytes between two values of an object, which wait until the next key shows whether they stay.

use bytes::BufMut;

/// A piece of the text, and how far it has been handled.
pub(super) struct Piece<'a, O> {
    pub(super) text: &'a [u8],
    /// The index of the next byte to look at.
    pub(super) at: usize,
    /// The index of the first byte that has not been passed on.
    pub(super) kept: usize,
    /// The index of the first byte that waits. If bytes of earlier pieces are held, these come before it, and `kept` is the
    /// same index.
    pub(super) waiting: usize,
    pub(super) out: &'a mut O,
}

impl<'a, O: BufMut> Piece<'a, O> {
    pub(super) fn new(text: &'a [u8], out: &'a mut O) -> Self {
        Self { text, at: 0, kept: 0, waiting: 0, out }
    }

    /// Passes on the bytes before `end` that have not been passed on.
    pub(super) fn give(&mut self, end: usize) {
        if self.kept < end {
            self.out.put_slice(&self.text[self.kept..end]);
            self.kept = end;
        }
    }
}

/// The bytes that wait: the separator after a value, a key, and what follows the key up to its value.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    // What earlier pieces had of it. The rest is in the current piece.
    held: Vec<u8>,
    // What of the held is no part of the text, and stays in any case.
    foreign: Vec<u8>,
    // Where the key begins, with its quote.
    key: usize,
}

impl Waiting {
    /// The number of bytes that are held of earlier pieces.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// The number of bytes that wait.
    pub(super) fn len<O>(&self, piece: &Piece<'_, O>) -> usize {
        self.held.len() + piece.at - piece.waiting
    }

    /// The number of bytes that wait from the key on.
    pub(super) fn len_from_key<O>(&self, piece: &Piece<'_, O>) -> usize {
        self.len(piece) - self.key
    }

    /// Notes that a key begins at the current position.
    pub(super) fn key_begins<O>(&mut self, piece: &Piece<'_, O>) {
        self.key = self.len(piece);
    }

    /// The key that ends at the current position, without its quotes.
    pub(super) fn key<'w, 'a: 'w, O>(&'w mut self, piece: &mut Piece<'a, O>) -> &'w [u8] {
        let of_piece = &piece.text[piece.waiting..piece.at];
        let all = if self.held.is_empty() {
            of_piece
        } else {
            self.held.extend_from_slice(of_piece);
            (piece.kept, piece.waiting) = (piece.at, piece.at);
            &self.held
        };
        all.get(self.key + 1..all.len() - 1).unwrap_or_default()
    }

    /// Ends a piece: the bytes that wait are held until the next one.
    pub(super) fn hold<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) {
        piece.give(piece.waiting);
        self.held.extend_from_slice(&piece.text[piece.waiting..]);
    }

    /// Holds bytes that stay in any case.
    pub(super) fn hold_foreign(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.foreign.extend_from_slice(bytes);
    }

    /// Passes on the bytes of earlier pieces that wait.
    pub(super) fn keep(&mut self, out: &mut impl BufMut) {
        if !self.held.is_empty() {
            out.put_slice(&self.held);
            self.clear();
        }
    }

    /// Drops the bytes that wait. Bytes after them may wait again.
    pub(super) fn discard<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) {
        piece.give(piece.waiting);
        if !self.held.is_empty() {
            piece.out.put_slice(&self.foreign);
            self.clear();
        }
        (piece.kept, piece.waiting) = (piece.at, piece.at);
    }

    fn clear(&mut self) {
        self.held.clear();
        self.foreign.clear();
    }
}
