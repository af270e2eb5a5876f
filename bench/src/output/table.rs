//! Markdown tables whose columns line up, so that they read well on a terminal too.

use serde::Serialize;

/// A table under construction.
#[derive(Debug, Serialize)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells are numbers.
    right: Vec<usize>,
}

impl Table {
    /// With these headings; columns in `right` are set to the right.
    pub fn new(headings: Vec<String>, right: Vec<usize>) -> Self {
        Self {
            rows: vec![headings],
            right,
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row under its headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// As Markdown, with a line feed at the end; further lines of a cell are rows under it.
    pub fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.rows[0].len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let lines = cells.flat_map(|cell| cell.lines());
                lines
                    .map(|line| line.chars().count())
                    .max()
                    .unwrap_or(0)
                    .max(3)
            })
            .collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let height = row.iter().map(|cell| cell.lines().count()).max();
            for line in 0..height.unwrap_or(0).max(1) {
                let cells: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, width)| {
                        let cell = row.get(column).and_then(|cell| cell.lines().nth(line));
                        self.cell(cell.unwrap_or_default(), column, *width)
                    })
                    .collect();
                text.push_str(&format!("| {} |\n", cells.join(" | ")));
            }
            if number == 0 {
                let rules: Vec<String> = widths
                    .iter()
                    .enumerate()
                    .map(|(column, width)| self.rule(column, *width))
                    .collect();
                text.push_str(&format!("|{}|\n", rules.join("|")));
            }
        }
        text
    }

    fn cell(&self, text: &str, column: usize, width: usize) -> String {
        let text = text.replace('|', "/");
        let padding = " ".repeat(width.saturating_sub(text.chars().count()));
        if self.right.contains(&column) {
            format!("{padding}{text}")
        } else {
            format!("{text}{padding}")
        }
    }

    fn rule(&self, column: usize, width: usize) -> String {
        if self.right.contains(&column) {
            format!("{}:", "-".repeat(width + 1))
        } else {
            "-".repeat(width + 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(vec!["bout".into(), "p99".into()], vec![1]);
        assert!(table.is_empty());
        table.row(vec!["echo".into(), "12 µs".into()]);
        table.row(vec!["a|b".into(), "1 ms".into()]);
        assert_eq!(
            table.render(),
            "| bout |   p99 |\n|------|------:|\n| echo | 12 µs |\n| a/b  |  1 ms |\n"
        );
    }

    #[test]
    fn further_lines_of_a_cell_are_rows_under_it() {
        let mut table = Table::new(vec!["bout".into(), "verdict".into()], vec![]);
        table.row(vec!["echo".into(), "one\nthe other".into()]);
        table.row(vec!["idle".into(), String::new()]);
        assert_eq!(
            table.render(),
            "| bout | verdict   |\n|------|-----------|\n| echo | one       |\n|      | the other |\n| idle |           |\n"
        );
    }
}
