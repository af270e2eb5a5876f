//! The committed schemas are what the types say, and what suites left behind is what the schemas
//! say.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail tests")]

mod committed;

use std::fs;
use std::path::{Path, PathBuf};

use bench::store::schema::Document;
use clap::ValueEnum;
use jsonschema::Validator;
use serde_json::{Value, json};

const ROOM: &str = env!("CARGO_MANIFEST_DIR");

fn committed_schema(document: Document) -> String {
    let path = Path::new(ROOM).join("schema").join(document.file_name());
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn validator(document: Document) -> Validator {
    jsonschema::draft202012::new(&serde_json::from_str(&committed_schema(document)).unwrap())
        .unwrap()
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
    let errors: Vec<String> = schema
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}: {errors:#?}", place.display());
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for document in Document::value_variants() {
        let name = document.to_possible_value().unwrap();
        assert!(
            committed_schema(*document) == document.text().unwrap(),
            "renew it, under a new version if old files no longer pass: bench schema {} >bench/schema/{}",
            name.get_name(),
            document.file_name()
        );
    }
}

#[test]
fn every_committed_file_is_what_its_schema_says() {
    let summary = validator(Document::Summary);
    for folder in committed::results() {
        let file = folder.join("summary.json");
        assert_valid(&summary, &read(&file), &file);
    }
    let (run, record) = (validator(Document::Run), validator(Document::Record));
    for file in runs() {
        let instance = read(&file);
        assert_valid(&run, &instance, &file);
        if !instance["loadgen"].is_null() {
            assert_valid(&record, &instance["loadgen"], &file);
        }
    }
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
    let run = instances
        .find(|run| run["metrics"]["messages_per_s"].is_number())
        .unwrap();
    let summary = read(&committed::varied_result().join("summary.json"));
    let changes: [(Document, &Value, &[Change]); 3] = [
        (
            Document::Record,
            &run["loadgen"],
            &[
                ("/schema_version", Some(json!(2))),
                ("/messages/lost", None),
                ("/messages/lost", Some(json!(-1))),
                ("/validity/verdict", Some(json!("fine"))),
                ("/throughput/messages_per_s", Some(json!("fast"))),
            ],
        ),
        (
            Document::Run,
            &run,
            &[
                ("/schema_version", Some(json!(2))),
                ("/metrics", None),
                ("/metrics/messages_per_s", Some(json!("120k"))),
                ("/status", Some(json!("good"))),
                ("/server/cpus", Some(json!(0))),
                ("/loadgen/window_ns", Some(json!(1.5))),
            ],
        ),
        (
            Document::Summary,
            &summary,
            &[
                ("/schema_version", Some(json!(2))),
                ("/bouts", None),
                ("/bouts/0/pairs/0/comparisons/0/ci_low", None),
                (
                    "/bouts/0/pairs/0/comparisons/0/verdict/winner",
                    Some(json!(1)),
                ),
            ],
        ),
    ];
    for (document, whole, changes) in changes {
        let schema = validator(document);
        assert!(schema.is_valid(whole));
        for change in changes {
            let other = tampered(whole.clone(), change.clone());
            assert!(!schema.is_valid(&other), "{change:?} passes");
        }
    }
}
