//! The payload of Close frames, RFC 6455 sections 5.5.1 and 7.4.

use crate::{
    CloseCode,
    frame::{self, CLOSE, FIN, KEY_BYTES, MAX_CONTROL_PAYLOAD},
    violation::Rule,
};

/// Length of the code at the start of a Close payload, in bytes (section 5.5.1).
pub(crate) const CODE_BYTES: usize = 2;

/// Whether a Close frame may carry `code`: defined by the RFC or registered since for use on the
/// wire (1012 to 1014), or left to libraries and applications (section 7.4.2).
// RFC 6455 section 7.4.1: no-1005, no-1006, no-1015
pub(crate) const fn is_sendable(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Checks the payload of the peer's Close; its code, if it has one.
// RFC 6455 section 5.5.1: close-code-first
// RFC 6455 section 8.1: invalid-utf8-fails
pub(crate) fn check(payload: &[u8]) -> Result<Option<u16>, Rule> {
    match payload {
        [] => Ok(None),
        [_] => Err(Rule::ShortClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !is_sendable(code) {
                return Err(Rule::CloseCode);
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Rule::CloseReasonNotUtf8);
            }
            Ok(Some(code))
        }
    }
}

/// The reason behind the code of a checked payload.
pub(crate) fn reason(payload: &[u8]) -> &str {
    payload
        .get(CODE_BYTES..)
        .and_then(|reason| std::str::from_utf8(reason).ok())
        .unwrap_or_default()
}

/// Appends a Close frame; without payload when `code` may not be sent.
// RFC 6455 section 5.5: control-is-short
// RFC 6455 section 5.5.1: close-code-first
pub(crate) fn append(
    code: CloseCode,
    reason: &str,
    key: Option<[u8; KEY_BYTES]>,
    out: &mut Vec<u8>,
) {
    let code = u16::from(code);
    let mut payload = [0; MAX_CONTROL_PAYLOAD];
    let len = if is_sendable(code) {
        let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_PAYLOAD - CODE_BYTES)];
        payload[..CODE_BYTES].copy_from_slice(&code.to_be_bytes());
        payload[CODE_BYTES..CODE_BYTES + reason.len()].copy_from_slice(reason.as_bytes());
        CODE_BYTES + reason.len()
    } else {
        0
    };
    frame::append(FIN | CLOSE, &payload[..len], key, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6455 section 5.5.1: close-code-first
    // RFC 6455 section 8.1: invalid-utf8-fails
    #[test]
    fn payloads_are_judged() {
        assert_eq!(check(b""), Ok(None));
        assert_eq!(check(b"\x03"), Err(Rule::ShortClose));
        assert_eq!(check(b"\x03\xe8bye"), Ok(Some(1000)));
        assert_eq!(check(b"\x03\xe8\xff"), Err(Rule::CloseReasonNotUtf8));
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16,
        ] {
            assert_eq!(check(&code.to_be_bytes()), Err(Rule::CloseCode), "{code}");
        }
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999_u16,
        ] {
            assert_eq!(check(&code.to_be_bytes()), Ok(Some(code)), "{code}");
        }
    }

    // RFC 6455 section 5.5: control-is-short
    #[test]
    fn frames_are_cut_at_a_character() {
        let mut out = Vec::new();
        append(CloseCode::Normal, &"\u{20ac}".repeat(60), None, &mut out);
        assert_eq!(out[..4], [0x88, 125, 0x03, 0xe8]);
        assert_eq!(out[4..], *"\u{20ac}".repeat(41).as_bytes());
        out.clear();
        append(
            CloseCode::Normal,
            &("x".to_owned() + &"\u{20ac}".repeat(60)),
            None,
            &mut out,
        );
        assert_eq!(out.len(), 2 + 2 + 1 + 40 * 3);
    }

    // RFC 6455 section 7.4.1: no-1005, no-1006, no-1015
    #[test]
    fn codes_that_are_not_for_the_wire_are_not_sent() {
        for code in [CloseCode::Status, CloseCode::Abnormal, CloseCode::Tls] {
            let mut out = Vec::new();
            append(code, "never sent", None, &mut out);
            assert_eq!(out, [0x88, 0], "{code}");
        }
    }
}
