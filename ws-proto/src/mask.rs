//! Masking, RFC 6455 section 5.3.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes handled at once: two vector registers of the x86-64 and AArch64 baselines.
const WIDE: usize = 32;
/// Bytes handled at once in what is left.
const NARROW: usize = 8;

/// XORs `payload` with the repeated `key`, in place; doing it twice gives the original (section 5.3).
#[inline]
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let (wide, rest) = payload.as_chunks_mut::<WIDE>();
    let wide_key: [u8; WIDE] = repeat(key);
    for chunk in wide {
        *chunk = xor(*chunk, wide_key);
    }
    let (narrow, rest) = rest.as_chunks_mut::<NARROW>();
    for chunk in narrow {
        *chunk = xor(*chunk, repeat(key));
    }
    for (byte, key) in rest.iter_mut().zip(repeat::<NARROW>(key)) {
        *byte ^= key;
    }
}

/// Moves the last bytes of `window` down to its start while it XORs them: `window[i] = window[i + shift] ^ key[i % 4]`, in
/// one pass. The last `shift` bytes of the window are left as they were.
#[inline]
pub(crate) fn mask_down(window: &mut [u8], shift: usize, key: [u8; 4]) {
    if shift == 0 {
        return mask(window, key);
    }
    let len = window.len().saturating_sub(shift);
    let at = chunks_down::<WIDE>(window, 0, len, shift, key);
    let at = chunks_down::<NARROW>(window, at, len, shift, key);
    for (at, key) in (at..len).zip(repeat::<NARROW>(key)) {
        window[at] = window[at + shift] ^ key;
    }
}

/// Whole chunks of [`mask_down`] from `at` on; a chunk is read before it is written, so overlapping is harmless.
#[inline]
fn chunks_down<const N: usize>(
    window: &mut [u8],
    mut at: usize,
    len: usize,
    shift: usize,
    key: [u8; 4],
) -> usize {
    let key = repeat(key);
    while at + N <= len {
        let mut chunk = [0_u8; N];
        chunk.copy_from_slice(&window[at + shift..at + shift + N]);
        window[at..at + N].copy_from_slice(&xor(chunk, key));
        at += N;
    }
    at
}

#[inline]
fn repeat<const N: usize>(key: [u8; 4]) -> [u8; N] {
    std::array::from_fn(|at| key[at % 4])
}

#[inline]
fn xor<const N: usize>(chunk: [u8; N], key: [u8; N]) -> [u8; N] {
    std::array::from_fn(|at| chunk[at] ^ key[at])
}

/// The key for payload that starts `consumed` bytes later.
#[inline]
pub(crate) fn rotate(mut key: [u8; 4], consumed: usize) -> [u8; 4] {
    key.rotate_left(consumed % 4);
    key
}

/// A masking key that a third party cannot predict (section 10.3), from the standard library's keyed hash.
#[must_use]
pub fn random_key() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn plain_mask(payload: &[u8]) -> Vec<u8> {
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ KEY[at % 4])
            .collect()
    }

    #[test]
    fn masks_the_example_of_the_rfc() {
        let mut hello = *b"Hello";
        mask(&mut hello, KEY);
        assert_eq!(hello, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn every_length_and_shift_agrees_with_the_plain_loop() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..150 {
            for shift in 0..70 {
                let mut window = bytes[..shift + len].to_vec();
                mask_down(&mut window, shift, KEY);
                assert_eq!(
                    window[..len],
                    plain_mask(&bytes[shift..shift + len]),
                    "{len} {shift}"
                );
                if shift < len {
                    assert_eq!(window[len..], bytes[len..len + shift]);
                }
            }
        }
    }

    #[test]
    fn a_rotated_key_continues() {
        let bytes: Vec<u8> = (0..99).collect();
        for cut in 0..bytes.len() {
            let mut halves = bytes.clone();
            let (left, right) = halves.split_at_mut(cut);
            mask(left, KEY);
            mask(right, rotate(KEY, cut));
            assert_eq!(halves, plain_mask(&bytes));
        }
    }
}
