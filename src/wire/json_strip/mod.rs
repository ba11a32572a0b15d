//! Removing fields from JSON text as it passes, cut anywhere; every other byte stays what it was.
//!
//! Names are compared as decoded (`"mod\u0065l"` is `model`), and every duplicate of a field is treated alike. Values
//! are neither read nor held. Only the bytes between two values are held (a comma, a key, and a limited amount of white
//! space), until the next key shows whether they stay. Text that turns out to be no JSON object passes unchanged from there on.

mod changes;
mod stripper;
#[cfg(test)]
mod tests;
mod waiting;

pub(crate) use changes::UsageEvent;
pub use changes::{Change, Changes};
pub(crate) use stripper::JsonStripper;
pub use stripper::change;
