//! A ratio with its interval as a bar of characters: `   --o-- |          `.

/// Where a bar ends, whatever is beyond: twice as good, or half.
const FARTHEST: f64 = 2.0;
/// So near to 1 a scale still reaches, however narrow its intervals.
const NEAREST: f64 = 1.05;

/// What the columns of a bar stand for: the logarithm of a ratio, with 1 in the middle.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// ln of the ratio at the right end.
    reach: f64,
    /// Characters on each side of the middle.
    side: usize,
}

impl Scale {
    /// One that holds these ends of intervals, `width` (odd) characters wide.
    pub fn over(ends: impl Iterator<Item = f64>, width: usize) -> Self {
        let reach = ends.map(|end| end.ln().abs()).filter(|end| end.is_finite());
        Self {
            reach: reach.fold(NEAREST.ln(), f64::max).min(FARTHEST.ln()),
            side: width / 2,
        }
    }

    /// `low` to `high` as a line, `ratio` as an o, 1 as a bar; < or > where they go on beyond.
    pub fn bar(self, ratio: f64, low: f64, high: f64) -> String {
        let mut cells = vec![' '; 2 * self.side + 1];
        let (from, to) = (self.place(low), self.place(high));
        cells[from..=to.max(from)].fill('-');
        cells[self.side] = '|';
        cells[self.place(ratio)] = 'o';
        if low.ln() < -self.reach - 1e-9 {
            cells[0] = '<';
        }
        if high.ln() > self.reach + 1e-9 {
            cells[2 * self.side] = '>';
        }
        cells.into_iter().collect()
    }

    /// The ratios at both ends and in the middle, to stand over the bars.
    pub fn head(self) -> String {
        let (low, high) = ((-self.reach).exp(), self.reach.exp());
        let side = self.side;
        format!("{low:<side$.2}1{high:>side$.2}")
    }

    fn place(self, ratio: f64) -> usize {
        let side = self.side as f64;
        let place = (ratio.ln() / self.reach * side).round();
        (place.clamp(-side, side) + side) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_a_scale() {
        let scale = Scale::over([0.8, 1.1].into_iter(), 21);
        assert_eq!(scale.head(), "0.80      1      1.25");
        let bars = [
            (0.9, 0.8, 1.0, "-----o----|          "),
            (1.1, 1.05, 1.15, "          | --o--    "),
            (1.0, 0.97, 1.03, "         -o-         "),
            (2.0, 1.2, 3.0, "          |       -->"),
        ];
        for (ratio, low, high, bar) in bars {
            assert_eq!(scale.bar(ratio, low, high), bar);
        }
    }

    #[test]
    fn a_scale_is_neither_too_wide_nor_too_narrow() {
        let head = |end: f64| Scale::over([end].into_iter(), 11).head();
        assert_eq!(head(1.001), "0.95 1 1.05");
        assert_eq!(head(0.01), "0.50 1 2.00");
    }
}
