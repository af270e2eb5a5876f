//! Writes `docs/rfc6455.md` from the list of requirements and the tags beside code and tests.

use std::{fs, process::ExitCode};

use tidy::{Tree, rfc, tree::root};

fn main() -> ExitCode {
    let written = Tree::of_the_repository()
        .map_err(|error| error.to_string())
        .and_then(|tree| rfc::table(&tree).map_err(|fault| fault.to_string()))
        .and_then(|text| {
            fs::write(root().join(rfc::TABLE), text)
                .map_err(|error| format!("{}: {error}", rfc::TABLE))
        });
    match written {
        Ok(()) => {
            println!("{} is written", rfc::TABLE);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("tidy: {message}");
            ExitCode::FAILURE
        }
    }
}
