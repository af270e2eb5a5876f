//! What all charts have in common: a drawing, the table of its figures, and the mark of each
//! contestant.

use serde::Serialize;

use super::svg::Svg;
use crate::config::ScenarioKind;
use crate::judge::metrics;
use crate::output::table::Table;

/// Distinct styles of contestants; further ones begin again.
pub(super) const STYLES: usize = 8;

/// A drawing with the figures it is made of.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    pub(super) caption: String,
    pub(super) svg: String,
    /// The same for a narrow screen, where it is another drawing.
    pub(super) narrow: Option<String>,
    pub(super) table: Table,
}

impl Chart {
    pub(super) fn new(caption: String, svg: Svg, table: Table) -> Self {
        Self {
            svg: svg.finish(&caption, ""),
            narrow: None,
            caption,
            table,
        }
    }
}

/// The mark of each contestant: its place in the suite.
#[derive(Debug)]
pub(super) struct Legend<'a>(pub(super) &'a [String]);

impl Legend<'_> {
    /// The class of its marks.
    pub(super) fn style(&self, contestant: &str) -> String {
        let place = self.0.iter().position(|name| name == contestant);
        format!("s{}", place.unwrap_or(0) % STYLES)
    }
}

pub(super) fn metric_title(kind: ScenarioKind, key: &str) -> String {
    metrics::find(kind, key)
        .map_or(key, |metric| metric.title)
        .to_owned()
}

pub(super) fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
