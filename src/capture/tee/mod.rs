//! The tee on a body: frames pass unchanged, and the recording sees each.

mod recorded_frames;
mod tee_body;
#[cfg(test)]
mod tests;

pub(crate) use recorded_frames::RecordedFrames;
pub use tee_body::TeeBody;
