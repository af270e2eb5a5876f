//! One second of the series, as one thread saw it.

use serde::{Deserialize, Serialize};

use crate::wire;

/// One thread's part of one second of the series.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondPart {
    /// Messages sent.
    pub sent: u64,
    /// Replies received.
    pub received: u64,
    /// Their latencies, [packed](crate::histogram::pack).
    #[serde(with = "wire::packed")]
    pub latencies: Vec<u8>,
}
