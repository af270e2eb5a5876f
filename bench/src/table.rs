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

    /// As Markdown, with a line feed at the end.
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> = (0..columns)
                .map(|column| {
                    self.cell(
                        row.get(column).map_or("", String::as_str),
                        column,
                        widths[column],
                    )
                })
                .collect();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
            if number == 0 {
                let rules: Vec<String> = (0..columns)
                    .map(|column| self.rule(column, widths[column]))
                    .collect();
                text.push_str(&format!("|{}|\n", rules.join("|")));
            }
        }
        text
    }

    fn cell(&self, text: &str, column: usize, width: usize) -> String {
        let text = text.replace('|', "/").replace('\n', " ");
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
}
