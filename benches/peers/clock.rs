//! Processor and wall time of calls, in turns: every repetition calls each contestant once, so that a busy minute hits all.

use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use solon::bench::figures::Figure;

/// Contestants that take longer than this are not called again.
const SECONDS_TO_REPEAT: f64 = 2.0;

/// One way to aggregate.
pub struct Contestant<'a> {
    pub name: String,
    pub call: Box<dyn FnMut() + 'a>,
}

impl<'a> Contestant<'a> {
    pub fn new(name: impl Into<String>, call: impl FnMut() + 'a) -> Contestant<'a> {
        Contestant { name: name.into(), call: Box::new(call) }
    }
}

/// What one contestant took per call.
pub struct Timed {
    pub name: String,
    /// Milliseconds of this thread's processor time.
    pub cpu: Figure,
    /// Milliseconds.
    pub wall: Figure,
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Calls all of them in turn, `repetitions` times after one call to warm up; slow ones once and cold.
pub fn race(contestants: Vec<Contestant<'_>>, repetitions: usize) -> Vec<Timed> {
    let measure = |contestant: &mut Contestant<'_>| {
        let (cpu, wall) = (thread_seconds(), Instant::now());
        (contestant.call)();
        (thread_seconds() - cpu, wall.elapsed().as_secs_f64())
    };
    let mut samples: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut contestants: Vec<_> = contestants;
    for contestant in &mut contestants {
        let first = measure(contestant);
        eprintln!("  {}: {:.3} s", contestant.name, first.1);
        samples.push(if first.1 > SECONDS_TO_REPEAT { vec![first] } else { vec![] });
    }
    let slow: Vec<bool> = samples.iter().map(|taken| !taken.is_empty()).collect();
    for _ in 0..repetitions {
        for (at, contestant) in contestants.iter_mut().enumerate().filter(|(at, _)| !slow[*at]) {
            samples[at].push(measure(contestant));
        }
    }
    let timed = |(contestant, taken): (Contestant<'_>, Vec<(f64, f64)>)| Timed {
        name: contestant.name,
        cpu: Figure::new(taken.iter().map(|sample| 1e3 * sample.0).collect()),
        wall: Figure::new(taken.iter().map(|sample| 1e3 * sample.1).collect()),
    };
    contestants.into_iter().zip(samples).map(timed).collect()
}
