//! A plan as a configuration file of `solond`.

use super::{PlanInput, PlanReport};
use crate::code::Precision;

/// Rounds get this many times what their transfers should take before they end undecoded.
const PATIENCE: f64 = 4.0;

/// The `[job]` of a plan, and what else is not as it is by default.
pub(super) fn of(report: &PlanReport) -> String {
    let (input, code) = (&report.input, &report.chosen().code);
    let mut file = format!(
        "[job]\ngroups = {}\nadversaries = {}\nstragglers = {}\ncompression = {}\nworkers = {}\ndimension = {}\n",
        code.groups, code.adversaries, code.stragglers, code.compression, code.workers, input.dimension
    );
    if input.precision != Precision::F32 {
        file += &format!("precision = \"{}\"\n", input.precision);
    }
    if code.groups > 1 {
        file += &format!(
            "# scale = {}  # for the mean of the {} groups instead of their sum\n",
            scale(code.groups),
            code.groups
        );
    }
    let usual = PlanInput::new(input.size, input.dimension);
    let mut section = |name: &str, settings: &[(&str, Option<String>)]| {
        if settings.iter().any(|(_, value)| value.is_some()) {
            file += &format!("\n[{name}]\n");
        }
        for (key, value) in settings {
            file += &value.as_ref().map_or(String::new(), |value| format!("{key} = {value}\n"));
        }
    };
    let unusual = |value: usize, usual: usize| (value != usual).then(|| value.to_string());
    section("chunks", &[("width", unusual(input.chunk_width, usual.chunk_width))]);
    section(
        "rounds",
        &[
            ("window", unusual(input.window, usual.window)),
            ("deadline_ms", deadline_ms(report).map(|ms| ms.to_string())),
        ],
    );
    let rounded = (input.update_precision != Precision::F32).then(|| format!("\"{}\"", input.update_precision));
    let usually = PlanInput::usual_tolerance(input.precision, input.compression);
    let tolerance = (input.tolerance != usually).then(|| format!("{:e}", input.tolerance));
    section("verify", &[("tolerance", tolerance)]);
    section("push", &[("precision", rounded)]);
    section(
        "memory",
        &[("credits", unusual(input.credits, usual.credits)), ("updates", unusual(input.updates, usual.updates))],
    );
    file
}

/// 1 / groups, with as many digits as an f32 tells apart.
fn scale(groups: usize) -> String {
    format!("{:?}", 1.0 / groups as f32)
}

/// A deadline, if the usual one is too soon for this much data.
fn deadline_ms(report: &PlanReport) -> Option<u64> {
    let needed = report.chosen().wire.as_ref()?.both.get() * PATIENCE * 1e3;
    let (usual, (_, max)) = (super::default::<u64>("rounds.deadline_ms"), super::refusal::range("rounds.deadline_ms"));
    (needed > usual as f64).then(|| (needed.ceil() as u64).min(max as u64))
}
