//! Every comparison: all compared metrics of all pairs.

use super::{cell, missing, p_value, spread};
use crate::judge::metrics;
use crate::output::table::Table;
use crate::output::words;
use crate::summary::Summary;

/// All compared metrics of all pairs.
pub(super) fn comparisons(summary: &Summary) -> String {
    let mut text = String::new();
    for bout in &summary.bouts {
        for pair in &bout.pairs {
            let headings = [
                "metric",
                &pair.first,
                &pair.second,
                "better, by how much [95% interval]",
                "p (Holm)",
                "n",
            ]
            .map(str::to_owned)
            .to_vec();
            let mut table = Table::new(headings, vec![1, 2, 4, 5]);
            for (comparison, verdict) in pair.comparisons.iter().zip(words::of_pair(pair)) {
                let Some(metric) = metrics::find(bout.scenario.kind, &comparison.metric) else {
                    continue;
                };
                let of = |name: &str| {
                    bout.result_of(name).map_or_else(missing, |result| {
                        cell(metric.unit, spread(result, metric.key))
                    })
                };
                table.row(vec![
                    metric.title.to_owned(),
                    of(&pair.first),
                    of(&pair.second),
                    verdict,
                    comparison
                        .significance
                        .map_or_else(missing, |sure| p_value(sure.p_adjusted)),
                    words::size(comparison),
                ]);
            }
            if !table.is_empty() {
                text.push_str(&format!(
                    "\n### {}\n\n{}",
                    bout.scenario.name,
                    table.render()
                ));
            }
        }
    }
    text
}
