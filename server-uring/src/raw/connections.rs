//! All connections of a worker, by the place that the ring gave their sockets.

use uring_net::SocketId;

use crate::raw::connection::Connection;

/// Places of one chunk. Chunks never move: growing copies nothing and leaves no freed halves
/// behind.
const CHUNK: usize = 1024;

/// A slab whose places are chosen by the ring: a socket's index is unique among its open sockets.
#[derive(Default)]
pub(crate) struct Connections {
    chunks: Vec<Vec<Option<Connection>>>,
}

impl Connections {
    pub(crate) fn insert(&mut self, connection: Connection) {
        let place = connection.socket().index();
        while self.chunks.len() <= place / CHUNK {
            self.chunks.push(Vec::new());
        }
        let chunk = &mut self.chunks[place / CHUNK];
        if chunk.len() <= place % CHUNK {
            chunk.reserve_exact(CHUNK - chunk.len());
            chunk.resize_with(place % CHUNK + 1, || None);
        }
        chunk[place % CHUNK] = Some(connection);
    }

    fn entry(&mut self, place: usize) -> Option<&mut Option<Connection>> {
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// The connection whose completion carried this place. It is never a later one: the ring gives
    /// a place away again only after the last completion of its socket.
    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.entry(place)?.as_mut()
    }

    /// The connection with this socket, unless it is gone.
    pub(crate) fn find(&mut self, socket: SocketId) -> Option<&mut Connection> {
        self.at(socket.index())
            .filter(|connection| connection.socket() == socket)
    }

    /// Forgets a connection whose socket is gone.
    pub(crate) fn remove(&mut self, place: usize) {
        if let Some(entry) = self.entry(place) {
            *entry = None;
        }
    }

    /// Frees the chunks in which nobody is.
    pub(crate) fn shrink_to_fit(&mut self) {
        for chunk in &mut self.chunks {
            if chunk.iter().all(Option::is_none) {
                *chunk = Vec::new();
            }
        }
    }

    /// No connection has this place or a higher one.
    pub(crate) fn end(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.chunks.iter_mut().flatten().flatten()
    }
}
