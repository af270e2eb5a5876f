//! All connections of a worker, by the slot that the ring gave their sockets.

use uring_net::SocketId;

use crate::raw::connection::Connection;

/// Slots of one chunk. Chunks never move: growing copies nothing and leaves no freed halves
/// behind.
const CHUNK: usize = 1024;

/// A slab whose slots are chosen by the ring: a socket's index is unique among its open sockets.
#[derive(Default)]
pub(crate) struct Connections {
    chunks: Vec<Vec<Option<Connection>>>,
}

impl Connections {
    pub(crate) fn insert(&mut self, connection: Connection) {
        let slot = connection.socket().index();
        while self.chunks.len() <= slot / CHUNK {
            self.chunks.push(Vec::new());
        }
        let chunk = &mut self.chunks[slot / CHUNK];
        if chunk.len() <= slot % CHUNK {
            chunk.reserve_exact(CHUNK - chunk.len());
            chunk.resize_with(slot % CHUNK + 1, || None);
        }
        chunk[slot % CHUNK] = Some(connection);
    }

    fn entry(&mut self, slot: usize) -> Option<&mut Option<Connection>> {
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    /// The connection whose completion carried this slot. It is never a later one: the ring gives a
    /// slot away again only after the last completion of its socket.
    pub(crate) fn at(&mut self, slot: usize) -> Option<&mut Connection> {
        self.entry(slot)?.as_mut()
    }

    /// The connection with this socket, unless it is gone.
    pub(crate) fn find(&mut self, socket: SocketId) -> Option<&mut Connection> {
        self.at(socket.index())
            .filter(|connection| connection.socket() == socket)
    }

    /// Forgets a connection whose socket is gone.
    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(entry) = self.entry(slot) {
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

    /// No connection has this slot or a higher one.
    pub(crate) fn end(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.chunks.iter_mut().flatten().flatten()
    }
}
