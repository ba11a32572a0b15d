//! The two ends of an exchange and the program between them.

/// Who caused an error, or ended an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The agent: its request, its credentials or its connection.
    Downstream,
    /// The endpoint, or the network on the way to it.
    Upstream,
    /// Tracewire itself: its state, a limit or a defect.
    Internal,
}

impl Side {
    /// The value in attributes, logs and error bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}
