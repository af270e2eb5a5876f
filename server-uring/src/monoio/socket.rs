//! The socket of a connection whose task alone reads and writes, in the shape that its reads need.

use ::monoio::io::Splitable;
use ::monoio::net::TcpStream;
use ::monoio::net::tcp::{TcpOwnedReadHalf, TcpOwnedWriteHalf};

/// monoio sends while a receive is pending only on halves, and says when there is something to
/// receive only of the whole.
pub(crate) enum Socket {
    Halves(TcpOwnedReadHalf, TcpOwnedWriteHalf),
    Whole(TcpStream),
}

impl Socket {
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }

    /// The same socket in the other shape. Halves of two sockets would stay what they are.
    pub(crate) fn reshape(self) -> Self {
        match self {
            Self::Halves(incoming, outgoing) => match incoming.reunite(outgoing) {
                Ok(stream) => Self::Whole(stream),
                Err(error) => Self::Halves(error.0, error.1),
            },
            Self::Whole(stream) => {
                let (incoming, outgoing) = stream.into_split();
                Self::Halves(incoming, outgoing)
            }
        }
    }

    pub(crate) fn into_halves(self) -> (TcpOwnedReadHalf, TcpOwnedWriteHalf) {
        match self {
            Self::Halves(incoming, outgoing) => (incoming, outgoing),
            Self::Whole(stream) => stream.into_split(),
        }
    }
}
