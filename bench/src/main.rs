//! `bench`: see [`bench::suite`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::cli::{Cli, Command};
use bench::output::gate::{BREACH, Gate};
use bench::output::text::terminal;
use bench::output::{compare, docs, export, history, html, list};
use bench::run::process;
use bench::store::load::{self, Results};
use bench::suite::{self, revision};
use clap::Parser;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => ExitCode::from(suite::run(&cli.options)),
        Some(Command::List { dir }) => print(list::text(&dir)),
        Some(Command::Show { dir }) => {
            print(read(&dir).map(|results| terminal(&results.summary, &results.findings)))
        }
        Some(Command::Compare { a, b, force }) => print(compared(&a, &b, force)),
        Some(Command::Export { dir, to }) => exit(export(&dir, to)),
        Some(Command::History { file, dir }) => print(remember(&file, &dir)),
        Some(Command::Report { dirs, to, history }) => print(report(&dirs, to, history.as_deref())),
        Some(Command::Profile(options)) => ExitCode::from(suite::profile::run(&options)),
        Some(Command::Plot { dir, against }) => print(plot(&dir, against.as_deref())),
        Some(Command::Docs { list, check }) => exit(docs(&list, check)),
        Some(Command::Gate { dir, config }) => exit(gate(&dir, &config)),
        Some(Command::Schema { document }) => print(document.text().map_err(Into::into)),
        Some(Command::BuiltFrom { root, build }) => {
            print(note_revision(&root, build).map(|()| String::new()))
        }
        Some(Command::Exec {
            parent,
            cpus,
            nice,
            command,
        }) => match process::exec(parent, &cpus, nice, &command) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("bench exec: {error:#}");
                ExitCode::from(127)
            }
        },
    }
}

/// A result; what is in its folder and is not looked at is named on stderr.
fn read(dir: &Path) -> Result<Results> {
    let results = Results::load(dir)?;
    if let Some(ignored) = load::ignored(&results.strangers) {
        eprintln!("{}: {ignored}", dir.display());
    }
    Ok(results)
}

/// The same of one that follows from its runs: what is made of any other would carry it on.
fn read_consistent(dir: &Path) -> Result<Results> {
    let results = read(dir)?;
    results.require_consistent()?;
    Ok(results)
}

fn note_revision(root: &Path, build: Option<String>) -> Result<()> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    revision::note(root, own.parent().unwrap_or(Path::new(".")), build)
}

fn compared(a: &Path, b: &Path, force: bool) -> Result<String> {
    let (a, b) = (read(a)?, read(b)?);
    if !force {
        a.require_consistent()?;
        b.require_consistent()?;
    }
    compare::text(&a, &b, force)
}

fn print(text: Result<String>) -> ExitCode {
    exit(text.map(|text| {
        print!("{text}");
        ExitCode::SUCCESS
    }))
}

fn gate(dir: &Path, config: &Path) -> Result<ExitCode> {
    let rules = Gate::load(config)?;
    let results = read_consistent(dir)?;
    let (text, all_hold) = rules.evaluate(&results.summary, &results.runs)?;
    print!("{text}");
    Ok(if all_hold {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BREACH)
    })
}

fn export(dir: &Path, to: Option<PathBuf>) -> Result<ExitCode> {
    let results = read_consistent(dir)?;
    let folder = to.unwrap_or_else(|| dir.join("export"));
    for name in export::write_all(&folder, &results.summary, &results.runs)? {
        println!("{}", folder.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}

fn remember(file: &Path, dir: &Path) -> Result<String> {
    let results = read_consistent(dir)?;
    let added = history::append(file, &history::entries(&results.summary))?;
    Ok(format!("{}: {added} lines added\n", file.display()))
}

fn report(dirs: &[PathBuf], to: Option<PathBuf>, history: Option<&Path>) -> Result<String> {
    let history = history.map(history::load).transpose()?.unwrap_or_default();
    let results = dirs
        .iter()
        .map(|dir| read(dir))
        .collect::<Result<Vec<_>>>()?;
    // The command line demands at least one.
    let last = results.last().context("no result folder was named")?;
    let to = to.unwrap_or_else(|| last.root.join("report.html"));
    fs::write(&to, html::page(&results, &history)?)
        .with_context(|| format!("cannot write {}", to.display()))?;
    Ok(format!("{}\n", to.display()))
}

fn plot(dir: &Path, against: Option<&str>) -> Result<String> {
    let results = read_consistent(dir)?;
    html::plot(&results.summary, against)
}

fn docs(list: &Path, check: bool) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (file, text) in docs::pages(list)? {
        if check {
            if fs::read_to_string(&file).ok().as_ref() != Some(&text) {
                eprintln!(
                    "{} is not what {} gives: renew it by `bench docs`",
                    file.display(),
                    list.display()
                );
                code = ExitCode::FAILURE;
            }
        } else {
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}", file.display());
        }
    }
    Ok(code)
}

/// A result that cannot be read or a rule about nothing is a matter of usage.
fn exit(outcome: Result<ExitCode>) -> ExitCode {
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}
