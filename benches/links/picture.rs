//! The plot of rounds over r_c.

use solon::bench::plot::{Curve, Picture};

use crate::Setting;
use crate::cluster::Way;
use crate::times::Times;

/// As an SVG file.
pub fn draw(setting: &Setting, times: &Times) -> String {
    let measured = |way: Way| {
        let rows = times.rows.iter().filter(|row| row.way == way);
        rows.map(|row| (row.compression as f64, row.seconds.median())).collect::<Vec<_>>()
    };
    let predicted = |of: fn(&(usize, f64, f64)) -> f64| {
        times.predicted.iter().map(|point| (point.0 as f64, of(point))).collect::<Vec<_>>()
    };
    let (first, last) = (1.0, times.predicted.last().map_or(1.0, |point| point.0 as f64));
    let ring = times.ring.as_ref().map(|ring| ring.seconds.median());
    let dashed = r#"stroke-width="2" stroke-dasharray="2 4""#;
    let mut curves = vec![
        Curve::new("direct, bytes alone", "absent", dashed, predicted(|point| point.1)),
        Curve::new("relay, bytes alone", "absent", dashed, predicted(|point| point.2)),
        Curve::new("direct", "attacked", r#"stroke-width="2.5""#, measured(Way::Direct)),
    ];
    let ring = ring.map(|ring| vec![(first, ring), (last, ring)]);
    curves.extend(
        ring.map(|ring| Curve::new("gloo's ring", "truth", r#"stroke-width="2.5" stroke-dasharray="7 5""#, ring)),
    );
    curves.push(Curve::new("relay", "solon", r#"stroke-width="2.5""#, measured(Way::Relay)));
    Picture {
        title: format!(
            "Seconds per round; P = {}, d = {}, links of {}",
            Setting::WORKERS,
            setting.dimension,
            setting.rate
        ),
        unit: "s",
        word: "r_c".into(),
        marks: times.predicted.iter().map(|point| (point.0 as f64, point.0.to_string())).collect(),
        curves,
    }
    .svg()
}
