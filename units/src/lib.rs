//! What people type for sizes, counts, rates, durations and CPUs: one grammar for every program, in
//! exact arithmetic.
//!
//! | what | written | meaning |
//! |---|---|---|
//! | size | `65536`, `64kB`, `64KiB`, `16m` | bytes: k, m, g are powers of 1,000; Ki, Mi, Gi of 1,024 |
//! | count | `500`, `10k`, `1.5m` | k is a thousand, m a million |
//! | rate | `0.5`, `200`, `50k` | per second, to a thousandth |
//! | duration | `500ms`, `10s`, `1.5h`, `1h 30m`, `3` | ns, us, ms, s, m, h, d; a bare number is seconds |
//! | CPUs | `0,2-3` | in this order, none twice |
//!
//! The case of `k`, `m`, `g` and `b` does not matter; underscores may group digits.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The grammar for `--help`.
pub const HELP: &str = "\
Sizes are bytes: 64k and 64kB are 64,000, 64KiB is 65,536 (also m, MB, MiB, g, GB, GiB).
Counts and rates take k (thousand) and m (million).
Durations are 500ms, 10s, 2m, 1h30m (a bare number is seconds).
CPU lists are 0,2-3.";

/// The largest size, count and rate: more is a slip of the finger, and a double holds it exactly.
pub const LARGEST: u64 = 1_000_000_000_000_000;
/// The longest duration, ten years: more is a slip of the finger, and much more cannot be added to
/// a clock.
pub const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The highest number of a CPU: Linux has at most 8,192 (`NR_CPUS`).
pub const HIGHEST_CPU: usize = 8_191;

/// A text outside the grammar. It says which forms there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError(String);

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnitError {}

/// Parses a size in bytes.
///
/// # Errors
/// Another form, no whole number of bytes, or more than [`LARGEST`].
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const FORMS: &str = "a size in bytes: 65536, 64k or 64kB (64,000), 64KiB (65,536), 16MiB, 1GB";
    let factor = |unit: &str| {
        Some(match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "ki" | "kib" => 1 << 10,
            "mi" | "mib" => 1 << 20,
            "gi" | "gib" => 1 << 30,
            _ => return None,
        })
    };
    whole(text, factor, FORMS)
}

/// Parses a count.
///
/// # Errors
/// Another form, no whole number, or more than [`LARGEST`].
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    const FORMS: &str = "a whole number: 500, 10k (thousand), 1.5m (million)";
    whole(text, thousands, FORMS)
}

/// Parses a rate per second, to a thousandth.
///
/// # Errors
/// Another form, or more than [`LARGEST`] thousandths.
pub fn parse_rate(text: &str) -> Result<f64, UnitError> {
    const FORMS: &str = "a rate per second: 0.5, 200, 50k (thousand), 1.5m (million)";
    let scaled = |unit: &str| Some(thousands(unit)? * 1_000);
    let (thousandths, _) = scale(text, scaled, FORMS)?;
    match u64::try_from(thousandths) {
        Ok(thousandths) if thousandths <= LARGEST => Ok(thousandths as f64 / 1e3),
        _ => Err(too_much(text, FORMS)),
    }
}

/// Parses a duration.
///
/// # Errors
/// Another form, less than a nanosecond that is not 0, or more than [`LONGEST`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const FORMS: &str = "a duration: 500ms, 10s, 2m, 1h30m (ns, us, ms, s, m, h, d; a bare number \
                         is seconds)";
    let nanoseconds = |unit: &str| {
        Some(match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60 * 1_000_000_000,
            "h" => 3_600 * 1_000_000_000,
            "d" => 86_400 * 1_000_000_000,
            _ => return None,
        })
    };
    let (mut total, mut rest, mut is_first) = (0_u128, text.trim(), true);
    while is_first || !rest.is_empty() {
        let (number, behind) = split_at(rest, |c| !is_of_a_number(c));
        let (unit, behind) = split_at(behind.trim_start(), |c| !c.is_alphabetic());
        let unit = match unit {
            "" if is_first && behind.is_empty() => "s",
            unit => unit,
        };
        let factor = nanoseconds(unit).ok_or_else(|| is_not(text, FORMS))?;
        let part = Decimal::parse(number).ok_or_else(|| is_not(text, FORMS))?;
        let (whole, is_exact) = part.times(factor).ok_or_else(|| too_much(text, FORMS))?;
        if whole == 0 && !is_exact {
            return Err(is_not(text, FORMS));
        }
        total = total.saturating_add(whole);
        (rest, is_first) = (behind.trim_start(), false);
    }
    match u64::try_from(total).map(Duration::from_nanos) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(too_much(text, FORMS)),
    }
}

/// A duration as [`parse_duration`] reads it: `1h 30m`, `1s 500ms`, `0s`.
pub fn show_duration(duration: Duration) -> String {
    let mut left = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, ns) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        if left >= ns {
            parts.push(format!("{}{unit}", left / ns));
            left %= ns;
        }
    }
    match parts.is_empty() {
        true => "0s".into(),
        false => parts.join(" "),
    }
}

/// CPU numbers in the order in which they were named, none twice, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The numbers.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }

    /// The numbers.
    pub fn into_vec(self) -> Vec<usize> {
        self.0
    }
}

impl FromStr for CpuList {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        const FORMS: &str = "a list of CPUs: 0,2-3 (0 to 8191)";
        let number = |digits: &str| {
            let digits = digits.trim();
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let cpu = digits.parse().ok().filter(|cpu| *cpu <= HIGHEST_CPU);
            cpu.filter(|_| plain).ok_or_else(|| is_not(text, FORMS))
        };
        let mut cpus = Vec::new();
        for part in text.trim().split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(UnitError(format!("the range `{part}` runs backwards")));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(UnitError(format!("CPU {cpu} is named twice in `{text}`")));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_cpus(&self.0))
    }
}

/// CPU numbers as [`CpuList`] reads them: `0,2-3`.
pub fn show_cpus(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b);
    let runs: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        })
        .collect();
    runs.join(",")
}

/// What a suffix of counts and rates multiplies by.
fn thousands(unit: &str) -> Option<u128> {
    match unit {
        "" => Some(1),
        "k" | "K" => Some(1_000),
        "m" | "M" => Some(1_000_000),
        _ => None,
    }
}

/// A number with a unit that must come out whole.
fn whole(text: &str, factor: impl Fn(&str) -> Option<u128>, forms: &str) -> Result<u64, UnitError> {
    let (number, is_exact) = scale(text, factor, forms)?;
    match u64::try_from(number) {
        Ok(number) if number <= LARGEST && is_exact => Ok(number),
        Ok(number) if number <= LARGEST => Err(is_not(text, forms)),
        _ => Err(too_much(text, forms)),
    }
}

/// A number times the factor of its unit, rounded down, and whether nothing was cut off.
fn scale(
    text: &str,
    factor: impl Fn(&str) -> Option<u128>,
    forms: &str,
) -> Result<(u128, bool), UnitError> {
    let (number, unit) = split_at(text.trim(), |c| !is_of_a_number(c));
    let factor = factor(unit.trim()).ok_or_else(|| is_not(text, forms))?;
    let number = Decimal::parse(number).ok_or_else(|| is_not(text, forms))?;
    number.times(factor).ok_or_else(|| too_much(text, forms))
}

fn is_of_a_number(c: char) -> bool {
    c.is_ascii_digit() || c == '.' || c == '_'
}

fn split_at(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// `mantissa` / 10 ^ `decimals`.
struct Decimal {
    mantissa: u128,
    decimals: u32,
}

impl Decimal {
    /// Digits with at most one point among them. `None` for anything else.
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.replace('_', "");
        // Digits beyond these are below every unit's smallest part.
        let fraction_kept = fraction.get(..fraction.len().min(15))?;
        let digits = whole.replace('_', "") + fraction_kept;
        let is_number = !digits.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
        let cut = fraction.bytes().skip(15).any(|digit| digit != b'0');
        let mantissa = digits.parse().ok().filter(|_| is_number && !cut)?;
        Some(Self {
            mantissa,
            decimals: fraction_kept.len() as u32,
        })
    }

    /// Times a factor, rounded down, and whether nothing was cut off.
    fn times(&self, factor: u128) -> Option<(u128, bool)> {
        let product = self.mantissa.checked_mul(factor)?;
        let divisor = 10_u128.checked_pow(self.decimals)?;
        Some((product / divisor, product.is_multiple_of(divisor)))
    }
}

fn is_not(text: &str, forms: &str) -> UnitError {
    UnitError(format!("`{text}` is not {forms}"))
}

fn too_much(text: &str, forms: &str) -> UnitError {
    UnitError(format!("`{text}` is out of range for {forms}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("125", 125),
            ("125 B", 125),
            ("64k", 64_000),
            ("64kB", 64_000),
            ("64KB", 64_000),
            ("64KiB", 65_536),
            ("64ki", 65_536),
            ("16MiB", 16 << 20),
            ("16m", 16_000_000),
            ("1.5k", 1_500),
            ("1.5KiB", 1_536),
            ("1G", 1_000_000_000),
            ("1 GiB", 1 << 30),
            ("65_536", 65_536),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "10x", "1e5", "0.5", "0.3KiB", "1.2.3", "kib"] {
            let error = parse_size(text).unwrap_err().to_string();
            assert!(error.contains("64KiB (65,536)"), "{text}: {error}");
        }
        let error = parse_size("9999999999g").unwrap_err().to_string();
        assert!(error.contains("out of range"), "{error}");
    }

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
        for text in [
            "", "k", "-1", "1.5", "10g", "1e5", "inf", "nan", "1k k", "1ki",
        ] {
            assert!(parse_count(text).is_err(), "{text}");
        }
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        assert_eq!(parse_rate("2.5k"), Ok(2_500.0));
        assert_eq!(parse_rate("1.1m"), Ok(1_100_000.0));
        assert_eq!(parse_rate("0.0001"), Ok(0.0));
        assert!(parse_rate("10/s").is_err());
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("10", 10_000),
            ("1.5", 1_500),
            ("0.25", 250),
            ("1.5s", 1_500),
            ("2m", 120_000),
            ("2min", 120_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("1d", 86_400_000),
            ("87600h", 315_360_000_000),
            ("0", 0),
            (" 3 s ", 3_000),
            ("1s 500ms", 1_500),
        ] {
            let expected = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_duration("0.1us"), Ok(Duration::from_nanos(100)));
        for text in [
            "",
            "s",
            "-1s",
            "10x",
            "1.2.3",
            "1e99h",
            "9999999999999999999h",
            "18446744073709549568s",
            "87601h",
            "0.0000000001s",
            "10 parsecs",
            "nan",
            "1h 30",
            "30 1h",
        ] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("500ms"), "{text}: {error}");
        }
        assert_eq!(show_duration(Duration::from_millis(90_500)), "1m 30s 500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn cpu_lists() {
        for (text, cpus, shown) in [
            ("0", vec![0], "0"),
            ("0,2-3", vec![0, 2, 3], "0,2-3"),
            ("3,1", vec![3, 1], "3,1"),
            ("0-1\n", vec![0, 1], "0-1"),
            ("0,1,2", vec![0, 1, 2], "0-2"),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!(list.as_slice(), cpus, "{text}");
            assert_eq!(list.to_string(), shown, "{text}");
        }
        for text in [
            "",
            "a",
            "0,",
            "3-1",
            "0,0",
            "0-2,1",
            "0-99999999",
            "-1",
            "+1",
        ] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = parse_size(&text);
            let _ = parse_count(&text);
            let _ = parse_rate(&text);
            let _ = parse_duration(&text);
            let _ = text.parse::<CpuList>();
        }

        #[test]
        fn anything_like_a_number_is_within_range_or_refused(
            text in "[0-9._]{0,60}( ?(|k|m|g|kB|KiB|MiB|GiB|ns|us|ms|s|min|h|d)){1,3}",
        ) {
            for number in [parse_size(&text), parse_count(&text)].into_iter().flatten() {
                prop_assert!(number <= LARGEST);
            }
            if let Ok(duration) = parse_duration(&text) {
                prop_assert!(duration <= LONGEST);
            }
            if let Ok(rate) = parse_rate(&text) {
                prop_assert!((0.0..=LARGEST as f64).contains(&rate));
            }
        }

        #[test]
        fn plain_numbers_read_back(number in 0..=LARGEST) {
            prop_assert_eq!(parse_size(&number.to_string()), Ok(number));
            prop_assert_eq!(parse_count(&number.to_string()), Ok(number));
        }

        #[test]
        fn rates_read_back(thousandths in 0..=LARGEST) {
            let rate = thousandths as f64 / 1e3;
            prop_assert_eq!(parse_rate(&rate.to_string()), Ok(rate));
        }

        #[test]
        fn units_multiply_exactly(number in 0_u64..1_000_000) {
            prop_assert_eq!(parse_size(&format!("{number}kB")), Ok(number * 1_000));
            prop_assert_eq!(parse_size(&format!("{number}KiB")), Ok(number * 1_024));
            prop_assert_eq!(parse_count(&format!("{number}k")), parse_size(&format!("{number}k")));
        }

        #[test]
        fn durations_read_back(ns in 0..=LONGEST.as_nanos() as u64) {
            let duration = Duration::from_nanos(ns);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }

        #[test]
        fn cpu_lists_read_back(cpus in proptest::collection::hash_set(0..=HIGHEST_CPU, 1..20)) {
            let list = CpuList(cpus.into_iter().collect());
            prop_assert_eq!(list.to_string().parse(), Ok(list));
        }
    }
}
