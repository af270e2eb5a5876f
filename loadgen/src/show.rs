//! Figures as people read them.

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
