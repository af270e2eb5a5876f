//! A flame graph: the stacks of one server, the outermost function at the bottom. A box is as wide
//! as the part of the samples in which its function was on the stack; its colour is the share that
//! a sample would belong to whose innermost function it is.

use std::collections::BTreeMap;

use super::svg::{Frame as Area, Svg};
use crate::judge::profile::{Frame, Stacks, share_of};
use crate::output::profile::title;
use crate::record::Share;
use crate::units::grouped;

const WIDTH: f64 = 1000.0;
const ROW: f64 = 16.0;
/// Narrower boxes are left out: nobody could see or point at them.
const NARROWEST: f64 = 1.0;
/// Of a character in a box, which is of a font whose characters are alike (flame.css).
const CHARACTER: f64 = 6.3;
/// Over the legend: title and how to read it.
const HEAD: f64 = 46.0;
/// Of the legend.
const LINE: f64 = 18.0;
const COLUMNS: usize = 5;

/// A function on the stacks, with those that it called.
#[derive(Debug, Default)]
struct Node<'a> {
    samples: u64,
    calls: BTreeMap<&'a Frame, Node<'a>>,
}

/// The class of a share's colour.
pub(super) fn class(share: Share) -> String {
    let place = Share::ALL.iter().position(|one| *one == share);
    format!("p{}", place.unwrap_or(0))
}

/// The drawing; `name` says whose stacks they are, and in what.
pub(super) fn draw(stacks: &Stacks, name: &str) -> String {
    let samples = stacks.samples().max(1);
    let mut root = Node::default();
    for (stack, count) in stacks.iter() {
        root.add(stack, count);
    }
    let scale = WIDTH / samples as f64;
    let shares = stacks.shares();
    let legend_lines = shares.len().div_ceil(COLUMNS) as f64;
    let top = HEAD + legend_lines * LINE + 6.0;
    let bottom = top + root.height(scale) as f64 * ROW;
    let area = Area {
        left: 0.0,
        right: WIDTH,
        top,
        bottom,
    };
    let mut svg = Svg::of_frames(WIDTH, bottom + 4.0, area);
    let heading = format!("{name}: {} samples", grouped(samples));
    let reading = "width: part of the samples · from the bottom up: who calls whom · point at a box \
                   for its name";
    svg.text("title", (8.0, 18.0), "start", &heading);
    svg.text("label", (8.0, 36.0), "start", reading);
    let in_order = Share::ALL.iter().filter(|share| shares.contains_key(share));
    for (place, share) in in_order.enumerate() {
        let x = 8.0 + (place % COLUMNS) as f64 * (WIDTH / COLUMNS as f64);
        let y = HEAD + (place / COLUMNS) as f64 * LINE;
        svg.band(
            &format!("part {}", class(*share)),
            ((x, y), (x + 12.0, y + 12.0)),
            "",
        );
        let percent = shares[share] as f64 * 100.0 / samples as f64;
        let words = format!("{} {percent:.1}%", title(*share));
        svg.text("small", (x + 17.0, y + 10.0), "start", &words);
    }
    let mut stack = Vec::new();
    root.draw(&mut svg, &mut stack, (0.0, bottom), scale);
    svg.finish(&format!("Flame graph of {name}"), "")
}

impl<'a> Node<'a> {
    fn add(&mut self, stack: &'a [Frame], count: u64) {
        let mut node = self;
        node.samples += count;
        for frame in stack {
            node = node.calls.entry(frame).or_default();
            node.samples += count;
        }
    }

    /// Rows of boxes above this one that are wide enough to be drawn.
    fn height(&self, scale: f64) -> usize {
        let calls = self.calls.values();
        let drawn = calls.filter(|call| call.samples as f64 * scale >= NARROWEST);
        drawn.map(|call| 1 + call.height(scale)).max().unwrap_or(0)
    }

    fn draw(
        &self,
        svg: &mut Svg,
        stack: &mut Vec<Frame>,
        (mut left, bottom): (f64, f64),
        scale: f64,
    ) {
        for (frame, call) in &self.calls {
            let width = call.samples as f64 * scale;
            if width >= NARROWEST {
                stack.push((*frame).clone());
                let share = share_of(stack);
                let percent = call.samples as f64 * scale * 100.0 / WIDTH;
                let words = format!(
                    "{}: {percent:.2}%, {} samples ({})",
                    frame.name,
                    grouped(call.samples),
                    title(share)
                );
                let (top, right) = (bottom - ROW, left + width);
                let class = format!("part boxed {}", class(share));
                svg.band(&class, ((left, top), (right, bottom)), &words);
                let label = fitting(&frame.name, width);
                svg.text("in", (left + 3.0, bottom - 4.5), "start", &label);
                call.draw(svg, stack, (left, top), scale);
                stack.pop();
            }
            left += width;
        }
    }
}

/// As much of a name as a box of this width holds; nothing where that would be a letter or two.
fn fitting(name: &str, width: f64) -> String {
    let room = ((width - 6.0).max(0.0) / CHARACTER) as usize;
    match name.chars().count() {
        all if all <= room => name.to_owned(),
        _ if room < 4 => String::new(),
        _ => name.chars().take(room - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stacks(text: &str) -> Stacks {
        Stacks::of_folded(text).unwrap()
    }

    #[test]
    fn boxes_are_as_wide_as_their_part_and_colour_says_the_share() {
        let svg = draw(
            &stacks(
                "w;main 250\nw;main;tcp_sendmsg_[k] 500\nw;main;tcp_sendmsg_[k];_copy_from_iter_[k] 250\n",
            ),
            "raw in echo",
        );
        let title = |words: &str| format!("<title>{words}</title>");
        for (class, left, width, words) in [
            ("p0", 0.0, 1000.0, "main: 100.00%, 1,000 samples (program)"),
            (
                "p2",
                0.0,
                750.0,
                "tcp_sendmsg: 75.00%, 750 samples (kernel TCP/IP)",
            ),
            (
                "p4",
                0.0,
                250.0,
                "_copy_from_iter: 25.00%, 250 samples (copy user/kernel)",
            ),
        ] {
            let element = svg.split("<rect").find(|one| one.contains(&title(words)));
            let element = element.unwrap_or_else(|| panic!("no {words} in {svg}"));
            let expected = format!("class=\"part boxed {class}\" x=\"{left:.1}\"");
            assert!(element.contains(&expected), "{element}");
            assert!(
                element.contains(&format!("width=\"{width:.1}\"")),
                "{element}"
            );
        }
        assert!(svg.contains(">kernel TCP/IP 50.0%<") && svg.contains(">program 25.0%<"));
    }

    #[test]
    fn what_is_too_narrow_is_left_out_and_names_are_cut() {
        let svg = draw(&stacks("w;main 9990\nw;rare_function 5\n"), "x");
        assert!(svg.contains(">main<") && !svg.contains("rare_function"));
        assert_eq!(fitting("tcp_sendmsg", 200.0), "tcp_sendmsg");
        assert_eq!(fitting("tcp_sendmsg", 51.0), "tcp_se…");
        assert_eq!(fitting("tcp_sendmsg", 20.0), "");
        draw(&Stacks::default(), "nothing");
    }
}
