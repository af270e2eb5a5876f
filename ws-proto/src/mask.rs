//! Masking, RFC 6455 section 5.3.

use std::hash::{BuildHasher, Hasher, RandomState};

use multiversion::multiversion;

/// Bytes handled at once: four vector registers of the x86-64 and AArch64 baselines.
const WIDE: usize = 64;
/// From so many bytes on it pays to choose the widest registers that the machine has.
const LONG: usize = 256;

/// XORs `payload` with the repeated `key`, in place; doing it twice gives the original (section
/// 5.3).
#[inline]
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let (chunks, rest) = payload.as_chunks_mut::<WIDE>();
    if chunks.len() >= LONG / WIDE {
        mask_chunks(chunks, key);
    } else {
        for chunk in chunks {
            *chunk = xor(*chunk, key);
        }
    }
    if !rest.is_empty() {
        mask_rest(rest, 0, key);
    }
}

/// Appends `payload`, XORed with the repeated `key`: read once and written once, where copying it
/// and masking the copy would be two passes.
#[inline]
pub fn append_masked(payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    if payload.len() >= LONG {
        return append_long(payload, key, out);
    }
    out.reserve(payload.len());
    let (chunks, rest) = payload.as_chunks::<WIDE>();
    for chunk in chunks {
        out.extend_from_slice(&xor(*chunk, key));
    }
    if !rest.is_empty() {
        let start = out.len();
        out.extend_from_slice(rest);
        mask_rest(&mut out[start..], 0, key);
    }
}

/// Nearly as fast as a copy, but slow to begin. Of whole chunks, or with AVX2, it takes twice as
/// long and more.
fn append_long(payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let (words, rest) = payload.as_chunks::<4>();
    let word_key = u32::from_ne_bytes(key);
    // An iterator of known length over arrays: the compiler makes vector instructions of it.
    let masked = words
        .iter()
        .flat_map(|word| (u32::from_ne_bytes(*word) ^ word_key).to_ne_bytes());
    out.extend(masked);
    out.extend(rest.iter().zip(key).map(|(byte, key)| byte ^ key));
}

#[multiversion(targets("x86_64+avx2"))]
fn mask_chunks(chunks: &mut [[u8; WIDE]], key: [u8; 4]) {
    for chunk in chunks {
        *chunk = xor(*chunk, key);
    }
}

/// Moves the last bytes of `window` down to its start while it XORs them: `window[i] = window[i +
/// shift] ^ key[i % 4]`, in one pass. The last `shift` bytes of the window are left as they were.
#[inline]
pub(crate) fn mask_down(window: &mut [u8], shift: usize, key: [u8; 4]) {
    if shift == 0 {
        return mask(window, key);
    }
    let mut rest = window;
    if rest.len() >= shift + LONG {
        rest = chunks_down(rest, shift, key);
    }
    while rest.len() >= shift + WIDE {
        chunk_down::<WIDE>(rest, shift, key);
        rest = &mut rest[WIDE..];
    }
    if rest.len() > shift {
        mask_rest(rest, shift, key);
    }
}

#[multiversion(targets("x86_64+avx2"))]
fn chunks_down(mut rest: &mut [u8], shift: usize, key: [u8; 4]) -> &mut [u8] {
    while rest.len() >= shift + WIDE {
        chunk_down::<WIDE>(rest, shift, key);
        rest = &mut rest[WIDE..];
    }
    rest
}

/// [`mask_down`] for fewer than [`WIDE`] bytes: halving steps instead of loops, for a loop so short
/// costs more than its work.
#[inline]
fn mask_rest(mut rest: &mut [u8], shift: usize, key: [u8; 4]) {
    debug_assert!(rest.len() < shift + WIDE);
    if rest.len() >= shift + 32 {
        chunk_down::<32>(rest, shift, key);
        rest = &mut rest[32..];
    }
    if rest.len() >= shift + 16 {
        chunk_down::<16>(rest, shift, key);
        rest = &mut rest[16..];
    }
    if rest.len() >= shift + 8 {
        chunk_down::<8>(rest, shift, key);
        rest = &mut rest[8..];
    }
    if rest.len() >= shift + 4 {
        chunk_down::<4>(rest, shift, key);
        rest = &mut rest[4..];
    }
    for (at, key) in key
        .into_iter()
        .enumerate()
        .take(rest.len().saturating_sub(shift))
    {
        rest[at] = rest[at + shift] ^ key;
    }
}

/// One chunk of [`mask_down`]: read before it is written, so overlapping is harmless.
#[inline]
fn chunk_down<const N: usize>(window: &mut [u8], shift: usize, key: [u8; 4]) {
    if let Some(&chunk) = window[shift..].first_chunk::<N>()
        && let Some(target) = window.first_chunk_mut::<N>()
    {
        *target = xor(chunk, key);
    }
}

/// `N` is a multiple of 4. Words instead of bytes, so that the key is spread with one instruction.
#[inline]
fn xor<const N: usize>(mut chunk: [u8; N], key: [u8; 4]) -> [u8; N] {
    let key = u32::from_ne_bytes(key);
    let (words, _) = chunk.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    chunk
}

/// The key for payload that starts `consumed` bytes later.
#[inline]
pub(crate) fn rotate(mut key: [u8; 4], consumed: usize) -> [u8; 4] {
    key.rotate_left(consumed % 4);
    key
}

/// A masking key that a third party cannot predict (section 10.3), from the standard library's
/// keyed hash.
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
        let bytes: Vec<u8> = (0..=255).cycle().take(1100).collect();
        for len in (0..150).chain([255, 256, 320, 1000]) {
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
    fn what_is_appended_is_what_masking_gives() {
        let bytes: Vec<u8> = (0..=255).cycle().take(2 * LONG + WIDE).collect();
        for len in 0..bytes.len() {
            let mut out = b"before".to_vec();
            append_masked(&bytes[..len], KEY, &mut out);
            let expected = [&b"before"[..], &plain_mask(&bytes[..len])].concat();
            assert_eq!(out, expected);
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
