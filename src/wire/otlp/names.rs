//! Names and flags that encoder and decoder share.

/// The rollout of a span, as Agent Lightning names it.
pub(super) const ROLLOUT_ID: &str = "agentlightning.rollout_id";
/// The attempt of a span.
pub(super) const ATTEMPT_ID: &str = "agentlightning.attempt_id";
/// The position of a span in its rollout.
pub(super) const SEQUENCE_ID: &str = "agentlightning.span_sequence_id";
/// The trace id of a span, if OTLP has no such id.
pub(super) const ORIGINAL_TRACE_ID: &str = "tracewire.original.trace_id";
/// The id of a span, if OTLP has no such id.
pub(super) const ORIGINAL_SPAN_ID: &str = "tracewire.original.span_id";
/// The id of the parent, if OTLP has no such id.
pub(super) const ORIGINAL_PARENT_ID: &str = "tracewire.original.parent_id";

/// In the flags of a span: they say whether the parent is in another process.
pub(super) const FLAG_IS_REMOTE_KNOWN: u32 = 0x100;
/// In the flags of a span: the parent is in another process.
pub(super) const FLAG_IS_REMOTE: u32 = 0x200;

/// True for the attributes that have what a span of ours has in fields.
pub(super) fn is_identity(name: &str) -> bool {
    const ALL: [&str; 6] =
        [ROLLOUT_ID, ATTEMPT_ID, SEQUENCE_ID, ORIGINAL_TRACE_ID, ORIGINAL_SPAN_ID, ORIGINAL_PARENT_ID];
    // Most names have other beginnings.
    (name.starts_with("agentlightning.") || name.starts_with("tracewire.")) && ALL.contains(&name)
}
