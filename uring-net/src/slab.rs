//! A slab whose keys carry a generation, so that a stale key finds nothing.

/// Names an entry: its place and which of the successive owners of that place is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}
