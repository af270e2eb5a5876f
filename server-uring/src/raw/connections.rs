//! All connections of a worker, by the place that the ring gave their sockets.

use uring_net::SocketId;

use crate::raw::connection::Connection;

/// A slab whose places are chosen by the ring: a socket's index is unique among its open sockets.
#[derive(Default)]
pub(crate) struct Connections {
    places: Vec<Option<Connection>>,
}

impl Connections {
    pub(crate) fn insert(&mut self, connection: Connection) {
        let place = connection.socket().index();
        if self.places.len() <= place {
            self.places.resize_with(place + 1, || None);
        }
        self.places[place] = Some(connection);
    }

    /// The connection whose completion carried this place. It is never a later one: the ring gives a place away again only after
    /// the last completion of its socket.
    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.places.get_mut(place)?.as_mut()
    }

    /// The connection with this socket, unless it is gone.
    pub(crate) fn find(&mut self, socket: SocketId) -> Option<&mut Connection> {
        self.at(socket.index())
            .filter(|connection| connection.socket() == socket)
    }

    /// Forgets a connection whose socket is gone.
    pub(crate) fn remove(&mut self, place: usize) {
        if let Some(entry) = self.places.get_mut(place) {
            *entry = None;
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.places.iter_mut().flatten()
    }
}
