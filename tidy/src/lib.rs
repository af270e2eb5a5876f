//! Tests of the tree itself: what a reviewer would otherwise have to see.
//!
//! | module | rule |
//! |---|---|
//! | [`width`] | width of lines and length of files |
//! | [`calls`] | calls that are banned, everywhere or in paths that peers reach |
//! | [`links`] | links in Markdown that lead nowhere |
//! | [`orphans`] | files that nothing refers to |
//! | [`figures`] | figures in README that no committed result gives |
//! | [`rfc`] | every requirement of RFC 6455 has code and a test |
//!
//! A rule is a function from a [`Tree`] to its [`Fault`]s, so that it is tested with planted faults
//! and then applied to the repository, in `tests/`.

pub mod calls;
pub mod figures;
pub mod links;
pub mod orphans;
pub mod rfc;
pub mod source;
pub mod tree;
pub mod width;

pub use tree::{Fault, Tree, assert_none};
