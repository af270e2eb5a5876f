//! Figures for people.

use std::time::Duration;

/// How a figure is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Events per second.
    PerSecond,
    /// Nanoseconds.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// Share of one, printed as a percentage.
    Share,
    /// A plain number.
    Number,
}

/// A figure for people: three significant digits and a unit.
pub fn format(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond | Unit::Number => scaled(value, &[(1e9, "G"), (1e6, "M"), (1e3, "k")], ""),
        Unit::Nanoseconds => scaled(value, &[(1e9, " s"), (1e6, " ms"), (1e3, " µs")], " ns"),
        Unit::Bytes => scaled(
            value,
            &[
                (1_073_741_824.0, " GiB"),
                (1_048_576.0, " MiB"),
                (1024.0, " KiB"),
            ],
            " B",
        ),
        Unit::Share => format!("{:.0}%", value * 100.0),
    }
}

fn scaled(value: f64, steps: &[(f64, &str)], rest: &str) -> String {
    let (divisor, suffix) = steps
        .iter()
        .find(|(step, _)| value.abs() >= *step)
        .copied()
        .unwrap_or((1.0, rest));
    let value = value / divisor;
    match value.abs() {
        small if small < 10.0 => format!("{value:.2}{suffix}"),
        middle if middle < 100.0 => format!("{value:.1}{suffix}"),
        _ => format!("{value:.0}{suffix}"),
    }
}

/// `4:05`.
pub fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// `1,000,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (unit, value, text) in [
            (Unit::PerSecond, 1_234_567.0, "1.23M"),
            (Unit::PerSecond, 99_940.0, "99.9k"),
            (Unit::Nanoseconds, 950.0, "950 ns"),
            (Unit::Nanoseconds, 12_345_678.0, "12.3 ms"),
            (Unit::Bytes, 260.4, "260 B"),
            (Unit::Bytes, 8_192.0, "8.00 KiB"),
            (Unit::Bytes, -2_048.0, "-2.00 KiB"),
            (Unit::Share, 0.974, "97%"),
            (Unit::Number, 0.0312, "0.03"),
        ] {
            assert_eq!(format(unit, value), text);
        }
    }

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(minutes(Duration::from_secs(245)), "4:05");
    }
}
