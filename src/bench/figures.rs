//! Figures with their spread, in tables for people and for programs.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The machine that is measured.
pub struct Machine {
    model: String,
    cores: usize,
}

impl Machine {
    /// This one.
    pub fn read() -> Machine {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = field.map_or("unknown processor", |(_, model)| model).to_owned();
        Machine { model, cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get) }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vectors = if cfg!(target_arch = "x86_64") {
            #[cfg(target_arch = "x86_64")]
            {
                if std::arch::is_x86_feature_detected!("avx512f") {
                    "AVX-512"
                } else if std::arch::is_x86_feature_detected!("avx2") {
                    "AVX2"
                } else {
                    "SSE2"
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            ""
        } else {
            std::env::consts::ARCH
        };
        write!(f, "{}, {} cores, {vectors}", self.model, self.cores)
    }
}

/// Several repetitions of one measurement. As JSON it is its median, least and most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Spread", from = "Spread")]
pub struct Figure(Vec<f64>);

#[derive(Serialize, Deserialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl From<Figure> for Spread {
    fn from(figure: Figure) -> Spread {
        let (least, most) = figure.spread();
        Spread { median: figure.median(), least, most }
    }
}

impl From<Spread> for Figure {
    fn from(spread: Spread) -> Figure {
        Figure::new(vec![spread.least, spread.median, spread.most])
    }
}

impl Figure {
    /// The figure of these repetitions.
    ///
    /// # Panics
    /// If there is no repetition.
    pub fn new(mut samples: Vec<f64>) -> Figure {
        assert!(!samples.is_empty(), "a figure has a repetition");
        samples.sort_by(f64::total_cmp);
        Figure(samples)
    }

    /// The middle repetition; between the two in the middle of an even number.
    pub fn median(&self) -> f64 {
        let (above, below) = (self.0[self.0.len() / 2], self.0[(self.0.len() - 1) / 2]);
        below + (above - below) / 2.0
    }

    /// Least and most.
    pub fn spread(&self) -> (f64, f64) {
        (self.0[0], self.0[self.0.len() - 1])
    }
}

/// One cell.
pub enum Cell {
    /// Words.
    Text(String),
    /// A figure with its spread.
    Figure(Figure),
    /// A quotient of two medians, or another number without a spread of its own.
    Number(f64),
    /// An empty cell.
    Nothing,
}

/// A table: a title, named columns, rows.
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Table {
        Table { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// If it has not a cell per column.
    pub fn push(&mut self, row: Vec<Cell>) {
        assert_eq!(row.len(), self.columns.len(), "a row has every column");
        self.rows.push(row);
    }

    /// An object with the title, and an object per row.
    pub fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let cells = self.columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.json()));
            Value::Object(cells.collect())
        };
        json!({ "title": self.title, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => json!(text),
            Cell::Figure(figure) => json!(figure),
            Cell::Number(number) => json!(number),
            Cell::Nothing => Value::Null,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.spread();
        let [median, least, most] = [self.median(), least, most].map(three_digits);
        f.pad(&format!("{median} ({least} to {most})"))
    }
}

pub(super) fn three_digits(x: f64) -> String {
    let decimals = if x >= 100.0 {
        0
    } else if x >= 10.0 {
        1
    } else if x >= 0.1 || x == 0.0 {
        2
    } else {
        4
    };
    format!("{x:.decimals$}")
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Cell::Text(text) => text.clone(),
            Cell::Figure(figure) => figure.to_string(),
            Cell::Number(number) => three_digits(*number),
            Cell::Nothing => String::new(),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "**{}**\n", self.title)?;
        let text: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(Cell::to_string).collect()).collect();
        let width = |at: usize| text.iter().map(|row| row[at].len()).chain([self.columns[at].len()]).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "| {} |", cells.collect::<Vec<_>>().join(" | "))
        };
        line(f, &mut self.columns.iter().copied())?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(f, &mut rules.iter().map(String::as_str))?;
        text.iter().try_for_each(|row| line(f, &mut row.iter().map(String::as_str)))
    }
}
