//! What the A/A bouts found: how far the rest of a suite can be trusted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::verdict::{Significance, Verdict, compare};
use super::{Bout, Comparison, Pair};
use crate::stats::{PairedRatio, holm};

/// What the A/A bouts found: a contestant against itself, where there is nothing to find.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Noise {
    /// A difference was "found": the machine was too noisy, or its noise not fair to all, for the
    /// rest to be trusted.
    pub noisy: bool,
    /// One entry per A/A bout, by its headline.
    pub bouts: Vec<SelfBout>,
}

/// A contestant against itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SelfBout {
    /// Name of the scenario.
    pub bout: String,
    /// Who.
    pub contestant: String,
    /// Key of the headline metric.
    pub metric: String,
    /// p-value after Holm's correction for the number of A/A bouts.
    pub p_adjusted: f64,
    /// A difference was "found".
    pub found: bool,
    /// First run of a block / second.
    #[serde(default)]
    pub ratio: Option<PairedRatio>,
    /// The verdict.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

impl Noise {
    /// Only headlines count, and Holm corrects for their number: a quiet machine is called noisy in
    /// at most one suite of twenty. `None` if no A/A bout has a pair of runs.
    pub(super) fn of(bouts: &[Bout]) -> Option<Self> {
        let headlines: Vec<(&Bout, &Pair, &Comparison, &Significance)> = bouts
            .iter()
            .filter_map(|bout| {
                let pair = bout.pairs.iter().find(|pair| pair.duplicate)?;
                let mut comparisons = pair.comparisons.iter();
                let headline = comparisons.find(|one| one.metric == bout.headline)?;
                Some((bout, pair, headline, headline.significance.as_ref()?))
            })
            .collect();
        let p_values: Vec<f64> = headlines.iter().map(|(.., sure)| sure.p_value).collect();
        let bouts: Vec<SelfBout> = headlines
            .iter()
            .zip(holm(&p_values))
            .map(|((bout, pair, headline, sure), p_adjusted)| {
                let sure = Significance {
                    p_adjusted,
                    ..**sure
                };
                let (first, second) = (&pair.first, &pair.second);
                let (direction, ratio) = (headline.direction, &headline.ratio);
                let claim = headline.verdict.claim;
                let verdict = compare(first, second, direction, ratio, &sure, claim);
                SelfBout {
                    bout: bout.scenario.name.clone(),
                    contestant: first.clone(),
                    metric: headline.metric.clone(),
                    p_adjusted,
                    found: verdict.winner.is_some(),
                    ratio: Some(headline.ratio),
                    verdict: Some(verdict),
                }
            })
            .collect();
        (!bouts.is_empty()).then(|| Self {
            noisy: bouts.iter().any(|one| one.found),
            bouts,
        })
    }
}
