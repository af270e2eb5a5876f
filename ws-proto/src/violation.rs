//! What a peer can do wrong after the handshake, with the close code and the place in the RFC.

use thiserror::Error;

use crate::CloseCode;

/// The peer broke RFC 6455 or exceeded the [`Limits`](crate::Limits). The connection must be
/// failed: a Close frame with [`code`](Self::code) is sent and TCP is closed (section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", self.reason())]
pub struct Violation(pub(crate) Rule);

impl Violation {
    /// The code of the Close frame that this endpoint must send: 1002 protocol error, 1007 invalid
    /// data, 1009 too big.
    #[must_use]
    pub fn code(&self) -> CloseCode {
        self.0.facts().0
    }

    /// The section of RFC 6455 that was broken (or that grants the limit), for example `"5.2"`.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.0.facts().1
    }

    /// A short reason, fit for the Close frame: at most 123 bytes.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.facts().2
    }
}

/// Each rule a peer can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    ReservedBits,
    UnknownOpcode,
    FragmentedControl,
    LongControl,
    Unmasked,
    Masked,
    NonMinimalLength,
    LengthSign,
    UnexpectedContinuation,
    ExpectedContinuation,
    MessageTooBig,
    TooManyFragments,
    TextNotUtf8,
    ShortClose,
    CloseCode,
    CloseReasonNotUtf8,
}

impl Rule {
    /// Close code, section, reason text.
    const fn facts(self) -> (CloseCode, &'static str, &'static str) {
        use CloseCode::{Invalid, Protocol, Size};
        match self {
            Self::ReservedBits => (Protocol, "5.2", "reserved bit set without an extension"),
            Self::UnknownOpcode => (Protocol, "5.2", "unknown opcode"),
            Self::FragmentedControl => (Protocol, "5.5", "fragmented control frame"),
            Self::LongControl => (Protocol, "5.5", "control frame longer than 125 bytes"),
            Self::Unmasked => (Protocol, "5.1", "unmasked frame from a client"),
            Self::Masked => (Protocol, "5.1", "masked frame from a server"),
            Self::NonMinimalLength => (Protocol, "5.2", "payload length not in its shortest form"),
            Self::LengthSign => (
                Protocol,
                "5.2",
                "most significant bit of the payload length set",
            ),
            Self::UnexpectedContinuation => (Protocol, "5.4", "continuation without a message"),
            Self::ExpectedContinuation => (Protocol, "5.4", "new message inside a fragmented one"),
            Self::MessageTooBig => (Size, "10.4", "message too big"),
            Self::TooManyFragments => (Size, "10.4", "too many fragments"),
            Self::TextNotUtf8 => (Invalid, "8.1", "text is not valid UTF-8"),
            Self::ShortClose => (Protocol, "5.5.1", "close payload of one byte"),
            Self::CloseCode => (Protocol, "7.4", "close code not allowed on the wire"),
            Self::CloseReasonNotUtf8 => (Invalid, "8.1", "close reason is not valid UTF-8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_byte_and_reads_well() {
        assert_eq!(size_of::<Violation>(), 1);
        let violation = Violation(Rule::ShortClose);
        assert_eq!(violation.code(), CloseCode::Protocol);
        assert_eq!(violation.section(), "5.5.1");
        assert_eq!(violation.to_string(), "close payload of one byte");
    }
}
