//! Rounds of few numbers: how many round trips of the network does a round take?
//!
//! The unit is a round trip of 64 bytes over loopback TCP between two threads that never sleep, measured in the same run: the least that
//! asking and answering costs on this machine.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cluster::{Cluster, Floors};
use super::figures::{Figure, Machine};
use super::rounds::Effort;
use super::worker::Target;
use super::{BenchError, Job, Trouble};

/// Bytes of a ping.
const PING_BYTES: usize = 64;
/// Pings that are timed together. The quickest lot counts: a thread that lost its core for a while says nothing of the network.
const LOT: u32 = 100;
/// The longest that all pings of one repetition may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What rounds of few numbers took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The machine, in words.
    pub machine: String,
    /// P.
    pub workers: usize,
    /// d, numbers.
    pub dimension: usize,
    /// Microseconds of a round trip, of the quickest hundred.
    pub round_trip_us: Figure,
    /// Microseconds of a round of the raw floor.
    pub raw_us: Figure,
    /// Microseconds of a round of the dropping floor.
    pub dropping_us: Figure,
    /// Microseconds of a round of Solon.
    pub solon_us: Figure,
    /// Solon's round in round trips.
    pub round_trips: Figure,
}

/// Measures rounds of `job` in round trips.
///
/// # Errors
/// If it cannot be run.
pub fn measure(program: &Path, job: Job, effort: &Effort) -> Result<Report, BenchError> {
    let none = Trouble::none();
    let mut cluster = Cluster::start(program, job, Floors::Both, 0)?;
    let mut longest: f64 = 0.0;
    let sides = [Target::Raw, Target::Dropping, Target::Solon];
    for target in sides {
        longest = longest.max(cluster.run(target, 20, &none)?.seconds);
    }
    let rounds = effort.rounds(longest);
    let (mut trips, mut times): (Vec<f64>, [Vec<f64>; 3]) = Default::default();
    for _ in 0..effort.repetitions.max(1) {
        let trip =
            ping(effort.lots).map_err(|error| BenchError::Broken(format!("no round trip over loopback: {error}")))?;
        trips.push(trip * 1e6);
        for (target, times) in sides.into_iter().zip(&mut times) {
            times.push(cluster.run(target, rounds, &none)?.seconds * 1e6);
        }
    }
    let round_trips = times[2].iter().zip(&trips).map(|(round, trip)| round / trip).collect();
    let [raw, dropping, solon] = times;
    Ok(Report {
        machine: Machine::read().to_string(),
        workers: job.workers(),
        dimension: job.dimension,
        round_trip_us: Figure::new(trips),
        raw_us: Figure::new(raw),
        dropping_us: Figure::new(dropping),
        solon_us: Figure::new(solon),
        round_trips: Figure::new(round_trips),
    })
}

/// Seconds of a round trip, between two threads that look again at once: of those of the quickest of some lots.
fn ping(lots: u32) -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    let limit = Instant::now() + PATIENCE;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
    }
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let mut bytes = [0; PING_BYTES];
        for _ in 0..lots * LOT {
            spin(&mut bytes, limit, |rest| far.read(rest))?;
            spin(&mut bytes, limit, |rest| far.write(rest))?;
        }
        Ok(())
    });
    let (mut bytes, mut least) = ([0; PING_BYTES], f64::INFINITY);
    for _ in 0..lots {
        let start = Instant::now();
        for _ in 0..LOT {
            spin(&mut bytes, limit, |rest| near.write(rest))?;
            spin(&mut bytes, limit, |rest| near.read(rest))?;
        }
        least = least.min(start.elapsed().as_secs_f64() / f64::from(LOT));
    }
    echo.join().map_err(|_| io::Error::other("the echo ended"))??;
    Ok(least)
}

/// Moves all bytes, without sleeping.
fn spin(bytes: &mut [u8], limit: Instant, mut call: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    let (mut done, mut looks) = (0, 0u32);
    while done < bytes.len() {
        match call(&mut bytes[done..]) {
            Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
            Ok(moved) => done += moved,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                looks = looks.wrapping_add(1);
                // Where there is one core, the other thread needs it.
                if looks.is_multiple_of(1 << 12) {
                    if Instant::now() > limit {
                        return Err(ErrorKind::TimedOut.into());
                    }
                    std::thread::yield_now();
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(f, "P={} d={}, microseconds: median (least to most)\n", self.workers, self.dimension)?;
        for (what, figure) in [
            ("round trip of 64 bytes, busy poll", &self.round_trip_us),
            ("round, floor: raw bytes", &self.raw_us),
            ("round, floor: data dropped", &self.dropping_us),
            ("round, Solon", &self.solon_us),
        ] {
            writeln!(f, "{what:<36} {figure}")?;
        }
        write!(f, "{:<36} {}", "Solon's round in round trips", self.round_trips)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_ping_comes_back() {
        let seconds = super::ping(2).unwrap();
        assert!(seconds > 0.0 && seconds.is_finite());
    }
}
