//! UTF-8 of text messages, RFC 6455 section 8.1.
