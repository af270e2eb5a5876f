//! The committed schemas are what the types say, and what suites left behind is what the schemas
//! say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;
mod validator;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bench::record::SCHEMA_VERSION;
use bench::store::load::Results;
use bench::store::schema::Document;
use clap::ValueEnum;
use loadgen::check::{Check, CheckName};
use serde_json::{Value, json};
use validator::Validator;

const ROOM: &str = env!("CARGO_MANIFEST_DIR");

fn committed_schema(file: &str) -> String {
    let path = Path::new(ROOM).join("schema").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Of the schema that `instance` says it is written by: older ones are kept.
fn validator(stem: &str, instance: &Value) -> Validator {
    let version = &instance["schema_version"];
    let text = committed_schema(&format!("{stem}-v{version}.schema.json"));
    Validator::new(serde_json::from_str(&text).unwrap())
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The runs of all committed results.
fn runs() -> Vec<PathBuf> {
    let bouts = committed::results()
        .into_iter()
        .flat_map(|folder| children(&folder.join("runs")));
    let mut runs: Vec<PathBuf> = bouts.flat_map(|bout| children(&bout)).collect();
    runs.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    runs
}

#[track_caller]
fn assert_valid(schema: &Validator, instance: &Value, place: &Path) {
    if let Err(error) = schema.check(instance) {
        panic!("{}: {error}", place.display());
    }
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for document in Document::value_variants() {
        let name = document.to_possible_value().unwrap();
        assert!(
            committed_schema(&document.file_name()) == document.text().unwrap(),
            "renew it, under a new version if old files no longer pass: bench schema {} >bench/schema/{}",
            name.get_name(),
            document.file_name()
        );
    }
}

#[test]
fn every_committed_file_is_what_its_schema_says() {
    for folder in committed::results() {
        let file = folder.join("summary.json");
        let instance = read(&file);
        assert_valid(&validator("summary", &instance), &instance, &file);
    }
    let mut schemas: BTreeMap<String, Validator> = BTreeMap::new();
    let mut check = |stem: &str, instance: &Value, file: &Path| {
        let name = format!("{stem} {}", instance["schema_version"]);
        let schema = schemas
            .entry(name)
            .or_insert_with(|| validator(stem, instance));
        assert_valid(schema, instance, file);
    };
    for file in runs() {
        let instance = read(&file);
        check("run", &instance, &file);
        if !instance["loadgen"].is_null() {
            check("record", &instance["loadgen"], &file);
        }
    }
}

/// A committed result as this version writes it: the summary and a run.
fn as_written_today() -> [Value; 2] {
    let results = Results::load(&committed::varied_result()).unwrap();
    let mut run = results
        .runs
        .into_iter()
        .find(|run| run.metric("messages_per_s").is_some())
        .unwrap();
    run.schema_version = SCHEMA_VERSION;
    run.loadgen.as_mut().unwrap().validity.checks = vec![Check::ok(CheckName::Lost, 0.0, 0.0)];
    [
        serde_json::to_value(&results.summary).unwrap(),
        serde_json::to_value(&run).unwrap(),
    ]
}

/// What a change to the file at `pointer` makes of it.
type Change = (&'static str, Option<Value>);

/// `value` with one thing another, or gone.
fn tampered(mut value: Value, (pointer, new): Change) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap();
    assert!(parent.get(key).is_some(), "{pointer} was not there");
    match new {
        Some(new) => parent[key] = new,
        None => drop(parent.as_object_mut().unwrap().remove(key)),
    }
    value
}

#[test]
fn what_was_tampered_with_is_refused() {
    let mut instances = runs().into_iter().map(|file| read(&file));
    let old_run = instances
        .find(|run| run["metrics"]["messages_per_s"].is_number())
        .unwrap();
    let old_summary = read(&committed::varied_result().join("summary.json"));
    let [summary, run] = as_written_today();
    let of_record: [Change; 5] = [
        ("/schema_version", Some(json!(2))),
        ("/messages/lost", None),
        ("/messages/lost", Some(json!(-1))),
        ("/validity/verdict", Some(json!("fine"))),
        ("/throughput/messages_per_s", Some(json!("fast"))),
    ];
    let of_checks: [Change; 2] = [
        ("/validity/checks/0/name", Some(json!("luck"))),
        ("/validity/checks/0/observed", Some(json!("few"))),
    ];
    let of_run: [Change; 6] = [
        ("/schema_version", Some(json!(9))),
        ("/metrics", None),
        ("/metrics/messages_per_s", Some(json!("120k"))),
        ("/status", Some(json!("good"))),
        ("/server/cpus", Some(json!(0))),
        ("/loadgen/window_ns", Some(json!(1.5))),
    ];
    let of_run_checks: [Change; 3] = [
        ("/checks/0/name", Some(json!("luck"))),
        ("/checks/0/status", Some(json!("fine"))),
        ("/checks/0/limit", Some(json!([]))),
    ];
    let of_summary: [Change; 4] = [
        ("/schema_version", Some(json!(9))),
        ("/bouts", None),
        ("/bouts/0/pairs/0/comparisons/0/ci_low", None),
        (
            "/bouts/0/pairs/0/comparisons/0/verdict/winner",
            Some(json!(1)),
        ),
    ];
    let changes: [(&str, &Value, &[Change]); 8] = [
        ("record", &old_run["loadgen"], &of_record),
        ("record", &run["loadgen"], &of_record),
        ("record", &run["loadgen"], &of_checks),
        ("run", &old_run, &of_run),
        ("run", &run, &of_run),
        ("run", &run, &of_run_checks),
        ("summary", &old_summary, &of_summary),
        ("summary", &summary, &of_summary),
    ];
    for (stem, whole, changes) in changes {
        let schema = validator(stem, whole);
        assert_valid(&schema, whole, Path::new(stem));
        for change in changes {
            let other = tampered(whole.clone(), change.clone());
            assert!(schema.check(&other).is_err(), "{change:?} passes");
        }
    }
}
