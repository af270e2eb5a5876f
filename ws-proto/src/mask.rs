//! Masking, RFC 6455 section 5.3.

use std::hash::{BuildHasher, Hasher, RandomState};

/// XORs `payload` with the repeated `key`, in place; doing it twice gives the original (section 5.3).
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    let len = payload.len();
    mask_down(payload, 0, len, key);
}

/// Moves `len` bytes down by `shift` while it XORs them: `window[i] = window[i + shift] ^ key[i % 4]`. One pass; with
/// `shift` 0 it masks in place. The caller passes a window of exactly `shift + len` bytes.
#[inline]
pub(crate) fn mask_down(window: &mut [u8], shift: usize, len: usize, key: [u8; 4]) {
    const CHUNK: usize = 32;
    debug_assert_eq!(window.len(), shift + len);
    let mut wide = [0_u8; CHUNK];
    for quad in wide.chunks_exact_mut(4) {
        quad.copy_from_slice(&key);
    }
    let mut at = 0;
    while at + CHUNK <= len {
        let mut chunk = [0_u8; CHUNK];
        chunk.copy_from_slice(&window[at + shift..at + shift + CHUNK]);
        for (byte, key) in chunk.iter_mut().zip(wide) {
            *byte ^= key;
        }
        window[at..at + CHUNK].copy_from_slice(&chunk);
        at += CHUNK;
    }
    while at < len {
        window[at] = window[at + shift] ^ key[at % 4];
        at += 1;
    }
}

/// The key for payload that starts `consumed` bytes later.
pub(crate) fn rotate(key: [u8; 4], consumed: usize) -> [u8; 4] {
    let mut rotated = key;
    rotated.rotate_left(consumed % 4);
    rotated
}

/// A masking key that a third party cannot predict (section 10.3), from the standard library's keyed hash.
#[must_use]
pub fn random_key() -> [u8; 4] {
    let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
    [a, b, c, d]
}
