//! Drawing: a frame, its axes, marks. Everything is drawn in the units of the viewBox; style comes
//! from classes, so that one drawing reads well in light and in dark.

use std::fmt::Write as _;

/// Of a drawing with one frame.
pub(super) const WIDTH: f64 = 560.0;
/// Left of the frame: figures of an axis.
pub(super) const FIGURES: f64 = 76.0;
/// Left of the frame: names of rows.
const NAMES: f64 = 206.0;
/// Right of the frame: half of the last label.
const MARGIN: f64 = 36.0;
/// Of a label at its largest: on a phone, where a drawing is small (marks.css).
const CHARACTER: f64 = 8.5;
/// Under the frame: labels and title of its axis.
const AXIS: f64 = 44.0;
/// Height of a row.
const ROW: f64 = 30.0;

/// A drawing under construction.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    frame: Frame,
    body: String,
}

/// The part of a drawing inside its axes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

// Writing to a String cannot fail.
#[expect(clippy::let_underscore_must_use, reason = "see above")]
impl Svg {
    /// For curves over a frame of this height.
    pub(super) fn of_curves(height: f64) -> Self {
        Self::framed(FIGURES, 28.0, height)
    }

    /// For so many rows, with `above` for words over them.
    pub(super) fn of_rows(rows: usize, above: f64) -> Self {
        Self::framed(NAMES, above, rows as f64 * ROW)
    }

    fn framed(left: f64, top: f64, height: f64) -> Self {
        let frame = Frame {
            left,
            right: WIDTH - MARGIN,
            top,
            bottom: top + height,
        };
        Self::of_frames(WIDTH, frame.bottom + AXIS, frame)
    }

    /// Of this size, with several frames; the next axes and marks are those of `first`.
    pub(super) fn of_frames(width: f64, height: f64, first: Frame) -> Self {
        Self {
            width,
            height,
            frame: first,
            body: String::new(),
        }
    }

    /// The next axes and marks are those of this frame.
    pub(super) fn go_on_in(&mut self, frame: Frame) {
        self.frame = frame;
    }

    /// The frame from left to right: what a scale of x covers.
    pub(super) fn across(&self) -> (f64, f64) {
        (self.frame.left, self.frame.right)
    }

    /// The frame from its bottom to its top: what a scale of y covers.
    pub(super) fn upward(&self) -> (f64, f64) {
        (self.frame.bottom, self.frame.top)
    }

    /// Names row number `place` and says where its middle is.
    pub(super) fn row(&mut self, place: usize, name: &str) -> f64 {
        let y = self.frame.top + (place as f64 + 0.5) * ROW;
        self.text("row", (self.frame.left - 8.0, y + 4.0), "end", name);
        y
    }

    /// A dashed line up the frame.
    pub(super) fn mark_x(&mut self, x: f64) {
        self.line("one", (x, self.frame.top - 6.0), (x, self.frame.bottom));
    }

    /// A dashed line across the frame.
    pub(super) fn mark_y(&mut self, y: f64) {
        self.line("one", (self.frame.left, y), (self.frame.right, y));
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
        self.through(class, points, title, "L", "");
    }

    /// Many dots of one class: strokes without length, round where the class says so.
    pub(super) fn dots(&mut self, class: &str, points: &[(f64, f64)], title: &str) {
        self.through(class, points, title, "M", "h0");
    }

    /// From point to point by `command`, after each point `mark`.
    fn through(
        &mut self,
        class: &str,
        points: &[(f64, f64)],
        title: &str,
        command: &str,
        mark: &str,
    ) {
        if points.is_empty() {
            return;
        }
        let _ = write!(self.body, r#"<path class="{class}" d=""#);
        for (number, (x, y)) in points.iter().enumerate() {
            let command = if number == 0 { "M" } else { command };
            let _ = write!(self.body, "{command}{x:.1} {y:.1}{mark}");
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

    /// A rectangle from its upper left to its lower right corner.
    pub(super) fn band(
        &mut self,
        class: &str,
        ((left, top), (right, bottom)): ((f64, f64), (f64, f64)),
        title: &str,
    ) {
        let (width, height) = ((right - left).max(1.0), bottom - top);
        let _ = write!(
            self.body,
            r#"<rect class="{class}" x="{left:.1}" y="{top:.1}" width="{width:.1}" height="{height:.1}">{}</rect>"#,
            titled(title)
        );
    }

    /// Text; `anchor` is start, middle or end.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(text)
        );
    }

    /// An axis along the bottom of the frame with its grid; a label that would stand in the one
    /// before is left out.
    pub(super) fn x_axis(&mut self, ticks: impl IntoIterator<Item = (f64, String)>, title: &str) {
        let Frame {
            left,
            right,
            top,
            bottom,
        } = self.frame;
        let mut free_from = f64::MIN;
        for (x, label) in ticks {
            self.line("grid", (x, top), (x, bottom));
            let half = label.chars().count() as f64 * CHARACTER / 2.0;
            if x - half >= free_from {
                self.text("tick", (x, bottom + 16.0), "middle", &label);
                free_from = x + half + CHARACTER / 2.0;
            }
        }
        self.line("axis", (left, bottom), (right, bottom));
        let middle = (left + right) / 2.0;
        self.text("label", (middle, bottom + 34.0), "middle", title);
    }

    /// An axis along the left of the frame with its grid; its title stands above it.
    pub(super) fn y_axis(&mut self, ticks: impl IntoIterator<Item = (f64, String)>, title: &str) {
        let Frame {
            left,
            right,
            top,
            bottom,
        } = self.frame;
        for (y, label) in ticks {
            self.line("grid", (left, y), (right, y));
            self.text("tick", (left - 6.0, y + 4.0), "end", &label);
        }
        self.line("axis", (left, top), (left, bottom));
        self.text("label", (4.0, top - 10.0), "start", title);
    }

    /// The drawing as an `<svg>` element that scales with its surroundings; `title` is what it
    /// shows, for screen readers, and `reading` how.
    pub(super) fn finish(self, title: &str, reading: &str) -> String {
        let Self {
            width,
            height,
            body,
            ..
        } = self;
        let described = if reading.is_empty() {
            String::new()
        } else {
            format!("<desc>{}</desc>", escape(reading))
        };
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{}">{}{described}{body}</svg>"#,
            escape(title),
            titled(title),
        )
    }
}

/// Of the dots about the middle of a row the y of this one: in turn above and below, so that equal
/// values do not hide each other.
pub(super) fn staggered(middle: f64, number: usize) -> f64 {
    middle + f64::from(number as u32 % 5) * 5.0 - 10.0
}

fn titled(title: &str) -> String {
    if title.is_empty() {
        String::new()
    } else {
        format!("<title>{}</title>", escape(title))
    }
}

/// For text and attribute values.
fn escape(text: &str) -> String {
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
    fn labels_do_not_stand_in_each_other() {
        let mut svg = Svg::of_curves(100.0);
        let ticks = [(100.0, "1.00k"), (120.0, "1.05k"), (200.0, "2.00k")];
        svg.x_axis(ticks.map(|(x, label)| (x, label.to_owned())), "rate");
        let text = svg.finish("", "");
        assert_eq!(text.matches("class=\"grid\"").count(), 3);
        assert!(text.contains(">1.00k<") && text.contains(">2.00k<"));
        assert!(!text.contains(">1.05k<"));
    }

    #[test]
    fn names_cannot_leave_their_element() {
        let mut svg = Svg::of_rows(1, 0.0);
        svg.row(0, "<script>\"&");
        svg.dot("s0", (1.0, 1.0), 2.0, "a<b");
        let text = svg.finish("\"quoted\"", "");
        assert!(text.contains("&lt;script&gt;&quot;&amp;") && text.contains("a&lt;b"));
        assert!(text.contains("aria-label=\"&quot;quoted&quot;\""));
    }
}
