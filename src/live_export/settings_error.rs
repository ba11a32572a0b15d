//! Why a setting of `[export]` can't be used.

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportSettingsError {
    /// No URL that can be sent to.
    #[error("`{text}` is not a URL to send to; write http(s)://HOST[:PORT][/PATH], and credentials as headers")]
    Endpoint {
        /// The text, without what may be a password.
        text: String,
    },
    /// No header field.
    #[error("the header `{name}` has a name or a value that HTTP does not allow")]
    Header {
        /// The name; the value may be a secret.
        name: String,
    },
    /// Metrics and the cursors in the store could not tell the exports apart.
    #[error("two exports are named `{name}`; give one of them another `name`")]
    Twice {
        /// The name that both have.
        name: String,
    },
    /// gRPC has paths of its own.
    #[error(
        "the endpoint `{endpoint}` has a path, which gRPC does not use; write http(s)://HOST:PORT, or another protocol"
    )]
    GrpcPath {
        /// The URL.
        endpoint: String,
    },
    /// Traces and metrics have a URL each.
    #[error(
        "the endpoint `{endpoint}` is one URL for traces and metrics; write one that ends with the port or with \
         /v1/traces, or an entry for each of the two"
    )]
    OnePath {
        /// The URL.
        endpoint: String,
    },
    /// An export of nothing.
    #[error("the export to `{endpoint}` has no signals; write signals = [\"traces\"], or \"metrics\", or both")]
    NoSignals {
        /// The URL.
        endpoint: String,
    },
    /// An export without a pause.
    #[error("metrics_interval_ms is 0; the smallest number is 1")]
    NoMetricsInterval,
    /// A batch without spans would never end.
    #[error("max_batch_spans is 0; the smallest number is 1")]
    EmptyBatch,
}
