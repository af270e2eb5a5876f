//! A check on a run: what was looked at, what it was, and what it may be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What came of it.
    pub status: CheckStatus,
    /// What was found; `null` where that is not a number, or could not be seen.
    pub value: Option<f64>,
    /// What it may be, in the unit of `value`.
    pub limit: Option<f64>,
    /// In words, if it is not ok.
    pub reason: Option<String>,
}

/// What came of a check.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// The run counts, and is marked.
    Doubtful,
    /// The run does not count.
    Invalid,
}
