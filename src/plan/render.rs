//! A report as text: for people, on terminals from 80 columns.

use std::fmt;

use super::page::{Page, WIDTH, number, plural};
use super::quantity::{bytes, grouped};
use super::refusal::groups;
use super::{Bottleneck, BreakEven, Choice, Code, Duel, Faster, PlanInput, PlanReport, RoundTime};
use crate::code::{Parameters, Precision, locates_surely};

/// More groups than this are not listed one by one.
const GROUPS_SHOWN: usize = 6;

impl fmt::Display for PlanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Page::new();
        heading(&mut page, self);
        layout(&mut page, self);
        tolerated(&mut page, &self.chosen().code);
        cost(&mut page, self);
        memory(&mut page, self);
        accuracy(&mut page, self);
        alternatives(&mut page, self);
        against_draco(&mut page, self);
        page.section("Configuration for solond");
        self.config.lines().for_each(|line| page.line(&format!("  {line}")));
        f.write_str(page.text())
    }
}

fn heading(page: &mut Page, report: &PlanReport) {
    let (code, d) = (&report.chosen().code, report.input.dimension as u64);
    let text = format!(
        "{} worker{} in {}, a gradient of {} numbers ({})",
        code.workers,
        plural(code.workers),
        groups(code),
        grouped(d),
        bytes(4.0 * d as f64)
    );
    page.paragraph("", &text);
}

fn layout(page: &mut Page, report: &PlanReport) {
    let Code { redundancy, compression, adversaries, stragglers, .. } = report.chosen().code;
    page.section("Groups");
    let name = |&(first, last): &(usize, usize)| match last - first {
        0 => format!("group {}: worker {first}", first / redundancy),
        _ => format!("group {}: workers {first}-{last}", first / redundancy),
    };
    let mut cells: Vec<String> = report.groups.iter().map(name).collect();
    if cells.len() > GROUPS_SHOWN {
        cells.splice(GROUPS_SHOWN - 2..cells.len() - 1, ["...".into()]);
    }
    let width = cells.iter().map(String::len).max().unwrap_or(0) + 4;
    for row in cells.chunks(((WIDTH - 2) / width).max(1)) {
        let row: String = row.iter().map(|cell| format!("{cell:<width$}")).collect();
        page.line(&format!("  {}", row.trim_end()));
    }
    let text = format!(
        "All workers of a group compute the same gradient on the same samples. A group has r = {redundancy} workers: \
         compression {compression} + 2 x adversaries {adversaries} + stragglers {stragglers}."
    );
    page.paragraph("  ", &text);
}

fn tolerated(page: &mut Page, code: &Code) {
    let Code { redundancy: r, adversaries: s, stragglers: e, agreement, .. } = *code;
    page.section("What may go wrong, in every group and round");
    let bad = match s {
        0 => "None is corrected: a single wrong result can spoil the update unseen.".into(),
        _ => format!(
            "Up to {s} may send anything (broken GPU, flipped bits, malice, all of them together): the update comes out \
             as if they were honest, and the report says which they are."
        ),
    };
    page.item("bad workers", &bad);
    let silent = match (s, e) {
        (0, 0) => "None: every worker is needed.".into(),
        (_, 0) => format!("None beside {s} bad one{}: bad and silent workers together are at most {s}.", plural(s)),
        (0, _) => format!("Up to {e} may send nothing or too late."),
        _ => format!(
            "Up to {e} may send nothing or too late, beside {s} bad one{}. Bad and silent workers together are at most {}.",
            plural(s),
            s + e
        ),
    };
    page.item("silent ones", &silent);
    let slow = match s + e {
        0 => "The slowest worker sets the time.".into(),
        slow => format!(
            "While nobody lies the {} no time: a chunk is done when {agreement} of {r} shards agree.",
            if slow == 1 { "slowest worker costs".into() } else { format!("{slow} slowest workers cost") }
        ),
    };
    page.item("stragglers", &slow);
    if s > 0 {
        let beyond = format!(
            "With more bad workers a round is still right, or reported undecodable and without an update. It is wrong \
             unseen only if {} bad workers of one group agree on the same lie.",
            s + 1
        );
        page.item("beyond that", &beyond);
    }
}

fn cost(page: &mut Page, report: &PlanReport) {
    let Choice { code, traffic, wire, round, .. } = report.chosen();
    page.section("Cost of a round");
    let time = |time: Option<super::Seconds>| time.map_or(String::new(), |time| time.to_string());
    let share = format!("{} x its share", code.redundancy);
    let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
    let [up, up_all, down, down_all] =
        [traffic.upload_per_worker, traffic.upload, traffic.download_per_worker, traffic.download]
            .map(|count| bytes(count as f64));
    let mut rows = vec![
        row(["", "each worker", "all workers", "time"]),
        row(["compute", &share, "", &time(round.map(|round| round.compute))]),
        row(["upload", &up, &up_all, &time(wire.map(|wire| wire.upload))]),
        row(["download", &down, &down_all, &time(wire.map(|wire| wire.download))]),
    ];
    if let Some(round) = round {
        rows.push(row(["round", "", "", &round.total.to_string()]));
    }
    page.table("<>>>", &rows);
    if let Some(link) = report.input.link {
        let overlap = match traffic.chunks {
            1 => "There is only one chunk: the download begins when the upload is done.".into(),
            chunks => format!("Upload and download overlap, chunk by chunk ({} chunks).", grouped(chunks)),
        };
        let verdict = round.as_ref().map_or(String::new(), |round| format!(" {}", bottleneck(round, report)));
        page.paragraph("  ", &format!("Times are at the daemon's link, {link} in each direction. {overlap}{verdict}"));
    }
    page.paragraph("  ", &chunks(report));
    match (report.input.link, report.input.gradient_time) {
        (Some(_), Some(_)) => {}
        (None, Some(_)) => page.paragraph("  ", "How long a round takes depends on the daemon's link too: give --link."),
        (Some(_), None) => page.paragraph(
            "  ",
            "How long a round takes depends on computing too: give --gradient-time, what one worker takes for its share \
             without redundancy.",
        ),
        (None, None) => page.paragraph("  ", "To see how long a round takes, give --link and --gradient-time."),
    }
}

/// Where the shards of a chunk are decoded.
fn chunks(report: &PlanReport) -> String {
    let chunking = &report.chunking;
    let [shard, stripe, cache] =
        [report.input.precision.shard_bytes(chunking.width), chunking.stripe_bytes, chunking.cache_bytes]
            .map(|count| bytes(count as f64));
    let twice = if report.input.precision == Precision::F32 { "" } else { " (as they come and as f32)" };
    let what = format!(
        "A chunk has {} numbers per shard ({shard}). All its shards{twice} and its update are {stripe}:",
        grouped(chunking.width as u64)
    );
    let known = if report.input.cache.is_some() { "" } else { " (assumed; --cache sets it)" };
    if chunking.fits() {
        format!("{what} within half of a last-level cache of {cache}{known}, so they are decoded while they are there.")
    } else {
        let advice = match chunking.suggested {
            Some(width) => format!("--chunk-width {width} would."),
            None => "No sensible width would.".into(),
        };
        format!(
            "{what} they do not fit into half of a last-level cache of {cache}{known}, and are read from memory. {advice}"
        )
    }
}

fn bottleneck(round: &RoundTime, report: &PlanReport) -> String {
    let chosen = report.chosen();
    let Some(wire) = chosen.wire else { return String::new() };
    let part = |time: super::Seconds| format!("{:.0} %", 100.0 * time.get() / round.total.get());
    let download = format!(
        "without a relay the daemon sends each of {} workers the whole update, whatever the compression is; with one \
         (push.way) a round would take {}",
        chosen.code.workers, round.total_if_relayed
    );
    match round.bottleneck {
        Bottleneck::Compute => format!(
            "Computing is {} of the round. The longer transfer is the download: {download}.",
            part(round.compute)
        ),
        Bottleneck::Download => format!("The download is {} of the round: {download}.", part(wire.download)),
        Bottleneck::Upload => format!("The upload is {} of the round.", part(wire.upload)),
    }
}

fn memory(page: &mut Page, report: &PlanReport) {
    let (memory, input, code) = (&report.memory, &report.input, &report.chosen().code);
    page.section("Memory of the daemon for what is in flight");
    let half = memory.update_slots / 2;
    let updates = if half == input.updates {
        format!("{half} updates")
    } else {
        format!("{half} reports: 2 per round in flight")
    };
    let grouped = |bytes: usize| grouped(bytes as u64);
    let mut rows = vec![
        vec![
            "shards".into(),
            format!(
                "{} worker{} x {} B ({} credits)",
                code.workers,
                plural(code.workers),
                grouped(memory.shard_bytes / code.workers),
                input.credits
            ),
            format!("{} B", grouped(memory.shard_bytes)),
        ],
        vec![
            "updates".into(),
            format!("2 x {} B ({updates})", grouped(memory.update_bytes / 2)),
            format!("{} B", grouped(memory.update_bytes)),
        ],
    ];
    if memory.wide_bytes > 0 {
        rows.push(vec![
            "as f32".into(),
            "a chunk's shards; again for every further decoder".into(),
            format!("{} B", grouped(memory.wide_bytes)),
        ]);
    }
    rows.push(vec!["total".into(), "".into(), bytes(memory.total as f64)]);
    page.table("<<>", &rows);
    let pinned = bytes(memory.pinned as f64);
    page.paragraph(
        "  ",
        &format!("With RDMA {pinned} count as locked memory: updates once per worker (RLIMIT_MEMLOCK)."),
    );
}

fn accuracy(page: &mut Page, report: &PlanReport) {
    let PlanReport { accuracy, input: PlanInput { tolerance, precision, adversaries, .. }, .. } = report;
    let conditioning = accuracy.conditioning;
    page.section("Accuracy, relative to the gradient of a group, at worst");
    let looked = if conditioning.exhaustive {
        "every set of honest workers was tried"
    } else {
        "20000 sets of honest workers were tried, and all runs of neighbours, the worst ones known"
    };
    page.item("condition", &format!("{}: recovery enlarges errors so much ({looked}).", number(conditioning.honest)));
    let roundoff = precision.unit_roundoff().log2();
    let how = if *precision == Precision::F32 { String::new() } else { format!(" (uploads in {precision})") };
    page.item("rounding", &format!("About {:.0e}: condition x 2^{roundoff}{how}.", accuracy.rounding));
    if report.input.update_precision != Precision::F32 {
        let precision = report.input.update_precision;
        let digits = precision.unit_roundoff().log2();
        page.item("updates", &format!("Each number is rounded to {precision} once: by up to 2^{digits} of it more."));
    }
    let early = if accuracy.hidden_early > 2.0 * accuracy.hidden {
        format!(
            " {:.0e} if the bad workers are also the fastest ones, so that chunks are decided with just r_c honest \
             shards (condition {}); rounds.linger_ms waits for the others.",
            accuracy.hidden_early,
            number(conditioning.least)
        )
    } else {
        String::new()
    };
    let hidden = format!(
        "Lies just below the tolerance ({tolerance:.1e}) are not seen. They can change the result by about {:.0e}: \
         tolerance x sqrt(r) x condition.{early}",
        accuracy.hidden
    );
    let lies = *adversaries > 0;
    if lies {
        page.item("hidden lies", &hidden);
    }
    let absolute = precision.absolute_tolerance(report.chosen().code.compression);
    if lies && absolute > 0.0 {
        let small = format!(
            "Small numbers lose digits in {precision}, which is allowed for. Where the root mean square of a gradient is rms, lies \
             can change (tolerance + {absolute:.1e} / rms) x sqrt(r) x condition: scale gradients until rms is well above \
             1e-4, or take bf16."
        );
        page.item("small ones", &small);
    }
    // Who asks for 16 bits wants their rounding.
    let too_rough = accuracy.rounding > f64::max(1e-3, 8.0 * precision.unit_roundoff());
    if too_rough || lies && accuracy.hidden > 1e-2 {
        let advice = match precision.is_coarse(report.chosen().code.compression) {
            true => {
                "Against liars who know the code this is too inaccurate: take f32, or compression 1, where lies hide only within \
                 the tolerance of f32."
            }
            false => "This is too inaccurate to be of use: take less compression, or smaller groups.",
        };
        page.item("warning", advice);
    } else if lies && accuracy.hidden_early > 1e-2 {
        page.item("warning", "Use rounds.linger_ms, or take less compression: fast liars could hide too much.");
    }
    let Code { adversaries, stragglers, compression, .. } = report.chosen().code;
    if Parameters::new(1, adversaries, stragglers, compression).is_ok_and(|code| !locates_surely(&code)) {
        page.item(
            "warning",
            "The groups are so large that the search for liars is not exhaustive: with as many as the code corrects, a round \
             may be undecodable. Lower the compression or the bad workers per group.",
        );
    }
}

fn alternatives(page: &mut Page, report: &PlanReport) {
    let chosen = report.chosen();
    let Code { workers, adversaries, stragglers, .. } = chosen.code;
    page.section(&format!(
        "Compression: all that fit {workers} worker{}, adversaries {adversaries}, stragglers {stragglers}",
        plural(workers)
    ));
    let heading = ["r_c", "r", "groups", "compute", "upload", "download", "round", "cond.", ""];
    let mut rows = vec![heading.map(String::from).to_vec()];
    let mut unmeasured = false;
    for (at, choice) in report.choices.iter().enumerate() {
        let (code, traffic) = (&choice.code, &choice.traffic);
        let (upload, download) = match choice.wire {
            Some(wire) => (wire.upload.to_string(), wire.download.to_string()),
            None => (bytes(traffic.upload as f64), bytes(traffic.download as f64)),
        };
        let compute = match choice.round {
            Some(round) => round.compute.to_string(),
            None => format!("x {}", code.redundancy),
        };
        let marks = [(at == report.chosen, "chosen"), (Some(at) == report.fastest, "fastest")];
        let marks: Vec<&str> = marks.into_iter().filter_map(|(holds, mark)| holds.then_some(mark)).collect();
        unmeasured |= choice.conditioning.is_none();
        rows.push(vec![
            code.compression.to_string(),
            code.redundancy.to_string(),
            code.groups.to_string(),
            compute,
            upload,
            download,
            choice.round.map_or("-".into(), |round| round.total.to_string()),
            choice.conditioning.map_or("-".into(), |conditioning| number(conditioning.honest)),
            marks.join(", "),
        ]);
    }
    if report.rule_of_thumb.is_none() {
        rows.iter_mut().for_each(|row| drop(row.remove(6)));
    }
    page.table(&">>>>>>>><"[9 - rows[0].len()..], &rows);
    if unmeasured {
        page.paragraph("  ", "\"-\": it takes long to measure; plan that compression to see it.");
    }
    advice(page, report);
}

fn advice(page: &mut Page, report: &PlanReport) {
    let (Some(fastest), Some(rule), Some(now)) = (report.fastest, report.rule_of_thumb, report.chosen().round) else {
        return;
    };
    let (fastest, chosen) = (&report.choices[fastest], report.chosen());
    let verdict = match (fastest.round, fastest.wire.zip(chosen.wire)) {
        _ if report.choices.len() == 1 => "There is no other.".into(),
        (Some(best), Some((wire, own))) if fastest.code != chosen.code => format!(
            "r_c = {} is faster, {} a round instead of {}: {}, {}.",
            fastest.code.compression,
            best.total,
            now.total,
            difference("computing", best.compute.get() - now.compute.get(), now.total.get()),
            difference("transfers", wire.both.get() - own.both.get(), now.total.get()),
        ),
        _ => format!("r_c = {} is the fastest.", chosen.code.compression),
    };
    page.paragraph("  ", &verdict);
    let pays = match rule.pays(2) {
        true => format!("r_c > 1 would pay as long as it is below C / c = {}", number(rule.best * rule.best)),
        false => "even r_c = 2 would buy nothing, as C <= r_c c".into(),
    };
    let text = format!(
        "Rule of thumb: r_c costs r_c c of computing and leaves C / r_c of upload, least at r_c = sqrt(C / c) = {}, where C \
         = {} to receive {} full gradients and c = {} to compute a share; {pays}.",
        number(rule.best),
        rule.all_gradients,
        chosen.code.workers,
        rule.unit
    );
    page.paragraph("  ", &text);
    let Some((relayed, round)) =
        report.fastest_if_relayed.map(|at| &report.choices[at]).and_then(|choice| Some((choice, choice.round?)))
    else {
        return;
    };
    let hides = if chosen.traffic.chunks > 1 { " Without a relay the download hides the upload." } else { "" };
    let text = format!(
        "That counts once the upload is what is waited for.{hides} If workers relay updates to one another \
         (push.way), r_c = {} is the fastest: {} a round.",
        relayed.code.compression, round.total_if_relayed
    );
    page.paragraph("  ", &text);
}

/// `250 ms less computing`; what is below a thousandth of `whole` is no difference.
fn difference(what: &str, more: f64, whole: f64) -> String {
    match more {
        _ if more.abs() < 1e-3 * whole => {
            format!("its {what} take{} as long", if what.ends_with('s') { "" } else { "s" })
        }
        _ if more < 0.0 => {
            format!("its {what} saves {}", super::Seconds::of(-more)).replace("transfers saves", "transfers save")
        }
        _ => format!("its {what} costs {} more", super::Seconds::of(more)).replace("transfers costs", "transfers cost"),
    }
}

fn against_draco(page: &mut Page, report: &PlanReport) {
    let (Some(crossover), Some(unit)) = (report.crossover, report.input.gradient_time) else { return };
    let (solon, draco) = (&report.chosen().code, &crossover.draco);
    page.section(&format!("Against Draco, which repeats: compression 1, {}", groups(draco)));
    let heading = ["", "compute", "upload", "round", "if relayed"].map(String::from).to_vec();
    let row = |name: &str, shares: f64, compression: usize, times: [super::Seconds; 2]| {
        let compute = super::Seconds::of(shares * unit.get()).to_string();
        let upload = match compression {
            1 => "whole".into(),
            _ => format!("1/{compression}"),
        };
        vec![name.into(), compute, upload, times[0].to_string(), times[1].to_string()]
    };
    let (sent, relayed) = (crossover.sent, crossover.relayed);
    let rows = [
        heading,
        row("Solon", solon.redundancy as f64, solon.compression, [sent.solon, relayed.solon]),
        row("Draco", crossover.draco_shares, 1, [sent.draco, relayed.draco]),
    ];
    page.table("<>>>>", &rows);
    let idle = solon.workers - draco.workers;
    if idle > 0 {
        page.paragraph(
            "  ",
            &format!(
                "{idle} of {} workers would have nothing to do there; the others compute {:.2} times r shares.",
                solon.workers,
                crossover.draco_shares / draco.redundancy as f64
            ),
        );
    }
    page.item("sent", &duel(&sent, "The download hides what the upload saves."));
    page.item("relayed", &duel(&relayed, "The upload saves nothing that is waited for."));
}

/// Who is faster, and where that changes; `why` there is no such place.
fn duel(duel: &Duel, why: &str) -> String {
    let (ours, theirs) = (duel.solon.get(), duel.draco.get());
    let verdict = match duel.faster {
        Faster::Solon => format!("Solon is faster: Draco takes {} times as long.", ratio(theirs / ours)),
        Faster::Draco => format!("Draco is faster: Solon takes {} times as long.", ratio(ours / theirs)),
        Faster::Neither => "Both take as long.".into(),
    };
    match duel.break_even {
        BreakEven::At { link, gradient_time } => format!(
            "{verdict} Break-even at a link of {link} or a gradient time of {gradient_time}: below either Solon is faster."
        ),
        BreakEven::Never => format!("{verdict} {why} Draco is faster on every link."),
        BreakEven::Always => format!("{verdict} Draco computes no less: Solon is faster on every link."),
    }
}

/// To three digits: `1.02`, `13.5`, `690`.
fn ratio(ratio: f64) -> String {
    match ratio {
        ..9.995 => format!("{ratio:.2}"),
        ..99.95 => format!("{ratio:.1}"),
        _ => number(ratio),
    }
}
