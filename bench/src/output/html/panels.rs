//! Two panels beside each other, under one title and one legend.

use super::svg::{Frame, Svg};

/// Left of a panel: figures of its axis.
const FIGURES: f64 = 52.0;
pub(super) const PANEL: f64 = 266.0;
/// Right of a panel.
const MARGIN: f64 = 16.0;
/// A panel with what stands at its sides.
const WHOLE: f64 = FIGURES + PANEL + MARGIN;
const HEIGHT: f64 = 250.0;
/// Over the legend: title and how to read it.
const HEAD: f64 = 48.0;
/// Of the legend.
const LINE: f64 = 17.0;
/// Over a panel: its name.
const NAME: f64 = 46.0;
/// Under a panel: its axis.
const AXIS: f64 = 44.0;

/// Where the panels of a drawing lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels {
    top: f64,
}

impl Panels {
    /// A drawing with its title, a line on how to read it, and a legend of styles and names.
    pub(super) fn under(title: &str, reading: &str, legend: &[(String, &str)]) -> (Self, Svg) {
        let lines = legend.len().div_ceil(2) as f64;
        let panels = Self {
            top: HEAD + lines * LINE + NAME,
        };
        let height = panels.top + HEIGHT + AXIS;
        let mut svg = Svg::of_frames(2.0 * WHOLE, height, panels.frame(0));
        svg.text("title", (8.0, 18.0), "start", title);
        svg.text("label", (8.0, 37.0), "start", reading);
        for (place, (style, name)) in legend.iter().enumerate() {
            let (x, y) = (
                8.0 + (place % 2) as f64 * WHOLE,
                HEAD + (place / 2) as f64 * LINE + 8.0,
            );
            svg.line(&format!("interval {style}"), (x, y), (x + 18.0, y));
            svg.text("row", (x + 24.0, y + 4.0), "start", name);
        }
        (panels, svg)
    }

    /// Goes on in one of the two, under its name.
    pub(super) fn go_on_in(self, svg: &mut Svg, place: usize, name: &str) -> Frame {
        let here = self.frame(place);
        svg.go_on_in(here);
        let middle = (here.left + here.right) / 2.0;
        svg.text("head", (middle, here.top - 26.0), "middle", name);
        here
    }

    fn frame(self, place: usize) -> Frame {
        let left = place as f64 * WHOLE + FIGURES;
        Frame {
            left,
            right: left + PANEL,
            top: self.top,
            bottom: self.top + HEIGHT,
        }
    }
}
