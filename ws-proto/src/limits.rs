//! What a peer may make this endpoint hold.

/// Bounds on one incoming message. A message beyond either is a [`Violation`](crate::Violation)
/// with close code 1009 (RFC 6455, section 10.4 asks for such limits, section 7.4.1 names the
/// code).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message, all fragments together. Default 16 MiB. Checked against the
    /// length that a frame header announces, before any of the payload is kept.
    pub max_message_bytes: u32,
    /// Frames of one message; empty ones count. Default 65,536; 0 means 1. Stops a peer that sends
    /// endless empty fragments.
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 << 20,
            max_fragments: 65_536,
        }
    }
}
