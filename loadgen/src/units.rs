//! Units as people type them: counts with `k` and `m`, durations, lists of CPUs.

use std::time::Duration;

/// Parses a whole number with an optional `k` (thousand) or `m` (million): `500`, `10k`, `1.5m`.
///
/// # Errors
/// A sentence for the terminal.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let number = parse_rate(text)?;
    if number.fract() != 0.0 || number > 1e15 {
        return Err(format!("{text:?} is not a whole number (10, 10k, 1.5m)"));
    }
    Ok(number as u64)
}

/// Parses a rate per second with an optional `k` or `m`: `0.5`, `200`, `50k`, `1.5m`.
///
/// # Errors
/// A sentence for the terminal.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.trim().char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text.trim()[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text.trim()[..at], 1e6),
        _ => (text.trim(), 1.0),
    };
    let plain = digits
        .chars()
        .all(|c| c.is_ascii_digit() || c == '.' || c == '_');
    let number: f64 = match digits.replace('_', "").parse() {
        Ok(number) if plain => number,
        _ => {
            return Err(format!(
                "{text:?} is not a number; write 500, 10k or 1.5m (k: thousand, m: million)"
            ));
        }
    };
    // Thousandths are all a schedule distinguishes; rounding also hides that 1.1 x 1e6 is not
    // exact.
    Ok((number * factor * 1e3).round() / 1e3)
}

/// Parses a duration: `500ms`, `10s`, `2m`, `1h 30m`; a bare number is seconds.
///
/// # Errors
/// A sentence for the terminal.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    match duration {
        Some(duration) if duration <= Duration::from_secs(30 * 86_400) => Ok(duration),
        Some(_) => Err(format!("{text:?} is longer than 30 days")),
        None => Err(format!(
            "{text:?} is not a duration; write 500ms, 10s, 2m (a bare number is seconds)"
        )),
    }
}

/// A list of CPUs, in the order given, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Parses a list of CPUs: `0,2-3`.
///
/// # Errors
/// A sentence for the terminal.
pub fn parse_cpus(text: &str) -> Result<CpuList, String> {
    const MOST: usize = 8192;
    let wrong = || format!("{text:?} is not a list of CPUs; write 0,2-3");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| wrong())?;
        let last: usize = last.trim().parse().map_err(|_| wrong())?;
        if first > last || last >= MOST {
            return Err(wrong());
        }
        cpus.extend(
            (first..=last)
                .filter(|cpu| !cpus.contains(cpu))
                .collect::<Vec<_>>(),
        );
    }
    Ok(CpuList(cpus))
}

/// A duration for a reader: three significant digits and a unit.
pub fn show_ns(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let decimals = match value {
        v if unit == "ns" || v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// A number for a reader: thousands separated by commas, decimals only below ten.
pub fn show_count(number: f64) -> String {
    if number < 10.0 && number.fract() != 0.0 {
        return format!("{number:.2}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
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
    fn counts_and_rates() {
        for (text, expected) in [
            ("0", 0),
            ("500", 500),
            ("10k", 10_000),
            ("1.5K", 1_500),
            ("1m", 1_000_000),
            ("1.1m", 1_100_000),
            ("20_000", 20_000),
        ] {
            assert_eq!(parse_count(text), Ok(expected), "{text}");
        }
        for text in ["", "k", "-1", "1.5", "10g", "1e5", "inf", "nan", "1k k"] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert_eq!(parse_rate("2.5k"), Ok(2_500.0));
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("1h 30m", 5_400_000),
            ("3", 3_000),
            ("0.25", 250),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(expected)),
                "{text}"
            );
        }
        for text in ["", "-1", "10 parsecs", "nan", "100000d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(parse_cpus("0,2-3"), Ok(CpuList(vec![0, 2, 3])));
        assert_eq!(parse_cpus("1,1,0-1"), Ok(CpuList(vec![1, 0])));
        for text in ["", "a", "3-2", "1,", "0-99999"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_to_people() {
        for (ns, text) in [
            (12.0, "12 ns"),
            (1_234.0, "1.23 us"),
            (12_345.0, "12.3 us"),
            (123_456.0, "123 us"),
            (1.5e6, "1.50 ms"),
            (2.0e9, "2.00 s"),
        ] {
            assert_eq!(show_ns(ns), text);
        }
        assert_eq!(show_count(1_234_567.0), "1,234,567");
        assert_eq!(show_count(123.0), "123");
        assert_eq!(show_count(0.5), "0.50");
    }
}
