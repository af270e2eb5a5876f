//! What every server says of its own accord: pings, and the reasons in its Close frames.

/// Reason of the Close frames of a drain.
pub const GOING_AWAY: &str = "server is going away";
/// Reason of the Close frame after `--idle-timeout`.
pub const IDLE: &str = "idle for too long";
/// Reason of the Close frame of `--slow-consumer close`.
pub const SLOW_CONSUMER: &str = "slow consumer";
/// An empty ping (RFC 6455, section 5.5.2): FIN and opcode 9, no payload.
pub const PING: &[u8] = &[0x89, 0];
