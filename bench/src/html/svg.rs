//! Drawing: scales, axes, marks. Everything is drawn in the units of the viewBox; style comes from classes, so that one drawing reads well in
//! light and in dark.

use std::fmt::Write as _;

/// Distinct styles of contestants; further ones begin again.
pub(super) const STYLES: usize = 8;

/// Maps values to places on the drawing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    logarithmic: bool,
    domain: (f64, f64),
    range: (f64, f64),
}

impl Scale {
    /// From 0 (or below it, where values are) to a little more than the largest value.
    pub(super) fn linear(values: impl IntoIterator<Item = f64>, range: (f64, f64)) -> Self {
        let (low, high) = extent(values).unwrap_or((0.0, 1.0));
        let high = if high > low.min(0.0) {
            high * 1.05
        } else {
            1.0
        };
        Self {
            logarithmic: false,
            domain: (low.min(0.0), high),
            range,
        }
    }

    /// Covers the positive ones of `values`.
    pub(super) fn logarithmic(values: impl IntoIterator<Item = f64>, range: (f64, f64)) -> Self {
        let positive = values.into_iter().filter(|value| *value > 0.0);
        let (low, high) = extent(positive).unwrap_or((1.0, 10.0));
        let domain = if high / low < 1.5 {
            (low / 1.25, high * 1.25)
        } else {
            (low / 1.1, high * 1.1)
        };
        Self {
            logarithmic: true,
            domain,
            range,
        }
    }

    /// Where `value` is drawn, cut at the ends of the range.
    pub(super) fn at(&self, value: f64) -> f64 {
        let (low, high) = self.domain;
        let share = if self.logarithmic {
            (value.max(low) / low).ln() / (high / low).ln()
        } else {
            (value - low) / (high - low)
        };
        self.range.0 + share.clamp(0.0, 1.0) * (self.range.1 - self.range.0)
    }

    /// Round values for an axis, about five.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.domain;
        if !self.logarithmic {
            return even_ticks(low, high);
        }
        let steps: &[f64] = match (high / low).log10() {
            narrow if narrow < 0.7 => return even_ticks(low, high),
            middle if middle < 3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (low..=high).contains(tick))
            .collect()
    }
}

/// In equal steps; also for less than a decade of a logarithmic scale.
fn even_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = round_step((high - low) / 5.0);
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|n| n as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten, about `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|nice| nice * power >= step * 0.8);
    nice.unwrap_or(10.0) * power
}

fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold(None, |extent, value| match extent {
            None => Some((value, value)),
            Some((low, high)) => Some((low.min(value), high.max(value))),
        })
}

/// A drawing under construction.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    body: String,
}

// Writing to a String cannot fail.
#[expect(clippy::let_underscore_must_use, reason = "see above")]
impl Svg {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self {
            width,
            height,
            body: String::new(),
        }
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        );
    }

    /// A broken line through points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], title: &str) {
        if points.is_empty() {
            return;
        }
        let _ = write!(self.body, r#"<path class="{class}" d=""#);
        for (number, (x, y)) in points.iter().enumerate() {
            let command = if number == 0 { 'M' } else { 'L' };
            let _ = write!(self.body, "{command}{x:.1} {y:.1}");
        }
        let _ = write!(self.body, r#"">{}</path>"#, titled(title));
    }

    /// A dot.
    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, title: &str) {
        let _ = write!(
            self.body,
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius}">{}</circle>"#,
            titled(title)
        );
    }

    /// A filled square around a point: the mark of an estimate.
    pub(super) fn square(&mut self, class: &str, (x, y): (f64, f64), half: f64, title: &str) {
        let side = half * 2.0;
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{:.1}" y="{:.1}" width="{side}" height="{side}">{}</rect>"#,
            x - half,
            y - half,
            titled(title)
        );
    }

    /// Text; `anchor` is start, middle or end.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        );
    }

    /// An axis along the bottom of `plot` with its grid.
    pub(super) fn x_axis(
        &mut self,
        plot: &Plot,
        ticks: impl IntoIterator<Item = (f64, String)>,
        title: &str,
    ) {
        for (x, label) in ticks {
            self.line("grid", (x, plot.top), (x, plot.bottom));
            self.text("tick", (x, plot.bottom + 16.0), "middle", &label);
        }
        self.line("axis", (plot.left, plot.bottom), (plot.right, plot.bottom));
        self.text(
            "label",
            ((plot.left + plot.right) / 2.0, plot.bottom + 34.0),
            "middle",
            title,
        );
    }

    /// An axis along the left of `plot` with its grid; its title stands above it.
    pub(super) fn y_axis(
        &mut self,
        plot: &Plot,
        ticks: impl IntoIterator<Item = (f64, String)>,
        title: &str,
    ) {
        for (y, label) in ticks {
            self.line("grid", (plot.left, y), (plot.right, y));
            self.text("tick", (plot.left - 6.0, y + 4.0), "end", &label);
        }
        self.line("axis", (plot.left, plot.top), (plot.left, plot.bottom));
        self.text("label", (4.0, plot.top - 10.0), "start", title);
    }

    /// The drawing as an `<svg>` element that scales with its surroundings; `label` is what it shows, for those who do not see it.
    pub(super) fn finish(self, label: &str) -> String {
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>"#,
            self.width,
            self.height,
            escape(label),
            self.body
        )
    }
}

/// The part of a drawing inside its axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plot {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// Class of contestant number `index`.
pub(super) fn style(index: usize) -> String {
    format!("s{}", index % STYLES)
}

fn titled(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(title))
    }
}

/// For text and attribute values.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_reach_from_end_to_end() {
        let linear = Scale::linear([3.0, 10.0], (100.0, 0.0));
        assert_eq!(linear.at(0.0), 100.0);
        assert!((linear.at(10.5) - 0.0).abs() < 1e-9);
        let log = Scale::logarithmic([1.0, 100.0], (0.0, 100.0));
        assert!((log.at(10.0) - 50.0).abs() < 1e-9);
        assert_eq!(log.at(0.0), 0.0, "what cannot be shown is cut, not NaN");
    }

    #[test]
    fn ticks_are_round_inside_and_few() {
        for (low, high) in [
            (1.0, 2.0),
            (0.8, 1.3),
            (3.0, 70.0),
            (1e3, 1e9),
            (5.0, 5.0),
            (123.0, 456.0),
        ] {
            for scale in [
                Scale::logarithmic([low, high], (0.0, 1.0)),
                Scale::linear([low, high], (0.0, 1.0)),
            ] {
                let ticks = scale.ticks();
                assert!((2..=12).contains(&ticks.len()), "{low} {high}: {ticks:?}");
                assert!(ticks.is_sorted());
            }
        }
        assert_eq!(
            Scale::linear([0.0, 10.0], (0.0, 1.0)).ticks(),
            [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        );
    }

    #[test]
    fn no_values_give_an_empty_plot_and_no_panic() {
        assert!(!Scale::linear([], (0.0, 1.0)).ticks().is_empty());
        assert!(
            !Scale::logarithmic([0.0, f64::NAN], (0.0, 1.0))
                .ticks()
                .is_empty()
        );
    }

    #[test]
    fn names_cannot_leave_their_element() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.text("tick", (0.0, 0.0), "end", "<script>\"&");
        svg.dot("s0", (1.0, 1.0), 2.0, "a<b");
        let text = svg.finish("\"quoted\"");
        assert!(text.contains("&lt;script&gt;&quot;&amp;") && text.contains("a&lt;b"));
        assert!(text.contains("aria-label=\"&quot;quoted&quot;\""));
    }
}
