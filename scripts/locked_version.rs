//! For build scripts: which version of a package the workspace is built with, from Cargo.lock.

/// Makes the version of each package an environment variable of the program.
pub(crate) fn export(packages: &[(&str, &str)]) {
    println!("cargo::rerun-if-changed=../Cargo.lock");
    println!("cargo::rerun-if-changed=../scripts/locked_version.rs");
    let lock = std::fs::read_to_string("../Cargo.lock").unwrap_or_default();
    for (package, variable) in packages {
        let version = locked_version(&lock, package).unwrap_or("unknown");
        println!("cargo::rustc-env={variable}={version}");
    }
}

/// The highest version: others come along with dependencies, as monoio's io-uring does.
fn locked_version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"\n");
    let entries = lock.split("[[package]]");
    let entry = entries.filter(|entry| entry.contains(&name)).last()?;
    let version = entry.lines().find_map(|l| l.strip_prefix("version = "))?;
    Some(version.trim_matches('"'))
}
