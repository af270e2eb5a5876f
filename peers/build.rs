//! Tells the programs which versions of the stacks they were built with, for the `ready` line.

fn main() {
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    for (package, variable) in [
        ("fastwebsockets", "FASTWEBSOCKETS_VERSION"),
        ("tokio", "TOKIO_VERSION"),
        ("tokio-tungstenite", "TOKIO_TUNGSTENITE_VERSION"),
    ] {
        let version = locked_version(&lock, package).unwrap_or("unknown");
        println!("cargo::rustc-env={variable}={version}");
    }
}

fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let entry = lock
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
    let version = entry.lines().find_map(|l| l.strip_prefix("version = "))?;
    Some(version.trim_matches('"'))
}
