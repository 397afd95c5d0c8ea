//! Updates that travel as 16 bits: to the bit what rounding the update of f32 gives, wherever they land.

use half::{bf16, f16};

use super::*;
use crate::wire::{UPDATE_OFFSET, UndecodableReason};

/// Another implementation's rounding.
fn round(number: f32, precision: Precision) -> f32 {
    match precision {
        Precision::F32 => number,
        Precision::Bf16 => bf16::from_f32(number).to_f32(),
        Precision::F16 => f16::from_f32_const(number).to_f32_const(),
        Precision::Sign => unreachable!("not among all that say how large"),
    }
}

/// How a worker takes its updates.
#[derive(Clone, Copy, PartialEq)]
enum Taken {
    /// Copied to its buffer when the round has ended.
    Copied,
    /// Landed in its buffer.
    Direct,
    /// Landed in its buffer, which it takes away in the middle and gives again.
    Withdrawn,
    /// Where it landed.
    Place,
}
const WAYS: [Taken; 4] = [Taken::Copied, Taken::Direct, Taken::Withdrawn, Taken::Place];

impl Cluster {
    /// One round of honest workers, each of which takes its update in one of the ways; or why there is none, and the bytes of updates
    /// that it copied.
    fn taken(&mut self, gradients: &[Vec<f32>]) -> Vec<(Result<Vec<f32>, String>, u64)> {
        let r = self.sessions[0].welcome().plan.parameters.redundancy();
        let dimension = gradients[0].len();
        for session in &mut self.sessions {
            session.begin().unwrap();
        }
        let copied: Vec<u64> = self.sessions.iter().map(Session::copied).collect();
        // Whoever lets the update land there sees only that.
        let mut buffers = vec![vec![f32::NAN; dimension]; self.sessions.len()];
        let mut ended: Vec<Option<Result<Vec<f32>, String>>> = vec![None; self.sessions.len()];
        for turn in 0..20_000 {
            self.pipeline.step(self.now);
            for (worker, session) in self.sessions.iter_mut().enumerate() {
                let (buffer, way) = (&mut buffers[worker], WAYS[worker % WAYS.len()]);
                if ended[worker].is_some() {
                    session.drive(self.now, None).unwrap();
                    continue;
                }
                session.pump(Source::Separate(&gradients[worker / r]), None);
                let direct = way == Taken::Direct || way == Taken::Withdrawn && turn % 3 > 0;
                session.drive(self.now, direct.then_some(&mut buffer[..])).unwrap();
                if way == Taken::Withdrawn && turn % 3 == 2 {
                    session.withdraw(buffer);
                    buffer.fill(f32::NAN);
                }
                let result = match way {
                    Taken::Place => session.collect_place().map(|ended| {
                        ended.map(|(_, _, place)| {
                            bytemuck::cast_slice(&place[UPDATE_OFFSET..UPDATE_OFFSET + 4 * dimension]).to_vec()
                        })
                    }),
                    _ => session.collect(buffer).map(|ended| ended.map(|_| buffer.clone())),
                };
                ended[worker] = result.map(|result| result.map_err(|error| error.to_string()));
            }
            self.now += Duration::from_micros(100);
            if ended.iter().all(Option::is_some) {
                let copied = self.sessions.iter().zip(copied).map(|(session, before)| session.copied() - before);
                return ended.into_iter().flatten().zip(copied).collect();
            }
        }
        panic!("the round did not end");
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Numbers about everything that rounding can do: ties, signs of 0, numbers without all digits, the largest that stay finite.
fn awkward(groups: usize, dimension: usize, seed: u32, most: f32) -> Vec<Vec<f32>> {
    let mut all = gradients(groups, dimension, seed);
    let special =
        [-0.0, 0.0, 1e-40, -1e-45, 1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 6e-8, -2.98e-8, most, -most];
    for at in 0..dimension {
        if at % 3 == 0 {
            // Whole in the sum, too.
            all.iter_mut().for_each(|gradient| gradient[at] = 0.0);
            all[0][at] = special[(at / 3 + seed as usize) % special.len()];
        }
    }
    all
}

#[test]
fn rounded_updates_are_those_of_f32_rounded_once_bit_by_bit_for_everybody_in_every_way() {
    // The groups, r_c and s, numbers and the width of chunks: a prime, chunks of one number, a last chunk that is short.
    let shapes = [((2, 1, 2), 1009, 50), ((1, 1, 1), 13, 1), ((3, 0, 2), 1, 7), ((1, 1, 3), 4099, 1024)];
    for ((groups, s, c), dimension, width) in shapes {
        let parameters = Parameters::new(groups, s, 1, c).unwrap();
        for (shards, precision) in
            [Precision::F32, Precision::Bf16].into_iter().flat_map(|it| Precision::ALL.map(|other| (it, other)))
        {
            // Nothing of a sum may be lost to a tolerance, so only f32 shards hold numbers of all sizes.
            let most: f32 = match (shards, precision) {
                (Precision::F32, Precision::F16) => 65_519.0,
                (Precision::F32, _) => 3.3e38,
                _ => 1e3,
            };
            let rounds: Vec<_> = (0..3).map(|seed| awkward(groups, dimension, seed, most)).collect();
            let run = |precision| {
                let mut job = rounded(parameters, dimension, width, shards);
                job.plan.update_precision = precision;
                let mut cluster = Cluster::new(&job, 1);
                let updates: Vec<_> = rounds.iter().map(|gradients| cluster.taken(gradients)).collect();
                (updates, cluster.pipeline.handle.board.counted(Counter::BytesSent))
            };
            let ((plain, _), (updates, sent)) = (run(Precision::F32), run(precision));
            for (plain, updates) in plain.iter().zip(updates) {
                let wanted: Vec<f32> = plain[0].0.as_ref().unwrap().iter().map(|x| round(*x, precision)).collect();
                for (worker, (update, copied)) in updates.into_iter().enumerate() {
                    let what = format!("shards {shards}, updates {precision}, d {dimension}, worker {worker}");
                    assert!(bits(&update.unwrap()) == bits(&wanted), "{what}");
                    match WAYS[worker % WAYS.len()] {
                        Taken::Copied => assert_eq!(copied, 4 * dimension as u64, "{what}"),
                        Taken::Direct | Taken::Place => assert_eq!(copied, 0, "{what}"),
                        Taken::Withdrawn => {}
                    }
                }
            }
            let (workers, chunks) = (parameters.workers(), dimension.div_ceil(c * width));
            let most = workers * (3 * (precision.shard_bytes(dimension) + HEADER_BYTES * (2 * chunks + 1) + 552) + 640);
            assert!(sent as usize <= most, "{sent} {most}: shards {shards}, updates {precision}, d {dimension}");
        }
    }
}

#[test]
fn a_number_that_would_become_infinite_makes_its_round_undecodable_for_all_and_the_job_goes_on() {
    let parameters = Parameters::new(1, 1, 0, 2).unwrap();
    for (precision, last, lost) in
        [(Precision::Bf16, 0x7f7f_7fff, 0x7f7f_8000), (Precision::F16, 65_519f32.to_bits(), 65_520f32.to_bits())]
    {
        let mut job = job(parameters, 101, 10);
        job.plan.update_precision = precision;
        let mut cluster = Cluster::new(&job, 1);
        for (round, number) in [last, lost, last, 0x8000_0000 | lost, last].into_iter().enumerate() {
            let mut gradients = gradients(1, 101, 5);
            gradients[0][77] = f32::from_bits(number);
            for (update, _) in cluster.taken(&gradients) {
                match update {
                    Ok(update) => {
                        assert!(number == last && update.iter().all(|x| x.is_finite()), "{precision} {round}")
                    }
                    Err(why) => {
                        let reason = UndecodableReason::TooLarge.to_string();
                        assert!(
                            number != last && why.contains(&reason) && why.contains("push.precision"),
                            "{precision} {round}: {why}"
                        );
                    }
                }
            }
        }
    }
}
