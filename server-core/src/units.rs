//! Parsers for the units of the command line: durations, byte sizes and CPU lists.

use std::time::Duration;

/// Parses `500ms`, `10s`, `2m`, `1h` or a bare number of seconds (`1.5` too).
///
/// # Errors
/// A sentence saying what is wrong, for clap to show.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!(
                "unknown unit `{unit}`: use us, ms, s, m or h, as in 500ms"
            ));
        }
    };
    let number: f64 = parse_number(number, text)?;
    let out_of_range = || format!("`{text}` is out of range");
    let duration =
        Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| out_of_range())?;
    let vanished = duration.is_zero() && number > 0.0;
    if vanished || duration > LONGEST_DURATION {
        return Err(out_of_range());
    }
    Ok(duration)
}

/// Ten years: more is a slip of the finger, and much more cannot be added to a clock.
const LONGEST_DURATION: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Parses a size in bytes with an optional binary suffix: `65536`, `64k`, `16m`, `1g` (`64KiB`
/// too).
///
/// # Errors
/// A sentence saying what is wrong, for clap to show.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => {
            return Err(format!(
                "unknown unit `{unit}`: use k, m or g (powers of 1024)"
            ));
        }
    };
    let number: f64 = parse_number(number, text)?;
    let bytes = number * f64::from(1u32 << shift);
    if bytes > 1e15 {
        return Err(format!("`{text}` is out of range"));
    }
    Ok(bytes as u64)
}

/// Parses a CPU list as `taskset` writes it: `0`, `0,2-3`. The order is kept, doubles are refused.
///
/// # Errors
/// A sentence saying what is wrong, for clap to show.
pub fn parse_cpu_list(text: &str) -> Result<CpuList, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (parse_cpu(first, text)?, parse_cpu(last, text)?),
            None => {
                let cpu = parse_cpu(part, text)?;
                (cpu, cpu)
            }
        };
        if last < first {
            return Err(format!("the range `{part}` runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(CpuList(cpus))
}

/// CPU numbers in the order in which they were named, none twice, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// No Linux machine numbers its CPUs higher than this (`NR_CPUS` is at most 8192; rustix's set
/// holds 1024).
const HIGHEST_CPU: usize = 1023;

fn parse_cpu(text: &str, whole: &str) -> Result<usize, String> {
    let cpu = text
        .trim()
        .parse::<usize>()
        .map_err(|_| format!("`{whole}` is no CPU list: write it like 0,2-3"))?;
    if cpu > HIGHEST_CPU {
        return Err(format!("CPU {cpu} is above {HIGHEST_CPU}"));
    }
    Ok(cpu)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

fn parse_number(number: &str, whole: &str) -> Result<f64, String> {
    number
        .parse()
        .map_err(|_| format!("`{whole}` does not start with a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("10", 10_000),
            ("1.5", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("87600h", 315_360_000_000),
            ("0", 0),
            (" 3 s ", 3000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
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
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("125", 125),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("16m", 16 << 20),
            ("1.5k", 1536),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "-1", "10x", "9999999999g"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpu_lists() {
        for (text, cpus) in [
            ("0", vec![0]),
            ("0,2-3", vec![0, 2, 3]),
            ("3,1", vec![3, 1]),
        ] {
            assert_eq!(parse_cpu_list(text), Ok(CpuList(cpus)), "{text}");
        }
        for text in ["", "a", "0,", "3-1", "0,0", "0-2,1", "0-99999999", "-1"] {
            assert!(parse_cpu_list(text).is_err(), "{text}");
        }
    }
}
