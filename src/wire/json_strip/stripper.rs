//! The state machine: what each byte belongs to, and what becomes of each field.

use super::changes::{CHOICES, Change, Changes, RESPONSE, SETTINGS};
use super::waiting::{Piece, Waiting};
use crate::wire::json_scan::{StringScan, ValueScan, is_named, skip_space};
use bytes::BufMut;

/// `text` with these changes. `None`: nothing changes, or it is no whole object.
pub fn change(text: &[u8], changes: &Changes) -> Option<Vec<u8>> {
    let mut stripper = JsonStripper::new(changes.clone());
    let mut out = Vec::with_capacity(text.len());
    stripper.push(text, &mut out);
    (stripper.is_whole && stripper.has_changed).then_some(out)
}

/// Removes fields from one JSON text, which comes in pieces.
#[derive(Debug)]
pub(crate) struct JsonStripper {
    changes: Changes,
    // A longer key is none of ours.
    max_key_bytes: usize,
    place: Place,
    // Those that the object of this place had so far.
    fields: Fields,
    state: State,
    waiting: Waiting,
    has_changed: bool,
    has_removed_at_root: bool,
    is_whole: bool,
}

/// The innermost open container, if its fields or elements are examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    /// The object in the root's `response`.
    Response,
    /// The object in the root's `generation_settings`.
    Settings,
    /// The list in the root's `choices`.
    Choices,
    /// An object in that list.
    Choice,
}

/// Which fields an object had so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    None,
    /// Only fields that were removed.
    Removed,
    /// At least one field that was kept.
    Kept,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing but white space has come.
    Start,
    /// An object, before its first field.
    Open,
    /// After a value in an object, before the comma.
    AfterValue,
    /// In an object, after a comma and before the next key.
    AfterComma,
    /// In a key, after its opening quote.
    Key(StringScan),
    /// In a key that is too long to be one of the names. Its bytes are passed on.
    LongKey(StringScan),
    /// After a key, before the colon.
    Colon(Action),
    /// After a colon, before the value.
    Value(Action),
    /// In a value that is kept.
    Keep(ValueScan),
    /// In a value that is removed or replaced.
    Drop(ValueScan),
    /// The list of choices, between two elements.
    Elements,
    /// After the object, or in text that is no object: everything passes.
    Passing,
}

impl State {
    /// True between two values, where bytes wait for what the next key is.
    fn holds(self) -> bool {
        matches!(self, Self::AfterValue | Self::AfterComma | Self::Key(_) | Self::Colon(_) | Self::Value(_))
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Keep,
    /// It stays, and its fields or elements are looked at.
    Enter(Place),
    Change(Change),
}

impl JsonStripper {
    pub(crate) fn new(changes: Changes) -> Self {
        let max_key_bytes = changes.max_key_bytes();
        Self {
            changes,
            max_key_bytes,
            place: Place::Root,
            fields: Fields::None,
            state: State::Start,
            waiting: Waiting::default(),
            has_changed: false,
            has_removed_at_root: false,
            is_whole: false,
        }
    }

    /// Takes the next piece of the text, and gives what is known to stay.
    pub(crate) fn push<O: BufMut>(&mut self, text: &[u8], out: &mut O) {
        let mut piece = Piece::new(text, out);
        while piece.at < text.len() {
            self.state = self.step(&mut piece);
        }
        match self.state {
            State::Drop(_) => {}
            state if state.holds() => self.waiting.hold(&mut piece),
            _ => piece.give(text.len()),
        }
    }

    /// Takes bytes that stand within the text where white space may be, and are no part of it. They stay.
    pub(crate) fn push_foreign<O: BufMut>(&mut self, bytes: &[u8], out: &mut O) {
        let mut piece = Piece::new(b"", out);
        if let State::Keep(ValueScan::Scalar) | State::Drop(ValueScan::Scalar) = self.state {
            self.state = self.after_value(&mut piece, 0);
        }
        if let State::Key(_) = self.state {
            self.state = self.give_up(&mut piece);
        }
        if !self.state.holds() {
            return piece.out.put_slice(bytes);
        }
        self.waiting.hold_foreign(bytes);
        if self.has_too_much_space(&piece) {
            self.state = self.give_up(&mut piece);
        }
    }

    /// The text has ended, or broken off: gives what is held, and begins anew.
    pub(crate) fn finish<O: BufMut>(&mut self, out: &mut O) {
        self.waiting.keep(out);
        (self.state, self.place, self.fields) = (State::Start, Place::Root, Fields::None);
        (self.has_changed, self.has_removed_at_root, self.is_whole) = (false, false, false);
    }

    /// The number of bytes that are held.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting.held_bytes()
    }

    /// True when a field of the root has been removed.
    pub(crate) fn has_removed_at_root(&self) -> bool {
        self.has_removed_at_root
    }

    /// Handles the next bytes, and returns what the byte after them belongs to.
    fn step<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) -> State {
        let text = piece.text;
        match self.state {
            State::Passing => {
                piece.at = text.len();
                State::Passing
            }
            State::Keep(mut scan) => match scan.end(text, piece.at) {
                Some(end) => self.after_value(piece, end),
                None => {
                    piece.at = text.len();
                    State::Keep(scan)
                }
            },
            State::Drop(mut scan) => {
                let end = scan.end(text, piece.at);
                piece.kept = end.unwrap_or(text.len());
                match end {
                    Some(end) => self.after_value(piece, end),
                    None => {
                        piece.at = text.len();
                        State::Drop(scan)
                    }
                }
            }
            State::Key(mut scan) => {
                let end = scan.end(text, piece.at);
                piece.at = end.unwrap_or(text.len());
                if self.waiting.len_from_key(piece) > self.max_key_bytes {
                    self.keep(piece);
                    return self.after_long_key(piece, end, scan);
                }
                end.map_or(State::Key(scan), |_| State::Colon(self.action(piece)))
            }
            State::LongKey(mut scan) => {
                let end = scan.end(text, piece.at);
                piece.at = end.unwrap_or(text.len());
                self.after_long_key(piece, end, scan)
            }
            state => {
                piece.at = skip_space(text, piece.at);
                if self.has_too_much_space(piece) {
                    return self.give_up(piece);
                }
                match text.get(piece.at) {
                    Some(byte) => self.mark(piece, *byte),
                    None => state,
                }
            }
        }
    }

    /// Handles the first byte after white space.
    fn mark<O: BufMut>(&mut self, piece: &mut Piece<'_, O>, byte: u8) -> State {
        let state = match (self.state, byte) {
            (State::Start, b'{') => State::Open,
            (State::Open, b'"') => {
                piece.waiting = piece.at;
                self.waiting.key_begins(piece);
                State::Key(StringScan::default())
            }
            (State::AfterComma, b'"') => {
                // What follows only fields that are gone goes on without their comma.
                if self.fields == Fields::Removed {
                    self.waiting.discard(piece);
                }
                self.waiting.key_begins(piece);
                State::Key(StringScan::default())
            }
            (State::AfterValue, b',') => State::AfterComma,
            (State::Colon(action), b':') => State::Value(action),
            (State::Elements, b',') => State::Elements,
            (State::Elements, b'{') => self.enter(Place::Choice),
            (State::Open | State::AfterValue, b'}') | (State::Elements, b']') => {
                self.keep(piece);
                return self.leave(piece);
            }
            (State::Elements, _) => match ValueScan::open(byte) {
                Some(scan) => State::Keep(scan),
                None => return self.give_up(piece),
            },
            (State::Value(action), _) => match ValueScan::open(byte) {
                Some(scan) => self.value(piece, action, byte, scan),
                None => return self.give_up(piece),
            },
            _ => return self.give_up(piece),
        };
        piece.at += 1;
        state
    }

    /// Handles the first byte of a field's value.
    fn value<O: BufMut>(&mut self, piece: &mut Piece<'_, O>, action: Action, first: u8, scan: ValueScan) -> State {
        if let Action::Change(change) = action {
            match change.replacement() {
                None => {
                    self.waiting.discard(piece);
                    if self.fields == Fields::None {
                        self.fields = Fields::Removed;
                    }
                    self.has_removed_at_root |= self.place == Place::Root;
                }
                Some(replacement) => {
                    self.keep(piece);
                    piece.give(piece.at);
                    piece.out.put_slice(replacement);
                }
            }
            self.has_changed = true;
            return State::Drop(scan);
        }
        self.keep(piece);
        match (action, first) {
            (Action::Enter(place @ (Place::Response | Place::Settings)), b'{') => self.enter(place),
            (Action::Enter(Place::Choices), b'[') => self.enter(Place::Choices),
            _ => State::Keep(scan),
        }
    }

    fn enter(&mut self, place: Place) -> State {
        (self.place, self.fields) = (place, Fields::None);
        if place == Place::Choices { State::Elements } else { State::Open }
    }

    /// Leaves the innermost container. Its closing bracket is next.
    fn leave<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) -> State {
        let end = piece.at + 1;
        self.place = match self.place {
            Place::Root => {
                self.is_whole = true;
                piece.at = end;
                return State::Passing;
            }
            Place::Choice => Place::Choices,
            Place::Response | Place::Settings | Place::Choices => Place::Root,
        };
        self.fields = Fields::Kept;
        self.after_value(piece, end)
    }

    /// A value has ended in front of `end`.
    fn after_value<O: BufMut>(&self, piece: &mut Piece<'_, O>, end: usize) -> State {
        (piece.at, piece.waiting) = (end, end);
        if self.place == Place::Choices { State::Elements } else { State::AfterValue }
    }

    /// A long key goes on, or has ended.
    fn after_long_key<O: BufMut>(&mut self, piece: &mut Piece<'_, O>, end: Option<usize>, scan: StringScan) -> State {
        let Some(end) = end else { return State::LongKey(scan) };
        piece.waiting = end;
        self.waiting.key_begins(piece);
        State::Colon(Action::Keep)
    }

    /// The action for the field of the key that has just ended.
    fn action<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) -> Action {
        let key = self.waiting.key(piece);
        let changes = match self.place {
            Place::Choice => &self.changes.choice,
            Place::Settings => &self.changes.settings,
            _ => &self.changes.root,
        };
        match changes.iter().find(|(name, _)| is_named(key, name)) {
            Some((_, change)) => Action::Change(*change),
            None if self.place != Place::Root => Action::Keep,
            None if is_named(key, RESPONSE) => Action::Enter(Place::Response),
            None if is_named(key, SETTINGS) => Action::Enter(Place::Settings),
            None if is_named(key, CHOICES) => Action::Enter(Place::Choices),
            None => Action::Keep,
        }
    }

    /// Passes on the bytes that wait: the field that they belong to is kept.
    fn keep<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) {
        self.waiting.keep(piece.out);
        self.fields = Fields::Kept;
    }

    /// Stops stripping: the text is no JSON object, so that everything from here on passes.
    fn give_up<O: BufMut>(&mut self, piece: &mut Piece<'_, O>) -> State {
        self.keep(piece);
        State::Passing
    }

    fn has_too_much_space<O>(&self, piece: &Piece<'_, O>) -> bool {
        match self.state {
            State::AfterValue | State::AfterComma => self.waiting.len(piece) > MAX_SPACE_BYTES,
            State::Colon(_) | State::Value(_) => {
                self.waiting.len_from_key(piece) > MAX_SPACE_BYTES + self.max_key_bytes
            }
            _ => false,
        }
    }
}

/// The most white space that is held in front of a key, and behind it. Text with more of it passes unchanged from there.
pub(super) const MAX_SPACE_BYTES: usize = 16 << 10;
