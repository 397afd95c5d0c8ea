//! Alerts and dashboards under `deploy/` against the table of metrics and the pages in `docs/`.
//!
//! That queries give data and that alerts fire is shown by `tests/prometheus/run` and `deploy/prometheus/check`; here is what can be seen from the text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use solon::daemon::metrics::table::{Kind, Metric, Values, metrics};

fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboards() -> Vec<(String, serde_json::Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect()
}

/// The panels of a dashboard that show something.
fn panels(dashboard: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// The metric that a series of this name belongs to.
fn metric_of(series: &str) -> Option<&'static Metric> {
    metrics().find(|metric| match metric.kind {
        Kind::Histogram(_) => {
            ["_bucket", "_sum", "_count"].iter().any(|end| series.strip_suffix(end) == Some(metric.name))
        }
        _ => series == metric.name,
    })
}

/// What is wrong with the metrics of ours that a text names, their labels, and the values that these are compared with.
fn mistakes(text: &str, recorded: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("solon") {
        let before = rest[..at].chars().next_back();
        let name_end = rest[at..]
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .map_or(rest.len(), |end| at + end);
        let name = &rest[at..name_end];
        rest = &rest[name_end..];
        if before.is_some_and(|c| c.is_alphanumeric() || "_/.".contains(c)) || !name.contains(['_', ':']) {
            continue;
        }
        if name.contains(':') {
            if !recorded.contains(name) {
                found.push(format!("{name} is not recorded"));
            }
            continue;
        }
        let Some(metric) = metric_of(name) else {
            found.push(format!("{name} is no metric"));
            continue;
        };
        let Some(matchers) = rest.strip_prefix('{').and_then(|inside| inside.split_once('}')) else { continue };
        for matcher in matchers.0.split(',') {
            let label_end = matcher.find(['=', '!']).unwrap_or_else(|| panic!("{name}: no matcher: {matcher}"));
            let (label, value) = (
                matcher[..label_end].trim(),
                matcher[label_end..].trim_start_matches(['=', '!', '~']).trim_matches('"'),
            );
            let known = metric.labels.iter().find(|known| known.name == label);
            let scraped =
                matches!(label, "job" | "instance") || label == "le" && matches!(metric.kind, Kind::Histogram(_));
            match (known, scraped) {
                (None, true) => {}
                (None, false) => found.push(format!("{name} has no label {label}")),
                (Some(known), _) => {
                    if let Values::Words(words) = known.values {
                        let unknown = value.split('|').filter(|word| !words.contains(word));
                        found.extend(unknown.map(|word| format!("{name}: {label} is never {word}")));
                    }
                }
            }
            if label == "le"
                && let Kind::Histogram(bounds) = metric.kind
                && !bounds.iter().any(|bound| bound.to_string() == value)
            {
                found.push(format!("{name} has no bound {value}"));
            }
        }
    }
    for clause in ["by (", "on (", "group_left ("] {
        for labels in text.split(clause).skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let ours = || metrics().flat_map(|metric| metric.labels).map(|label| label.name);
            let others = ["job", "instance", "le", "alertname", "severity", ""];
            let unknown = labels
                .split(',')
                .map(str::trim)
                .filter(|label| !others.contains(label) && !ours().any(|known| known == *label));
            found.extend(unknown.map(|label| format!("no metric has the label {label}")));
        }
    }
    found
}

fn recorded() -> BTreeSet<String> {
    file("deploy/prometheus/solon.rules.yml")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
        .map(str::to_owned)
        .collect()
}

/// The alerts with the text of each.
fn alerts() -> BTreeMap<String, String> {
    let rules = file("deploy/prometheus/solon.rules.yml");
    let blocks = rules.split("\n      - ").filter_map(|block| block.strip_prefix("alert: "));
    blocks
        .map(|block| {
            let (name, text) = block.split_once('\n').unwrap();
            (name.to_owned(), text.to_owned())
        })
        .collect()
}

#[test]
fn a_metric_a_label_and_a_value_that_do_not_exist_are_noticed() {
    let recorded = BTreeSet::from(["solon:a".to_owned()]);
    for (text, what) in [
        ("rate(solon_round_total[5m])", "solon_round_total is no metric"),
        ("solon_round_seconds", "solon_round_seconds is no metric"),
        (r#"solon_rounds_total{job="$job",reason="late"}"#, "solon_rounds_total has no label reason"),
        (r#"solon_rounds_total{outcome!="completed"}"#, "solon_rounds_total: outcome is never completed"),
        (r#"solon_frames_refused_total{reason=~"corrupt|late"}"#, "solon_frames_refused_total: reason is never late"),
        (r#"solon_round_residual_ratio_bucket{le="0.4"}"#, "solon_round_residual_ratio_bucket has no bound 0.4"),
        ("solon:b > 0", "solon:b is not recorded"),
        ("sum by (works) (solon_worker_connected)", "no metric has the label works"),
    ] {
        assert_eq!(mistakes(text, &recorded), [what], "{text}");
    }
    let right = r#"solon:a + sum by (worker) (solon_worker_connected{job="$job",instance=~"$instance"}) + solon_round_seconds_sum"#;
    assert_eq!(mistakes(right, &recorded), [""; 0]);
}

#[test]
fn rules_and_their_tests_name_metrics_that_exist() {
    let rules = file("deploy/prometheus/solon.rules.yml").replace("up{job=\"solon\"}", "");
    assert_eq!(mistakes(&rules, &recorded()), [""; 0]);
    assert_eq!(mistakes(&file("deploy/prometheus/rules.test.yml"), &recorded()), [""; 0]);
}

#[test]
fn panels_name_metrics_that_exist_and_say_what_they_show() {
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 3);
    for (name, dashboard) in dashboards {
        let mut titles = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = panel["title"].as_str().unwrap();
            assert!(titles.insert(title), "{name}: two panels are called {title}");
            let description = panel["description"].as_str().unwrap();
            assert!(
                description.len() > 10 && description.ends_with('.'),
                "{name}, {title}: {description:?} describes nothing"
            );
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{name}, {title} has no unit");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{name}, {title}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}, {title} asks nothing");
            for target in targets {
                let expression = target["expr"].as_str().unwrap();
                assert_eq!(mistakes(expression, &BTreeSet::new()), [""; 0], "{name}, {title}: {expression}");
                let chosen = expression.matches("$job").count();
                let selectors = expression.matches("solon_").count() + expression.matches("process_").count();
                assert_eq!(
                    chosen,
                    selectors + expression.matches("up{").count(),
                    "{name}, {title}: of the chosen job and instance: {expression}"
                );
            }
        }
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_leads_to_what_to_do() {
    let page = file("docs/operations.md");
    let alerts = alerts();
    assert!(alerts.len() > 20);
    for (name, text) in &alerts {
        assert!(text.contains("severity: page\n") || text.contains("severity: ticket\n"), "{name} has no severity");
        for annotation in ["summary: \"", "description: \"", "runbook_url: "] {
            assert!(text.contains(annotation), "{name} has no {annotation}");
        }
        let url = format!("runbook_url: docs/operations.md#alert-{}", name.to_lowercase());
        assert!(text.lines().any(|line| line.trim() == url), "{name} has no {url}");
        let (_, section) =
            page.split_once(&format!("\n### Alert: {name}\n")).unwrap_or_else(|| panic!("{name} has no section"));
        let section = section.split("\n#").next().unwrap();
        for part in ["- **Means.** ", "- **Look at.** ", "- **Do.** "] {
            assert!(section.contains(part), "{name}: its section has no {part}");
        }
        let severity = text.split("severity: ").nth(1).unwrap().lines().next().unwrap();
        assert!(
            section.contains(&format!("\n`{severity}`\n")),
            "{name}: its section says another severity than {severity}"
        );
    }
    let sections: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("### Alert: ")).map(str::to_owned).collect();
    assert_eq!(sections, alerts.into_keys().collect(), "sections without an alert");
}

#[test]
fn every_alert_is_tested_to_fire_and_to_stay_silent() {
    let tests = file("deploy/prometheus/rules.test.yml");
    let (mut fires, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for case in tests.split("- expr: ALERTS{alertname=\"").skip(1) {
        let name = case.split('"').next().unwrap().to_owned();
        let expected = case.lines().nth(2).unwrap().trim();
        assert!(expected.starts_with("exp_samples:"), "{name}: {expected}");
        if expected.ends_with("[]") {
            silent.insert(name)
        } else {
            fires.insert(name)
        };
    }
    let alerts: BTreeSet<_> = alerts().into_keys().collect();
    assert_eq!(fires, alerts);
    assert_eq!(silent, alerts);
}
