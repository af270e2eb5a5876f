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

/// Whether `name` is a token of RFC 9110, section 5.6.2: header names, subprotocols.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Values of all fields called `name` (any case), in order. A value that is not UTF-8 reads as
/// empty: it then fails whatever check it is for.
fn values<'h, 'a>(
    headers: &'h [httparse::Header<'a>],
    name: &'h str,
) -> impl Iterator<Item = &'a str> + use<'h, 'a> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| {
            std::str::from_utf8(header.value)
                .unwrap_or_default()
                .trim_matches([' ', '\t'])
        })
}

/// Elements of the comma-separated list that all fields called `name` make together (RFC 9110,
/// section 5.6.1).
fn list<'h, 'a>(
    headers: &'h [httparse::Header<'a>],
    name: &'h str,
) -> impl Iterator<Item = &'a str> + use<'h, 'a> {
    values(headers, name)
        .flat_map(|value| value.split(','))
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty())
}

/// Whether the list in the fields called `name` has `token`, in any case.
fn list_has(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}
