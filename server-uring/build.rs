//! Tells the program which monoio and which io-uring it was built with, for the `ready` line.

fn main() {
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    for (package, variable) in [
        ("monoio", "MONOIO_VERSION"),
        ("io-uring", "IO_URING_VERSION"),
    ] {
        let version = locked_version(&lock, package).unwrap_or("unknown");
        println!("cargo::rustc-env={variable}={version}");
    }
}

/// The highest version: monoio brings an older io-uring along.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = lock
        .split("[[package]]")
        .filter(|entry| entry.contains(&format!("name = \"{package}\"\n")))
        .last()?;
    let version = entry.lines().find_map(|l| l.strip_prefix("version = "))?;
    Some(version.trim_matches('"'))
}
