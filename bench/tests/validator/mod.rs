//! JSON Schema (draft 2020-12), for the tests of what is written.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value;

/// A schema that values are held against.
pub(crate) struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    pub(crate) fn new(schema: Value) -> Self {
        const NAME: &str = "schema.json";
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.add_resource(NAME, schema).unwrap();
        let mut schemas = Schemas::new();
        let index = compiler.compile(NAME, &mut schemas).unwrap();
        Self { schemas, index }
    }

    /// What is wrong with `value`, and where.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let found = self.schemas.validate(value, self.index);
        found.map_err(|error| format!("{error:#}"))
    }
}
