//! Ctrl-C and SIGTERM as a flag that every wait looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set once a signal asked the referee to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that SIGINT, SIGTERM and SIGHUP set. A second signal ends the program at once; the
    /// children die with it.
    pub fn on_signals() -> Result<Self> {
        let flag = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // Order matters: the first delivery finds the flag unset, passes the conditional exit
            // and sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag.0)))
                .context("cannot install the signal handlers")?;
        }
        Ok(flag)
    }

    /// Whether a signal came.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
