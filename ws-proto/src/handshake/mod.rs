//! The opening handshake, RFC 6455 section 4, as HTTP/1.1 heads in and out.

pub use http_error::HttpError;

pub mod client;
mod http_error;
pub mod server;

/// Largest request or response head accepted, in bytes, its final empty line included.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header fields accepted in a head.
pub const MAX_HEADERS: usize = 64;
/// The only protocol version spoken (section 4.1).
pub const VERSION: &str = "13";

/// "Need more bytes" is a value, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    /// The head has not arrived whole: call again with more bytes behind the same ones.
    Partial,
    /// The head is whole.
    Complete(T),
}
