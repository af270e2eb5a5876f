//! UTF-8 of text messages, RFC 6455 section 8.1.

/// Whether all of `bytes` is UTF-8.
#[inline]
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

/// Checks `bytes` from `checked` on, as far as whole characters go, and moves `checked` there.
/// `false` as soon as no continuation could make them valid. They are valid as a whole when
/// `checked` reaches their end.
pub(crate) fn advance(bytes: &[u8], checked: &mut usize) -> bool {
    match simdutf8::compat::from_utf8(&bytes[*checked..]) {
        Ok(text) => {
            *checked += text.len();
            true
        }
        Err(error) => {
            *checked += error.valid_up_to();
            error.error_len().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fails_at_the_first_byte_that_cannot_be_mended() {
        // (bytes, how many may be seen before the verdict falls; 0: never)
        let table: [(&[u8], usize); 8] = [
            ("a\u{e9}\u{20ac}\u{1f600}".as_bytes(), 0),
            (&[0x80], 1),
            (&[0xC0, 0xAF], 1),
            (&[0xE0, 0x80, 0x80], 2),
            (&[0xED, 0xA0, 0x80], 2),
            (&[0xF4, 0x90, 0x80, 0x80], 2),
            (&[b'a', 0xF5], 2),
            (&[0xE2, 0x82, b'a'], 3),
        ];
        for (bytes, verdict) in table {
            let mut checked = 0;
            let fails_at = (1..=bytes.len()).find(|&seen| !advance(&bytes[..seen], &mut checked));
            assert_eq!(fails_at.unwrap_or(0), verdict, "{bytes:x?}");
            assert_eq!(
                fails_at.is_none() && checked == bytes.len(),
                is_valid(bytes)
            );
        }
    }
}
