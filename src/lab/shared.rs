//! Gradients that the worker processes of one machine share: a file that all of them map.
//!
//! Two uses. Liars that are said to know everything read all honest gradients of a round before they lie. And where many workers are
//! emulated on few cores, one worker per group computes a gradient, and its replicas copy it.
//!
//! ```text
//! | header | stamps: parts x 2 | rows: parts x 2, of d numbers each |
//! ```
//!
//! A *part* is a gradient that is unlike the others: that of a group, or without a code that of a worker. One worker publishes it, in the
//! row of the round's parity; the row's stamp says which round is in it. Who needs a part sleeps on its stamp (a futex) until it is there.
//! A reader may be late: the row of round t is written over in round t + 2. Rows are read as a sequence lock is (H. Boehm, "Can seqlocks
//! get along with programming language memory models?", 2012): a copy whose stamp has changed meanwhile is given up.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use memmap2::MmapRaw;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::thread::futex;

/// Says what the file is, and in which order its words are.
const MAGIC: u32 = 0x5347_0001;
/// Words of the header: magic, parts, and the dimension's low and high half.
const HEADER: usize = 4;
/// Rows per part.
const ROWS: usize = 2;
/// Rounds that a stamp can count.
const ROUNDS: u64 = (u32::MAX / 2) as u64;

/// The gradients that workers of one machine share. Any number of processes may have the same file open.
#[derive(Debug)]
pub struct SharedGradients {
    map: MmapRaw,
    path: PathBuf,
    parts: usize,
    dimension: usize,
}

/// Why gradients are not shared.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The file cannot be made, opened or mapped.
    #[error("shared gradients: cannot {what} {} ({bytes} bytes): {error}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// How large it is to be.
        bytes: u64,
        /// What the system says.
        error: io::Error,
    },
    /// The file is something else, or for another experiment.
    #[error(
        "shared gradients: {} is no file of {parts} parts of {dimension} numbers ({found}): every worker of an experiment must be \
         given the same model, parts and file, by the program that made it", .path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// Parts expected.
        parts: usize,
        /// Numbers per part expected.
        dimension: usize,
        /// What was found instead.
        found: String,
    },
    /// There is no such part, its length is another, or rounds are more than can be counted.
    #[error(
        "shared gradients: part {part} of round {round} with {length} numbers, where there are {parts} parts of {dimension} numbers and \
         {ROUNDS} rounds"
    )]
    Outside {
        /// Part asked for.
        part: usize,
        /// Its round.
        round: u64,
        /// Numbers given, or room for them.
        length: usize,
        /// Parts that there are.
        parts: usize,
        /// Numbers per part.
        dimension: usize,
    },
    /// Whoever computes the part did not publish it in time.
    #[error(
        "shared gradients: part {part} of round {round} did not come within {patience:?}: has the worker that computes it ended?"
    )]
    Missing {
        /// The part.
        part: usize,
        /// Its round.
        round: u64,
        /// How long was waited.
        patience: Duration,
    },
    /// The row holds a later round: the reader was more than a round behind.
    #[error("shared gradients: part {part} of round {round} is gone: round {now} has taken its place")]
    Gone {
        /// The part.
        part: usize,
        /// The round asked for.
        round: u64,
        /// The round that is there now, or is being written.
        now: u64,
    },
    /// The part was published for this round, or a later one of the same parity.
    #[error(
        "shared gradients: part {part} of round {round} is published twice, or after round {now}: each part has one worker"
    )]
    Again {
        /// The part.
        part: usize,
        /// The round to publish.
        round: u64,
        /// The round that is there.
        now: u64,
    },
}

impl SharedGradients {
    /// Makes the file: room for `parts` gradients of `dimension` numbers. Its memory is taken here, so that none is missing later; on
    /// `/dev/shm` it never goes to a disk. Whoever makes it removes it.
    ///
    /// # Errors
    /// If the file exists, or there is no room for it.
    pub fn create(path: &Path, parts: usize, dimension: usize) -> Result<SharedGradients, SharedError> {
        let bytes = bytes_of(parts, dimension);
        let failed = |what| move |error| SharedError::Io { what, path: path.to_owned(), bytes, error };
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(failed("create"))?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // A file system that cannot take room beforehand.
            Err(Errno::OPNOTSUPP) => file.set_len(bytes).map_err(failed("lengthen"))?,
            Err(error) => {
                // What is no use is not left behind.
                let _ = std::fs::remove_file(path);
                return Err(failed("find room for")(error.into()));
            }
        }
        let shared = SharedGradients::map(&file, path, parts, dimension)?;
        let header = [parts as u32, dimension as u32, (dimension as u64 >> 32) as u32];
        shared.words()[1..].iter().zip(header).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        shared.words()[0].store(MAGIC, Ordering::Release);
        Ok(shared)
    }

    /// Opens a file that [`SharedGradients::create`] has made for as many parts of as many numbers.
    ///
    /// # Errors
    /// If it is not there, or another.
    pub fn open(path: &Path, parts: usize, dimension: usize) -> Result<SharedGradients, SharedError> {
        let bytes = bytes_of(parts, dimension);
        let failed = |what| move |error| SharedError::Io { what, path: path.to_owned(), bytes, error };
        let other = |found| SharedError::Other { path: path.to_owned(), parts, dimension, found };
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
        let length = file.metadata().map_err(failed("look at"))?.len();
        if length != bytes {
            return Err(other(format!("it has {length} bytes instead of {bytes}")));
        }
        let shared = SharedGradients::map(&file, path, parts, dimension)?;
        let magic = shared.words()[0].load(Ordering::Acquire);
        let [.., has, low, high] = std::array::from_fn::<_, HEADER, _>(|at| shared.words()[at].load(Ordering::Relaxed));
        let found = u64::from(low) | u64::from(high) << 32;
        match (magic == MAGIC, (has as usize, found) == (parts, dimension as u64)) {
            (true, true) => Ok(shared),
            (true, false) => Err(other(format!("it is one of {has} parts of {found} numbers"))),
            (false, _) => Err(other("it begins with something else".into())),
        }
    }

    fn map(file: &File, path: &Path, parts: usize, dimension: usize) -> Result<SharedGradients, SharedError> {
        let bytes = bytes_of(parts, dimension);
        let map = MmapRaw::map_raw(file);
        let map = map.map_err(|error| SharedError::Io { what: "map", path: path.to_owned(), bytes, error })?;
        Ok(SharedGradients { map, path: path.to_owned(), parts, dimension })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Publishes part `part` of `round`, and wakes all who wait for it. One worker publishes a part, round after round; it may leave
    /// rounds out.
    ///
    /// # Errors
    /// If there is no such part, the gradient has another length, or the row holds this round or a later one.
    pub fn publish(&self, part: usize, round: u64, gradient: &[f32]) -> Result<(), SharedError> {
        let done = self.check(part, round, gradient.len())?;
        let (stamp, row) = self.row(part, round);
        // Claimed by an exchange: of two workers that publish the same by mistake, one is told so.
        let claim = |now: u32| (now < done - 1).then_some(done - 1);
        if let Err(now) = stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
            return Err(SharedError::Again { part, round, now: round_of(now) });
        }
        fence(Ordering::Release);
        row.iter().zip(gradient).for_each(|(word, value)| word.store(value.to_bits(), Ordering::Relaxed));
        stamp.store(done, Ordering::Release);
        // Fails only for an address that is not there.
        let _ = futex::wake(stamp, futex::Flags::empty(), i32::MAX as u32);
        Ok(())
    }

    /// Copies part `part` of `round` to `out`, asleep until it is published. Allocates nothing.
    ///
    /// # Errors
    /// If there is no such part, `out` has another length, the part does not come within `patience`, or it is gone.
    pub fn copy(&self, part: usize, round: u64, patience: Duration, out: &mut [f32]) -> Result<(), SharedError> {
        let done = self.check(part, round, out.len())?;
        let (stamp, row) = self.row(part, round);
        self.wait(stamp, done, patience).map_err(|()| SharedError::Missing { part, round, patience })?;
        out.iter_mut().zip(row).for_each(|(value, word)| *value = f32::from_bits(word.load(Ordering::Relaxed)));
        fence(Ordering::Acquire);
        match stamp.load(Ordering::Relaxed) {
            now if now == done => Ok(()),
            now => Err(SharedError::Gone { part, round, now: round_of(now) }),
        }
    }

    /// Sleeps until `stamp` is `done` or past it.
    fn wait(&self, stamp: &AtomicU32, done: u32, patience: Duration) -> Result<(), ()> {
        let end = Instant::now() + patience;
        loop {
            let now = stamp.load(Ordering::Acquire);
            if now >= done {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(());
            }
            // Whatever ends it (woken, the stamp had changed, a signal, time), the loop looks again.
            let _ = futex::wait(stamp, futex::Flags::empty(), now, left.try_into().ok().as_ref());
        }
    }

    /// The stamp of a round that is all there, if the part and length exist.
    fn check(&self, part: usize, round: u64, length: usize) -> Result<u32, SharedError> {
        let &SharedGradients { parts, dimension, .. } = self;
        if part >= parts || length != dimension || round >= ROUNDS {
            return Err(SharedError::Outside { part, round, length, parts, dimension });
        }
        Ok(2 * (round as u32 + 1))
    }

    fn row(&self, part: usize, round: u64) -> (&AtomicU32, &[AtomicU32]) {
        let at = part * ROWS + round as usize % ROWS;
        let (stamps, rows) = self.words()[HEADER..].split_at(self.parts * ROWS);
        (&stamps[at], &rows[at * self.dimension..][..self.dimension])
    }

    fn words(&self) -> &[AtomicU32] {
        let words = HEADER + ROWS * self.parts * (1 + self.dimension);
        debug_assert!(self.map.len() >= 4 * words);
        // SAFETY: the mapping begins at a page, is as long as the file was found or made to be, and lives as long as `self`. Every
        // process reads and writes it by atomics alone.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU32>(), words) }
    }
}

/// Stamps: 0 for nothing, `2 t + 1` while round t is written, `2 t + 2` when it is there.
fn round_of(stamp: u32) -> u64 {
    u64::from(stamp.saturating_sub(1) / 2)
}

/// How large the file is; more than any machine has if it cannot be said.
fn bytes_of(parts: usize, dimension: usize) -> u64 {
    let numbers = dimension.checked_add(1).and_then(|row| row.checked_mul(ROWS * 4)?.checked_mul(parts));
    numbers.and_then(|bytes| bytes.checked_add(4 * HEADER)).map_or(i64::MAX as u64, |bytes| bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Place {
            Place(tempfile::tempdir().unwrap())
        }

        fn file(&self) -> PathBuf {
            self.0.path().join("gradients")
        }
    }

    fn gradient(part: usize, round: u64, dimension: usize) -> Vec<f32> {
        (0..dimension).map(|index| (1000 * part + index) as f32 + round as f32 / 1024.0).collect()
    }

    #[test]
    fn every_worker_reads_every_part_of_every_round() {
        let (place, parts, dimension, rounds) = (Place::new(), 5, 300, 400);
        SharedGradients::create(&place.file(), parts, dimension).unwrap();
        // Workers of a round wait for each other, as those of a job wait for its update. Each has a mapping of its own.
        let barrier = std::sync::Barrier::new(parts);
        std::thread::scope(|scope| {
            for own in 0..parts {
                let (path, barrier) = (place.file(), &barrier);
                scope.spawn(move || {
                    let shared = SharedGradients::open(&path, parts, dimension).unwrap();
                    let mut out = vec![0.0; dimension];
                    for round in 0..rounds {
                        shared.publish(own, round, &gradient(own, round, dimension)).unwrap();
                        for part in 0..parts {
                            shared.copy(part, round, PATIENCE, &mut out).unwrap();
                            assert_eq!(out, gradient(part, round, dimension), "part {part} of round {round}");
                        }
                        barrier.wait();
                    }
                });
            }
        });
    }

    #[test]
    fn a_reader_that_does_not_keep_up_gets_a_whole_gradient_or_is_told_that_it_is_gone() {
        let (place, dimension, rounds) = (Place::new(), 20_000, 500);
        let writer = SharedGradients::create(&place.file(), 1, dimension).unwrap();
        let reader = SharedGradients::open(&place.file(), 1, dimension).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut out = vec![0.0; dimension];
                let (mut whole, mut gone, mut round) = (0, 0, 0);
                while round < rounds {
                    match reader.copy(0, round, PATIENCE, &mut out) {
                        Ok(()) => {
                            assert!(out.iter().all(|value| *value == round as f32), "torn in round {round}");
                            (whole, round) = (whole + 1, round + 1);
                        }
                        Err(SharedError::Gone { now, .. }) => {
                            assert!(now > round && (now - round).is_multiple_of(2), "{round} {now}");
                            (gone, round) = (gone + 1, now.max(round + 1));
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(whole > 0, "{whole} whole, {gone} gone");
            });
            (0..rounds).for_each(|round| writer.publish(0, round, &vec![round as f32; dimension]).unwrap());
        });
    }

    #[test]
    fn what_is_gone_is_said_with_the_round_that_took_its_place() {
        let place = Place::new();
        let shared = SharedGradients::create(&place.file(), 2, 3).unwrap();
        for round in [0, 1, 2] {
            shared.publish(1, round, &[round as f32; 3]).unwrap();
        }
        let mut out = [0.0; 3];
        let error = shared.copy(1, 0, PATIENCE, &mut out).unwrap_err();
        assert!(matches!(error, SharedError::Gone { part: 1, round: 0, now: 2 }), "{error}");
        shared.copy(1, 1, PATIENCE, &mut out).unwrap();
        assert_eq!(out, [1.0; 3]);
    }

    #[test]
    fn what_does_not_come_is_waited_for_no_longer_than_asked() {
        let place = Place::new();
        let shared = SharedGradients::create(&place.file(), 1, 3).unwrap();
        let error = shared.copy(0, 4, Duration::from_millis(1), &mut [0.0; 3]).unwrap_err();
        assert!(matches!(error, SharedError::Missing { part: 0, round: 4, .. }), "{error}");
    }

    #[test]
    fn a_part_is_published_once_a_round() {
        let place = Place::new();
        let shared = SharedGradients::create(&place.file(), 1, 1).unwrap();
        shared.publish(0, 4, &[1.0]).unwrap();
        for round in [4, 2, 0] {
            let error = shared.publish(0, round, &[2.0]).unwrap_err();
            assert!(matches!(error, SharedError::Again { now: 4, .. }), "{error}");
        }
        let mut out = [0.0];
        shared.copy(0, 4, PATIENCE, &mut out).unwrap();
        assert_eq!(out, [1.0]);
    }

    #[test]
    fn wrong_files_and_sizes_are_refused_in_words() {
        let place = Place::new();
        let text = |result: Result<SharedGradients, SharedError>| result.unwrap_err().to_string();
        let missing = text(SharedGradients::open(&place.file(), 2, 3));
        assert!(missing.contains("cannot open") && missing.contains("No such file"), "{missing}");
        let shared = SharedGradients::create(&place.file(), 2, 3).unwrap();
        assert!(text(SharedGradients::create(&place.file(), 2, 3)).contains("File exists"));
        assert!(text(SharedGradients::open(&place.file(), 2, 4)).contains("bytes instead of"));
        // As large, and cut otherwise: 2 x (1 + 3) = 4 x (1 + 1).
        let other = text(SharedGradients::open(&place.file(), 4, 1));
        assert!(other.contains("it is one of 2 parts of 3 numbers"), "{other}");
        for (part, round, length) in [(2, 0, 3), (0, 0, 4), (0, ROUNDS, 3)] {
            let error = shared.publish(part, round, &vec![0.0; length]).unwrap_err();
            assert!(matches!(error, SharedError::Outside { .. }), "{error}");
            assert!(shared.copy(part, round, PATIENCE, &mut vec![0.0; length]).is_err());
        }
        std::fs::write(place.file(), vec![7; bytes_of(2, 3) as usize]).unwrap();
        assert!(text(SharedGradients::open(&place.file(), 2, 3)).contains("something else"));
        let full = place.0.path().join("too-large");
        let error = text(SharedGradients::create(&full, usize::MAX, usize::MAX));
        assert!(error.contains("find room for") && !full.exists(), "{error}");
    }
}
