//! Why a ring could not be made, and what to do about it.

use std::io;

/// Why a ring could not be made. `Display` is one line that names the cause and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}. {cause} {remedy}")]
pub struct SetupError {
    /// What was attempted.
    pub what: &'static str,
    /// The cause, as a sentence.
    pub cause: String,
    /// What to do, as a sentence.
    pub remedy: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}
