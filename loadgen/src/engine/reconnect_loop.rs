//! Kind `connect`: a connection that is up has done its work.

use ws_proto::Kind;

use crate::engine::{
    shared::Times,
    stats::Stats,
    traffic::{Io, Opened, Traffic},
};

/// Handshakes, nothing else.
#[derive(Debug, Default)]
pub struct ReconnectLoop;

impl Traffic for ReconnectLoop {
    fn opened(&mut self, begun: u64, io: &mut Io<'_>) -> Opened {
        // A handshake is a message of its own: counted and timed like one, begun in the window it
        // belongs to.
        io.stats.sent(&io.times, io.now, begun);
        io.stats.reply(&io.times, io.now, begun, begun);
        Opened::Recycle
    }

    fn start(&mut self, _io: &mut Io<'_>) {}

    fn tick(&mut self, _io: &mut Io<'_>) {}

    fn next_due(&self, _times: &Times) -> Option<u64> {
        None
    }

    fn message(&mut self, _conn: usize, _kind: Kind, _payload: &[u8], _io: &mut Io<'_>) {}

    fn lost(&mut self, _conn: usize) {}

    fn is_busy(&self) -> bool {
        false
    }

    fn finish(&mut self, _times: &Times, _stats: &mut Stats) {}
}
