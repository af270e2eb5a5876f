//! Stacks in, shares of the CPU time out: pure.

mod share;
mod stacks;

pub use share::share_of;
pub use stacks::{Frame, Origin, Stacks};
