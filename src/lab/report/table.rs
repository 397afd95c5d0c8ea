//! Tables that can be written as HTML and as Markdown.

use std::fmt::Write;

use crate::svg::escape;

/// A table, whose first column says what the rows are.
pub(super) struct Table {
    pub headings: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

/// What stands in a row and column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub text: String,
    pub mark: Mark,
}

/// What a cell is besides a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mark {
    /// Nothing.
    Plain,
    /// The rule broke: a cross is written beside it.
    Broken,
    /// Low, but not broken: a triangle.
    Low,
    /// There is nothing to be said.
    Missing,
    /// Words, which may take several lines.
    Words,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), mark: Mark::Plain }
    }

    pub fn words(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), mark: Mark::Words }
    }

    pub fn missing(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), mark: Mark::Missing }
    }

    fn marked(&self) -> String {
        match self.mark {
            Mark::Broken => format!("✗ {}", self.text),
            Mark::Low => format!("▽ {}", self.text),
            Mark::Plain | Mark::Missing | Mark::Words => self.text.clone(),
        }
    }
}

impl Table {
    pub fn new(headings: &[&str]) -> Table {
        Table { headings: headings.iter().map(|&heading| heading.into()).collect(), rows: Vec::new() }
    }

    fn is_words(&self, column: usize) -> bool {
        self.rows.iter().any(|row| row[column].mark == Mark::Words)
    }

    pub fn html(&self) -> String {
        let mut html = String::from(r#"<div class="scroll"><table><thead><tr>"#);
        self.headings.iter().for_each(|heading| {
            let _ = write!(html, r#"<th scope="col">{}</th>"#, escape(heading));
        });
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            html.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let text = escape(&cell.marked());
                let class = match cell.mark {
                    Mark::Plain => "",
                    Mark::Broken => r#" class="broken""#,
                    Mark::Low => r#" class="low""#,
                    Mark::Missing => r#" class="missing""#,
                    Mark::Words => r#" class="text""#,
                };
                let _ = match index {
                    0 => write!(html, r#"<th scope="row">{text}</th>"#),
                    _ => write!(html, "<td{class}>{text}</td>"),
                };
            }
            html.push_str("</tr>");
        }
        html.push_str("</tbody></table></div>\n");
        html
    }

    pub fn markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ");
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let mut text = line(&self.headings.iter().map(|heading| cell(heading)).collect::<Vec<_>>());
        let rules: Vec<String> = (0..self.headings.len())
            .map(|at| if at == 0 || self.is_words(at) { "---" } else { "---:" }.into())
            .collect();
        text += &format!("|{}|\n", rules.join("|"));
        for row in &self.rows {
            let bold = |one: &Cell| match one.mark {
                Mark::Broken => format!("**{}**", cell(&one.marked())),
                Mark::Low => cell(&one.marked()),
                Mark::Plain | Mark::Missing | Mark::Words => cell(&one.text),
            };
            text += &line(&row.iter().map(bold).collect::<Vec<_>>());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_become_markup_and_broken_ones_show_without_colour() {
        let mut table = Table::new(&["rule", "<a|b>"]);
        table.rows.push(vec![Cell::plain("x|y"), Cell { text: "11 %".into(), mark: Mark::Broken }]);
        assert_eq!(table.markdown(), "| rule | &lt;a\\|b> |\n|---|---:|\n| x\\|y | **✗ 11 %** |\n");
        let low = Cell { text: "70 %".into(), mark: Mark::Low };
        assert_eq!(low.marked(), "▽ 70 %", "another sign than that of broken ones");
        let html = table.html();
        assert!(html.contains("&lt;a|b&gt;") && html.contains(r#"<td class="broken">✗ 11 %</td>"#), "{html}");
    }
}
