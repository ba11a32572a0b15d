//! The tee on a body: frames pass unchanged, and the recording sees each.

mod tee_body;
#[cfg(test)]
mod tests;

pub use tee_body::TeeBody;
