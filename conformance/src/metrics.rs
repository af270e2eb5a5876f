//! What `/metrics` says, as numbers.

use std::collections::BTreeMap;

/// The samples of `/metrics`, added up over labels, by name without the `ringside_` prefix and
/// `_total` suffix.
#[derive(Debug, Default)]
pub struct Metrics {
    sums: BTreeMap<String, u64>,
    /// The process they are of, where a label names one.
    pub process: Option<String>,
}

impl Metrics {
    /// Reads an OpenMetrics exposition, which must end with `# EOF`.
    #[track_caller]
    pub fn parse(body: &str) -> Metrics {
        assert!(
            body.ends_with("# EOF\n"),
            "/metrics does not end with # EOF:\n{body}"
        );
        let process = body.split_once("{process=\"").map(|(_, rest)| rest);
        let mut metrics = Metrics {
            sums: BTreeMap::new(),
            process: process.and_then(|rest| Some(rest.split_once('"')?.0.to_string())),
        };
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("not a sample: {line:?}"));
            let value: f64 = value
                .parse()
                .unwrap_or_else(|_| panic!("not a number: {line:?}"));
            let name = series.split('{').next().unwrap_or(series);
            let name = name.strip_prefix("ringside_").unwrap_or(name);
            let name = name.strip_suffix("_total").unwrap_or(name).to_string();
            *metrics.sums.entry(name).or_default() += value as u64;
        }
        metrics
    }

    /// The sums of two processes.
    pub fn plus(mut self, other: Metrics) -> Metrics {
        for (name, value) in other.sums {
            *self.sums.entry(name).or_default() += value;
        }
        self
    }

    /// The sum of a metric over its labels.
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        match self.sums.get(name) {
            Some(value) => *value,
            None => panic!(
                "no metric {name}; there are {:?}",
                self.sums.keys().collect::<Vec<_>>()
            ),
        }
    }
}
