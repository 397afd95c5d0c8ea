//! What a job costs in which every worker computes something else and a rule combines them: there is no code to choose.

use std::ffi::OsString;
use std::fmt;

use serde::Serialize;

use super::quantity::{bytes, grouped};
use crate::daemon::config::{Refusal, Request, Rule, load};
use crate::daemon::serve::job_of;
use crate::pipeline::Limits;
use crate::wire::{HEADER_BYTES, REPORT_BYTES};

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UncodedInput {
    /// The rule: not [`Rule::Solon`], and not [`Rule::Draco`].
    pub rule: Rule,
    /// Workers, P.
    pub workers: usize,
    /// How many may lie, f.
    pub adversaries: usize,
    /// How many may be missing.
    pub missing: usize,
    /// Numbers in the gradient.
    pub dimension: usize,
    /// Numbers per shard of one chunk.
    pub chunk_width: usize,
}

/// What it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uncoded {
    /// `job.rule`.
    pub rule: &'static str,
    /// Workers.
    pub workers: usize,
    /// How many may lie.
    pub adversaries: usize,
    /// The bound on their number.
    pub bound: String,
    /// Gradients that each worker computes.
    pub gradients: u32,
    /// Chunks of the gradient.
    pub chunks: usize,
    /// Bytes that one worker sends in a round, and gets.
    pub upload_per_worker: u64,
    /// As above.
    pub download_per_worker: u64,
    /// Shards in flight per worker.
    pub credits: usize,
    /// Bytes of slots for shards.
    pub shard_bytes: usize,
    /// Bytes of slots for updates.
    pub update_bytes: usize,
    /// Bytes of what is kept of all pairs of workers.
    pub survey_bytes: usize,
    /// The configuration.
    pub config: String,
}

/// The costs of a job with a rule of this kind.
///
/// # Errors
/// If `solond` would refuse it, in its words.
pub fn plan_uncoded(input: &UncodedInput) -> Result<Uncoded, String> {
    let mut settings = vec![("job-rule", input.rule.name().to_owned()), ("job-groups", input.workers.to_string())];
    if input.rule != Rule::MEAN {
        settings.push(("job-adversaries", input.adversaries.to_string()));
        settings.push(("job-stragglers", input.missing.to_string()));
    }
    settings.push(("job-dimension", input.dimension.to_string()));
    settings.push(("chunks-width", input.chunk_width.to_string()));
    let flags = settings.iter().map(|(name, value)| OsString::from(format!("--{name}={value}")));
    let loaded = load(std::iter::once("solond".into()).chain(flags), [], &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = match loaded {
        Ok(Request::Serve(loaded)) => loaded.config,
        Ok(Request::Answer(answer)) => return Err(answer),
        Err(Refusal::Wrong { problems, .. }) => {
            return Err(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
        Err(usage) => return Err(usage.to_string()),
    };
    let job = job_of(&config, [0; 32], 0).map_err(|error| error.to_string())?;
    let (plan, limits) = (&job.plan, Limits::of(&job.plan, job.updates));
    let chunks = plan.layout.chunks();
    let widths = (0..chunks).map(|chunk| plan.layout.chunk(chunk).len);
    let headers = (chunks * HEADER_BYTES) as u64;
    let up: usize = widths.clone().map(|width| plan.shard_bytes(width)).sum();
    let down: usize = widths.map(|width| plan.update_bytes(width)).sum();
    let mut file = String::from("[job]\n");
    for (name, value) in settings.iter().filter(|(name, _)| name.starts_with("job-")) {
        let quote = if *name == "job-rule" { "\"" } else { "" };
        file += &format!("{} = {quote}{value}{quote}\n", &name["job-".len()..]);
    }
    file += &format!("\n[chunks]\nwidth = {}\n", input.chunk_width);
    Ok(Uncoded {
        rule: input.rule.name(),
        workers: input.workers,
        adversaries: job.shape().adversaries,
        bound: job.robust.as_ref().map_or("P >= 1", |robust| robust.rule.needs(robust.adversaries).1).into(),
        gradients: plan.gradients,
        chunks,
        upload_per_worker: up as u64 + headers,
        download_per_worker: (down + REPORT_BYTES + HEADER_BYTES) as u64 + headers,
        credits: plan.credits as usize,
        shard_bytes: limits.shard_bytes(input.workers),
        update_bytes: limits.update_bytes(),
        survey_bytes: limits.survey_bytes(&job),
        config: file,
    })
}

impl fmt::Display for Uncoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Uncoded { rule, workers, adversaries, bound, chunks, credits, .. } = self;
        let samples = match self.gradients {
            1 => "samples of its own".into(),
            count => format!("its own samples and those of {} others", count - 1),
        };
        writeln!(f, "{rule}: {workers} workers, each with {samples}, of which {adversaries} may lie ({bound})")?;
        writeln!(f, "\nBytes of a round")?;
        let workers = *workers as u64;
        for (way, each) in [("up", self.upload_per_worker), ("down", self.download_per_worker)] {
            writeln!(f, "  {way:<8}{} B per worker, {} in all", grouped(each), bytes((workers * each) as f64))?;
        }
        writeln!(f, "  {chunks} chunks\n\nMemory of the daemon")?;
        writeln!(f, "  shards  {} ({credits} credits per worker)", bytes(self.shard_bytes as f64))?;
        writeln!(f, "  updates {}", bytes(self.update_bytes as f64))?;
        if self.survey_bytes > 0 {
            writeln!(f, "  pairs   {}, as the rule looks at whole gradients", bytes(self.survey_bytes as f64))?;
        }
        write!(f, "\nConfiguration\n\n{}", self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;

    fn input(rule: Rule) -> UncodedInput {
        UncodedInput { rule, workers: 11, adversaries: 2, missing: 0, dimension: 100_000, chunk_width: 1000 }
    }

    #[test]
    fn a_rule_that_surveys_costs_a_round_of_memory_and_signs_a_bit_per_number() {
        let [median, bulyan, signum] = [
            Rule::Uncoded(rules::Rule::Median),
            Rule::Uncoded(rules::Rule::Bulyan),
            Rule::Uncoded(rules::Rule::Signum),
        ]
        .map(|rule| plan_uncoded(&input(rule)).unwrap());
        assert_eq!((median.credits, bulyan.credits, median.survey_bytes), (8, 108, 0));
        assert!(bulyan.shard_bytes > 11 * 4 * 100_000 && bulyan.survey_bytes >= 4 * 100 * 66 * 8);
        assert_eq!(median.upload_per_worker, 400_000 + 6400);
        assert_eq!(signum.upload_per_worker, 12_500 + 6400);
        assert!(signum.download_per_worker < median.download_per_worker / 15);
        assert!(bulyan.to_string().contains("P >= 4 f + 3"), "{bulyan}");
        assert!(bulyan.config.contains("rule = \"bulyan\"\ngroups = 11\nadversaries = 2\n"), "{}", bulyan.config);
    }

    #[test]
    fn what_solond_refuses_is_refused_in_its_words() {
        let error =
            plan_uncoded(&UncodedInput { adversaries: 3, ..input(Rule::Uncoded(rules::Rule::Bulyan)) }).unwrap_err();
        assert!(error.contains("at least 15 workers (P >= 4 f + 3)"), "{error}");
    }
}
