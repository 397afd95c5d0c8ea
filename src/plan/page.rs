//! Lines, paragraphs and columns of a page for terminals, and how numbers stand in them.

use super::quantity::grouped;

/// No line is longer, except those of the configuration.
pub(super) const WIDTH: usize = 80;

/// Text of lines no longer than [`WIDTH`].
pub(super) struct Page(String);

impl Page {
    /// An empty page.
    pub fn new() -> Page {
        Page(String::new())
    }

    /// What is on it.
    pub fn text(&self) -> &str {
        self.0.trim_end()
    }

    /// A line as it is.
    pub fn line(&mut self, line: &str) {
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    /// A heading, apart from what is above.
    pub fn section(&mut self, title: &str) {
        self.0.push('\n');
        self.line(title);
    }

    /// Text in lines that all begin with `indent`.
    pub fn paragraph(&mut self, indent: &str, text: &str) {
        self.wrap(indent, indent, text);
    }

    /// A word and what there is to say about it, in a column.
    pub fn item(&mut self, word: &str, text: &str) {
        self.wrap(&format!("  {word:<13}"), &" ".repeat(15), text);
    }

    fn wrap(&mut self, first: &str, then: &str, text: &str) {
        let mut line = String::from(first);
        let mut empty = true;
        for word in text.split_whitespace() {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = then.into();
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }

    /// Columns; `alignment` has a `<` or `>` for each.
    pub fn table(&mut self, alignment: &str, rows: &[Vec<String>]) {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for row in rows {
            let cell = |(column, align): (usize, char)| {
                let (cell, width) = (&row[column], width(column));
                if align == '<' { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            };
            let cells: Vec<String> = alignment.chars().enumerate().map(cell).collect();
            self.line(&format!("  {}", cells.join("  ")));
        }
    }
}

/// To two digits or so: `1.0`, `24`, `690`, `1.2e8`.
pub(super) fn number(number: f64) -> String {
    match number {
        _ if !(0.1..99_999.5).contains(&number) => format!("{number:.1e}"),
        _ if number < 9.95 => format!("{number:.1}"),
        _ => grouped(number.round() as u64),
    }
}

/// For more or less than one.
pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
