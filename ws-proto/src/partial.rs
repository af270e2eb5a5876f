//! What of a message or frame has arrived and waits for the rest.
