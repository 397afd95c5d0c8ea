//! What the records of the lab show: a page with plots, tables as CSV, and the page `docs/results.md`.
//!
//! ```text
//! records ─► Experiment: runs by variant ─► blocks: text, tables, figures ─► OUT/report.html
//!                     │         peers.json ─────┘       └──────────────────► DOCS/results.md, DOCS/images/lab-*.svg
//!                     └────────────────────────────────────────────────────► OUT/*.csv
//! ```
//!
//! `peers.json` is what `benches/peers/grid --json` writes: aggregation alone, without a daemon.
//!
//! What was not run is said to be missing, and is no zero anywhere. Dates are left out, so that the same records make the same pages.

mod bars;
mod blocks;
mod crossing;
mod crossover;
mod curves;
mod figure;
mod labels;
mod page;
mod peers;
mod robust;
#[cfg(test)]
mod sample;
mod speed;
mod statistics;
mod summary;
mod table;
mod variants;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::blocks::{Block, blocks};
use self::peers::Peers;
use self::variants::Experiment;
use super::record::{RecordError, load};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordError),
    /// There are none.
    #[error("{}: no experiment has records there; `solon lab` makes some", .0.display())]
    Nothing(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The page has the beginning of a generated part and no end of it.
    #[error("{}: no line {end:?} after {begin:?}", .path.display())]
    Marks {
        /// Which page.
        path: PathBuf,
        /// The beginning.
        begin: String,
        /// The end that is missing.
        end: &'static str,
    },
}

/// Writes `report.html` and the summaries (`runs.csv`, `variants.csv`, `speed.csv`, `crossover.csv`) of all records below `records` to
/// `out`, which is made if it is not there. Says what it wrote.
///
/// # Errors
/// If there are no records, or if files cannot be read or written.
pub fn write(records: &Path, out: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let (experiments, peers) = found(records)?;
    fs::create_dir_all(out).map_err(|error| ReportError::Io { path: out.into(), error })?;
    let mut files = vec![("report.html".to_string(), page::html(&experiments, peers.as_ref()))];
    files.extend(summary::files(&experiments));
    let mut written = Vec::new();
    for (name, text) in files {
        written.push(save(out.join(name), &text)?);
    }
    Ok(written)
}

/// Writes what `docs/results.md` says of these experiments between its marks, or at its end, and their figures to `docs/images`.
/// What it says of other experiments stays. Says what it wrote.
///
/// # Errors
/// If there are no records, no such page, or if files cannot be read or written.
pub fn write_docs(records: &Path, docs: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let (experiments, peers) = found(records)?;
    let path = docs.join("results.md");
    let mut text = fs::read_to_string(&path).map_err(|error| ReportError::Io { path: path.clone(), error })?;
    let images = docs.join("images");
    fs::create_dir_all(&images).map_err(|error| ReportError::Io { path: images.clone(), error })?;
    let mut written = Vec::new();
    for experiment in &experiments {
        let blocks = blocks(experiment);
        text = replaced(&text, &experiment.about.name, &page::markdown(&blocks), &path)?;
        for block in &blocks {
            if let Block::Figure(figure) = block {
                written.push(save(images.join(format!("lab-{}.svg", figure.name)), &figure.file())?);
            }
        }
    }
    if let Some(peers) = peers {
        text = replaced(&text, peers::NAME, &page::markdown(&peers.blocks()), &path)?;
    }
    written.push(save(path, &text)?);
    Ok(written)
}

fn found(records: &Path) -> Result<(Vec<Experiment>, Option<Peers>), ReportError> {
    let experiments: Vec<Experiment> =
        load(records)?.into_iter().map(|(about, runs)| Experiment::new(about, runs)).collect();
    let peers = Peers::load(records)?;
    match experiments.is_empty() && peers.is_none() {
        true => Err(ReportError::Nothing(records.into())),
        false => Ok((experiments, peers)),
    }
}

fn save(path: PathBuf, text: &str) -> Result<PathBuf, ReportError> {
    match fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(ReportError::Io { path, error }),
    }
}

/// `page` with `text` as its generated part of this name.
fn replaced(page: &str, name: &str, text: &str, path: &Path) -> Result<String, ReportError> {
    let (begin, end) = (format!("<!-- generated: lab {name} -->\n"), "<!-- end -->");
    let text = format!("{begin}\n{}\n\n{end}", text.trim());
    let Some((head, rest)) = page.split_once(&begin) else { return Ok(format!("{}\n\n{text}\n", page.trim_end())) };
    match rest.split_once(end) {
        Some((_, tail)) => Ok(format!("{head}{text}{tail}")),
        None => Err(ReportError::Marks { path: path.into(), begin: begin.trim().into(), end }),
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{about, run};
    use super::*;
    use crate::lab::record::{Run, write_json};

    /// Three seeds of five rules with and without an attack, one run missing.
    fn records() -> Vec<Run> {
        let mut runs = Vec::new();
        for (rule, factor, attacked) in [
            ("mean", 1.0, 0.1),
            ("solon", 0.9, 0.9),
            ("draco", 1.3, 0.9),
            ("median", 1.7, 0.86),
            ("bulyan", 9.0, 0.35),
            ("signum", 0.8, 0.12),
        ] {
            for (attack, accuracy) in [(None, 0.9), (Some("reverse"), attacked), (Some("alie"), attacked + 0.01)] {
                for seed in 1..4 {
                    let wiggle = 1.0 + 0.01 * seed as f64;
                    let mut run = run(rule, attack, seed, accuracy / wiggle);
                    if rule == "solon" || rule == "draco" {
                        run.outcome.difference = Some(1e-7 * seed as f64);
                    }
                    run.manifest.settings.gradient_time = Some(2e-4);
                    run.outcome.seconds *= factor * wiggle;
                    for step in &mut run.steps {
                        step.seconds *= factor * wiggle;
                        let more = step.step_ms * (factor * wiggle - 1.0);
                        (step.step_ms, step.wire_ms) = (step.step_ms + more, step.wire_ms + more.max(-5.0));
                    }
                    runs.push(run);
                }
            }
        }
        for (factor, gradient_time) in [(0.6, 2e-5), (0.7, 2e-3), (1.2, 4e-2)] {
            for seed in 1..4 {
                for (rule, factor) in [("solon", 1.0), ("draco", 1.0 / factor)] {
                    let mut run = run(rule, None, seed, 0.9);
                    let unit = 1000.0 * gradient_time * run.manifest.settings.batch as f64
                        / run.manifest.settings.groups as f64;
                    run.manifest.settings.gradient_time = Some(gradient_time);
                    run.manifest.variant += &format!("-{gradient_time}");
                    run.steps
                        .iter_mut()
                        .for_each(|step| step.step_ms = (60.0 + unit) * factor * (1.0 + 0.05 * (seed * seed) as f64));
                    runs.push(run);
                }
            }
        }
        runs
    }

    fn written() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let runs = records();
        let home = directory.path().join("records/sample");
        for run in &runs[1..] {
            run.write(&home.join(crate::lab::record::place(&run.manifest.variant, run.manifest.seed))).unwrap();
        }
        write_json(&home.join("experiment.json"), &about(&runs)).unwrap();
        directory
    }

    /// Every tag that is opened is closed, in order.
    pub(super) fn well_formed(text: &str) -> Result<(), String> {
        let mut open: Vec<&str> = Vec::new();
        for tag in text.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
            let empty = tag.ends_with('/') || matches!(name, "meta" | "!DOCTYPE");
            match tag.strip_prefix('/') {
                Some(_) if open.pop() != Some(name) => return Err(format!("</{name}> closes something else")),
                None if !empty => open.push(name),
                _ => {}
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("open: {open:?}")) }
    }

    #[test]
    fn the_page_stands_alone_is_well_formed_and_says_what_is_missing() {
        let directory = written();
        let out = directory.path().join("out");
        let files = write(&directory.path().join("records"), &out).unwrap();
        assert_eq!(files.len(), 5);
        let page = fs::read_to_string(out.join("report.html")).unwrap();
        for outside in ["http:", "https:", "<script", "<link", "url(", "@import", "src=", "NaN", "inf\""] {
            assert!(!page.contains(outside), "{outside}");
        }
        well_formed(&page).unwrap();
        assert!(page.contains("Made up &lt;&amp;&gt;") && page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("mean-none/seed-1") && page.contains("1 of"), "the missing run");
        assert!(page.contains("✗ 1") && page.contains("emulated"));
        // To look at it: SOLON_LAB_REPORT=DIR cargo test --lib lab::report
        if let Some(path) = std::env::var_os("SOLON_LAB_REPORT") {
            write(&directory.path().join("records"), Path::new(&path)).unwrap();
            fs::write(Path::new(&path).join("results.md"), "# Results\n").unwrap();
            write_docs(&directory.path().join("records"), Path::new(&path)).unwrap();
        }
    }

    #[test]
    fn the_docs_have_each_experiment_between_its_marks_and_keep_the_rest() {
        let directory = written();
        let (records, docs) = (directory.path().join("records"), directory.path().join("docs"));
        fs::create_dir(&docs).unwrap();
        assert!(matches!(write_docs(&records, &docs), Err(ReportError::Io { .. })), "no page");
        let page = docs.join("results.md");
        fs::write(&page, "# Results\n\n<!-- generated: lab sample -->\nold\n<!-- end -->\n\n<!-- generated: lab b -->\nkept\n<!-- end -->\n").unwrap();
        let files = write_docs(&records, &docs).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            !text.contains("old")
                && text.contains("kept")
                && text.starts_with("# Results\n\n<!-- generated: lab sample -->\n")
        );
        write_docs(&records, &docs).unwrap();
        assert_eq!(fs::read_to_string(&page).unwrap(), text, "the same records make the same page");
        for file in files.iter().filter(|file| file.extension().is_some_and(|it| it == "svg")) {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(text.contains(&format!("images/{name})")), "{name}");
            let svg = fs::read_to_string(file).unwrap();
            well_formed(&svg).unwrap();
            assert!(svg.starts_with("<svg xmlns=") && !svg.contains("NaN"), "{name}");
        }
        fs::write(&page, "<!-- generated: lab sample -->\nno end").unwrap();
        assert!(matches!(write_docs(&records, &docs), Err(ReportError::Marks { .. })));
    }

    #[test]
    fn aggregation_alone_is_a_part_of_the_page_if_it_was_measured() {
        let directory = written();
        let (records, docs) = (directory.path().join("records"), directory.path().join("docs"));
        fs::create_dir(&docs).unwrap();
        let page = docs.join("results.md");
        fs::write(&page, "# Results\n\n<!-- generated: lab aggregation -->\n\nNot run.\n\n<!-- end -->\n").unwrap();
        write_docs(&records, &docs).unwrap();
        assert!(fs::read_to_string(&page).unwrap().contains("Not run."), "not measured: left as it stands");
        fs::write(records.join("peers.json"), peers::tests::written(1.25)).unwrap();
        write_docs(&records, &docs).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(!text.contains("Not run.") && text.matches("generated: lab aggregation").count() == 1);
        assert!(text.contains("benches/peers/grid --json") && text.contains("The smallest ratio is 1.25"));
        write(&records, &docs).unwrap();
        let html = fs::read_to_string(docs.join("report.html")).unwrap();
        well_formed(&html).unwrap();
        assert!(html.contains("<section id=\"aggregation\">"));
    }

    #[test]
    fn no_two_lines_of_a_plot_and_no_two_rows_of_a_table_are_called_the_same() {
        let mut runs = records();
        for run in records() {
            let mut direct = run;
            direct.manifest.settings.push = crate::lab::record::Push::Direct;
            direct.manifest.settings.rate = 0.2;
            direct.manifest.variant += "-direct";
            runs.push(direct);
        }
        let mut shorter = runs[0].clone();
        shorter.manifest.settings.steps = 20;
        shorter.manifest.variant += "-shorter";
        runs.push(shorter);
        let experiment = sample::experiment(runs);
        let unique = |names: Vec<&str>| {
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), names.len(), "{names:?}");
        };
        for (_, variants) in experiment.jobs() {
            unique(variants.iter().map(|variant| variant.label.as_str()).collect());
        }
        let mut tables = 0;
        for block in blocks(&experiment) {
            match block {
                // Rows of the crossover are told apart by link and c.
                Block::Table(table) if table.headings[0] != "Solon" => {
                    unique(table.rows.iter().map(|row| row[0].text.as_str()).collect());
                    tables += 1;
                }
                Block::Figure(figure) => {
                    unique(figure.legend.iter().map(|key| key.text.as_str()).collect());
                    unique(figure.panels.iter().map(|panel| panel.title.as_str()).collect());
                }
                _ => {}
            }
        }
        assert!(tables > 3, "{tables}");
    }

    #[test]
    fn an_experiment_without_a_whole_run_is_missing_and_no_experiment_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(directory.path(), directory.path()).unwrap_err().to_string();
        assert!(error.contains("solon lab"), "{error}");
        write_json(
            &{
                fs::create_dir(directory.path().join("sample")).unwrap();
                directory.path().join("sample/experiment.json")
            },
            &about(&records()),
        )
        .unwrap();
        write(directory.path(), directory.path()).unwrap();
        let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
        well_formed(&page).unwrap();
        assert!(page.contains("None of its 72 runs is there") && !page.contains("<table"), "{page}");
    }
}
