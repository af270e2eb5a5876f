//! Which path serves what.

use std::sync::Arc;

/// The longest room name.
pub const MAX_ROOM_NAME_BYTES: usize = 64;

/// The demo page: connects to `/ws` or `/broadcast/{room}`, sends, shows what comes back. One file,
/// nothing loaded.
pub const DEMO_PAGE: &str = include_str!("demo.html");

/// Name of a broadcast room: 1 to 64 characters of `A-Z a-z 0-9 _ . -`. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// `None` when the name is not allowed.
    pub fn new(name: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        let fits = (1..=MAX_ROOM_NAME_BYTES).contains(&name.len());
        (fits && name.bytes().all(allowed)).then(|| Self(name.into()))
    }
}

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `/`: the demo page.
    Demo,
    /// `/healthz`.
    Health,
    /// `/metrics`.
    Metrics,
    /// `/ws` and `/broadcast/{room}`.
    WebSocket(Endpoint),
    /// Anything else.
    NotFound,
}

/// What a WebSocket connection does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Every message comes back.
    Echo,
    /// Every message goes to every member of the room, the sender included.
    Broadcast(RoomName),
}

/// Looks up a path (without its query).
pub fn route(path: &str) -> Route {
    match path {
        "/" => Route::Demo,
        "/healthz" => Route::Health,
        "/metrics" => Route::Metrics,
        "/ws" => Route::WebSocket(Endpoint::Echo),
        _ => path
            .strip_prefix("/broadcast/")
            .and_then(RoomName::new)
            .map_or(Route::NotFound, |room| {
                Route::WebSocket(Endpoint::Broadcast(room))
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(route("/"), Route::Demo);
        assert_eq!(route("/healthz"), Route::Health);
        assert_eq!(route("/metrics"), Route::Metrics);
        assert_eq!(route("/ws"), Route::WebSocket(Endpoint::Echo));
        for path in ["", "/ws/", "/WS", "/index.html", "/broadcast", "//", "*"] {
            assert_eq!(route(path), Route::NotFound, "{path}");
        }
    }

    #[test]
    fn room_names() {
        let longest = "x".repeat(64);
        for name in ["a", "Room_1.b-c", ".", longest.as_str()] {
            let expected = Endpoint::Broadcast(RoomName::new(name).unwrap());
            assert_eq!(
                route(&format!("/broadcast/{name}")),
                Route::WebSocket(expected)
            );
        }
        let too_long = "x".repeat(65);
        for name in ["", "a/b", "a b", "ä", "%41", too_long.as_str()] {
            assert_eq!(route(&format!("/broadcast/{name}")), Route::NotFound);
        }
    }
}
