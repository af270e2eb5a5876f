//! The language of rules: `WHERE.WHO.WHAT.FIGURE OPERATOR NUMBER`, as in
//! `echo-64b-*.server-uring/server-tokio.throughput.ci_low > 0.9`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// One comparison of one figure with one number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Expression {
    /// As it was written.
    text: String,
    /// What is looked at.
    pub(super) subject: Subject,
    /// How it is compared.
    pub(super) operator: Operator,
    /// What it is compared with, in the figure's own unit (nanoseconds, bytes, per second, share).
    pub(super) limit: f64,
    /// `limit` as it was written.
    pub(super) limit_text: String,
}

/// The left side of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// `suite.FIGURE`.
    Suite(String),
    /// `WHERE.WHO.WHAT.FIGURE`. Names may contain dots, so `WHERE.WHO` is taken apart when the
    /// bouts are known.
    Bout {
        /// Bout and contestant or `first/second`; `*` at the end of either stands for any rest.
        place: String,
        /// Metric, `headline`, `throughput`, `runs`, `messages` or `connections`.
        what: String,
        /// Which figure of it.
        figure: String,
    },
}

/// How a figure is compared with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

// Two characters first: `<=` begins with `<`.
const OPERATORS: [(&str, Operator); 6] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

const UNITS: [(&str, f64); 11] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("%", 0.01),
    ("k", 1e3),
    ("M", 1e6),
];

impl Operator {
    /// Whether `value` stands in this relation to `limit`. NaN stands in none.
    pub(super) fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::LessOrEqual => value <= limit,
            Self::Greater => value > limit,
            Self::GreaterOrEqual => value >= limit,
            Self::Equal => value == limit,
            Self::NotEqual => !value.is_nan() && value != limit,
        }
    }
}

impl FromStr for Expression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (at, symbol, operator) = OPERATORS
            .iter()
            .filter_map(|(symbol, operator)| Some((text.find(symbol)?, *symbol, *operator)))
            .min_by_key(|(at, symbol, _)| (*at, std::cmp::Reverse(symbol.len())))
            .ok_or_else(|| format!("`{text}`: no comparison (<, <=, >, >=, == or !=)"))?;
        let limit_text = text[at + symbol.len()..].trim();
        Ok(Self {
            text: text.to_owned(),
            subject: text[..at].trim().parse()?,
            operator,
            limit: number(limit_text).ok_or_else(|| {
                format!("`{text}`: `{limit_text}` is no number (0.9, 5%, 10ms, 100k, 2KiB)")
            })?,
            limit_text: limit_text.to_owned(),
        })
    }
}

impl TryFrom<String> for Expression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(figure) = text.strip_prefix("suite.") {
            return Ok(Self::Suite(figure.to_owned()));
        }
        let mut parts = text.rsplitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(figure), Some(what), Some(place)) if place.contains('.') => Ok(Self::Bout {
                place: place.to_owned(),
                what: what.to_owned(),
                figure: figure.to_owned(),
            }),
            _ => Err(format!(
                "`{text}` is neither suite.FIGURE nor BOUT.CONTESTANT.METRIC.FIGURE, such as \
                 echo-64b-w1-c1000.server-uring/server-tokio.throughput.ci_low"
            )),
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symbol = OPERATORS.iter().find(|(_, operator)| operator == self);
        f.write_str(symbol.map_or("", |(symbol, _)| symbol))
    }
}

/// A finite number with an optional unit, in the unit that figures have.
fn number(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
    let unit = &text[digits.len()..];
    let factor = match unit {
        "" => 1.0,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let value = digits.trim().parse::<f64>().ok()? * factor;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let ratio: Expression = "echo-64b-*.server-uring/server-tokio.throughput.ci_low > 0.9"
            .parse()
            .unwrap();
        assert_eq!(
            ratio.subject,
            Subject::Bout {
                place: "echo-64b-*.server-uring/server-tokio".into(),
                what: "throughput".into(),
                figure: "ci_low".into()
            }
        );
        assert_eq!((ratio.operator, ratio.limit), (Operator::Greater, 0.9));
        let suite: Expression = "suite.complete==1".parse().unwrap();
        assert_eq!(suite.subject, Subject::Suite("complete".into()));
        assert_eq!((suite.operator, suite.limit), (Operator::Equal, 1.0));
    }

    #[test]
    fn numbers_have_units() {
        for (text, value) in [
            ("0.9", Some(0.9)),
            ("1e6", Some(1e6)),
            ("-3", Some(-3.0)),
            ("5%", Some(0.05)),
            ("10ms", Some(1e7)),
            ("10 ms", Some(1e7)),
            ("250us", Some(250_000.0)),
            ("100k", Some(100_000.0)),
            ("2KiB", Some(2048.0)),
            ("2 potatoes", None),
            ("", None),
            ("inf", None),
            ("ms", None),
        ] {
            assert_eq!(number(text), value, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (text, part) in [
            ("a.b.c.d", "no comparison"),
            ("a.b.c.d > much", "`much` is no number"),
            ("throughput > 3", "suite.FIGURE"),
            ("a.b.c > 3", "suite.FIGURE"),
        ] {
            let error = text.parse::<Expression>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn relations() {
        use Operator::*;
        for (operator, below, same, above) in [
            (Less, true, false, false),
            (LessOrEqual, true, true, false),
            (Greater, false, false, true),
            (GreaterOrEqual, false, true, true),
            (Equal, false, true, false),
            (NotEqual, true, false, true),
        ] {
            assert_eq!(
                [0.0, 1.0, 2.0].map(|value| operator.holds(value, 1.0)),
                [below, same, above],
                "{operator}"
            );
            assert!(!operator.holds(f64::NAN, 1.0), "{operator}");
            assert_eq!(
                format!("a.b.c.d {operator} 1")
                    .parse::<Expression>()
                    .unwrap()
                    .operator,
                operator
            );
        }
    }
}
