//! Whether `perf` is here and may sample the kernel's stacks.

use super::ask::ask;
use super::proc::read_value;

/// Its name on the PATH.
pub const PERF: &str = "perf";
/// The clock that it samples by: virtual machines often have no hardware counters.
pub const CLOCK: &str = "cpu-clock";

/// What `perf version` says.
///
/// # Errors
/// Why it cannot sample the kernel, and what to do about it.
pub fn check() -> Result<String, String> {
    let version = ask(PERF, &["version"]).map_err(|why| {
        format!(
            "perf is needed for a profile and cannot be run ({why}). Install it: Debian: apt-get \
             install linux-perf; Ubuntu: linux-tools-generic; Fedora: perf"
        )
    })?;
    // Without `:k` it would fall back to user code alone where it may not see the kernel.
    let kernel = format!("{CLOCK}:k");
    ask(
        PERF,
        &["record", "-q", "-e", &kernel, "-o", "-", "--", "true"],
    )
    .map_err(|why| format!("perf may not sample the kernel ({why}). {}", advice()))?;
    Ok(version.trim().to_owned())
}

/// What hides the kernel's stacks or the names of its functions, and what to do.
pub fn advice() -> String {
    let value = |name: &str| read_value(format!("/proc/sys/kernel/{name}"));
    let said = |name: &str| value(name).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "kernel.perf_event_paranoid is {}, kernel.kptr_restrict is {}. Run as root, or: sudo sysctl \
         kernel.perf_event_paranoid=1 kernel.kptr_restrict=0; a container needs the capability \
         PERFMON, and SYSLOG for names",
        said("perf_event_paranoid"),
        said("kptr_restrict")
    )
}
