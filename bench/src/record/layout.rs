//! How a server is laid out in a scale step.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Processes of a server and workers in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layout {
    /// Server processes.
    pub processes: u64,
    /// Workers of each.
    pub workers: u64,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |n: u64, one: &str, more: &str| match n {
            1 => format!("1 {one}"),
            n => format!("{n} {more}"),
        };
        let Self { processes, workers } = *self;
        write!(
            f,
            "{} with {}{}",
            count(processes, "process", "processes"),
            count(workers, "worker", "workers"),
            if processes > 1 { " each" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_read_well() {
        let layout = |processes, workers| Layout { processes, workers }.to_string();
        assert_eq!(layout(53, 1), "53 processes with 1 worker each");
        assert_eq!(layout(1, 53), "1 process with 53 workers");
    }
}
