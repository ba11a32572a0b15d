//! The first byte of a value in a record, by its type. The numbers never change.

pub(super) const FALSE: u8 = 0;
pub(super) const TRUE: u8 = 1;
pub(super) const INT: u8 = 2;
pub(super) const FLOAT: u8 = 3;
pub(super) const TEXT: u8 = 4;
pub(super) const BOOLS: u8 = 5;
pub(super) const INTS: u8 = 6;
pub(super) const FLOATS: u8 = 7;
pub(super) const SINGLES: u8 = 8;
pub(super) const TEXTS: u8 = 9;
