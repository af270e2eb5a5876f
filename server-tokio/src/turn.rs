//! What one turn of a connection's task leads to.

/// How serving a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The peer is gone: nothing can be sent any more.
    Gone,
    /// Our last bytes are in the outbox; the peer is to get them.
    Linger,
}

/// What one turn of reading led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The connection goes on.
    GoOn,
    /// The peer ended its stream without a word.
    Eof,
    /// Close frames have been exchanged, or ours tells the peer what it did wrong: send what there
    /// is and [linger](Ending::Linger).
    Over,
}
