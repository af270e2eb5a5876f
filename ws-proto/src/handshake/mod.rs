//! The opening handshake, RFC 6455 section 4, as HTTP/1.1 heads in and out.

pub use http_error::HttpError;
pub use refusal::Refusal;

pub mod client;
mod http_error;
mod refusal;
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
    !name.is_empty() && name.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `text` is an extension with its parameters: `name; flag; name=value; name="value"`
/// (section 9.1). No token holds a comma, so a list may be cut at commas before.
// RFC 6455 section 9.1: malformed-extensions
fn is_extension(text: &str) -> bool {
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    parts.next().is_some_and(is_token) && parts.all(is_parameter)
}

// RFC 6455 section 4.3: quoted-value
fn is_parameter(text: &str) -> bool {
    let Some((name, value)) = text.split_once('=') else {
        return is_token(text);
    };
    let value = value.trim_start_matches([' ', '\t']);
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    is_token(name.trim_end_matches([' ', '\t']))
        && quoted.map_or_else(|| is_token(value), is_token_once_unquoted)
}

/// Whether the inside of a quoted string is a token when its backslashes are resolved.
fn is_token_once_unquoted(quoted: &str) -> bool {
    let mut bytes = quoted.bytes();
    let mut is_empty = true;
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'\\' {
            bytes.next()
        } else {
            Some(byte)
        };
        if !byte.is_some_and(is_token_byte) {
            return false;
        }
        is_empty = false;
    }
    !is_empty
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

/// Whether each field called `name` is a list of one or more elements for which `is_element` holds;
/// true where there is no such field.
fn is_list_of(headers: &[httparse::Header<'_>], name: &str, is_element: fn(&str) -> bool) -> bool {
    values(headers, name).all(|value| {
        let elements = value.split(',').map(|part| part.trim_matches([' ', '\t']));
        let mut given = elements.filter(|element| !element.is_empty()).peekable();
        given.peek().is_some() && given.all(is_element)
    })
}

/// Whether the list in the fields called `name` has `token`, in any case.
fn list_has(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6455 section 4.3: quoted-value
    // RFC 6455 section 9.1: malformed-extensions
    #[test]
    fn extensions_are_told_from_what_is_none() {
        for good in [
            "deflate-stream",
            "mux; max-channels=4; flow-control",
            "permessage-deflate; client_max_window_bits",
            "x;y = 1 ;z=\"to\\ken\"",
        ] {
            assert!(is_extension(good), "{good}");
        }
        for bad in [
            "",
            ";",
            "a b",
            "a;",
            "a; =1",
            "a; b=",
            "a; b=c d",
            "a; b=\"\"",
            "a; b=\"c d\"",
            "a; b=\"c",
            "a; b=\"c\\\"",
            "a; b=\"c\\\\d\"",
            "a; b=c\"",
        ] {
            assert!(!is_extension(bad), "{bad}");
        }
    }
}
