//! `bench schema`: JSON Schema of what a suite leaves behind, made from the types that write and
//! read it. The committed files in `schema/` are what this prints; a test holds the two together.
//!
//! A schema says what a reader must accept: a field that came later, and that older files lack, is
//! not required. A change that breaks this is a new [`SCHEMA_VERSION`] and a new file beside the
//! old one.

use clap::ValueEnum;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, schema_for};

use crate::record::{PROFILE_VERSION, Profile, RunRecord, SCHEMA_VERSION};
use crate::summary::Summary;

/// A kind of JSON file that others may want to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// What one run of loadgen writes; `loadgen` inside a run
    Record,
    /// A run, `runs/BOUT/NNN-CONTESTANT.json`
    Run,
    /// `summary.json`
    Summary,
    /// `profiles/SCENARIO/profile.json`
    Profile,
}

impl Document {
    /// Name of its committed file.
    pub fn file_name(self) -> String {
        let (stem, version) = match self {
            Self::Record => ("record", loadgen::record::SCHEMA_VERSION),
            Self::Run => ("run", SCHEMA_VERSION),
            Self::Summary => ("summary", SCHEMA_VERSION),
            Self::Profile => ("profile", PROFILE_VERSION),
        };
        format!("{stem}-v{version}.schema.json")
    }

    /// Its JSON Schema (draft 2020-12).
    pub fn schema(self) -> Schema {
        let mut schema = match self {
            Self::Record => schema_for!(loadgen::record::Record),
            Self::Run => schema_for!(RunRecord),
            Self::Summary => schema_for!(Summary),
            Self::Profile => schema_for!(Profile),
        };
        RecursiveTransform(unwrap_description).transform(&mut schema);
        schema
    }

    /// The committed file's content.
    ///
    /// # Errors
    /// Never, as far as is known: a schema is plain JSON.
    pub fn text(self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(&self.schema())? + "\n")
    }
}

/// Descriptions are doc comments: where their lines end in the source is no part of a schema.
fn unwrap_description(schema: &mut Schema) {
    if let Some(serde_json::Value::String(description)) = schema.get_mut("description") {
        let paragraphs = description.split("\n\n");
        let joined: Vec<String> = paragraphs.map(|one| one.replace('\n', " ")).collect();
        *description = joined.join("\n\n");
    }
}
